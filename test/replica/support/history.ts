import { CHAIN_START, type Chain } from '../../../journal/chain.ts';
import { FrameSealer, type SealedFrame } from '../../../journal/frame-sealer.ts';
import { RecordFlag, RecordKind } from '../../../journal/record.ts';
import { encodeBookmark, encodeHeartbeat, encodeSeedEnd, encodeVolumeAdded } from '../../../journal/record-bodies.ts';
import type {
  FrameSource,
  FrameSourceEvents,
  FrameSourceStart,
  Incarnation,
  ReplicaFeedback,
} from '../../../journal/stream.ts';
import { SeededRandom } from './memory-host.ts';

export const GROUP: string = 'ab'.repeat(16);
export const START: Incarnation = { counter: 1, nonce: '1'.repeat(16) };
export const EPOCH_MICROS = 1_700_000_000_000_000;

export interface HistoryRecord {
  kind: RecordKind;
  flags: number;
  volume: number;
  sector: number;
  sectors: number;
  requestId: number;
  payload: Uint8Array;
  time: number;
}

export interface HistoryVolume {
  id: number;
  name: string;
  sectors: number;
}

export const VOLUMES: readonly HistoryVolume[] = [
  { id: 1, name: 'system', sectors: 4096 },
  { id: 2, name: 'data', sectors: 8192 },
];

/** A made-up history: volumes added, seeded and written at random, trims, bookmarks, heartbeats, requests in pieces. */
export class History {
  readonly records: HistoryRecord[] = [];
  readonly random: SeededRandom;
  #request = 0;

  constructor(seed: number) {
    this.random = new SeededRandom(seed);
  }

  get lastLsn(): number {
    return this.records.length;
  }

  push(kind: RecordKind, options: Partial<HistoryRecord> = {}): number {
    const time = EPOCH_MICROS + this.records.length * 1000;
    const none = { flags: 0, volume: 0, sector: 0, sectors: 0, requestId: 0, payload: new Uint8Array(0) };
    this.records.push({ ...none, time, ...options, kind });
    return this.records.length;
  }

  addVolumes(): void {
    for (const { id, name, sectors } of VOLUMES) {
      this.push(RecordKind.volumeAdded, {
        payload: encodeVolumeAdded({ id, name, size: sectors * 512, blockBytes: 512 }),
      });
    }
    for (let sector = 0; sector < 64; sector += 8) this.#write(RecordKind.seed, 1, sector, 8);
    this.push(RecordKind.seedEnd, { payload: encodeSeedEnd({ volume: 1 }) });
  }

  /** Random records until the history has `count`. */
  fill(count: number): this {
    while (this.records.length < count) this.#step();
    return this;
  }

  bookmark(name: string): number {
    return this.push(RecordKind.bookmark, { payload: encodeBookmark({ name, kind: 'crash' }) });
  }

  #step(): void {
    const { random } = this;
    const volume = VOLUMES[random.below(2)] ?? { id: 1, name: 'system', sectors: 4096 };
    const pick = random.below(40);
    if (pick === 0) {
      const sectors = 1 + random.below(volume.sectors);
      const sector = random.below(volume.sectors - sectors + 1);
      this.push(random.below(2) === 0 ? RecordKind.trim : RecordKind.zero, { volume: volume.id, sector, sectors });
    } else if (pick === 1) {
      this.push(RecordKind.heartbeat, {
        payload: encodeHeartbeat({ monotonicMs: this.lastLsn + 1, wallMicros: EPOCH_MICROS }),
      });
    } else if (pick === 2) {
      this.bookmark(`b${this.lastLsn + 1}`);
    } else if (pick < 6) {
      this.#pieces(volume);
    } else {
      const sectors = 1 + random.below(pick < 10 ? 40 : 8);
      this.#write(RecordKind.write, volume.id, random.below(volume.sectors - sectors), sectors);
    }
  }

  /** A request in three pieces with other records in between; one in four never closes. */
  #pieces(volume: HistoryVolume): void {
    this.#request += 1;
    const requestId = this.#request;
    const closes = this.random.below(4) > 0;
    const sector = this.random.below(volume.sectors - 24);
    for (let piece = 0; piece < 3; piece += 1) {
      const flags = RecordFlag.piece | (piece === 2 && closes ? RecordFlag.closes : 0);
      this.#write(RecordKind.write, volume.id, sector + piece * 8, 8, flags, requestId);
      for (let other = this.random.below(4); other > 0; other -= 1) {
        this.#write(RecordKind.write, volume.id, this.random.below(volume.sectors - 2), 2);
      }
    }
  }

  #write(kind: RecordKind, volume: number, sector: number, sectors: number, flags = 0, requestId = 0): void {
    const payload = new Uint8Array(sectors * 512);
    // Half of it shrinks when packed.
    const fill = this.random.below(256);
    payload.fill(fill);
    for (let i = 0; i < payload.length / 2; i += 1) payload[i] = this.random.below(256);
    this.push(kind, { volume, sector, sectors, payload, flags, requestId });
  }
}

