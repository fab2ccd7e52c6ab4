import { Packr } from 'msgpackr';
import { TidemarkError } from './base/errors.ts';
import type { Epoch, Lsn } from './position.ts';

/*
 * Bodies of control records: msgpack maps, read without any side dictionary (`useRecords: false`). Every field is
 * checked on read; unknown fields are passed over, so that a later version may add some.
 */

export interface BookmarkBody {
  readonly name: string;
  readonly kind: 'crash' | 'application';
  readonly note?: string;
  readonly labels?: Readonly<Record<string, string>>;
}

export interface IncarnationBody {
  readonly counter: number;
  /** 16 hex digits. */
  readonly nonce: string;
  readonly bootId: string;
  /** Recovery cut a torn tail behind this LSN (DESIGN rule 4). */
  readonly cutAfterLsn?: Lsn;
}

export interface EpochBody {
  readonly epoch: Epoch;
  readonly reason: string;
}

export interface VolumeAddedBody {
  /** Volume id in records: 1..65535. */
  readonly id: number;
  readonly name: string;
  /** Bytes. */
  readonly size: number;
  readonly blockBytes: number;
  /** `seeded`: it has content that is no point before its SEED_END; absent: an older program, which did not say. */
  readonly starts?: 'empty' | 'seeded';
}

export interface VolumeResizedBody {
  readonly id: number;
  /** Bytes. */
  readonly size: number;
}

export interface SeedEndBody {
  readonly volume: number;
}

export interface HeartbeatBody {
  /** The source's monotonic clock; echoed by the replica to measure lag (rule 7). */
  readonly monotonicMs: number;
  readonly wallMicros: number;
  /** The source waits for the far side before it answers; absent: it promises nothing now. */
  readonly lease?: LeaseBody;
}

/**
 * Until `leaseMs` have passed since the source took the states it names, it answers nothing that the replicas do not
 * hold: who finds a state of his own here knows how long that is true (by his own clock, from when he sent it).
 */
export interface LeaseBody {
  /** What the source waits for, and before which answers: `replica` or `applied`, `write` or `flush`. */
  readonly ack: string;
  readonly ackAt: string;
  readonly leaseMs: number;
  /** By replica: the newest state taken, as `ReplicaFeedback` names it. */
  readonly heard: Readonly<Record<string, StateName>>;
}

/** Which of a replica's states: its run and its own monotonic clock. */
export interface StateName {
  /** 16 hex digits, drawn at every start of the replica. */
  readonly run: string;
  readonly sentMs: number;
}

export interface GapBody {
  readonly fromLsn: Lsn;
  readonly toLsn: Lsn;
  readonly reason: string;
}

export interface ClockJumpBody {
  readonly fromMicros: number;
  readonly toMicros: number;
}

/** The degree of synchrony of a group has another state, or a start of the source says which it has. */
export interface DegreeChangeBody {
  readonly from: string;
  readonly to: string;
  readonly reason: string;
  /** What is promised from here on, in a word like `replica` and the answers it is for, `write` or `flush`. */
  readonly ack?: string;
  readonly ackAt?: string;
  /** The promise did not hold, or does not hold, from this LSN on. */
  readonly brokenFromLsn?: Lsn;
}

/** Bound of one body: a bookmark with all its labels stays below it. */
export const BODY_BYTES_MAX: number = 64 * 1024;
const NAME_LENGTH_MAX = 256;
const TEXT_LENGTH_MAX = 4096;
const LABELS_MAX = 64;
/** Replicas named in one lease. */
const HEARD_MAX = 64;
const RUN = /^[0-9a-f]{16}$/;

const packr = new Packr({ useRecords: false });

function encode(body: object): Uint8Array {
  return packr.pack(body);
}

