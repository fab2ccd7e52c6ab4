import type { JournalTime, Lsn } from '../journal/position.ts';
import type { Lease } from './base/leases.ts';
import type { VersionIndex } from './index/version-index.ts';
import type { ReceiverStatus } from './receive/receiver-parts.ts';
import type { StandbyStatus } from './standby/standby-image.ts';
import type { Damage, OrphanBranch } from './store/replica-state.ts';

/** A snapshot for `status`: plain data. Times are journal time in microseconds, 0: there is none. */
export interface ReplicaGroupStatus {
  readonly groupId: string;
  readonly replica: string;
  readonly floorLsn: Lsn;
  readonly floorTime: JournalTime;
  readonly headLsn: Lsn;
  readonly headTime: JournalTime;
  readonly windowMs: number;
  readonly segments: number;
  readonly segmentBytes: number;
  readonly baseBytes: number;
  readonly index: ReturnType<VersionIndex['status']> & { readonly mergeFailure: string };
  readonly spaceLevel: number;
  readonly freeBytes: number;
  readonly receiver: ReceiverStatus;
  readonly volumes: readonly {
    readonly id: number;
    readonly name: string;
    readonly size: number;
    readonly unsettled: string;
  }[];
  /** By this machine's wall clock since the newest heartbeat's journal time; absent: none came yet. "At least". */
  readonly heartbeatAgeMs: number | undefined;
  readonly views: readonly { readonly id: number; readonly lsn: Lsn; readonly owner: string }[];
  /** Absent: there is none. */
  readonly standby: StandbyStatus | undefined;
  readonly leases: readonly Lease[];
  readonly orphans: readonly OrphanBranch[];
  readonly damage: readonly Damage[];
  /** Why a damaged stretch was not put back yet; empty: nobody was asked. */
  readonly refusalOf: (fromLsn: Lsn) => string;
}
