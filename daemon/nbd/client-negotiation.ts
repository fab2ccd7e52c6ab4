import { TidemarkError } from '../../journal/base/errors.ts';
import { encodeOption, type HandshakeStep } from './handshake-step.ts';
import {
  BASE_ALLOCATION,
  ClientFlag,
  GREETING_BYTES,
  HandshakeFlag,
  IHAVEOPT,
  Info,
  NBDMAGIC,
  OPTION_REPLY_HEADER_BYTES,
  OPTION_REPLY_MAGIC,
  Option,
  OptionReply,
  PAYLOAD_BYTES_MAX,
  STRING_BYTES_MAX,
  TransmissionFlag,
} from './protocol.ts';

/** What the server agreed to. */
export interface NegotiatedExport {
  /** Bytes. */
  readonly size: number;
  /** Transmission flags as on the wire. */
  readonly flags: number;
  readonly structured: boolean;
  /** The id under which block status replies carry `base:allocation`; undefined: not offered. */
  readonly allocationContext: number | undefined;
  readonly minimumBlockBytes: number;
  readonly preferredBlockBytes: number;
  readonly payloadBytesMax: number;
}

export type ClientEvent =
  | { readonly kind: 'start-tls' }
  | { readonly kind: 'ready'; readonly export: NegotiatedExport };

type Stage = 'greeting' | 'tls' | 'structured' | 'meta' | 'go' | 'done';

/** A longer option reply is no honest one: an error message is a string, an info a few numbers. */
const REPLY_BYTES_MAX = STRING_BYTES_MAX + 64;
/** Replies to one option; GO answers a handful of infos. */
const REPLIES_PER_OPTION_MAX = 64;

/**
 * The client's side of the handshake (section "Fixed newstyle negotiation"): STARTTLS if asked for, STRUCTURED_REPLY,
 * SET_META_CONTEXT base:allocation, GO with block sizes. Only GO: a QEMU 7.2 server dies of an EXPORT_NAME whose sender
 * goes away. Pure: bytes in, bytes and one event out. A server's refusal is thrown as a `TidemarkError`.
 */
export class ClientNegotiation {
  readonly #exportName: string;
  readonly #tls: boolean;
  #stage: Stage = 'greeting';
  #structured = false;
  #allocationContext: number | undefined;
  #replies = 0;
  #size: number | undefined;
  #flags = 0;
  #minimumBlockBytes = 1;
  #preferredBlockBytes = 4096;
  #payloadBytesMax = PAYLOAD_BYTES_MAX;

  constructor(exportName: string, tls: boolean) {
    this.#exportName = exportName;
    this.#tls = tls;
  }

  /** After the TLS handshake that the `start-tls` event asked for: what to send first through it. */
  secured(): Uint8Array {
    return this.#ask('structured');
  }

