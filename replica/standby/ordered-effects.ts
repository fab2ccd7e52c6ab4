import { TidemarkError } from '../../journal/base/errors.ts';
import { type Effect, PieceAssembler } from '../../journal/piece-assembler.ts';
import { type Lsn, SECTOR_BYTES } from '../../journal/position.ts';
import { changesVolume, holdsContent, RecordKind } from '../../journal/record.ts';
import type { FrameReader } from '../store/frame-reader.ts';
import { storedGapBefore } from '../store/lost-stretch.ts';
import type { FrameRef } from '../store/segment-info.ts';
import type { SegmentStore } from '../store/segment-store.ts';

/** Where a piece's bytes stand. */
interface Place {
  readonly segment: number;
  readonly offset: number;
  readonly payload: number;
}

/** One change to one volume, with its bytes; undefined: zeroes. */
export interface OrderedEffect {
  readonly lsn: Lsn;
  readonly volume: number;
  readonly sector: number;
  readonly sectors: number;
  readonly bytes: Uint8Array | undefined;
}

/**
 * The changes of a group's history, one behind the other as the guests' writes took effect (DESIGN rule 5), over all
 * volumes. Goes on where it stopped; a frame that cannot be read, or is not there, stops it, and is never stepped over.
 */
export class OrderedEffects {
  readonly #store: SegmentStore;
  readonly #frames: FrameReader;
  readonly #pieces = new PieceAssembler<Place>();
  #nextLsn: Lsn;
  #readFromLsn: Lsn;
  readonly #afterLsn: Lsn;

  /** Records from `readFromLsn` on are looked at; what takes effect at or below `afterLsn` is left out. */
  constructor(store: SegmentStore, frames: FrameReader, readFromLsn: Lsn, afterLsn: Lsn) {
    this.#store = store;
    this.#frames = frames;
    this.#nextLsn = readFromLsn;
    this.#readFromLsn = readFromLsn;
    this.#afterLsn = afterLsn;
  }

  /** Everything at or below was given out. */
  get lsn(): Lsn {
    return Math.max(this.#nextLsn - 1, this.#afterLsn);
  }

  /** Where somebody who begins anew behind `lsn` has to read from. */
  get readFromLsn(): Lsn {
    return this.#readFromLsn;
  }

  /** Up to `toLsn`, which is durable, a frame at a time. Throws what reading throws; then this object is finished. */
  async *upTo(toLsn: Lsn): AsyncGenerator<OrderedEffect[]> {
    for await (const frame of this.#store.frames(this.#nextLsn, toLsn)) {
      const layout = await this.#frames.layout(frame);
      if (layout.firstLsn > this.#nextLsn) await this.#mayPass(frame, layout.firstLsn);
      const effects: OrderedEffect[] = [];
      const { segment, offset } = frame;
      for (let i = Math.max(0, this.#nextLsn - layout.firstLsn); i < layout.recordCount; i += 1) {
        const record = layout.record(i);
        if (record.lsn > toLsn) break;
        if (!changesVolume(record.kind) && record.kind !== RecordKind.incarnation) continue;
        for (const effect of this.#pieces.feed(record, { segment, offset, payload: record.payloadOffset })) {
          if (effect.lsn > this.#afterLsn) effects.push(await this.#withBytes(effect));
        }
      }
      this.#nextLsn = Math.min(toLsn, layout.lastLsn) + 1;
      this.#readFromLsn = Math.min(this.#pieces.oldestOpen() ?? this.#nextLsn, this.#nextLsn);
      yield effects;
    }
    if (this.#nextLsn <= toLsn) throw gone(this.#nextLsn, toLsn);
  }

  /** Throws when something is missing before this frame that the source did not give up. */
  async #mayPass(frame: FrameRef, firstLsn: Lsn): Promise<void> {
    const gap = await storedGapBefore(this.#frames, frame, firstLsn);
    if (gap === undefined || gap.fromLsn > this.#nextLsn) throw gone(this.#nextLsn, firstLsn - 1);
  }

  async #withBytes({ kind, lsn, volume, sector, sectors, source }: Effect<Place>): Promise<OrderedEffect> {
    if (!holdsContent(kind)) return { lsn, volume, sector, sectors, bytes: undefined };
    const bytes = new Uint8Array(sectors * SECTOR_BYTES);
    await this.#frames.read(source.segment, source.offset, source.payload, bytes);
    return { lsn, volume, sector, sectors, bytes };
  }
}

function gone(fromLsn: Lsn, toLsn: Lsn): TidemarkError {
  return new TidemarkError('journal-damaged', `LSN ${fromLsn} to ${toLsn} are gone from history`);
}
