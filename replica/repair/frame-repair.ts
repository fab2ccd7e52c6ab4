import { TidemarkError } from '../../journal/base/errors.ts';
import { type Chain, parseChain, sameChain } from '../../journal/chain.ts';
import { FrameSealer } from '../../journal/frame-sealer.ts';
import { FrameView } from '../../journal/frame-view.ts';
import type { Host, Timer } from '../../journal/host/host.ts';
import type { Lsn } from '../../journal/position.ts';
import type { FrameSource } from '../../journal/stream.ts';
import { replicaChannel } from '../replica-channels.ts';
import type { FrameReader } from '../store/frame-reader.ts';
import type { LostStretch } from '../store/lost-stretch.ts';
import type { DurablePosition } from '../store/position-mark.ts';
import type { RepairedFrames } from '../store/repaired-frames.ts';
import type { FrameRef } from '../store/segment-info.ts';
import type { SegmentStore } from '../store/segment-store.ts';
import type { DamageBook, DamagedFrame } from './damage-book.ts';
import { givenFrames } from './given-frames.ts';
import { notHeld, SEALER, SegmentRefill } from './segment-refill.ts';

export interface RepairParts {
  readonly groupId: string;
  /** Of the segments. */
  readonly directory: string;
  readonly segmentBytes: number;
  readonly repaired: RepairedFrames;
  /** Bytes that may be written now, above the reserve. */
  readonly room: () => number;
  readonly store: SegmentStore;
  readonly frames: FrameReader;
  readonly book: DamageBook;
  readonly durable: () => DurablePosition;
  /** The index has to be built again: the group must be opened anew. */
  readonly onReopen: () => void;
  /** What is asked for has changed. */
  readonly onAsked: () => void;
}

/** The first question comes so soon after damage was found. */
const ASK_MS = 200;
/** Who could not help then is asked again after so long. */
const ASK_AGAIN_MS = 10_000;

const unrepairedChannel = replicaChannel('tidemark:replica:unrepaired');

/**
 * Asks the stream for the records of damaged frames and of segments that are gone, proves them against the hash chain of
 * what stands before and behind, and puts a frame with the same records in place of the damaged one, segments with the
 * same records in place of those that are gone. Tried again until nothing is missing.
 */
export class FrameRepair {
  readonly #host: Host;
  readonly #parts: RepairParts;
  #source: FrameSource | undefined;
  #timer: Timer | undefined;
  #working: Promise<void> | undefined;
  #closed = false;
  /** Why the last question was not answered, by the first LSN asked for. */
  readonly #refusals: Map<Lsn, TidemarkError> = new Map();

  constructor(host: Host, parts: RepairParts) {
    this.#host = host;
    this.#parts = parts;
    parts.book.onFound = () => {
      parts.onAsked();
      this.#soon(ASK_MS);
    };
  }

  start(source: FrameSource): void {
    this.#source = source;
    if (this.#wanted.length > 0) this.#soon(ASK_MS);
  }

  /** What is damaged or gone, and not put back yet, in order. */
  get #wanted(): readonly (DamagedFrame | LostStretch)[] {
    const { open, gone } = this.#parts.book;
    return [...open, ...gone].toSorted((one, other) => one.fromLsn - other.fromLsn);
  }

  /** The lowest LSN that is asked for and may still come; 0: none. */
  get askingFrom(): Lsn {
    const asked = this.#wanted.filter(({ fromLsn }) => !isFinal(this.#refusals.get(fromLsn)));
    return asked.length === 0 ? 0 : Math.min(...asked.map(({ fromLsn }) => fromLsn));
  }

  /** Why a damaged frame was not put back, for a person; empty: nobody was asked yet. */
  refusalOf(fromLsn: Lsn): string {
    return this.#refusals.get(fromLsn)?.message ?? '';
  }

  /** To be called before the source is closed; `settled` afterwards. */
  close(): void {
    this.#closed = true;
    this.#timer?.cancel();
  }