export const encodeBookmark = (body: BookmarkBody): Uint8Array => encode(body);
export const encodeIncarnation = (body: IncarnationBody): Uint8Array => encode(body);
export const encodeEpoch = (body: EpochBody): Uint8Array => encode(body);
export const encodeVolumeAdded = (body: VolumeAddedBody): Uint8Array => encode(body);
export const encodeVolumeResized = (body: VolumeResizedBody): Uint8Array => encode(body);
export const encodeSeedEnd = (body: SeedEndBody): Uint8Array => encode(body);
export const encodeHeartbeat = (body: HeartbeatBody): Uint8Array => encode(body);
export const encodeGap = (body: GapBody): Uint8Array => encode(body);
export const encodeClockJump = (body: ClockJumpBody): Uint8Array => encode(body);
export const encodeDegreeChange = (body: DegreeChangeBody): Uint8Array => encode(body);

/** Each decoder throws `journal-damaged` naming the body and the field. */
export function decodeBookmark(bytes: Uint8Array): BookmarkBody {
  const fields = new Fields('bookmark', bytes);
  const kind = fields.text('kind', NAME_LENGTH_MAX);
  if (kind !== 'crash' && kind !== 'application') throw fields.wrong('kind');
  const note = fields.optional('note') ? { note: fields.text('note', TEXT_LENGTH_MAX) } : {};
  const labels = fields.optional('labels') ? { labels: fields.labels('labels') } : {};
  return { name: fields.text('name', NAME_LENGTH_MAX), kind, ...note, ...labels };
}

export function decodeIncarnation(bytes: Uint8Array): IncarnationBody {
  const fields = new Fields('incarnation', bytes);
  const nonce = fields.text('nonce', 16);
  if (!/^[0-9a-f]{16}$/.test(nonce)) throw fields.wrong('nonce');
  const cut = fields.optional('cutAfterLsn') ? { cutAfterLsn: fields.count('cutAfterLsn') } : {};
  return { counter: fields.count('counter'), nonce, bootId: fields.text('bootId', 64), ...cut };
}

export function decodeEpoch(bytes: Uint8Array): EpochBody {
  const fields = new Fields('epoch', bytes);
  return { epoch: fields.count('epoch', 0xffff_ffff), reason: fields.text('reason', TEXT_LENGTH_MAX) };
}

export function decodeVolumeAdded(bytes: Uint8Array): VolumeAddedBody {
  const fields = new Fields('volume-added', bytes);
  const starts = fields.optional('starts') ? fields.text('starts', NAME_LENGTH_MAX) : undefined;
  if (starts !== undefined && starts !== 'empty' && starts !== 'seeded') throw fields.wrong('starts');
  return {
    id: fields.count('id', 0xffff),
    name: fields.text('name', NAME_LENGTH_MAX),
    size: fields.count('size'),
    blockBytes: fields.count('blockBytes', 0xffff_ffff),
    ...(starts !== undefined && { starts }),
  };
}

export function decodeVolumeResized(bytes: Uint8Array): VolumeResizedBody {
  const fields = new Fields('volume-resized', bytes);
  return { id: fields.count('id', 0xffff), size: fields.count('size') };
}

export function decodeSeedEnd(bytes: Uint8Array): SeedEndBody {
  return { volume: new Fields('seed-end', bytes).count('volume', 0xffff) };
}

export function decodeHeartbeat(bytes: Uint8Array): HeartbeatBody {
  const fields = new Fields('heartbeat', bytes);
  const lease = fields.optional('lease') ? { lease: fields.lease('lease') } : {};
  return { monotonicMs: fields.measure('monotonicMs'), wallMicros: fields.measure('wallMicros'), ...lease };
}

export function decodeGap(bytes: Uint8Array): GapBody {
  const fields = new Fields('gap', bytes);
  return {
    fromLsn: fields.count('fromLsn'),
    toLsn: fields.count('toLsn'),
    reason: fields.text('reason', TEXT_LENGTH_MAX),
  };
}

export function decodeClockJump(bytes: Uint8Array): ClockJumpBody {
  const fields = new Fields('clock-jump', bytes);
  return { fromMicros: fields.measure('fromMicros'), toMicros: fields.measure('toMicros') };
}

