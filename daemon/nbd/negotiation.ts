import type { NbdExport } from './export.ts';
import { encodeOptionReply, type HandshakeStep } from './handshake-step.ts';
import type { NbdLimits } from './limits.ts';
import { OptionData, parseInfoRequest, parseMetaRequest } from './option-data.ts';
import {
  BASE_ALLOCATION,
  ClientFlag,
  HandshakeFlag,
  IHAVEOPT,
  Info,
  OPTION_HEADER_BYTES,
  Option,
  OptionReply,
  PAYLOAD_BYTES_MAX,
  TransmissionFlag,
} from './protocol.ts';

/** What a client may ask for, as the negotiation needs to see it. */
export interface ExportCatalogue {
  /** In the order LIST shows them. */
  list(): readonly NbdExport[];
  /** The export of that name; the empty name means the only export, when there is only one. */
  find(name: string): NbdExport | undefined;
}

/** `off`: STARTTLS is refused; `offered`: allowed; `required`: nothing else is answered before it (FORCEDTLS). */
export type TlsMode = 'off' | 'offered' | 'required';

/** The client has chosen: attach it, then send `accept`, or what `refuse` returns and haggle on. */
export interface EnterEvent {
  readonly kind: 'enter';
  readonly export: NbdExport;
  readonly structured: boolean;
  /** BLOCK_STATUS may be asked for. */
  readonly allocation: boolean;
  readonly accept: readonly Uint8Array[];
  /** Bytes that refuse the GO; `undefined` when the option cannot carry an error and the connection must close. */
  readonly refuse: (reply: number, message: string) => Uint8Array | undefined;
}

export type NegotiationEvent =
  | EnterEvent
  | { readonly kind: 'start-tls' }
  /** The connection is over, after what is to be sent. `abort`: the client said goodbye. */
  | { readonly kind: 'close'; readonly reason: string; readonly abort: boolean };

type Step = HandshakeStep<NegotiationEvent>;

/** The id under which `base:allocation` is known in block status replies. */
export const ALLOCATION_CONTEXT_ID = 1;

/**
 * The server's side of the handshake (section "Fixed newstyle negotiation"). Pure: it is shown the bytes received so far
 * and says how many it took, what to send, and what happened; it holds no bytes itself. An option with more data than
 * the bound is skipped by its length, so the stream stays in step.
 */
export class Negotiation {
  readonly #catalogue: ExportCatalogue;
  readonly #limits: NbdLimits;
  #tls: TlsMode | 'active';
  #flagsSeen = false;
  #noZeroes = false;
  #structured = false;
  /** The export name for which `base:allocation` is selected. */
  #contextFor: string | undefined;
  #skipLeft = 0;
  #options = 0;
  #replyBytes = 0;

  constructor(catalogue: ExportCatalogue, tls: TlsMode, limits: NbdLimits) {
    this.#catalogue = catalogue;
    this.#tls = tls;
    this.#limits = limits;
  }

  /** Sent first: NBDMAGIC 8 | IHAVEOPT 8 | handshake flags 2. */
  greeting(): Uint8Array {
    const bytes = Buffer.alloc(18);
    bytes.write('NBDMAGICIHAVEOPT', 0, 'latin1');
    bytes.writeUInt16BE(HandshakeFlag.fixedNewstyle | HandshakeFlag.noZeroes, 16);
    return bytes;
  }

  /** TLS is up: whatever was negotiated in the clear is forgotten (section "Newstyle with TLS": a man in the middle chose it). */
  secured(): void {
    this.#tls = 'active';
    this.#structured = false;
    this.#contextFor = undefined;
  }

