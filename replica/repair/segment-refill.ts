import { TidemarkError } from '../../journal/base/errors.ts';
import { type Chain, sameChain } from '../../journal/chain.ts';
import { FrameSealer, type SealedFrame, type SealerOptions } from '../../journal/frame-sealer.ts';
import type { FrameView } from '../../journal/frame-view.ts';
import type { Host } from '../../journal/host/host.ts';
import type { JournalTime, Lsn } from '../../journal/position.ts';
import { writeFully } from '../store/file-io.ts';
import { FrameDirectory } from '../store/frame-directory.ts';
import type { RepairedFrames } from '../store/repaired-frames.ts';
import { type ActiveSegment, sealSegment } from '../store/sealed-segment.ts';
import {
  encodeSegmentHeader,
  SEGMENT_BYTES_MAX,
  SEGMENT_HEADER_BYTES,
  segmentName,
  temporarySegmentName,
} from '../store/segment-format.ts';
import type { SegmentInfo } from '../store/segment-info.ts';

/** Frames that are sealed anew are read like any other. */
export const SEALER: SealerOptions = { chunkBytes: 64 * 1024, targetBytes: 2 * 1024 * 1024, compress: true };

export interface RefillPlace {
  /** Of the segments. */
  readonly directory: string;
  readonly groupId: string;
  readonly segmentBytes: number;
  /** The segments that stand before and behind what is gone. */
  readonly before: SegmentInfo | undefined;
  readonly behind: SegmentInfo;
  readonly repaired: RepairedFrames;
  /** Bytes that may be written now. */
  readonly room: () => number;
}

interface MadeSegment extends ActiveSegment {
  info: SegmentInfo;
}

/** What the hash chain says stood there; `before` is unknown where nothing stands before. */
export interface RefillProof {
  readonly before: Chain | undefined;
  readonly after: Chain;
}

/**
 * Segments made anew of what the far side gives, in place of those that are gone: under names between those of their
 * neighbours, each whole and durable before any gets its name, and none before all of it is proven by the hash chain.
 */
export class SegmentRefill {
  readonly #host: Host;
  readonly #place: RefillPlace;
  /** Sealed, durable, and not named yet. */
  readonly #made: number[] = [];
  #sequence: number;
  #active: MadeSegment | undefined;
  #sealer: FrameSealer | undefined;
  #identity = '';
  #firstTime: JournalTime = 0;
  #lastTime: JournalTime = 0;

  constructor(host: Host, place: RefillPlace) {
    this.#host = host;
    this.#place = place;
    this.#sequence = place.before?.sequence ?? 0;
  }

