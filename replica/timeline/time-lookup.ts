import { hasCode, TidemarkError } from '../../journal/base/errors.ts';
import type { JournalTime, Lsn } from '../../journal/position.ts';
import { DAMAGE, type FrameReader } from '../store/frame-reader.ts';
import type { SegmentStore } from '../store/segment-store.ts';

/** A record's position in both measures. */
export interface TimedLsn {
  readonly lsn: Lsn;
  readonly time: JournalTime;
}

/** The newest record at or before `time`, between floor and head; nothing when all of them are newer. */
export async function lastRecordAt(
  store: SegmentStore,
  frames: FrameReader,
  time: JournalTime,
  floorLsn: Lsn,
  headLsn: Lsn,
): Promise<TimedLsn | undefined> {
  const frame = await store.findTime(time + 1);
  let lsn = frame === undefined ? headLsn : heldBefore(store, frame.firstLsn);
  // its list may be damaged: that all of it is newer the directory tells
  if (frame !== undefined && frame.firstTime <= time) {
    const layout = await frames.layout(frame);
    for (let i = frame.firstLsn - layout.firstLsn; i < layout.recordCount; i += 1) {
      const record = layout.record(i);
      if (record.time > time) break;
      lsn = record.lsn;
    }
  }
  return lsn < Math.max(floorLsn, 1) ? undefined : timeOf(store, frames, Math.min(lsn, headLsn));
}

/** The record itself and those right before and behind it, as far as they are held and can be read. */
export async function recordsAround(
  store: SegmentStore,
  frames: FrameReader,
  lsn: Lsn,
  floorLsn: Lsn,
  headLsn: Lsn,
): Promise<{ at: TimedLsn | undefined; before: TimedLsn | undefined; after: TimedLsn | undefined }> {
  return {
    at: await timeOf(store, frames, lsn),
    before: lsn > Math.max(floorLsn, 1) ? await orNothing(timeOf(store, frames, lsn - 1)) : undefined,
    after: lsn < headLsn ? await orNothing(timeOf(store, frames, lsn + 1)) : undefined,
  };
}

/** A neighbour in a gap, or in a damaged frame, makes a point no worse. */
async function orNothing(time: Promise<TimedLsn | undefined>): Promise<TimedLsn | undefined> {
  try {
    return await time;
  } catch (error) {
    if (!hasCode(error, 'trimmed') && !(error instanceof TidemarkError && DAMAGE.includes(error.code))) throw error;
    return undefined;
  }
}

/** The newest LSN before this one that is held: before a gap that the source declared it is not the next lower one. */
function heldBefore({ segments }: SegmentStore, lsn: Lsn): Lsn {
  return Math.min(segments.findLast(({ firstLsn }) => firstLsn < lsn)?.lastLsn ?? lsn - 1, lsn - 1);
}

/** Nothing when the record itself has gone into the base (the floor's own LSN), or before the first record. */
async function timeOf(store: SegmentStore, frames: FrameReader, lsn: Lsn): Promise<TimedLsn | undefined> {
  if (lsn < Math.max(store.oldestLsn, 1) || lsn > store.lastLsn) return undefined;
  const ref = await store.find(lsn);
  const layout = await frames.layout(ref);
  return { lsn, time: layout.record(lsn - layout.firstLsn).time };
}
