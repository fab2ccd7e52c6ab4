import { TidemarkError } from '../../journal/base/errors.ts';
import {
  CHUNK_DONE,
  CHUNK_ERROR_BIT,
  CHUNK_HEADER_BYTES,
  Chunk,
  Errno,
  SIMPLE_REPLY_BYTES,
  SIMPLE_REPLY_MAGIC,
  STRUCTURED_REPLY_MAGIC,
} from './protocol.ts';

/** A request in flight, as the parser needs to see it. */
export interface AwaitedReply {
  readonly offset: number;
  readonly length: number;
  /** Where a READ's bytes go; undefined for every other command. */
  readonly into: Uint8Array | undefined;
  /** Pairs of place in `into` and length: what has been filled so far. */
  readonly filled: number[];
  /** NBD error number of the reply so far; 0 none. */
  errno: number;
  /** Pairs of length and flags of `base:allocation`, as sent. */
  status: number[] | undefined;
}

export interface ReplySink {
  /** The request with this cookie; undefined when none is in flight, which ends the connection. */
  awaited(cookieHigh: number, cookieLow: number): AwaitedReply | undefined;
  /** The reply is complete: `awaited.errno`, `filled` and `status` say what it was. */
  done(cookieHigh: number, cookieLow: number): void;
}

/** Control chunks (errors, block status) are kept whole until parsed: 2^20 extents of 8 bytes and an id. */
const CONTROL_BYTES_MAX = 8 * (1 << 20) + 4;

/**
 * Takes a server's replies apart (section "Transmission phase"); a READ's bytes go straight into the caller's buffer.
 * Touches no socket. Throws `device-failed` for anything outside the protocol: the connection is then useless.
 *
 * simple reply: magic 4 | error 4 | cookie 8 | data of a READ
 * chunk: magic 4 | flags 2 | type 2 | cookie 8 | length 4 | payload
 */
export class ReplyParser {
  readonly #sink: ReplySink;
  readonly #contextId: number | undefined;
  readonly #header: Buffer = Buffer.alloc(CHUNK_HEADER_BYTES + 12);
  #headerFilled = 0;
  #cookieHigh = 0;
  #cookieLow = 0;
  #awaited: AwaitedReply | undefined;
  #last = false;
  /** Payload that is copied to `#awaited.into`. */
  #dataLeft = 0;
  #dataAt = 0;
  #control: Buffer | undefined;
  #controlFilled = 0;
  #controlType = 0;

  constructor(sink: ReplySink, contextId: number | undefined) {
    this.#sink = sink;
    this.#contextId = contextId;
  }