  async settled(): Promise<void> {
    await this.#working;
  }

  #soon(ms: number): void {
    if (this.#closed || this.#working !== undefined || this.#source?.fetch === undefined) return;
    this.#timer?.cancel();
    this.#timer = this.#host.clock.after(ms, () => {
      if (this.#closed) return;
      this.#working = this.#repairAll().finally(() => {
        this.#working = undefined;
        if (this.#wanted.length > 0) this.#soon(ASK_AGAIN_MS);
      });
    });
  }

  async #repairAll(): Promise<void> {
    let reopen = false;
    for (const damaged of this.#wanted) {
      if (this.#closed) return;
      const { fromLsn, toLsn } = damaged;
      try {
        reopen = (await ('lost' in damaged ? this.#refill(damaged) : this.#repair(damaged))) || reopen;
        this.#refusals.delete(fromLsn);
      } catch (error) {
        if (!(error instanceof TidemarkError)) throw error;
        const known = this.#refusals.get(fromLsn)?.message === error.message;
        this.#refusals.set(fromLsn, error);
        if (!known) unrepairedChannel.publish({ group: this.#parts.groupId, fromLsn, toLsn, reason: error.message });
      }
      this.#parts.onAsked();
    }
    if (reopen) this.#parts.onReopen();
  }

  async #repair(damaged: DamagedFrame): Promise<boolean> {
    const { store, frames, book } = this.#parts;
    const ref = await store.find(damaged.toLsn);
    if (ref.segment !== damaged.segment || ref.offset !== damaged.offset) return book.repaired(damaged);
    if (!(await this.#isWhole(ref))) {
      // as many records as the index was built with, though the directory that says so may have rotted since
      const records = damaged.toLsn === ref.lastLsn ? Math.max(damaged.records, ref.records) : ref.records;
      const frame = await this.#fetch(ref.lastLsn - records + 1, ref.lastLsn);
      await this.#prove(frame, ref);
      // Others than the index was built with may come to stand here: whoever looked into it for them got other bytes.
      const isOther = ref.guessed === true || this.#parts.repaired.size(ref.segment, ref.offset) !== undefined;
      if (isOther) await book.note(ref, true, 'other frames may have stood here');
      await frames.replace(ref.segment, ref.offset, frame.bytes);
    }
    return book.repaired(damaged);
  }

  /** True: the group has to be opened anew, with the segments that stand in place of those that are gone. */
  async #refill(stretch: LostStretch): Promise<boolean> {
    const { store, book, groupId, directory, segmentBytes, repaired, room } = this.#parts;
    const { fromLsn, toLsn } = stretch;
    const before = store.segments.findLast(({ lastLsn }) => lastLsn < fromLsn);
    const behind = store.segments.find(({ firstLsn }) => firstLsn > toLsn);
    const after = await this.#chainAt(toLsn, toLsn + 1);
    if (behind === undefined || after === undefined) throw unproven(fromLsn, toLsn);
    const proof = { before: await this.#chainAt(fromLsn - 1, fromLsn - 1), after };
    const refill = new SegmentRefill(this.#host, { directory, groupId, segmentBytes, repaired, room, before, behind });
    await refill.fill(fromLsn, toLsn, givenFrames(this.#host.clock, this.#source!, groupId, fromLsn), proof);
    book.refilled(stretch);
    return true;
  }

  /** The chain value after a record, as the frame that holds `heldLsn` tells it; nothing when that cannot be read. */
  #chainAt(lsn: Lsn, heldLsn: Lsn): Promise<Chain | undefined> {
    const { store, frames } = this.#parts;
    return orUndefined(async () => (await frames.layout(await store.find(heldLsn))).chainAt(lsn));
  }

  /** The medium may have erred for a moment. */
  async #isWhole(ref: FrameRef): Promise<boolean> {
    try {
      await this.#parts.frames.whole(ref);
      return true;
    } catch (error) {
      if (!(error instanceof TidemarkError)) throw error;
      return false;
    }
  }

  /** One frame with exactly these records, as the stream has it or sealed anew of what it has. */
  async #fetch(firstLsn: Lsn, lastLsn: Lsn): Promise<FrameView> {
    const { groupId } = this.#parts;
    let sealer: FrameSealer | undefined;
    let next = firstLsn;
    for await (const view of givenFrames(this.#host.clock, this.#source!, groupId, firstLsn)) {
      if (view.firstLsn === firstLsn && view.lastLsn === lastLsn) return view;
      if (sealer === undefined) {
        const { epoch, incarnation } = view;
        sealer = new FrameSealer({ groupId, epoch, incarnation }, SEALER);
        sealer.begin(firstLsn, view.chainAt(firstLsn - 1));
      }
      for (; next <= Math.min(view.lastLsn, lastLsn); next += 1) {
        const index = next - view.firstLsn;
        const record = view.record(index);
        if (sealer.recordCount > 0 && !sealer.fits(record.payloadBytes)) {
          throw new TidemarkError('unsupported', `LSN ${firstLsn}-${lastLsn} do not fit into one frame`);
        }
        sealer.add({ ...record, payload: view.payloadOf(index) });
      }
      if (next > lastLsn) return FrameView.open(new Uint8Array(sealer.seal(view.sourceDurableLsn).bytes));
    }
    throw notHeld(next, lastLsn);
  }

  /** The chain before and behind says whether these are the records that stood there. Throws `divergence`. */
  async #prove(frame: FrameView, ref: FrameRef): Promise<void> {
    const before = await this.#chainAfter(ref.firstLsn - 1, ref);
    const after = await this.#chainBehind(ref);
    const wrong = [
      before !== undefined && !sameChain(frame.chainAt(ref.firstLsn - 1), before),
      after !== undefined && !sameChain(frame.chainAfter, after),
    ].some(Boolean);
    if (wrong) throw new TidemarkError('divergence', `other records came for LSN ${ref.firstLsn}-${ref.lastLsn}`);
    if (after === undefined) {
      throw unproven(ref.firstLsn, ref.lastLsn);
    }
  }

  /** The chain value after a record of the frame before; nothing behind a gap, or where its segment is gone. */
  async #chainAfter(lsn: Lsn, ref: FrameRef): Promise<Chain | undefined> {
    const { store, frames } = this.#parts;
    if (lsn < store.oldestLsn) return undefined;
    return orUndefined(async () => {
      const before = await store.find(lsn);
      const isItself = before.segment === ref.segment && before.offset === ref.offset;
      return isItself ? undefined : (await frames.layout(before)).chainAt(lsn);
    });
  }

  /** The chain value after the frame: by what follows it, by the position when nothing does, or by its own header. */
  async #chainBehind(ref: FrameRef): Promise<Chain | undefined> {
    const { store, frames, durable } = this.#parts;
    const { durableLsn, chain } = durable();
    if (ref.lastLsn === durableLsn) return parseChain(chain);
    const own = await orUndefined(async () => (await frames.layout(ref)).header.chainAfter);
    if (own !== undefined || ref.lastLsn >= store.lastLsn) return own;
    const next = await store.find(ref.lastLsn + 1);
    return orUndefined(async () => (await frames.layout(next)).chainAt(ref.lastLsn));
  }
}

/** Whoever says so will not have it later either. */
function isFinal(error: TidemarkError | undefined): boolean {
  return (
    error !== undefined && ['trimmed', 'not-found', 'divergence', 'journal-damaged', 'unsupported'].includes(error.code)
  );
}

function unproven(fromLsn: Lsn, toLsn: Lsn): TidemarkError {
  return new TidemarkError('divergence', `nothing proves what came for LSN ${fromLsn}-${toLsn}`);
}

async function orUndefined<T>(read: () => Promise<T>): Promise<T | undefined> {
  try {
    return await read();
  } catch (error) {
    if (!(error instanceof TidemarkError)) throw error;
    return undefined;
  }
}
