import { connect as connectPlain, createServer as createPlainServer, type Server, type Socket } from 'node:net';
import { connect as connectTls, createServer as createTlsServer } from 'node:tls';
import { TidemarkError } from '../../../journal/base/errors.ts';
import { readDirectly, type SocketReader } from '../../nbd/accepted-socket.ts';
import type { Dialer, Wire, WireEvents, WireListener } from './wire.ts';

/** PEM texts. TLS 1.3 only. */
export interface TcpDialerTls {
  /** Who may have signed the replica's certificate; left out: the system's authorities. */
  readonly authorities?: string | Buffer;
  readonly certificate?: string | Buffer;
  readonly key?: string | Buffer;
  /** The name the replica's certificate must carry; left out: the host. */
  readonly serverName?: string;
}

/** PEM texts. TLS 1.3 only. */
export interface TcpListenerTls {
  readonly certificate: string | Buffer;
  readonly key: string | Buffer;
  /** A source without a certificate of theirs is refused. */
  readonly authorities?: string | Buffer;
}

const KEEP_ALIVE_MS = 30_000;
const HANDSHAKE_MS = 10_000;
/** How long a closed wire may still deliver what was sent. */
const LINGER_MS = 1000;
const CONNECTIONS_MAX = 256;

/** What one read takes at most: fewer, larger reads are fewer wake-ups. */
const READ_BYTES = 256 * 1024;
/** One for all connections of a thread: who is given bytes is done with them when it returns. */
let readMemory: Buffer | undefined;

/** Takes what the kernel has without a buffer and a stream's queue for every 64 KiB, which was a third of receiving. */
class WireReader implements SocketReader {
  onBytes: (bytes: Uint8Array) => void = () => undefined;

  room(): Uint8Array {
    readMemory ??= Buffer.allocUnsafeSlow(READ_BYTES);
    return readMemory;
  }

  filled(bytes: number, into: Uint8Array): boolean {
    this.onBytes(into.subarray(0, bytes));
    return true;
  }
}

class TcpWire implements Wire {
  readonly remote: string;
  readonly #socket: Socket;
  readonly #reader: WireReader | undefined;
  #closed = false;
  /** Why the socket broke before it was opened. */
  #broken: string | undefined;
  #events: WireEvents | undefined;

  /** `reader`: where the socket puts what it reads; left out: it emits it. */
  constructor(socket: Socket, reader?: WireReader) {
    this.#socket = socket;
    this.#reader = reader;
    this.remote = `${socket.remoteAddress ?? '?'}:${socket.remotePort ?? '?'}`;
    socket.setNoDelay(true);
    socket.setKeepAlive(true, KEEP_ALIVE_MS);
    socket.pause();
    let reason = 'the other end closed the connection';
    socket.on('error', (error) => {
      reason = error.message;
    });
    socket.on('end', () => socket.destroySoon());
    socket.on('close', () => {
      this.#broken = reason;
      this.#reportBreak();
    });
  }

