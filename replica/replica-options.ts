import type { RetentionPolicy } from './base/retention-policy.ts';
import { RECEIVER_DEFAULTS, type ReceiverOptions } from './receive/receiver-parts.ts';
import { type ApplyMode, STANDBY_TIMES, type StandbyTimes } from './standby/standby-image.ts';

export interface ReplicaGroupOptions {
  readonly directory: string;
  /** 32 hex digits. */
  readonly groupId: string;
  /** Name of this replica at the source. */
  readonly replica: string;
  readonly segmentBytes: number;
  readonly policy: RetentionPolicy;
  /** Never written into by frames (DESIGN rule 24). */
  readonly reserveBytes: number;
  readonly indexCacheBytesMax: number;
  readonly memtableEntries: number;
  readonly chunkCacheBytesMax: number;
  readonly layoutCacheBytesMax: number;
  readonly viewsMax: number;
  /** Plain raw files at the head, in `standby` under the directory. */
  readonly apply: 'off' | ApplyMode;
  readonly standbyTimes: StandbyTimes;
  /** Damaged history was put back whose records the index lacks: the group has to be closed and opened again. */
  readonly onReopen?: () => void;
  readonly receiver: Omit<ReceiverOptions, 'replica' | 'groupId'>;
}

export const REPLICA_DEFAULTS: Omit<ReplicaGroupOptions, 'directory' | 'groupId' | 'replica'> = {
  segmentBytes: 64 * 1024 * 1024,
  policy: { windowMs: 7 * 24 * 3600 * 1000, bytesMax: 0 },
  reserveBytes: 256 * 1024 * 1024,
  indexCacheBytesMax: 16 * 1024 * 1024,
  memtableEntries: 65_536,
  chunkCacheBytesMax: 64 * 1024 * 1024,
  layoutCacheBytesMax: 16 * 1024 * 1024,
  viewsMax: 64,
  apply: 'off',
  standbyTimes: STANDBY_TIMES,
  receiver: RECEIVER_DEFAULTS,
};