/** The disks of a history, record by record, by rules of its own. */
export class Model {
  readonly disks: Map<number, Uint8Array> = new Map(
    VOLUMES.map(({ id, sectors }) => [id, new Uint8Array(sectors * 512)]),
  );
  readonly #open: Map<number, HistoryRecord[]> = new Map();
  lsn = 0;

  advance(history: History, lsn: number): void {
    for (; this.lsn < lsn; this.lsn += 1) {
      const record = history.records[this.lsn];
      if (record !== undefined) this.#apply(record);
    }
  }

  disk(volume: number): Uint8Array {
    return this.disks.get(volume) ?? new Uint8Array(0);
  }

  #apply(record: HistoryRecord): void {
    if ((record.flags & RecordFlag.piece) !== 0) {
      const pieces = [...(this.#open.get(record.requestId) ?? []), record];
      this.#open.set(record.requestId, pieces);
      if ((record.flags & RecordFlag.closes) === 0) return;
      for (const piece of pieces) this.disk(piece.volume).set(piece.payload, piece.sector * 512);
      return;
    }
    const at = record.sector * 512;
    if (record.kind === RecordKind.trim || record.kind === RecordKind.zero) {
      this.disk(record.volume).fill(0, at, at + record.sectors * 512);
    } else if (record.kind === RecordKind.write || record.kind === RecordKind.seed) {
      this.disk(record.volume).set(record.payload, at);
    }
  }
}

export interface SealOptions {
  fromLsn?: number;
  toLsn?: number;
  recordsPerFrame?: (random: SeededRandom) => number;
  incarnation?: Incarnation;
  epoch?: number;
  groupId?: string;
}

/** Seals records [fromLsn, toLsn] into frames with borders at random. */
export function seal(history: History, options: SealOptions = {}): SealedFrame[] {
  const { fromLsn = 1, toLsn = history.lastLsn, incarnation = START, epoch = 1, groupId = GROUP } = options;
  const perFrame = options.recordsPerFrame ?? ((random: SeededRandom) => 1 + random.below(30));
  const sealer = new FrameSealer(
    { groupId, epoch, incarnation },
    { chunkBytes: 4096, targetBytes: 1024 * 1024, compress: true },
  );
  const frames: SealedFrame[] = [];
  const random = new SeededRandom(fromLsn + toLsn);
  let chain: Chain = CHAIN_START;
  // The chain runs from LSN 1, so what comes before is sealed too, and thrown away.
  for (const [from, to, keep] of [
    [1, fromLsn - 1, false],
    [fromLsn, toLsn, true],
  ] as const) {
    if (from > to) continue;
    sealer.begin(from, chain);
    let left = perFrame(random);
    for (let lsn = from; lsn <= to; lsn += 1) {
      const record = history.records[lsn - 1];
      if (record !== undefined) sealer.add({ ...record, lsn });
      left -= 1;
      if (left > 0 && lsn < to) continue;
      const frame = sealer.seal(to);
      chain = frame.chainAfter;
      if (keep) frames.push(frame);
      left = perFrame(random);
    }
  }
  return frames;
}

/** The stream as a hand pushes frames into it. */
export class HandSource implements FrameSource {
  start: FrameSourceStart | undefined;
  events: FrameSourceEvents | undefined;
  readonly feedbacks: ReplicaFeedback[] = [];
  paused = false;

  open(start: FrameSourceStart, events: FrameSourceEvents): void {
    this.start = start;
    this.events = events;
  }

  push(frame: SealedFrame, streamOffset: string = String(frame.lastLsn)): void {
    this.events?.onFrame(frame.bytes, streamOffset);
  }

  get last(): ReplicaFeedback | undefined {
    return this.feedbacks.at(-1);
  }

  pause(): void {
    this.paused = true;
  }

  resume(): void {
    this.paused = false;
  }

  feedback(feedback: ReplicaFeedback): void {
    this.feedbacks.push(feedback);
  }

  status(): { state: 'streaming'; reason: string } {
    return { state: 'streaming', reason: '' };
  }

  async close(): Promise<void> {
    await Promise.resolve();
  }
}