  open(events: WireEvents): void {
    this.#events = events;
    if (this.#broken !== undefined) {
      queueMicrotask(() => this.#reportBreak());
      return;
    }
    const take = (bytes: Uint8Array): void => {
      if (!this.#closed) events.onBytes(bytes);
    };
    if (this.#reader === undefined) this.#socket.on('data', take);
    else this.#reader.onBytes = take;
    this.#socket.on('drain', () => {
      if (!this.#closed) events.onDrain();
    });
    this.#socket.resume();
  }

  send(bytes: Uint8Array): boolean {
    if (this.#closed || this.#socket.destroyed) return true;
    return this.#socket.write(bytes);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#socket.destroySoon();
    setTimeout(() => this.#socket.destroy(), LINGER_MS).unref();
  }

  #reportBreak(): void {
    if (this.#closed || this.#events === undefined) return;
    this.#closed = true;
    this.#events.onClose(this.#broken ?? '');
  }
}

/** Dials a replica over TCP, or TLS when `tls` is given. */
export class TcpDialer implements Dialer {
  readonly address: string;
  readonly #host: string;
  readonly #port: number;
  readonly #tls: TcpDialerTls | undefined;

  constructor(host: string, port: number, tls?: TcpDialerTls) {
    this.address = `${host}:${port}`;
    this.#host = host;
    this.#port = port;
    this.#tls = tls;
  }

  dial(timeoutMs: number): Promise<Wire> {
    const unavailable = (cause: Error): TidemarkError =>
      new TidemarkError('stream-unavailable', `cannot reach ${this.address}: ${cause.message}`, { cause });
    return new Promise((resolve, reject) => {
      const socket = this.#connect();
      const timer = setTimeout(() => socket.destroy(new Error(`no connection within ${timeoutMs} ms`)), timeoutMs);
      const fail = (error: Error): void => {
        clearTimeout(timer);
        reject(unavailable(error));
      };
      socket.once('error', fail);
      socket.once(this.#tls === undefined ? 'connect' : 'secureConnect', () => {
        clearTimeout(timer);
        // The wire listens for errors from here on; only then may this listener go.
        const wire = new TcpWire(socket);
        socket.off('error', fail);
        resolve(wire);
      });
    });
  }

  #connect(): Socket {
    if (this.#tls === undefined) return connectPlain({ host: this.#host, port: this.#port });
    const { authorities, certificate, key, serverName } = this.#tls;
    return connectTls({
      host: this.#host,
      port: this.#port,
      minVersion: 'TLSv1.3',
      ...(authorities === undefined ? {} : { ca: authorities }),
      ...(certificate === undefined ? {} : { cert: certificate }),
      ...(key === undefined ? {} : { key }),
      ...(serverName === undefined ? {} : { servername: serverName }),
    });
  }
}

/** Takes sources' connections over TCP, or TLS when `tls` is given. Port 0: the kernel chooses. */
export class TcpListener implements WireListener {
  readonly #host: string;
  readonly #port: number;
  readonly #tls: TcpListenerTls | undefined;
  #server: Server | undefined;

  constructor(host: string, port: number, tls?: TcpListenerTls) {
    this.#host = host;
    this.#port = port;
    this.#tls = tls;
  }

  listen(onWire: (wire: Wire) => void): Promise<string> {
    const server = this.#create(onWire);
    server.maxConnections = CONNECTIONS_MAX;
    this.#server = server;
    return new Promise((resolve, reject) => {
      server.once('error', (cause) => {
        const message = `cannot listen on ${this.#host}:${this.#port}: ${cause.message}`;
        reject(new TidemarkError('stream-misconfigured', message, { cause }));
      });
      server.listen(this.#port, this.#host, () => {
        const address = server.address();
        if (address === null || typeof address === 'string') return;
        resolve(`${address.family === 'IPv6' ? `[${address.address}]` : address.address}:${address.port}`);
      });
    });
  }

  close(): Promise<void> {
    const server = this.#server;
    if (server === undefined) return Promise.resolve();
    return new Promise((resolve) => {
      server.close(() => resolve());
    });
  }

  #create(onWire: (wire: Wire) => void): Server {
    if (this.#tls === undefined) {
      return createPlainServer({ pauseOnConnect: true }, (accepted) => {
        const reader = new WireReader();
        onWire(new TcpWire(readDirectly(accepted, reader), reader));
      });
    }
    const { certificate, key, authorities } = this.#tls;
    return createTlsServer(
      {
        cert: certificate,
        key,
        minVersion: 'TLSv1.3',
        handshakeTimeout: HANDSHAKE_MS,
        ...(authorities === undefined ? {} : { ca: authorities, requestCert: true, rejectUnauthorized: true }),
      },
      (socket) => onWire(new TcpWire(socket)),
    );
  }
}