  feed(bytes: Buffer): void {
    let at = 0;
    while (at < bytes.length) {
      if (this.#dataLeft > 0) at = this.#takeData(bytes, at);
      else if (this.#control !== undefined) at = this.#takeControl(bytes, at);
      else at = this.#takeHeader(bytes, at);
    }
  }

  #takeHeader(bytes: Buffer, from: number): number {
    let at = from;
    for (;;) {
      const need = this.#headerBytes();
      if (this.#headerFilled === need) {
        this.#headerFilled = 0;
        this.#begin(need);
        return at;
      }
      if (at === bytes.length) return at;
      const taken = Math.min(need - this.#headerFilled, bytes.length - at);
      bytes.copy(this.#header, this.#headerFilled, at, at + taken);
      this.#headerFilled += taken;
      at += taken;
    }
  }

  /** Bytes up to where the payload begins; the fixed part of a data or hole chunk's payload counts as header. */
  #headerBytes(): number {
    if (this.#headerFilled < 4) return 4;
    const magic = this.#header.readUInt32BE(0);
    if (magic === SIMPLE_REPLY_MAGIC) return SIMPLE_REPLY_BYTES;
    if (magic !== STRUCTURED_REPLY_MAGIC) throw broken(`magic ${magic.toString(16)}`);
    if (this.#headerFilled < CHUNK_HEADER_BYTES) return CHUNK_HEADER_BYTES;
    const type = this.#header.readUInt16BE(6);
    const length = this.#header.readUInt32BE(16);
    if (type === Chunk.offsetData) {
      if (length < 9) throw broken(`a data chunk of ${length} bytes`);
      return CHUNK_HEADER_BYTES + 8;
    }
    if (type === Chunk.offsetHole) {
      if (length !== 12) throw broken(`a hole chunk of ${length} bytes`);
      return CHUNK_HEADER_BYTES + 12;
    }
    return CHUNK_HEADER_BYTES;
  }

  #begin(headerBytes: number): void {
    const header = this.#header;
    const simple = header.readUInt32BE(0) === SIMPLE_REPLY_MAGIC;
    this.#cookieHigh = header.readUInt32BE(8);
    this.#cookieLow = header.readUInt32BE(12);
    const awaited = this.#sink.awaited(this.#cookieHigh, this.#cookieLow);
    if (awaited === undefined) throw broken('a reply to a request that is not in flight');
    this.#awaited = awaited;
    if (simple) {
      const errno = header.readUInt32BE(4);
      awaited.errno = errno;
      this.#last = true;
      if (errno === Errno.none && awaited.into !== undefined) {
        this.#dataAt = 0;
        this.#dataLeft = awaited.into.length;
        awaited.filled.push(0, awaited.into.length);
      } else this.#finish();
      return;
    }
    this.#last = (header.readUInt16BE(4) & CHUNK_DONE) !== 0;
    const type = header.readUInt16BE(6);
    const length = header.readUInt32BE(16);
    if (type === Chunk.offsetData) this.#data(awaited, length - 8);
    else if (type === Chunk.offsetHole) this.#hole(awaited, header.readUInt32BE(headerBytes - 4));
    else if (length === 0) {
      if (type !== Chunk.none || !this.#last) throw broken(`an empty chunk of type ${type}`);
      this.#finish();
    } else {
      if (length > CONTROL_BYTES_MAX) throw broken(`a chunk of type ${type} with ${length} bytes`);
      this.#control = Buffer.alloc(length);
      this.#controlFilled = 0;
      this.#controlType = type;
    }
  }

  #place(awaited: AwaitedReply, length: number): number {
    const offset = this.#header.readUInt32BE(20) * 0x1_0000_0000 + this.#header.readUInt32BE(24);
    const at = offset - awaited.offset;
    if (awaited.into === undefined || at < 0 || at + length > awaited.into.length) {
      throw broken('data outside of what was asked for');
    }
    // Two numbers for each chunk: no more of them than there are sectors.
    if (awaited.filled.length > awaited.into.length / 256 + 2) throw broken('endless chunks');
    awaited.filled.push(at, length);
    return at;
  }

  #data(awaited: AwaitedReply, length: number): void {
    this.#dataAt = this.#place(awaited, length);
    this.#dataLeft = length;
  }

  #hole(awaited: AwaitedReply, length: number): void {
    const at = this.#place(awaited, length);
    awaited.into?.fill(0, at, at + length);
    this.#finish();
  }

  #takeData(bytes: Buffer, at: number): number {
    const taken = Math.min(this.#dataLeft, bytes.length - at);
    this.#awaited?.into?.set(bytes.subarray(at, at + taken), this.#dataAt);
    this.#dataAt += taken;
    this.#dataLeft -= taken;
    if (this.#dataLeft === 0) this.#finish();
    return at + taken;
  }

  #takeControl(bytes: Buffer, at: number): number {
    const control = this.#control;
    if (control === undefined) return at;
    const taken = Math.min(control.length - this.#controlFilled, bytes.length - at);
    bytes.copy(control, this.#controlFilled, at, at + taken);
    this.#controlFilled += taken;
    if (this.#controlFilled === control.length) {
      this.#control = undefined;
      this.#interpret(control);
      this.#finish();
    }
    return at + taken;
  }

  /** Error chunk: error 4 | message length 2 | message. Block status: context 4 | (length 4 | flags 4)... */
  #interpret(payload: Buffer): void {
    const awaited = this.#awaited;
    if (awaited === undefined) return;
    if ((this.#controlType & CHUNK_ERROR_BIT) !== 0) {
      if (payload.length < 6) throw broken('a short error chunk');
      awaited.errno = payload.readUInt32BE(0) || Errno.einval;
    } else if (this.#controlType === Chunk.blockStatus) {
      if (payload.length < 12 || payload.length % 8 !== 4) throw broken('a block status of a wrong length');
      if (payload.readUInt32BE(0) !== this.#contextId) return;
      const status = (awaited.status ??= []);
      for (let at = 4; at < payload.length; at += 4) status.push(payload.readUInt32BE(at));
    } else throw broken(`a chunk of unknown type ${this.#controlType}`);
  }

  #finish(): void {
    if (this.#last) this.#sink.done(this.#cookieHigh, this.#cookieLow);
    this.#awaited = undefined;
  }
}

/** Every byte asked for was sent, once: a gap would be somebody else's old bytes. */
export function isFilled(awaited: AwaitedReply): boolean {
  const wanted = awaited.into?.length ?? 0;
  const chunks: [number, number][] = [];
  for (let i = 0; i < awaited.filled.length; i += 2) chunks.push([awaited.filled[i] ?? 0, awaited.filled[i + 1] ?? 0]);
  let at = 0;
  for (const [from, length] of chunks.toSorted((a, b) => a[0] - b[0])) {
    if (from !== at) return false;
    at += length;
  }
  return at === wanted;
}

function broken(what: string): TidemarkError {
  return new TidemarkError('device-failed', `broken NBD reply: ${what}`);
}
