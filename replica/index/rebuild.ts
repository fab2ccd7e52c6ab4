import { TidemarkError } from '../../journal/base/errors.ts';
import type { FrameLayout } from '../../journal/frame-layout.ts';
import type { Lsn } from '../../journal/position.ts';
import { RecordFeed } from '../receive/record-feed.ts';
import { DAMAGE, type FrameReader } from '../store/frame-reader.ts';
import type { FrameRef } from '../store/segment-info.ts';
import type { SegmentStore } from '../store/segment-store.ts';
import type { RebuildIndex } from './index-gap.ts';
import { Memtable } from './memtable.ts';

/** Told of a frame that is damaged; what is built without its records is written when this has resolved. */
export type OnMissing = (frame: FrameRef, error: TidemarkError) => Promise<void>;

/** Fills a gap of the index from the record lists of the segments; memory stays at one memtable. */
export function rebuildFromSegments(
  store: SegmentStore,
  frames: FrameReader,
  memtableEntries: number,
  onMissing: OnMissing,
): RebuildIndex {
  return async (gap, emit) => {
    const from = Math.max(Math.min(gap.fromLsn, gap.baseLsn + 1), store.oldestLsn);
    const feed = new RecordFeed(from - 1);
    let memtable = new Memtable(gap.baseLsn, memtableEntries);
    for await (const frame of store.frames(from, gap.lastLsn)) {
      const layout = await layoutOrMissing(frames, frame, onMissing);
      const target = memtable;
      const sink = {
        add: (...version: Parameters<Memtable['add']>): void => {
          if (version[3] <= gap.lastLsn) target.add(...version);
        },
      };
      if (layout !== undefined) feed.feed(layout, frame.firstLsn, frame, sink, gap.baseLsn);
      const lastLsn: Lsn = Math.min(frame.lastLsn, gap.lastLsn);
      if (lastLsn <= gap.baseLsn) continue;
      memtable.lastLsn = lastLsn;
      if (memtable.count < memtableEntries || lastLsn === gap.lastLsn) continue;
      await emit(memtable, feed.openFromLsn);
      memtable = new Memtable(lastLsn, memtableEntries);
    }
    memtable.lastLsn = gap.lastLsn;
    await emit(memtable, Math.min(feed.openFromLsn, gap.lastLsn + 1));
  };
}

/** The record list of a frame; nothing, and told, when the frame is damaged: what is built then lacks its records. */
export async function layoutOrMissing(
  frames: FrameReader,
  frame: FrameRef,
  onMissing: OnMissing,
): Promise<FrameLayout | undefined> {
  try {
    return await frames.layout(frame);
  } catch (error) {
    const damaged = error instanceof TidemarkError && DAMAGE.includes(error.code);
    if (!damaged) throw error;
    await onMissing(frame, error);
    return undefined;
  }
}
