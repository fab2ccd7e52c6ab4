import type { Socket } from 'node:net';
import { assert } from '../../journal/base/assert.ts';
import { TidemarkError } from '../../journal/base/errors.ts';
import type { DeviceExtent } from '../../journal/block-device.ts';
import type { NegotiatedExport } from './client-negotiation.ts';
import { type AwaitedReply, isFilled, ReplyParser } from './client-replies.ts';
import { type NbdClientTls, openTransport } from './client-socket.ts';
import { codeOfErrno, errnoName } from './errno.ts';
import { CommandFlag } from './export.ts';
import { InFlightBound } from './in-flight-bound.ts';
import { formatNbdUri, type NbdAddress } from './nbd-uri.ts';
import { AllocationFlag, Command, REQUEST_BYTES, REQUEST_MAGIC, TransmissionFlag } from './protocol.ts';

export type { NbdClientTls } from './client-socket.ts';

export interface NbdClientOptions {
  readonly tls?: NbdClientTls;
  /** From the first packet to the end of the handshake; 10 000. */
  readonly connectTimeoutMs?: number;
  /** A request unanswered for so long ends the connection; 60 000. */
  readonly requestTimeoutMs?: number;
  /** Requests in flight; 16, what QEMU's server takes. */
  readonly inFlightMax?: number;
  /** Payload bytes in flight, both ways; 32 MiB. One larger request passes alone. */
  readonly inFlightBytesMax?: number;
}

/** What the server offers. */
export interface NbdClientFlags {
  readonly readOnly: boolean;
  readonly flush: boolean;
  readonly fua: boolean;
  readonly trim: boolean;
  readonly writeZeroes: boolean;
  readonly fastZero: boolean;
  readonly multiConn: boolean;
  readonly cache: boolean;
  /** `extents` reports holes; otherwise it calls everything data. */
  readonly blockStatus: boolean;
}

interface Pending extends AwaitedReply {
  readonly command: number;
  readonly deadlineAt: number;
  readonly resolve: (pending: Pending) => void;
  readonly reject: (error: TidemarkError) => void;
}

/** TRIM and WRITE_ZEROES carry a 32-bit length; a round number of blocks below it. */
const RANGE_BYTES_MAX = 1 << 30;
const DEADLINE_CHECK_MS = 250;

/**
 * One connection to an NBD server. Any number of calls at once: they are pipelined within the bounds of the options
 * and cut where the server's maximum payload asks for it. Every call rejects with a `TidemarkError`: the server's
 * refusal (`no-space`, `read-only`, `device-failed`, ...; the connection goes on), or `device-gone`, `timed-out`,
 * `device-failed` when the connection ended, which is final: reconnecting is the caller's business.
 */
export class NbdClient {
  /** Bytes. */
  readonly size: number;
  readonly flags: NbdClientFlags;
  readonly minimumBlockBytes: number;
  readonly preferredBlockBytes: number;
  readonly payloadBytesMax: number;
  readonly #uri: string;
  readonly #socket: Socket;
  readonly #pending: Map<number, Pending> = new Map();
  readonly #bound: InFlightBound;
  readonly #requestTimeoutMs: number;
  readonly #deadlines: NodeJS.Timeout;
  readonly #closedListeners: ((reason: TidemarkError | undefined) => void)[] = [];
  #nextCookie = 1;
  #corked = false;
  #ended = false;
  #reason: TidemarkError | undefined;

  /** Throws what `openTransport` throws: `device-gone`, `timed-out`, `not-found`, `precondition-failed`, ... */
  static async connect(address: NbdAddress, options: NbdClientOptions = {}): Promise<NbdClient> {
    const opened = await openTransport(address, options.tls, options.connectTimeoutMs ?? 10_000);
    return new NbdClient(address, options, opened.socket, opened.export);
  }

