import type { Lsn } from '../../journal/position.ts';
import type { ReplicaFeedback, StreamStatus } from '../../journal/stream.ts';
import type { CatalogBuilder } from '../catalog/catalog.ts';
import type { VersionIndex } from '../index/version-index.ts';
import type { FrameReader } from '../store/frame-reader.ts';
import type { DurablePosition, PositionMark } from '../store/position-mark.ts';
import type { StateKeeper } from '../store/replica-state.ts';
import type { SegmentStore } from '../store/segment-store.ts';
import type { PromiseOfSource } from './promise-of-source.ts';
import type { RecordFeed } from './record-feed.ts';
import type { SpaceWatch } from './space-watch.ts';

export interface ReceiverOptions {
  readonly replica: string;
  readonly groupId: string;
  /** Frames waiting to be taken; above it the stream is paused. */
  readonly queueBytesMax: number;
  /** Frames held because one before them is missing. */
  readonly earlyBytesMax: number;
  readonly earlyFramesMax: number;
  /** A group is synced at the latest after so many bytes, or so long after its first frame; at once when idle. */
  readonly syncBytes: number;
  readonly syncDelayMs: number;
  readonly feedbackIntervalMs: number;
  readonly feedbackBytes: number;
  /** How often a full replica looks whether space has come back. */
  readonly spaceProbeMs: number;
}

export const RECEIVER_DEFAULTS: Omit<ReceiverOptions, 'replica' | 'groupId'> = {
  queueBytesMax: 16 * 1024 * 1024,
  earlyBytesMax: 16 * 1024 * 1024,
  earlyFramesMax: 256,
  syncBytes: 8 * 1024 * 1024,
  syncDelayMs: 20,
  feedbackIntervalMs: 250,
  feedbackBytes: 8 * 1024 * 1024,
  spaceProbeMs: 1000,
};

/** What the receiver works on; all of one group, opened and recovered. */
export interface ReceiverParts {
  readonly store: SegmentStore;
  readonly frames: FrameReader;
  readonly index: VersionIndex;
  readonly feed: RecordFeed;
  readonly catalog: CatalogBuilder;
  readonly mark: PositionMark;
  readonly keeper: StateKeeper;
  readonly space: SpaceWatch;
  readonly promise: PromiseOfSource;
  /** What a standby image holds that is applied in step; undefined: there is none. */
  readonly appliedLsn: () => Lsn | undefined;
  /** Frames of ours from an LSN on, for a source that lost them. */
  readonly framesFrom: (fromLsn: Lsn) => AsyncIterable<Uint8Array>;
  /** Lowest LSN that is asked for again because it is damaged here; 0: none. */
  readonly damagedFrom: () => Lsn;
}

export interface ReceiverStatus {
  readonly state: ReplicaFeedback['state'];
  readonly reason: string;
  /** What the stream said that it lost; empty once a frame that continues what is held has come. */
  readonly lost: string;
  readonly headLsn: Lsn;
  readonly durable: DurablePosition;
  /** Where a request began that is open at the durable end, perhaps closed by now in memory; the LSN behind when none is. */
  readonly openFromLsn: Lsn;
  readonly missingFrom: Lsn;
  readonly earlyFrames: number;
  readonly queuedBytes: number;
  readonly duplicates: number;
  readonly rejected: number;
  readonly lastRejection: string;
  readonly stream: StreamStatus | undefined;
}
