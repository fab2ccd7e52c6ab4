import { crc32c } from '@node-rs/crc32';
import { Packr } from 'msgpackr';
import { ERROR_CODES, type ErrorCode, TidemarkError } from '../../../journal/base/errors.ts';
import { FRAME_BYTES_MAX } from '../../../journal/frame-codec.ts';
import type { ReplicaFeedback, SourceIdentity } from '../../../journal/stream.ts';
import { asFeedback } from '../feedback-body.ts';

/*
 * Messages of the direct stream, both ways, little endian:
 *
 *   0 u16 magic 'TD'
 *   2 u8  type
 *   3 u8  reserved, 0
 *   4 u32 tag          what the type says, else 0
 *   8 u32 body bytes
 *  12 u32 body crc     crc32c; 0 where the body is a frame, which proves itself
 *  16 u32 header crc   crc32c of the 16 bytes before
 *  20     body         a msgpack map, a frame, or nothing
 *
 * The source dials and says hello; the replica answers welcome or refuse. Then:
 *
 *   source -> replica                          replica -> source
 *   frame                                      taken      tag: frames taken on this connection, modulo 2^32
 *                                              feedback   the newest state
 *   settle     tag: id                         settled    tag: id
 *   fetch      tag: id, from an LSN            fetched    tag: id, one frame
 *   fetchNext  tag: id, one frame more         fetchEnd   tag: id, the end or why not
 *   fetchStop  tag: id
 *   alive                                      alive      nothing to say, every few seconds
 *
 * Fetching goes both ways, with the same messages: a replica fetches what was damaged at its side.
 *
 * Either end may refuse and close. The source never has more frame bytes on their way than the window of the welcome.
 */

export const DIRECT_PROTOCOL = 1;
const MESSAGE_HEADER_BYTES = 20;
const MAGIC = 0x4454;
/** Bodies other than frames. */
const CONTROL_BYTES_MAX = 64 * 1024;

export const MessageType = {
  hello: 1,
  welcome: 2,
  refuse: 3,
  frame: 4,
  taken: 5,
  feedback: 6,
  fetch: 7,
  fetchNext: 8,
  fetched: 9,
  fetchEnd: 10,
  fetchStop: 11,
  settle: 12,
  settled: 13,
  alive: 14,
} as const;
export type MessageType = (typeof MessageType)[keyof typeof MessageType];

export interface Message {
  readonly type: MessageType;
  readonly tag: number;
  readonly body: Uint8Array;
}

export interface Hello extends SourceIdentity {
  readonly protocol: number;
}

export interface Welcome {
  readonly protocol: number;
  readonly frameVersion: number;
  readonly replica: string;
  readonly durableLsn: number;
  /** Frame bytes the replica holds before it has taken them. */
  readonly windowBytes: number;
  readonly feedback?: ReplicaFeedback;
}

export interface Refusal {
  readonly code: ErrorCode;
  readonly reason: string;
}

const packr = new Packr({ useRecords: false });
const EMPTY = new Uint8Array(0);

function carriesFrame(type: MessageType): boolean {
  return type === MessageType.frame || type === MessageType.fetched;
}

function isMessageType(value: number): value is MessageType {
  return value >= MessageType.hello && value <= MessageType.alive;
}

/** The 20 bytes before a body. */
export function encodeHeader(type: MessageType, tag: number, body: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(MESSAGE_HEADER_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, MAGIC, true);
  view.setUint8(2, type);
  view.setUint32(4, tag, true);
  view.setUint32(8, body.length, true);
  view.setUint32(12, carriesFrame(type) || body.length === 0 ? 0 : crc32c(body), true);
  view.setUint32(16, crc32c(bytes.subarray(0, 16)), true);
  return bytes;
}

/** A whole message whose body is a map or nothing. */
export function encodeMessage(type: MessageType, tag: number, body?: object): Uint8Array {
  const packed = body === undefined ? EMPTY : packr.pack(body);
  const header = encodeHeader(type, tag, packed);
  if (packed.length === 0) return header;
  const bytes = new Uint8Array(header.length + packed.length);
  bytes.set(header);
  bytes.set(packed, header.length);
  return bytes;
}

/**
 * Cuts a stream of bytes into messages. Every body is in memory of its own, allocated once its header was checked:
 * 4 MiB at most.
 */
export class MessageParser {
  readonly #header: Uint8Array = new Uint8Array(MESSAGE_HEADER_BYTES);
  readonly #view: DataView = new DataView(this.#header.buffer);
  #headerFilled = 0;
  #body: Uint8Array = EMPTY;
  #bodyFilled = 0;