  private constructor(address: NbdAddress, options: NbdClientOptions, socket: Socket, agreed: NegotiatedExport) {
    const has = (flag: number): boolean => (agreed.flags & flag) !== 0;
    this.size = agreed.size;
    this.flags = {
      readOnly: has(TransmissionFlag.readOnly),
      flush: has(TransmissionFlag.sendFlush),
      fua: has(TransmissionFlag.sendFua),
      trim: has(TransmissionFlag.sendTrim),
      writeZeroes: has(TransmissionFlag.sendWriteZeroes),
      fastZero: has(TransmissionFlag.sendFastZero),
      multiConn: has(TransmissionFlag.canMultiConn),
      cache: has(TransmissionFlag.sendCache),
      blockStatus: agreed.allocationContext !== undefined,
    };
    this.minimumBlockBytes = agreed.minimumBlockBytes;
    this.preferredBlockBytes = agreed.preferredBlockBytes;
    this.payloadBytesMax = agreed.payloadBytesMax;
    this.#uri = formatNbdUri(address);
    this.#socket = socket;
    this.#requestTimeoutMs = options.requestTimeoutMs ?? 60_000;
    this.#bound = new InFlightBound(options.inFlightMax ?? 16, options.inFlightBytesMax ?? 32 * 1024 * 1024);
    const parser = new ReplyParser(
      {
        awaited: (high, low) => (high === 0 ? this.#pending.get(low) : undefined),
        done: (_high, low) => this.#done(low),
      },
      agreed.allocationContext,
    );
    socket.on('data', (bytes: Buffer) => {
      try {
        parser.feed(bytes);
      } catch (error) {
        if (!(error instanceof TidemarkError)) throw error;
        this.#end(error);
      }
    });
    socket.on('error', (error) => this.#end(this.#gone(error.message, error)));
    socket.on('close', () => this.#end(this.#gone('the server closed the connection')));
    this.#deadlines = setInterval(() => this.#checkDeadlines(), DEADLINE_CHECK_MS);
    this.#deadlines.unref();
    socket.resume();
  }

  /** Fills `into` with the bytes at `offset`. */
  async read(offset: number, into: Uint8Array): Promise<void> {
    this.#checkRange(offset, into.length);
    await this.#slices(into.length, this.payloadBytesMax, async (at, length) => {
      await this.#request(Command.read, 0, offset + at, length, { into: into.subarray(at, at + length) });
    });
  }

  /** Writes all of `from`, which must not change before the promise settles. `fua`: on stable storage then. */
  async write(offset: number, from: Uint8Array, options: { fua?: boolean } = {}): Promise<void> {
    this.#checkRange(offset, from.length);
    await this.#slices(from.length, this.payloadBytesMax, async (at, length) => {
      await this.#request(Command.write, this.#fuaFlag(options.fua), offset + at, length, {
        payload: from.subarray(at, at + length),
      });
    });
    await this.#fuaByFlush(options.fua);
  }

  /** The range reads as zeroes afterwards; `mayUnmap` false asks for allocated blocks. Slices; writes zeroes if it must. */
  async zero(
    offset: number,
    length: number,
    options: { mayUnmap?: boolean; fua?: boolean; fast?: boolean } = {},
  ): Promise<void> {
    this.#checkRange(offset, length);
    const fast = options.fast === true;
    if (fast && !this.flags.fastZero) throw new TidemarkError('unsupported', `${this.#uri}: no fast zeroes`);
    if (this.flags.writeZeroes) {
      const flags =
        (options.mayUnmap === false ? CommandFlag.noHole : 0) |
        (fast ? CommandFlag.fastZero : 0) |
        this.#fuaFlag(options.fua);
      await this.#slices(length, RANGE_BYTES_MAX, async (at, part) => {
        await this.#request(Command.writeZeroes, flags, offset + at, part);
      });
    } else {
      const zeroes = new Uint8Array(Math.min(length, this.payloadBytesMax, 1 << 20));
      await this.#slices(length, zeroes.length, async (at, part) => {
        const payload = zeroes.subarray(0, part);
        await this.#request(Command.write, this.#fuaFlag(options.fua), offset + at, part, { payload });
      });
    }
    await this.#fuaByFlush(options.fua);
  }

  /** A hint; what the range reads as afterwards is the server's affair. Throws `unsupported` when not offered. */
  async trim(offset: number, length: number, options: { fua?: boolean } = {}): Promise<void> {
    this.#checkRange(offset, length);
    if (!this.flags.trim) throw new TidemarkError('unsupported', `${this.#uri}: the server does not trim`);
    await this.#slices(length, RANGE_BYTES_MAX, async (at, part) => {
      await this.#request(Command.trim, this.#fuaFlag(options.fua), offset + at, part);
    });
    await this.#fuaByFlush(options.fua);
  }

  /** A hint to read ahead; nothing when not offered. */
  async cache(offset: number, length: number): Promise<void> {
    this.#checkRange(offset, length);
    if (!this.flags.cache) return;
    await this.#slices(length, RANGE_BYTES_MAX, async (at, part) => {
      await this.#request(Command.cache, 0, offset + at, part);
    });
  }

  /**
   * Everything answered before the call is on stable storage. Throws `unsupported` when a writable server does not
   * offer it: durability nobody promised must not be assumed.
   */
  async flush(): Promise<void> {
    if (this.flags.readOnly && !this.flags.flush) return;
    if (!this.flags.flush) throw new TidemarkError('unsupported', `${this.#uri}: the server does not flush`);
    await this.#request(Command.flush, 0, 0, 0);
  }

  /** What lies in the range; neighbours of one kind are merged. All data when the server does not say. */
  async extents(offset: number, length: number): Promise<DeviceExtent[]> {
    this.#checkRange(offset, length);
    if (!this.flags.blockStatus) return [{ length, kind: 'data' }];
    const extents: { length: number; kind: DeviceExtent['kind'] }[] = [];
    let at = 0;
    while (at < length) {
      const asked = Math.min(RANGE_BYTES_MAX, length - at);
      const { status } = await this.#request(Command.blockStatus, 0, offset + at, asked);
      let covered = 0;
      for (let i = 0; status !== undefined && i < status.length && covered < asked; i += 2) {
        const bytes = Math.min(status[i] ?? 0, asked - covered);
        const bits = status[i + 1] ?? 0;
        const kind = (bits & AllocationFlag.zero) === 0 ? 'data' : (bits & AllocationFlag.hole) === 0 ? 'zero' : 'hole';
        const last = extents.at(-1);
        if (last?.kind === kind) last.length += bytes;
        else if (bytes > 0) extents.push({ length: bytes, kind });
        covered += bytes;
      }
      if (covered === 0) throw this.#broken('a block status that covers nothing');
      at += covered;
    }
    return extents;
  }

  /** Calls `listener` once when the connection has ended: `undefined` after `close`, else why. At once if it has. */
  onClosed(listener: (reason: TidemarkError | undefined) => void): void {
    if (this.#ended) listener(this.#reason);
    else this.#closedListeners.push(listener);
  }

  /** Waits for what is in flight, says goodbye, closes; idempotent. */
  async close(): Promise<void> {
    if (this.#ended) return;
    await this.#bound.idle();
    if (this.#ended) return;
    const header = Buffer.alloc(REQUEST_BYTES);
    header.writeUInt32BE(REQUEST_MAGIC, 0);
    header.writeUInt16BE(Command.disconnect, 6);
    await new Promise<void>((resolve) => {
      this.#socket.end(header, resolve);
      this.#socket.once('close', () => resolve());
    });
    this.#end(undefined);
  }

  #fuaFlag(fua: boolean | undefined): number {
    return fua === true && this.flags.fua ? CommandFlag.fua : 0;
  }

  async #fuaByFlush(fua: boolean | undefined): Promise<void> {
    if (fua === true && !this.flags.fua) await this.flush();
  }

  #checkRange(offset: number, length: number): void {
    assert(Number.isSafeInteger(offset) && Number.isSafeInteger(length), 'NBD offset and length are whole numbers');
    if (offset < 0 || length < 0 || offset + length > this.size) {
      throw new TidemarkError('out-of-range', `${this.#uri}: [${offset}, +${length}) is not inside ${this.size} bytes`);
    }
  }

  async #slices(length: number, most: number, run: (at: number, length: number) => Promise<void>): Promise<void> {
    if (length === 0) return;
    if (length <= most) return run(0, length);
    const parts: Promise<void>[] = [];
    for (let at = 0; at < length; at += most) parts.push(run(at, Math.min(most, length - at)));
    const settled = await Promise.allSettled(parts);
    for (const part of settled) if (part.status === 'rejected') throw part.reason;
  }

  async #request(
    command: number,
    flags: number,
    offset: number,
    length: number,
    data: { into?: Uint8Array; payload?: Uint8Array } = {},
  ): Promise<Pending> {
    const bytes = (data.into ?? data.payload)?.length ?? 0;
    await this.#bound.enter(bytes);
    try {
      if (this.#ended) throw this.#reason ?? this.#gone('the connection is closed');
      return await new Promise<Pending>((resolve, reject) => {
        const cookie = this.#cookie();
        this.#pending.set(cookie, {
          command,
          offset,
          length,
          into: data.into,
          filled: [],
          errno: 0,
          status: undefined,
          deadlineAt: performance.now() + this.#requestTimeoutMs,
          resolve,
          reject,
        });
        this.#send(command, flags, cookie, offset, length, data.payload);
      });
    } finally {
      this.#bound.leave(bytes);
    }
  }

  #cookie(): number {
    while (this.#pending.has(this.#nextCookie)) this.#nextCookie = (this.#nextCookie + 1) >>> 0;
    const cookie = this.#nextCookie;
    this.#nextCookie = (cookie + 1) >>> 0;
    return cookie;
  }

  /** Request: magic 4 | flags 2 | type 2 | cookie 8 | offset 8 | length 4. What one turn asks for leaves together. */
  #send(command: number, flags: number, cookie: number, offset: number, length: number, payload?: Uint8Array): void {
    const header = Buffer.allocUnsafe(REQUEST_BYTES);
    header.writeUInt32BE(REQUEST_MAGIC, 0);
    header.writeUInt16BE(flags, 4);
    header.writeUInt16BE(command, 6);
    header.writeUInt32BE(0, 8);
    header.writeUInt32BE(cookie, 12);
    header.writeUInt32BE(Math.floor(offset / 0x1_0000_0000), 16);
    header.writeUInt32BE(offset >>> 0, 20);
    header.writeUInt32BE(length, 24);
    if (!this.#corked) {
      this.#corked = true;
      this.#socket.cork();
      process.nextTick(() => {
        this.#corked = false;
        this.#socket.uncork();
      });
    }
    this.#socket.write(header);
    if (payload !== undefined) this.#socket.write(payload);
  }

  #done(cookie: number): void {
    const pending = this.#pending.get(cookie);
    if (pending === undefined) return;
    this.#pending.delete(cookie);
    if (pending.errno !== 0) {
      const code = codeOfErrno(pending.errno);
      const where = `at ${pending.offset}, ${pending.length} bytes`;
      const command = Object.entries(Command).find(([, number]) => number === pending.command)?.[0] ?? 'request';
      pending.reject(
        new TidemarkError(code, `${this.#uri}: ${command} ${where}: the server says ${errnoName(pending.errno)}`),
      );
      return;
    }
    if (pending.into !== undefined && !isFilled(pending)) {
      const error = this.#broken(`a read of ${pending.into.length} bytes was not answered in full`);
      pending.reject(error);
      this.#end(error);
      return;
    }
    pending.resolve(pending);
  }

  #checkDeadlines(): void {
    const [oldest] = this.#pending.values();
    if (oldest === undefined || performance.now() < oldest.deadlineAt) return;
    const why = `${this.#uri}: no answer within ${this.#requestTimeoutMs} ms`;
    this.#end(new TidemarkError('timed-out', why));
  }

  #end(reason: TidemarkError | undefined): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#reason = reason;
    clearInterval(this.#deadlines);
    this.#socket.destroy();
    const error = reason ?? this.#gone('the connection is closed');
    for (const pending of this.#pending.values()) pending.reject(error);
    this.#pending.clear();
    for (const listener of this.#closedListeners) listener(reason);
  }

  #gone(why: string, cause?: unknown): TidemarkError {
    return new TidemarkError('device-gone', `${this.#uri}: ${why}`, { cause, details: { uri: this.#uri } });
  }

  #broken(why: string): TidemarkError {
    return new TidemarkError('device-failed', `${this.#uri}: broken NBD reply: ${why}`, {
      details: { uri: this.#uri },
    });
  }
}
