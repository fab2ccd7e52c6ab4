import type { FrameView } from '../../journal/frame-view.ts';
import type { Lsn } from '../../journal/position.ts';
import { RecordKind } from '../../journal/record.ts';
import { decodeGap, type GapBody } from '../../journal/record-bodies.ts';

/** What the source gave up right before this frame, as it says in the first record; nothing when it does not. */
export function gapBefore(frame: FrameView): GapBody | undefined {
  if (frame.record(0).kind !== RecordKind.gap) return undefined;
  const gap = decodeGap(frame.payloadOf(0));
  return gap.toLsn === frame.firstLsn - 1 ? gap : undefined;
}

/** True when the records between `heldLsn` and the frame were given up by the source, which says so in its first record. */
export function declaresGap(frame: FrameView, heldLsn: Lsn): boolean {
  const gap = gapBefore(frame);
  return gap !== undefined && gap.fromLsn <= heldLsn + 1;
}
