import type { JournalTime, Lsn } from '../../journal/position.ts';
import type { FrameEntry } from './frame-directory.ts';

/** What the store knows of a segment without reading it. */
export interface SegmentInfo {
  readonly sequence: number;
  readonly firstLsn: Lsn;
  readonly lastLsn: Lsn;
  readonly bytes: number;
  readonly firstTime: JournalTime;
  readonly lastTime: JournalTime;
  /** See segment-format.ts; the first LSN while unsealed. */
  readonly openFromLsn: Lsn;
  readonly sealed: boolean;
}

/** A frame and where it is. */
export interface FrameRef extends FrameEntry {
  readonly segment: number;
}

export interface AppendFrame {
  /** Where counting begins, behind what the store holds. */
  readonly firstLsn: Lsn;
  readonly lastLsn: Lsn;
  readonly firstTime: JournalTime;
  readonly lastTime: JournalTime;
  readonly records: number;
}
