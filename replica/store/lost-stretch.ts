import { TidemarkError } from '../../journal/base/errors.ts';
import type { Lsn } from '../../journal/position.ts';
import { RecordKind } from '../../journal/record.ts';
import { decodeGap } from '../../journal/record-bodies.ts';
import { DAMAGE, type FrameReader } from './frame-reader.ts';
import type { Damage } from './replica-state.ts';
import type { SegmentStore } from './segment-store.ts';

/** Records that should be held and whose segment is gone, with none in its place. Durable in the group's state. */
export interface LostStretch extends Damage {
  readonly lost: true;
  /** The catalog was brought forward without its control records. */
  readonly uncatalogued: boolean;
}

/**
 * The records above `heldLsn` whose segments are gone, up to the newest segment, in order. What the source declared to be
 * a gap is not lost.
 */
export async function lostStretches(
  store: SegmentStore,
  frames: FrameReader,
  heldLsn: Lsn,
): Promise<{ readonly fromLsn: Lsn; readonly toLsn: Lsn }[]> {
  const lost: { fromLsn: Lsn; toLsn: Lsn }[] = [];
  let held = heldLsn;
  for (const { firstLsn, lastLsn } of store.segments) {
    if (lastLsn < firstLsn) continue;
    if (firstLsn > held + 1 && !(await beginsWithGap(store, frames, firstLsn))) {
      lost.push({ fromLsn: held + 1, toLsn: firstLsn - 1 });
    }
    held = Math.max(held, lastLsn);
  }
  return lost;
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