  /** Throws `divergence` for other records, `trimmed` when not all came, `no-space`, and what `given` throws. */
  async fill(fromLsn: Lsn, toLsn: Lsn, given: AsyncIterable<FrameView>, proof: RefillProof): Promise<void> {
    try {
      let next = fromLsn;
      for await (const view of given) {
        if (next === fromLsn && proof.before !== undefined && !sameChain(view.chainAt(fromLsn - 1), proof.before)) {
          throw otherRecords(fromLsn, toLsn);
        }
        await this.#use(view, next, view.chainAt(next - 1));
        for (; next <= Math.min(view.lastLsn, toLsn); next += 1) await this.#take(view, next);
        if (next > toLsn) break;
      }
      if (next <= toLsn) throw notHeld(next, toLsn);
      await this.#cut();
      await this.#seal();
      if (this.#sealer === undefined || !sameChain(this.#sealer.chain, proof.after)) throw otherRecords(fromLsn, toLsn);
      await this.#name();
    } finally {
      await this.#clearAway();
    }
  }

  /** Frames tell who sealed them: what another start of the source wrote goes into a frame of its own. */
  async #use({ epoch, incarnation }: FrameView, next: Lsn, chain: Chain): Promise<void> {
    const identity = `${epoch}:${incarnation.counter}:${incarnation.nonce}`;
    if (this.#sealer !== undefined && this.#identity === identity) return;
    await this.#cut();
    const before = this.#sealer?.chain ?? chain;
    this.#identity = identity;
    this.#sealer = new FrameSealer({ groupId: this.#place.groupId, epoch, incarnation }, SEALER);
    this.#sealer.begin(next, before);
  }

  async #take(view: FrameView, lsn: Lsn): Promise<void> {
    const index = lsn - view.firstLsn;
    const record = view.record(index);
    if (!this.#sealer!.fits(record.payloadBytes)) await this.#cut();
    if (this.#sealer!.recordCount === 0) this.#firstTime = record.time;
    else if (record.time < this.#lastTime) throw otherRecords(lsn, lsn);
    this.#lastTime = record.time;
    this.#sealer!.add({ ...record, payload: view.payloadOf(index) });
  }

  async #cut(): Promise<void> {
    if (this.#sealer === undefined || this.#sealer.recordCount === 0) return;
    await this.#write(this.#sealer.seal(this.#sealer.nextLsn - 1));
  }

  async #write(frame: SealedFrame): Promise<void> {
    const { segmentBytes, behind } = this.#place;
    const full = this.#active !== undefined && this.#active.end >= segmentBytes;
    // The names between the neighbours may be fewer than there were segments: then the last one is longer.
    if (full && this.#sequence + 1 < behind.sequence) await this.#seal();
    this.#active ??= await this.#begin(frame.firstLsn);
    const active = this.#active;
    if (active.end + frame.bytes.length > SEGMENT_BYTES_MAX) {
      throw new TidemarkError('unsupported', `what is gone does not fit into a segment of ${SEGMENT_BYTES_MAX} bytes`);
    }
    if (frame.bytes.length > this.#place.room()) {
      throw new TidemarkError('no-space', `${this.#place.room()} bytes are left above the reserve`);
    }
    await writeFully(active.file, frame.bytes, active.end);
    const { firstLsn, lastLsn, lastTime, recordCount: records } = frame;
    const firstTime = this.#firstTime;
    const { bytes } = frame;
    active.directory.push({ firstLsn, lastLsn, offset: active.end, bytes: bytes.length, records, firstTime, lastTime });
    active.end += bytes.length;
    const begun = active.info.firstTime === 0 ? firstTime : active.info.firstTime;
    active.info = { ...active.info, lastLsn, lastTime, firstTime: begun };
  }

  async #begin(firstLsn: Lsn): Promise<MadeSegment> {
    const { directory, groupId, before, behind } = this.#place;
    const sequence = this.#sequence + 1;
    if (sequence >= behind.sequence) {
      throw new TidemarkError('unsupported', `no segment has room between ${this.#sequence} and ${behind.sequence}`);
    }
    this.#sequence = sequence;
    const path = `${directory}/${temporarySegmentName(sequence)}`;
    this.#host.disk.unlink(path);
    const file = this.#host.disk.open(path, 'create');
    // how far back it was open nothing tells: as far as before
    const openFromLsn = before?.openFromLsn ?? firstLsn;
    const none = { lastLsn: firstLsn - 1, bytes: 0, firstTime: 0, lastTime: 0, sealed: false };
    this.#active = {
      file,
      directory: new FrameDirectory(),
      end: SEGMENT_HEADER_BYTES,
      info: { sequence, firstLsn, openFromLsn, ...none },
    };
    await writeFully(file, encodeSegmentHeader({ groupId, sequence, firstLsn }), 0);
    return this.#active;
  }

  async #seal(): Promise<void> {
    const active = this.#active;
    if (active === undefined) return;
    await sealSegment(active, active.info, active.info.openFromLsn);
    await active.file.dataSync();
    await active.file.close();
    this.#active = undefined;
    this.#made.push(active.info.sequence);
  }

  async #name(): Promise<void> {
    const { directory, repaired } = this.#place;
    // What stood in for frames of the segments that are gone would hide those that now stand in their place.
    await repaired.forget(new Set(this.#made));
    for (const sequence of this.#made) {
      this.#host.disk.rename(`${directory}/${temporarySegmentName(sequence)}`, `${directory}/${segmentName(sequence)}`);
    }
    this.#made.length = 0;
    await this.#host.disk.syncDirectory(directory);
  }

  async #clearAway(): Promise<void> {
    const { directory } = this.#place;
    if (this.#active !== undefined) {
      await this.#active.file.close();
      this.#host.disk.unlink(this.#active.file.path);
      this.#active = undefined;
    }
    for (const sequence of this.#made) this.#host.disk.unlink(`${directory}/${temporarySegmentName(sequence)}`);
  }
}

/** The far side ended before it gave everything. */
export function notHeld(fromLsn: Lsn, toLsn: Lsn): TidemarkError {
  return new TidemarkError('trimmed', `LSN ${fromLsn} to ${toLsn} are not held any more by whom we can ask`);
}

function otherRecords(fromLsn: Lsn, toLsn: Lsn): TidemarkError {
  return new TidemarkError('divergence', `other records came for LSN ${fromLsn}-${toLsn}`);
}
