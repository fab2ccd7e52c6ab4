import { mkdtempSync, rmSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { formatNbdUri, type NbdAddress } from '../../daemon/nbd/nbd-uri.ts';
import { NbdServer, type NbdServerOptions } from '../../daemon/nbd/server.ts';

/** A server on a unix socket in a directory of its own. */
export interface TestServer {
  readonly server: NbdServer;
  readonly directory: string;
  readonly socketPath: string;
  address(exportName: string): NbdAddress;
  uri(exportName: string): string;
  stop(): Promise<void>;
}

export async function startServer(options: Omit<NbdServerOptions, 'listeners'>): Promise<TestServer> {
  const directory = mkdtempSync(join(tmpdir(), 'tidemark-nbd-'));
  const socketPath = join(directory, 's');
  const server = await NbdServer.start({ ...options, listeners: [{ address: { kind: 'unix', path: socketPath } }] });
  const address = (exportName: string): NbdAddress => ({ kind: 'unix', path: socketPath, exportName, tls: false });
  return {
    server,
    directory,
    socketPath,
    address,
    uri: (exportName) => formatNbdUri(address(exportName)),
    stop: async () => {
      await server.close();
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

/** A socket that is read by asking for so many bytes: what a hostile or odd client needs. */
export class RawClient {
  readonly socket: Socket;
  /** Resolves when the server has closed the connection. */
  readonly closed: Promise<void>;
  #received: Buffer = Buffer.alloc(0);
  #wake: () => void = () => {};
  #ended = false;

  constructor(to: string | { host: string; port: number }) {
    this.socket = typeof to === 'string' ? connect(to) : connect(to);
    this.socket.on('error', () => {});
    this.socket.on('data', (bytes) => {
      this.#received = Buffer.concat([this.#received, bytes]);
      this.#wake();
    });
    this.closed = new Promise((resolve) => {
      this.socket.on('close', () => {
        this.#ended = true;
        this.#wake();
        resolve();
      });
    });
  }

  write(bytes: Uint8Array): void {
    this.socket.write(bytes);
  }

  async read(length: number): Promise<Buffer> {
    while (this.#received.length < length) {
      if (this.#ended) throw new Error(`closed with ${this.#received.length} of ${length} bytes received`);
      await new Promise<void>((wake) => {
        this.#wake = wake;
      });
    }
    const bytes = this.#received.subarray(0, length);
    this.#received = this.#received.subarray(length);
    return bytes;
  }

  /** Reads one option reply: its type and data. */
  async optionReply(): Promise<{ option: number; type: number; data: Buffer }> {
    const header = await this.read(20);
    return {
      option: header.readUInt32BE(8),
      type: header.readUInt32BE(12),
      data: await this.read(header.readUInt32BE(16)),
    };
  }

  /** Reads one simple reply without data. */
  async simpleReply(): Promise<{ errno: number; cookie: number }> {
    const header = await this.read(16);
    if (header.readUInt32BE(0) !== 0x6744_6698) throw new Error('no simple reply');
    return { errno: header.readUInt32BE(4), cookie: header.readUInt32BE(12) };
  }

  /** Handshake with GO; `structured` asks for chunks and base:allocation first. */
  async go(exportName: string, structured = false): Promise<void> {
    await this.read(18);
    this.write(Buffer.from([0, 0, 0, 3]));
    if (structured) {
      this.write(option(8, Buffer.alloc(0)));
      await this.optionReply();
      const query = Buffer.from('base:allocation');
      this.write(option(10, Buffer.concat([counted(exportName), u32(1), u32(query.length), query])));
      while ((await this.optionReply()).type !== 1);
    }
    this.write(option(7, Buffer.concat([counted(exportName), Buffer.from([0, 0])])));
    while ((await this.optionReply()).type !== 1);
  }
}

/** One option as on the wire. */
export function option(code: number, data: Uint8Array): Buffer {
  return Buffer.concat([Buffer.from('IHAVEOPT'), u32(code), u32(data.length), data]);
}

export function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

export function counted(text: string): Buffer {
  return Buffer.concat([u32(Buffer.byteLength(text)), Buffer.from(text)]);
}

/** One request as on the wire. */
export function request(
  command: number,
  cookie: number,
  offset: number | bigint,
  length: number,
  options: { flags?: number; payload?: Uint8Array } = {},
): Buffer {
  const bytes = Buffer.alloc(28);
  bytes.writeUInt32BE(0x2560_9513, 0);
  bytes.writeUInt16BE(options.flags ?? 0, 4);
  bytes.writeUInt16BE(command, 6);
  bytes.writeUInt32BE(cookie, 12);
  bytes.writeBigUInt64BE(BigInt(offset), 16);
  bytes.writeUInt32BE(length, 24);
  return options.payload === undefined ? bytes : Buffer.concat([bytes, options.payload]);
}
