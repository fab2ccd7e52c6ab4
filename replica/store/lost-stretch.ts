import { TidemarkError } from '../../journal/base/errors.ts';
import type { Lsn } from '../../journal/position.ts';
import { RecordKind } from '../../journal/record.ts';
import { decodeGap } from '../../journal/record-bodies.ts';
import { DAMAGE, type FrameReader } from './frame-reader.ts';
import type { SegmentStore } from './segment-store.ts';

/**
 * The first records that should be held and whose segment is gone, with none in its place; undefined: none are.
 * What the source declared to be a gap is not lost.
 */
export async function firstLost(
  store: SegmentStore,
  frames: FrameReader,
  floorLsn: Lsn,
): Promise<{ readonly fromLsn: Lsn; readonly toLsn: Lsn } | undefined> {
  let heldLsn = floorLsn;
  for (const { firstLsn, lastLsn } of store.segments) {
    if (lastLsn < firstLsn) continue;
    if (firstLsn > heldLsn + 1 && !(await beginsWithGap(store, frames, firstLsn))) {
      return { fromLsn: heldLsn + 1, toLsn: firstLsn - 1 };
    }
    heldLsn = Math.max(heldLsn, lastLsn);
  }
  return undefined;
}

async function beginsWithGap(store: SegmentStore, frames: FrameReader, firstLsn: Lsn): Promise<boolean> {
  try {
    const frame = await store.find(firstLsn);
    const { segment, offset } = frame;
    const layout = await frames.layout(frame);
    const record = layout.record(firstLsn - layout.firstLsn);
    if (record.kind !== RecordKind.gap) return false;
    const body = new Uint8Array(record.payloadBytes);
    await frames.read(segment, offset, record.payloadOffset, body);
    return decodeGap(body).toLsn === firstLsn - 1;
  } catch (error) {
    if (!(error instanceof TidemarkError) || !DAMAGE.includes(error.code)) throw error;
    return false;
  }
}