  /** Calls `onMessage` for every message that is complete; stops early when that returns false. */
  push(bytes: Uint8Array, onMessage: (message: Message) => boolean): void {
    let at = 0;
    while (at < bytes.length) {
      if (this.#headerFilled < MESSAGE_HEADER_BYTES) {
        const take = Math.min(MESSAGE_HEADER_BYTES - this.#headerFilled, bytes.length - at);
        this.#header.set(bytes.subarray(at, at + take), this.#headerFilled);
        this.#headerFilled += take;
        at += take;
        if (this.#headerFilled < MESSAGE_HEADER_BYTES) return;
        this.#body = new Uint8Array(this.#checkHeader());
        this.#bodyFilled = 0;
      }
      const take = Math.min(this.#body.length - this.#bodyFilled, bytes.length - at);
      this.#body.set(bytes.subarray(at, at + take), this.#bodyFilled);
      this.#bodyFilled += take;
      at += take;
      if (this.#bodyFilled === this.#body.length && !onMessage(this.#finish())) return;
    }
  }

  #checkHeader(): number {
    const type = this.#view.getUint8(2);
    if (
      this.#view.getUint16(0, true) !== MAGIC ||
      crc32c(this.#header.subarray(0, 16)) !== this.#view.getUint32(16, true)
    ) {
      throw broken('what came is no message of the direct stream');
    }
    if (!isMessageType(type)) throw broken(`unknown message type ${type}`);
    const bodyBytes = this.#view.getUint32(8, true);
    if (bodyBytes > (carriesFrame(type) ? FRAME_BYTES_MAX : CONTROL_BYTES_MAX)) {
      throw broken(`a message of type ${type} cannot have ${bodyBytes} bytes`);
    }
    return bodyBytes;
  }

  #finish(): Message {
    const type = this.#view.getUint8(2) as MessageType;
    const body = this.#body;
    this.#headerFilled = 0;
    this.#body = EMPTY;
    if (!carriesFrame(type) && body.length > 0 && crc32c(body) !== this.#view.getUint32(12, true)) {
      throw broken('the crc of a message is wrong');
    }
    return { type, tag: this.#view.getUint32(4, true), body };
  }
}

/** Each reader throws `stream-unavailable` for a body that is not what its type says. */
export function readHello(body: Uint8Array): Hello {
  const fields = new Fields('hello', body);
  return {
    protocol: fields.count('protocol'),
    groupId: fields.text('groupId', /^[0-9a-f]{32}$/),
    groupName: fields.text('groupName'),
    epoch: fields.count('epoch'),
    incarnation: { counter: fields.count('counter'), nonce: fields.text('nonce', /^[0-9a-f]{16}$/) },
    frameVersion: fields.count('frameVersion'),
  };
}

export function helloBody(identity: SourceIdentity): object {
  return {
    protocol: DIRECT_PROTOCOL,
    groupId: identity.groupId,
    groupName: identity.groupName,
    epoch: identity.epoch,
    counter: identity.incarnation.counter,
    nonce: identity.incarnation.nonce,
    frameVersion: identity.frameVersion,
  };
}

export function readWelcome(body: Uint8Array): Welcome {
  const fields = new Fields('welcome', body);
  const feedback = fields.has('feedback') ? { feedback: fields.feedback('feedback') } : {};
  return {
    protocol: fields.count('protocol'),
    frameVersion: fields.count('frameVersion'),
    replica: fields.text('replica'),
    durableLsn: fields.count('durableLsn'),
    windowBytes: fields.count('windowBytes'),
    ...feedback,
  };
}

/** An unknown code (of a newer program) reads as `stream-refused`. */
export function readRefusal(body: Uint8Array): Refusal {
  const fields = new Fields('refusal', body);
  const code = fields.text('code');
  return {
    code: Object.hasOwn(ERROR_CODES, code) ? (code as ErrorCode) : 'stream-refused',
    reason: fields.text('reason'),
  };
}

export function readFeedback(body: Uint8Array): ReplicaFeedback {
  return new Fields('feedback', body).feedback();
}

export function readLsn(body: Uint8Array): number {
  return new Fields('position', body).count('lsn');
}

class Fields {
  readonly #what: string;
  readonly #map: Readonly<Record<string, unknown>>;

  constructor(what: string, body: Uint8Array) {
    this.#what = what;
    let value: unknown;
    try {
      value = packr.unpack(body);
    } catch (cause) {
      throw broken(`a ${what} cannot be read`, cause);
    }
    if (typeof value !== 'object' || value === null) throw broken(`a ${what} is no map`);
    this.#map = value as Readonly<Record<string, unknown>>;
  }

  has(name: string): boolean {
    return Object.hasOwn(this.#map, name) && this.#map[name] !== undefined && this.#map[name] !== null;
  }

  text(name: string, pattern?: RegExp): string {
    const value = this.#own(name);
    if (typeof value !== 'string' || value.length > 4096 || (pattern !== undefined && !pattern.test(value))) {
      throw broken(`a ${this.#what} has a wrong or missing '${name}'`);
    }
    return value;
  }

  count(name: string): number {
    const value = this.#own(name);
    if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0) {
      throw broken(`a ${this.#what} has a wrong or missing '${name}'`);
    }
    return value;
  }

  /** The field, or the whole map. */
  feedback(name?: string): ReplicaFeedback {
    const feedback = asFeedback(name === undefined ? this.#map : this.#own(name));
    if (feedback === undefined) throw broken(`a ${this.#what} has no readable feedback`);
    return feedback;
  }

  #own(name: string): unknown {
    return Object.hasOwn(this.#map, name) ? this.#map[name] : undefined;
  }
}

function broken(what: string, cause?: unknown): TidemarkError {
  return new TidemarkError('stream-unavailable', what, cause === undefined ? {} : { cause });
}
