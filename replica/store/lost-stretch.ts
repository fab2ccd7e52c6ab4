import { TidemarkError } from '../../journal/base/errors.ts';
import type { Lsn } from '../../journal/position.ts';
import { RecordKind } from '../../journal/record.ts';
import { decodeGap, type GapBody } from '../../journal/record-bodies.ts';
import { DAMAGE, type FrameReader } from './frame-reader.ts';
import type { Damage } from './replica-state.ts';
import type { FrameRef } from './segment-info.ts';
import type { SegmentStore } from './segment-store.ts';

/** Records that should be held and whose segment is gone, with none in its place. Durable in the group's state. */
export interface LostStretch extends Damage {
  readonly lost: true;
  /** The catalog was brought forward without its control records. */
  readonly uncatalogued: boolean;
}

/**
 * The records above `heldLsn` whose segments are gone, up to the newest segment, in order. What the source declared to be
 * a gap is not lost; `onUnread` is told of the frame that would say so and cannot be read: until it is put back, it is.
 */
export async function lostStretches(
  store: SegmentStore,
  frames: FrameReader,
  heldLsn: Lsn,
  onUnread: (frame: FrameRef, error: TidemarkError) => Promise<void>,
): Promise<{ readonly fromLsn: Lsn; readonly toLsn: Lsn }[]> {
  const lost: { fromLsn: Lsn; toLsn: Lsn }[] = [];
  let held = heldLsn;
  for (const { firstLsn, lastLsn } of store.segments) {
    if (lastLsn < firstLsn) continue;
    if (firstLsn > held + 1) {
      const toLsn = (await gapBefore(store, frames, firstLsn, onUnread)) - 1;
      if (toLsn > held) lost.push({ fromLsn: held + 1, toLsn });
    }
    held = Math.max(held, lastLsn);
  }
  return lost;
}

/**
 * What the source gave up right before `lsn`, the first of a stored frame's records that counts, as that record says;
 * nothing when it does not. Throws what reading throws.
 */
export async function storedGapBefore(frames: FrameReader, frame: FrameRef, lsn: Lsn): Promise<GapBody | undefined> {
  const layout = await frames.layout(frame);
  const record = layout.record(lsn - layout.firstLsn);
  if (record.kind !== RecordKind.gap) return undefined;
  const body = new Uint8Array(record.payloadBytes);
  await frames.read(frame.segment, frame.offset, record.payloadOffset, body);
  const gap = decodeGap(body);
  return gap.toLsn === lsn - 1 ? gap : undefined;
}

/** Where the gap begins that the record at `lsn` declares; `lsn` itself when it declares none, or cannot be read. */
async function gapBefore(
  store: SegmentStore,
  frames: FrameReader,
  lsn: Lsn,
  onUnread: (frame: FrameRef, error: TidemarkError) => Promise<void>,
): Promise<Lsn> {
  let frame: FrameRef | undefined;
  try {
    frame = await store.find(lsn);
    return (await storedGapBefore(frames, frame, lsn))?.fromLsn ?? lsn;
  } catch (error) {
    if (!(error instanceof TidemarkError) || !DAMAGE.includes(error.code)) throw error;
    if (frame !== undefined) await onUnread(frame, error);
    return lsn;
  }
}
