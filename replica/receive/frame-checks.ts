import { hasCode, TidemarkError } from '../../journal/base/errors.ts';
import { sameChain } from '../../journal/chain.ts';
import type { FrameLayout } from '../../journal/frame-layout.ts';
import type { FrameView } from '../../journal/frame-view.ts';
import type { Lsn } from '../../journal/position.ts';
import { RecordKind } from '../../journal/record.ts';
import { decodeIncarnation } from '../../journal/record-bodies.ts';
import type { FrameReader } from '../store/frame-reader.ts';
import type { DurablePosition } from '../store/position-mark.ts';
import type { Halt, OrphanBranch } from '../store/replica-state.ts';
import type { SegmentStore } from '../store/segment-store.ts';

/** Throws `stale-incarnation` or `stale-epoch` for a frame of a source that has been replaced. */
export function refuseStale(frame: FrameView, held: DurablePosition): void {
  const seen = held.incarnation;
  if (frame.incarnation.counter < seen.counter) {
    throw new TidemarkError(
      'stale-incarnation',
      `a frame of source start ${frame.incarnation.counter} after one of ${seen.counter}: a source that was replaced still sends`,
    );
  }
  if (frame.epoch < held.epoch) {
    throw new TidemarkError('stale-epoch', `a frame of epoch ${frame.epoch} after one of ${held.epoch}`);
  }
}

/** Two journals that count their starts alike are told apart by the nonce: neither may be taken for the other. */
export function judgeTwin(frame: FrameView, held: DurablePosition): Halt | undefined {
  const { counter, nonce } = held.incarnation;
  if (held.durableLsn === 0 || frame.incarnation.counter !== counter || frame.incarnation.nonce === nonce)
    return undefined;
  const reason = `two sources call themselves start ${counter}: ${nonce} and ${frame.incarnation.nonce}`;
  return { state: 'diverged', reason };
}

/** True when the records of a frame that lies below the head are those that are held (rule 17), or are held no more. */
export async function repeatsHeld(frame: FrameView, store: SegmentStore, frames: FrameReader): Promise<boolean> {
  if (frame.lastLsn < store.oldestLsn) return true;
  const ref = await store.find(frame.lastLsn);
  let layout: FrameLayout;
  try {
    layout = await frames.layout(ref);
  } catch (error) {
    // what is damaged here says nothing against what comes; it is put back by proof of its own
    if (hasCode(error, 'frame-damaged') || hasCode(error, 'journal-damaged')) return true;
    throw error;
  }
  return sameChain(layout.chainAt(frame.lastLsn), frame.chainAfter);
}

/**
 * What it means that a frame tells other records than those held. From the same start of the source: divergence. From
 * a later start: that source lost its tail (rule 4), and what is held beyond the fork is an orphan branch. Throws as
 * `refuseStale` for an earlier one.
 */
export function judgeFork(frame: FrameView, held: DurablePosition): { halt: Halt; orphan?: OrphanBranch } {
  refuseStale(frame, held);
  const seen = held.incarnation;
  const { durableLsn } = held;
  if (frame.incarnation.counter === seen.counter) {
    const lsns = `LSN ${frame.firstLsn}-${Math.min(frame.lastLsn, durableLsn)}`;
    const reason = `${lsns} came again with other records, from source start ${seen.counter}`;
    return { halt: { state: 'diverged', reason } };
  }
  const sourceLsn = cutOf(frame) ?? frame.firstLsn - 1;
  const theirs = `${frame.epoch}:${sourceLsn} (start ${frame.incarnation.counter})`;
  const reason = `the source goes on from ${theirs}, the replica holds ${held.epoch}:${durableLsn} (start ${seen.counter})`;
  return {
    halt: { state: 'needs-resync', reason },
    orphan: { sourceLsn, toLsn: durableLsn, incarnation: seen.counter, reason },
  };
}

/** Where the source says it cut its journal; nothing when the frame does not hold that record. */
function cutOf(frame: FrameView): Lsn | undefined {
  for (let i = 0; i < frame.recordCount; i += 1) {
    if (frame.record(i).kind === RecordKind.incarnation) return decodeIncarnation(frame.payloadOf(i)).cutAfterLsn;
  }
  return undefined;
}