  step(bytes: Uint8Array): Step {
    const step = this.#step(bytes);
    for (const part of step.send) this.#replyBytes += part.length;
    if (this.#replyBytes <= this.#limits.handshakeReplyBytesMax) return step;
    return close(step.consumed, 'too many replies in one handshake');
  }

  #step(bytes: Uint8Array): Step {
    if (this.#skipLeft > 0) {
      const consumed = Math.min(this.#skipLeft, bytes.length);
      this.#skipLeft -= consumed;
      return { consumed, send: [], event: undefined };
    }
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    if (!this.#flagsSeen) return this.#clientFlags(view);
    if (view.byteLength >= 8 && (view.getUint32(0) !== IHAVEOPT.high || view.getUint32(4) !== IHAVEOPT.low)) {
      return close(8, 'an option has a wrong magic');
    }
    if (view.byteLength < OPTION_HEADER_BYTES) return NOTHING;
    const option = view.getUint32(8);
    const length = view.getUint32(12);
    if (length <= this.#limits.optionBytesMax && view.byteLength < OPTION_HEADER_BYTES + length) return NOTHING;
    this.#options += 1;
    if (this.#options > this.#limits.optionsMax) return close(OPTION_HEADER_BYTES, 'too many options in one handshake');
    if (length > this.#limits.optionBytesMax) {
      if (option === Option.exportName) return close(OPTION_HEADER_BYTES, 'the export name is too long');
      this.#skipLeft = length;
      const reply = this.#tls === 'required' ? OptionReply.errTlsRequired : OptionReply.errTooBig;
      return { consumed: OPTION_HEADER_BYTES, send: [encodeOptionReply(option, reply)], event: undefined };
    }
    const consumed = OPTION_HEADER_BYTES + length;
    return { consumed, ...this.#option(option, bytes.subarray(OPTION_HEADER_BYTES, consumed)) };
  }

  #clientFlags(view: DataView): Step {
    if (view.byteLength < 4) return NOTHING;
    const flags = view.getUint32(0);
    if ((flags & ~(ClientFlag.fixedNewstyle | ClientFlag.noZeroes)) !== 0) return close(4, 'unknown client flags');
    if ((flags & ClientFlag.fixedNewstyle) === 0) return close(4, 'the client does not speak fixed newstyle');
    this.#flagsSeen = true;
    this.#noZeroes = (flags & ClientFlag.noZeroes) !== 0;
    return { consumed: 4, send: [], event: undefined };
  }

  #option(option: number, data: Uint8Array): Omit<Step, 'consumed'> {
    if (option === Option.abort) {
      const event: NegotiationEvent = { kind: 'close', reason: 'the client gave up the handshake', abort: true };
      return { send: [encodeOptionReply(option, OptionReply.ack)], event };
    }
    if (option === Option.startTls) return this.#startTls(data);
    if (this.#tls === 'required') {
      if (option === Option.exportName) return close(0, 'the client asked for an export without TLS');
      return reply(option, OptionReply.errTlsRequired, 'this server speaks TLS only');
    }
    switch (option) {
      case Option.exportName:
        return this.#exportName(data);
      case Option.list:
        return this.#list(data);
      case Option.info:
      case Option.go:
        return this.#infoOrGo(option, data);
      case Option.structuredReply:
        if (data.length > 0) return reply(option, OptionReply.errInvalid, 'this option carries no data');
        this.#structured = true;
        return reply(option, OptionReply.ack);
      case Option.listMetaContext:
      case Option.setMetaContext:
        return this.#metaContext(option, data);
      default:
        return reply(option, OptionReply.errUnsupported);
    }
  }

  #startTls(data: Uint8Array): Omit<Step, 'consumed'> {
    const option = Option.startTls;
    if (data.length > 0) return reply(option, OptionReply.errInvalid, 'this option carries no data');
    if (this.#tls === 'active') return reply(option, OptionReply.errInvalid, 'TLS is active already');
    if (this.#tls === 'off') return reply(option, OptionReply.errPolicy, 'this server has no TLS');
    return { send: [encodeOptionReply(option, OptionReply.ack)], event: { kind: 'start-tls' } };
  }

  /** The old way in: cannot carry an error, and is answered with size 8 | flags 2 | 124 zeroes unless NO_ZEROES. */
  #exportName(data: Uint8Array): Omit<Step, 'consumed'> {
    const name = new OptionData(data).text(data.length);
    const found = name === undefined ? undefined : this.#catalogue.find(name);
    if (found === undefined) return close(0, 'the client asked for an unknown export');
    const answer = Buffer.alloc(this.#noZeroes ? 10 : 134);
    writeSize(answer, 0, found.size);
    answer.writeUInt16BE(transmissionFlags(found, this.#structured), 8);
    return { send: [], event: this.#enter(found, name, [answer], () => undefined) };
  }

  #list(data: Uint8Array): Omit<Step, 'consumed'> {
    if (data.length > 0) return reply(Option.list, OptionReply.errInvalid, 'this option carries no data');
    const send = this.#catalogue.list().map((item) => {
      const name = Buffer.from(item.name);
      const entry = Buffer.alloc(4 + name.length + Buffer.byteLength(item.description));
      entry.writeUInt32BE(name.length);
      name.copy(entry, 4);
      entry.write(item.description, 4 + name.length);
      return encodeOptionReply(Option.list, OptionReply.server, entry);
    });
    return { send: [...send, encodeOptionReply(Option.list, OptionReply.ack)], event: undefined };
  }

  #infoOrGo(option: number, data: Uint8Array): Omit<Step, 'consumed'> {
    const request = parseInfoRequest(data);
    if (request === undefined) return reply(option, OptionReply.errInvalid, 'the lengths do not add up');
    const found = this.#catalogue.find(request.name);
    if (found === undefined) return reply(option, OptionReply.errUnknown, 'no such export');
    const info = Buffer.alloc(12);
    info.writeUInt16BE(Info.export, 0);
    writeSize(info, 2, found.size);
    info.writeUInt16BE(transmissionFlags(found, this.#structured), 10);
    const send = [encodeOptionReply(option, OptionReply.info, info)];
    for (const kind of new Set(request.infos)) {
      const more = optionalInfo(found, kind);
      if (more !== undefined) send.push(encodeOptionReply(option, OptionReply.info, more));
    }
    send.push(encodeOptionReply(option, OptionReply.ack));
    if (option === Option.info) return { send, event: undefined };
    const refuse = (code: number, message: string): Uint8Array =>
      encodeOptionReply(option, code, Buffer.from(message.slice(0, 1000)));
    return { send: [], event: this.#enter(found, request.name, send, refuse) };
  }

  #enter(
    found: NbdExport,
    name: string | undefined,
    accept: readonly Uint8Array[],
    refuse: EnterEvent['refuse'],
  ): EnterEvent {
    const allocation = this.#structured && this.#contextFor === name && name !== undefined;
    return { kind: 'enter', export: found, structured: this.#structured, allocation, accept, refuse };
  }

  #metaContext(option: number, data: Uint8Array): Omit<Step, 'consumed'> {
    const set = option === Option.setMetaContext;
    if (set) this.#contextFor = undefined;
    if (!this.#structured) return reply(option, OptionReply.errInvalid, 'structured replies were not negotiated');
    const request = parseMetaRequest(data);
    if (request === undefined) return reply(option, OptionReply.errInvalid, 'the lengths do not add up');
    if (this.#catalogue.find(request.name) === undefined)
      return reply(option, OptionReply.errUnknown, 'no such export');
    const chosen =
      request.queries.includes(BASE_ALLOCATION) ||
      (!set && (request.queries.length === 0 || request.queries.includes('base:')));
    const send: Uint8Array[] = [];
    if (chosen) {
      const context = Buffer.alloc(4 + BASE_ALLOCATION.length);
      context.writeUInt32BE(set ? ALLOCATION_CONTEXT_ID : 0);
      context.write(BASE_ALLOCATION, 4);
      send.push(encodeOptionReply(option, OptionReply.metaContext, context));
      if (set) this.#contextFor = request.name;
    }
    send.push(encodeOptionReply(option, OptionReply.ack));
    return { send, event: undefined };
  }
}

/** What an export can do, as bits; DF only once structured replies are agreed on. */
export function transmissionFlags(of: NbdExport, structured: boolean): number {
  const flag = TransmissionFlag;
  let flags = flag.hasFlags | flag.sendFlush | flag.sendFua | flag.sendCache;
  flags |= of.readOnly ? flag.readOnly : flag.sendTrim | flag.sendWriteZeroes | (of.fastZero ? flag.sendFastZero : 0);
  if (of.multiConn) flags |= flag.canMultiConn;
  if (structured) flags |= flag.sendDf;
  return flags;
}

function optionalInfo(of: NbdExport, kind: number): Buffer | undefined {
  if (kind === Info.name || kind === Info.description) {
    const text = Buffer.from(kind === Info.name ? of.name : of.description);
    const bytes = Buffer.alloc(2 + text.length);
    bytes.writeUInt16BE(kind, 0);
    text.copy(bytes, 2);
    return bytes;
  }
  if (kind !== Info.blockSize) return undefined;
  const bytes = Buffer.alloc(14);
  bytes.writeUInt16BE(kind, 0);
  bytes.writeUInt32BE(of.minimumBlockBytes, 2);
  bytes.writeUInt32BE(of.preferredBlockBytes, 6);
  bytes.writeUInt32BE(PAYLOAD_BYTES_MAX, 10);
  return bytes;
}

function writeSize(into: Buffer, at: number, size: number): void {
  into.writeUInt32BE(Math.floor(size / 0x1_0000_0000), at);
  into.writeUInt32BE(size >>> 0, at + 4);
}

const NOTHING: Step = { consumed: 0, send: [], event: undefined };

function reply(option: number, type: number, message = ''): Omit<Step, 'consumed'> {
  return { send: [encodeOptionReply(option, type, Buffer.from(message))], event: undefined };
}

function close(consumed: number, reason: string): Step {
  return { consumed, send: [], event: { kind: 'close', reason, abort: false } };
}
