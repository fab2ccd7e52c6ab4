import { assert } from '../../journal/base/assert.ts';
import { TidemarkError } from '../../journal/base/errors.ts';
import type { Host } from '../../journal/host/host.ts';
import { type Lsn, SECTOR_BYTES } from '../../journal/position.ts';
import type { CatalogBuilder, CatalogVolume } from '../catalog/catalog.ts';
import type { VersionIndex } from '../index/version-index.ts';
import type { DamageBook } from '../repair/damage-book.ts';
import { replicaChannel } from '../replica-channels.ts';
import type { FrameReader } from '../store/frame-reader.ts';
import type { RepairedFrames } from '../store/repaired-frames.ts';
import type { StateKeeper } from '../store/replica-state.ts';
import type { SegmentStore } from '../store/segment-store.ts';
import type { BaseImage } from './base-image.ts';
import type { Leases } from './leases.ts';

export interface FloorParts {
  readonly store: SegmentStore;
  readonly frames: FrameReader;
  readonly index: VersionIndex;
  readonly catalog: CatalogBuilder;
  readonly keeper: StateKeeper;
  readonly leases: Leases;
  readonly book: DamageBook;
  readonly repaired: RepairedFrames;
  readonly base: (volume: number) => Promise<BaseImage>;
  /** Throws `frame-damaged` where the index lacks records at or below this LSN. */
  readonly refuseUncertain: (lsn: Lsn) => void;
}

const COPY_BYTES = 1024 * 1024;
/** Pieces sorted together, about 25 MB of memory. */
const PIECES_MAX = 262_144;

/** Where a piece of the new base lies now, and where it goes. */
interface Piece {
  readonly segment: number;
  readonly frame: number;
  readonly payload: number;
  readonly offset: number;
  readonly length: number;
}

const floorChannel = replicaChannel('tidemark:replica:floor');

/**
 * Moves the floor: the newest version at or below the new floor of every range goes into the base.
 * The order of steps makes a crash anywhere harmless: the intent is durable first, and from then on nobody opens a view
 * below it; views above find every range the merge touches in the index, so a half-merged base is never looked at; the
 * base is synced before the floor is stated; segments and index entries go last. Doing it again from the intent writes
 * the same bytes.
 */
export class FloorMover {
  readonly #host: Host;
  readonly #parts: FloorParts;
  /** Where a move under way goes, 0: none. No view may be opened below it, whatever the disk says yet. */
  movingTo: Lsn = 0;

  constructor(host: Host, parts: FloorParts) {
    this.#host = host;
    this.#parts = parts;
  }

  /** Completes a move that a crash or a full disk interrupted. */
  async resume(): Promise<void> {
    const { floorLsn, floorIntentLsn } = this.#parts.keeper.state;
    if (floorIntentLsn > floorLsn) await this.#merge(floorIntentLsn);
    else await this.#clean();
  }

  /**
   * `lsn`: the last LSN of a sealed segment. Throws `precondition-failed` when a view, a restore or a pin needs what
   * would go.
   */
  async move(lsn: Lsn): Promise<void> {
    const { keeper, leases, store } = this.#parts;
    if (lsn <= keeper.state.floorLsn) return;
    const holder = leases.list().find((lease) => lease.lsn < lsn);
    if (holder !== undefined) {
      throw new TidemarkError('precondition-failed', `${holder.kind} ${holder.owner} holds LSN ${holder.lsn}`);
    }
    assert(this.movingTo === 0, 'one floor move at a time');
    assert(
      store.segments.some((segment) => segment.sealed && segment.lastLsn === lsn),
      'the floor stands at the end of a sealed segment',
    );
    this.movingTo = lsn;
    try {
      await keeper.update(() => ({ floorIntentLsn: lsn }));
      await this.#merge(lsn);
    } finally {
      this.movingTo = 0;
    }
  }

  async #merge(lsn: Lsn): Promise<void> {
    const { keeper, catalog, store, base, refuseUncertain } = this.#parts;
    const began = this.#host.clock.monotonicMs();
    let mergedBytes = 0;
    for (const volume of catalog.snapshot().volumes) {
      if (volume.addedLsn > lsn) continue;
      mergedBytes += await this.#mergeVolume(volume, lsn);
      await (await base(volume.id)).sync();
    }
    // A run that was built again meanwhile may lack records: then all of it is done again, when they were put back.
    refuseUncertain(lsn);
    const last = store.segments.find((segment) => segment.lastLsn === lsn);
    catalog.trim(lsn);
    await keeper.update((state) => ({
      floorLsn: lsn,
      floorIntentLsn: lsn,
      oldestNeededLsn: Math.max(state.oldestNeededLsn, Math.min(last?.openFromLsn ?? 0, lsn + 1)),
      catalog: catalog.snapshot(),
    }));
    await this.#clean();
    const durationMs = this.#host.clock.monotonicMs() - began;
    floorChannel.publish({ group: keeper.state.groupId, floorLsn: lsn, mergedBytes, durationMs });
  }

  async #mergeVolume(volume: CatalogVolume, lsn: Lsn): Promise<number> {
    const { index } = this.#parts;
    const base = await this.#parts.base(volume.id);
    const size = Math.max(...volume.sizes.map((change) => change.size));
    const pieces: Piece[] = [];
    let bytes = 0;
    for await (const part of index.survey(volume.id, 0, size / SECTOR_BYTES, lsn)) {
      const offset = part.sector * SECTOR_BYTES;
      const length = part.sectors * SECTOR_BYTES;
      if (part.kind === 'zero') await base.zero(offset, length);
      if (part.kind !== 'data') continue;
      for (let at = 0; at < length; at += COPY_BYTES) {
        const { segment, frame } = part;
        const piece = { segment, frame, payload: part.payload + at, offset: offset + at };
        pieces.push({ ...piece, length: Math.min(COPY_BYTES, length - at) });
        if (pieces.length >= PIECES_MAX) await this.#copy(pieces.splice(0), base);
      }
      bytes += length;
    }
    await this.#copy(pieces, base);
    return bytes;
  }

  /**
   * In the order of the log, so that each chunk of a frame is read, checked and unpacked once: by place every scattered
   * write took a chunk of its own. The pieces do not overlap, and the page cache sorts what goes into the image.
   */
  async #copy(pieces: Piece[], base: BaseImage): Promise<void> {
    pieces.sort((one, other) => one.segment - other.segment || one.frame - other.frame || one.payload - other.payload);
    const buffer = new Uint8Array(COPY_BYTES);
    for (const { segment, frame, payload, offset, length } of pieces) {
      const bytes = buffer.subarray(0, length);
      await this.#parts.frames.read(segment, frame, payload, bytes);
      await base.write(offset, bytes);
    }
  }

  async #clean(): Promise<void> {
    const { floorLsn, oldestNeededLsn } = this.#parts.keeper.state;
    const { index, store, book, repaired } = this.#parts;
    await index.moveFloor(floorLsn);
    await store.removeBelow(oldestNeededLsn);
    // after a kill, too: nobody can put back what is damaged in a segment that is gone
    const kept = new Set(store.segments.map(({ sequence }) => sequence));
    await book.forget(kept, oldestNeededLsn);
    await repaired.keepOnly(kept);
  }
}