  step(bytes: Uint8Array): HandshakeStep<ClientEvent> {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    if (this.#stage === 'greeting') return this.#greeting(view);
    if (view.byteLength < OPTION_REPLY_HEADER_BYTES) return NOTHING;
    if (view.getUint32(0) !== OPTION_REPLY_MAGIC.high || view.getUint32(4) !== OPTION_REPLY_MAGIC.low) {
      throw broken('an option reply has a wrong magic');
    }
    const length = view.getUint32(16);
    if (length > REPLY_BYTES_MAX) throw broken(`an option reply of ${length} bytes`);
    const consumed = OPTION_REPLY_HEADER_BYTES + length;
    if (view.byteLength < consumed) return NOTHING;
    this.#replies += 1;
    if (this.#replies > REPLIES_PER_OPTION_MAX) throw broken('endless replies to one option');
    const data = Buffer.from(bytes.buffer, bytes.byteOffset + OPTION_REPLY_HEADER_BYTES, length);
    return { consumed, ...this.#reply(view.getUint32(8), view.getUint32(12), data) };
  }

  #greeting(view: DataView): HandshakeStep<ClientEvent> {
    if (view.byteLength < GREETING_BYTES) return NOTHING;
    if (view.getUint32(0) !== NBDMAGIC.high || view.getUint32(4) !== NBDMAGIC.low) {
      throw broken('this is no NBD server');
    }
    const flags = view.getUint16(16);
    const newstyle = view.getUint32(8) === IHAVEOPT.high && view.getUint32(12) === IHAVEOPT.low;
    if (!newstyle || (flags & HandshakeFlag.fixedNewstyle) === 0) {
      throw new TidemarkError('unsupported', 'the NBD server does not speak fixed newstyle');
    }
    const mine = Buffer.alloc(4);
    mine.writeUInt32BE(ClientFlag.fixedNewstyle | (flags & HandshakeFlag.noZeroes ? ClientFlag.noZeroes : 0));
    return {
      consumed: GREETING_BYTES,
      send: [mine, this.#ask(this.#tls ? 'tls' : 'structured')],
      event: undefined,
    };
  }

  #ask(stage: 'tls' | 'structured' | 'meta' | 'go'): Uint8Array {
    this.#stage = stage;
    this.#replies = 0;
    switch (stage) {
      case 'tls':
        return encodeOption(Option.startTls, new Uint8Array(0));
      case 'structured':
        return encodeOption(Option.structuredReply, new Uint8Array(0));
      case 'meta':
        return encodeOption(
          Option.setMetaContext,
          Buffer.concat([counted(this.#exportName), u32(1), counted(BASE_ALLOCATION)]),
        );
      case 'go':
        return encodeOption(
          Option.go,
          Buffer.concat([counted(this.#exportName), Buffer.from([0, 1, 0, Info.blockSize])]),
        );
    }
  }

  #reply(option: number, type: number, data: Buffer): Omit<HandshakeStep<ClientEvent>, 'consumed'> {
    const refused = type >= 0x8000_0000;
    const asked = { tls: 5, structured: 8, meta: 10, go: 7, greeting: 0, done: 0 }[this.#stage];
    if (option !== asked) throw broken(`an answer to option ${option}, which was not asked`);
    switch (this.#stage) {
      case 'tls':
        if (refused) throw this.#refusal(type, data);
        return { send: [], event: { kind: 'start-tls' } };
      case 'structured':
        if (type === OptionReply.errTlsRequired) throw this.#refusal(type, data);
        this.#structured = type === OptionReply.ack;
        return { send: [this.#ask(this.#structured ? 'meta' : 'go')], event: undefined };
      case 'meta':
        if (type === OptionReply.metaContext && data.length >= 4) {
          if (data.toString('utf8', 4) === BASE_ALLOCATION) this.#allocationContext = data.readUInt32BE(0);
          return { send: [], event: undefined };
        }
        if (refused) this.#allocationContext = undefined;
        return { send: [this.#ask('go')], event: undefined };
      case 'go':
        if (refused) throw this.#refusal(type, data);
        if (type === OptionReply.info) this.#info(data);
        if (type !== OptionReply.ack) return { send: [], event: undefined };
        return { send: [], event: { kind: 'ready', export: this.#agreed() } };
      case 'greeting':
      case 'done':
        throw broken('an option reply out of turn');
    }
  }

  /** INFO_EXPORT: type 2 | size 8 | flags 2. INFO_BLOCK_SIZE: type 2 | minimum 4 | preferred 4 | maximum 4. */
  #info(data: Buffer): void {
    const type = data.length >= 2 ? data.readUInt16BE(0) : -1;
    if (type === Info.export) {
      if (data.length !== 12) throw broken('an export info of a wrong length');
      this.#size = data.readUInt32BE(2) * 0x1_0000_0000 + data.readUInt32BE(6);
      this.#flags = data.readUInt16BE(10);
    } else if (type === Info.blockSize) {
      if (data.length !== 14) throw broken('a block size info of a wrong length');
      this.#minimumBlockBytes = data.readUInt32BE(2);
      this.#preferredBlockBytes = data.readUInt32BE(6);
      this.#payloadBytesMax = Math.min(data.readUInt32BE(10), PAYLOAD_BYTES_MAX);
    }
  }

  #agreed(): NegotiatedExport {
    const size = this.#size;
    if (size === undefined) throw broken('GO was answered without a size');
    if (!Number.isSafeInteger(size)) throw broken('a size above 2^53 bytes');
    if ((this.#flags & TransmissionFlag.hasFlags) === 0) throw broken('transmission flags without HAS_FLAGS');
    const minimum = this.#minimumBlockBytes;
    if (minimum < 1 || minimum > 65536 || (minimum & (minimum - 1)) !== 0)
      throw broken(`a minimum block of ${minimum}`);
    if (this.#payloadBytesMax < minimum) throw broken('a maximum payload below the minimum block');
    this.#stage = 'done';
    return {
      size,
      flags: this.#flags,
      structured: this.#structured,
      allocationContext: this.#allocationContext,
      minimumBlockBytes: minimum,
      preferredBlockBytes: this.#preferredBlockBytes,
      payloadBytesMax: this.#payloadBytesMax - (this.#payloadBytesMax % Math.max(minimum, 512)),
    };
  }

  #refusal(type: number, data: Buffer): TidemarkError {
    const said = data.length === 0 ? '' : `: ${JSON.stringify(data.toString('utf8'))}`;
    const name = JSON.stringify(this.#exportName);
    switch (type) {
      case OptionReply.errUnknown:
        return new TidemarkError('not-found', `the NBD server has no export ${name}${said}`);
      case OptionReply.errTlsRequired:
        return new TidemarkError('precondition-failed', `the NBD server wants TLS${said}`);
      case OptionReply.errShutdown:
        return new TidemarkError('shutting-down', `the NBD server is stopping${said}`);
      case OptionReply.errPolicy:
        return new TidemarkError('precondition-failed', `the NBD server refuses export ${name} by policy${said}`);
      case OptionReply.errUnsupported:
        return new TidemarkError('unsupported', `the NBD server does not know ${this.#stage.toUpperCase()}${said}`);
      default:
        return new TidemarkError(
          'device-failed',
          `the NBD server refused export ${name} (${type.toString(16)})${said}`,
        );
    }
  }
}

const NOTHING: HandshakeStep<never> = { consumed: 0, send: [], event: undefined };

function counted(text: string): Buffer {
  const bytes = Buffer.from(text);
  return Buffer.concat([u32(bytes.length), bytes]);
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

function broken(what: string): TidemarkError {
  return new TidemarkError('device-failed', `broken NBD handshake: ${what}`);
}