export function decodeDegreeChange(bytes: Uint8Array): DegreeChangeBody {
  const fields = new Fields('degree-change', bytes);
  return {
    from: fields.text('from', NAME_LENGTH_MAX),
    to: fields.text('to', NAME_LENGTH_MAX),
    reason: fields.text('reason', TEXT_LENGTH_MAX),
    ...(fields.optional('ack') && { ack: fields.text('ack', NAME_LENGTH_MAX) }),
    ...(fields.optional('ackAt') && { ackAt: fields.text('ackAt', NAME_LENGTH_MAX) }),
    ...(fields.optional('brokenFromLsn') && { brokenFromLsn: fields.count('brokenFromLsn') }),
  };
}

/** A decoded map whose fields are asked for by name and type. */
class Fields {
  readonly #body: string;
  readonly #map: Record<string, unknown>;

  constructor(body: string, bytes: Uint8Array) {
    this.#body = body;
    if (bytes.length > BODY_BYTES_MAX) throw this.#damaged(`is ${bytes.length} bytes long`);
    let value: unknown;
    try {
      value = packr.unpack(bytes);
    } catch (cause) {
      throw new TidemarkError('journal-damaged', `the ${body} body cannot be read`, { cause });
    }
    if (!isPlainMap(value)) throw this.#damaged('is not a map');
    this.#map = value;
  }

  optional(name: string): boolean {
    return Object.hasOwn(this.#map, name) && this.#map[name] !== undefined;
  }

  text(name: string, lengthMax: number): string {
    const value = this.#own(name);
    if (typeof value !== 'string' || value.length > lengthMax) throw this.wrong(name);
    return value;
  }

  /** A whole number from 0 to `max`. */
  count(name: string, max: number = Number.MAX_SAFE_INTEGER): number {
    const value = this.#own(name);
    if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0 || value > max) throw this.wrong(name);
    return value;
  }

  /** Any finite number from 0 up. */
  measure(name: string): number {
    const value = this.#own(name);
    if (!isMeasure(value)) throw this.wrong(name);
    return value;
  }

  labels(name: string): Record<string, string> {
    const value = this.#own(name);
    if (!isPlainMap(value)) throw this.wrong(name);
    const entries = Object.entries(value);
    if (entries.length > LABELS_MAX) throw this.wrong(name);
    const labels: Record<string, string> = {};
    for (const [key, text] of entries) {
      if (typeof text !== 'string' || key.length > NAME_LENGTH_MAX || text.length > TEXT_LENGTH_MAX) {
        throw this.wrong(name);
      }
      labels[key] = text;
    }
    return labels;
  }

  lease(name: string): LeaseBody {
    const value = this.#own(name);
    if (!isPlainMap(value)) throw this.wrong(name);
    const { ack, ackAt, leaseMs, heard } = value;
    const said = [ack, ackAt].every((text) => typeof text === 'string' && text.length <= NAME_LENGTH_MAX);
    if (!said || !isMeasure(leaseMs) || !isPlainMap(heard)) throw this.wrong(name);
    const entries = Object.entries(heard);
    if (entries.length > HEARD_MAX) throw this.wrong(name);
    const states: Record<string, StateName> = {};
    for (const [replica, state] of entries) {
      if (replica.length > NAME_LENGTH_MAX || !isPlainMap(state)) throw this.wrong(name);
      const { run, sentMs } = state;
      if (typeof run !== 'string' || !RUN.test(run) || !isMeasure(sentMs)) throw this.wrong(name);
      states[replica] = { run, sentMs };
    }
    return { ack: String(ack), ackAt: String(ackAt), leaseMs, heard: states };
  }

  wrong(name: string): TidemarkError {
    return this.#damaged(`has a wrong or missing field '${name}'`);
  }

  #own(name: string): unknown {
    return Object.hasOwn(this.#map, name) ? this.#map[name] : undefined;
  }

  #damaged(what: string): TidemarkError {
    return new TidemarkError('journal-damaged', `the ${this.#body} body ${what}`);
  }
}

function isMeasure(value: unknown): value is number {
  return typeof value === 'number' && Number.isFinite(value) && value >= 0;
}

function isPlainMap(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && Object.getPrototypeOf(value) === Object.prototype;
}
