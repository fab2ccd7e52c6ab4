import type { ErrorCode, NextAction } from '../../journal/base/errors.ts';
import type { ReplicaCountersReply, RpoReply, SourceCountersReply } from './counters-api.ts';
import type { DegreeReply, RpoClaimReply, StandbyReply } from './degree-api.ts';

/**
 * What goes over the control socket: requests and replies of both roles, as types and nothing else, so that the command
 * line can import them without the server. daemon/control/control-schemas.ts holds the same shapes as schemas; `tsc`
 * fails when the two differ.
 *
 * Conventions: every field of a reply is always there. `null` means "not known", never zero (promise 9). Bytes, LSNs
 * and counts are plain numbers (all below 2^53); durations carry their unit in the name; times are ISO 8601 in UTC with
 * microseconds and the offset `Z`.
 */

export type IsoTime = string;

export interface ApiError {
  readonly code: ErrorCode;
  readonly next: NextAction;
  readonly message: string;
  readonly details: Readonly<Record<string, string | number | boolean>>;
}

export interface AlarmReply {
  /** One of the closed list in daemon/telemetry/alarm-codes.ts. */
  readonly code: string;
  readonly severity: 'warning' | 'critical';
  /** null: the whole daemon. */
  readonly group: string | null;
  /** What within the group: a volume, a replica, a job; empty: the group. */
  readonly subject: string;
  readonly message: string;
  readonly since: IsoTime;
}

export interface AlarmsReply {
  readonly alarms: readonly AlarmReply[];
}

/** What a group's process part is doing; `reason` in the group's reply says why in words. */
export type GroupState =
  /** Lock, recovery, settling. */
  | 'starting'
  /** The first copy is being journalled; exports are not open yet. */
  | 'seeding'
  /** Serving and replicating. */
  | 'protecting'
  /**
   * Source: serving; the stream or a required replica is behind or away, the journal keeps what is missing. Replica: the
   * stream lost frames, and they have not come again.
   */
  | 'behind'
  /** Serving; exports over TCP stay shut until released (rule 12). */
  | 'held'
  /** Serving from the journal; a backing errs and its writes wait. */
  | 'backing-failed'
  /** The guest waits: out of room, and the policy says block. */
  | 'blocked'
  /** Serving without history: out of room, and the policy says stop-protecting. */
  | 'unprotected'
  /** Replica: receiving. */
  | 'receiving'
  /** Going on needs a person; see `reason`. */
  | 'stopped'
  /** The data path gives no answer: what is shown is the last that was known. */
  | 'stalled'
  | 'detached'
  | 'stopping'
  /** The data path ended with an error. */
  | 'failed';

export interface DaemonReply {
  readonly version: string;
  readonly pid: number;
  readonly startedAt: IsoTime;
  readonly now: IsoTime;
  /** Every group's exports are open (source) or every group receives (replica). */
  readonly ready: boolean;
}

export interface SourceStatusReply {
  readonly role: 'source';
  readonly daemon: DaemonReply;
  readonly groups: readonly SourceGroupReply[];
  readonly alarms: readonly AlarmReply[];
}

export interface StreamReply {
  readonly kind: 'direct' | 'kafka';
  readonly state: string;
  readonly reason: string;
  readonly code: string | null;
}

/** A Kafka topic whose size is capped on purpose (rule 21): what it drops is sent again from the journal. */
export interface TopicReply {
  readonly capBytes: number;
  /** On the disks of the partition's leader. */
  readonly usedBytes: number | null;
  /** The broker does not tell; computed from the frames that were sent. */
  readonly estimated: boolean;
}

/** How far something is behind the head. */
export interface LagReply {
  readonly records: number | null;
  readonly bytes: number | null;
  /** From heartbeats on the source's monotonic clock (rule 7): the age of the newest heartbeat that has arrived. */
  readonly seconds: number | null;
}

export interface SourceGroupReply {
  readonly name: string;
  readonly groupId: string | null;
  readonly state: GroupState;
  readonly reason: string;
  readonly code: string | null;
  /** Seconds since the data path last reported; everything below is that old. */
  readonly ageSeconds: number | null;
  readonly epoch: number | null;
  readonly incarnation: number | null;
  readonly head: HeadReply | null;
  readonly journal: JournalReply | null;
  readonly overlay: { readonly bytes: number; readonly bytesMax: number } | null;
  readonly volumes: readonly SourceVolumeReply[];
  readonly listen: string;
  readonly clients: number | null;
  readonly stream: StreamReply;
  /** null: over direct, and while the topic has no cap. */
  readonly topic: TopicReply | null;
  readonly replicas: readonly SourceReplicaReply[];
  /** What the required replicas do not hold yet. */
  readonly backlog: LagReply;
  /** The backlog in seconds over a minute, an hour and a day; empty before the data path runs. */
  readonly rpo: readonly RpoReply[];
  readonly degree: DegreeReply | null;
  readonly counters: SourceCountersReply | null;
  /** Events of this start that an operator should know of: a cut, damage, a gap. */
  readonly notes: readonly string[];
}

export interface HeadReply {
  /** Newest record that survives a power loss here: no position above it is told to anybody (rule 1). */
  readonly durableLsn: number;
  /** Records behind it that only the page cache has: a power loss now may take them. */
  readonly unsyncedRecords: number;
  /** Newest record synced in its backing: recovery replays from here. */
  readonly checkpointLsn: number;
}

export interface JournalReply {
  readonly directory: string;
  readonly usedBytes: number;
  readonly budgetBytes: number;
  readonly oldestLsn: number | null;
  /** What goes into it, over the last minute. */
  readonly bytesPerSecond: number | null;
  /** How long an outage the whole budget holds at that rate, and what is left of it; null: not known, or nothing goes in. */
  readonly budgetSeconds: number | null;
  readonly leftSeconds: number | null;
}

export interface SourceVolumeReply {
  readonly name: string;
  readonly id: number | null;
  readonly sizeBytes: number | null;
  readonly backing: string;
  readonly state: string;
  readonly seed: { readonly doneBytes: number; readonly totalBytes: number } | null;
  /** What a guest is given; null while the export is not open. */
  readonly uri: string | null;
  readonly traffic: VolumeTrafficReply | null;
}

/** Totals since the daemon's start. */
export interface VolumeTrafficReply {
  readonly reads: number;
  readonly readBytes: number;
  readonly writes: number;
  readonly writeBytes: number;
  readonly flushes: number;
}

export interface SourceReplicaReply {
  readonly name: string;
  readonly required: boolean;
  /** 'unknown' until the replica has spoken. */
  readonly state: string;
  readonly reason: string;
  readonly durableLsn: number | null;
  readonly lag: LagReply;
  /** It has taken nothing for so long although there was something to take; null: not known. */
  readonly stoodStillSeconds: number | null;
}

export interface ReplicaStatusReply {
  readonly role: 'replica';
  readonly name: string;
  readonly daemon: DaemonReply;
  readonly groups: readonly ReplicaGroupReply[];
  readonly alarms: readonly AlarmReply[];
}

export type StatusReply = SourceStatusReply | ReplicaStatusReply;

/** A point of the timeline. */
export interface PointReply {
  readonly epoch: number;
  readonly lsn: number;
  readonly time: IsoTime | null;
}

export interface ReplicaGroupReply {
  readonly name: string;
  readonly groupId: string | null;
  readonly state: GroupState;
  readonly reason: string;
  readonly code: string | null;
  readonly ageSeconds: number | null;
  readonly stream: StreamReply;
  /** Where a source connects (direct); null over Kafka or while it is not listening. */
  readonly listen: string | null;
  readonly head: PointReply | null;
  readonly floor: PointReply | null;
  /** A replica alone can only say "at least": the time since the newest record's own time (rule 7). */
  readonly lagSecondsAtLeast: number | null;
  readonly rpoClaim: RpoClaimReply | null;
  /** null: `apply` is off, or nothing is known yet. */
  readonly standby: StandbyReply | null;
  readonly volumes: readonly { readonly id: number; readonly name: string; readonly sizeBytes: number }[];
  readonly store: ReplicaStoreReply | null;
  readonly views: readonly ViewReply[];
  readonly restores: readonly RestoreJobReply[];
  readonly counters: ReplicaCountersReply | null;
  readonly notes: readonly string[];
}

export interface ReplicaStoreReply {
  readonly directory: string;
  readonly usedBytes: number;
  readonly budgetBytes: number | null;
  readonly freeBytes: number | null;
  readonly reserveBytes: number;
}

export interface BookmarkRequest {
  readonly name: string;
  readonly note?: string | undefined;
  readonly labels?: Readonly<Record<string, string>> | undefined;
}

export interface BookmarkReply extends PointReply {
  readonly name: string;
  readonly kind: 'crash' | 'application';
  readonly note: string | null;
}

export interface BookmarksReply {
  readonly bookmarks: readonly BookmarkReply[];
}

export interface DryRunRequest {
  readonly dryRun?: boolean | undefined;
}

export interface GiveUpRequest {
  readonly reason: string;
  readonly dryRun?: boolean | undefined;
}

/** Records that nobody holds, and why each who was asked could not give them. */
export interface LostRecordsReply {
  readonly fromLsn: number;
  readonly toLsn: number;
  /** They were written between the two; null: not known. */
  readonly afterTime: IsoTime | null;
  readonly beforeTime: IsoTime | null;
  readonly answers: readonly { readonly name: string; readonly answer: string }[];
}

/** What is given up at the next start, or would be (`dryRun`). */
export interface GiveUpReply extends ActionReply {
  readonly lost: readonly LostRecordsReply[];
  readonly volumes: readonly string[];
  readonly reason: string;
}

/** What a destructive verb did, or would do (`dryRun`). */
export interface ActionReply {
  readonly dryRun: boolean;
  readonly steps: readonly string[];
}

/** The timeline between two points, cut into intervals of equal time. */
export interface PointsReply {
  readonly group: string;
  readonly head: PointReply | null;
  readonly floor: PointReply | null;
  readonly intervals: readonly PointsIntervalReply[];
  readonly bookmarks: readonly BookmarkReply[];
  readonly events: readonly EventReply[];
}

export interface PointsIntervalReply {
  readonly from: IsoTime;
  readonly to: IsoTime;
  readonly firstLsn: number;
  readonly lastLsn: number;
  /** Changes to volumes, and the bytes they cover. */
  readonly writes: number;
  readonly bytes: number;
}

/** What else happened: a gap, a clock jump, a new epoch, a start of the source, a volume added or seeded. */
export interface EventReply {
  readonly kind: string;
  readonly lsn: number;
  readonly time: IsoTime;
  readonly text: string;
}

/** `at`: an LSN, `epoch:lsn`, a time with its zone, `latest`, or a bookmark's name. */
export interface MountRequest {
  readonly at: string;
  /** null or absent: every volume of the group. */
  readonly volume?: string | undefined;
  /** Writes go to a scratch area that ends with the view. */
  readonly writable?: boolean | undefined;
  /** The view's name; absent: made from the position. */
  readonly name?: string | undefined;
}

export interface ViewReply {
  readonly name: string;
  readonly at: PointReply;
  readonly writable: boolean;
  readonly createdAt: IsoTime;
  readonly exports: readonly ViewExportReply[];
  readonly scratchBytes: number | null;
}

export interface ViewExportReply {
  readonly volume: string;
  readonly sizeBytes: number;
  readonly uri: string;
}

export interface ViewsReply {
  readonly views: readonly ViewReply[];
}

export interface RestoreRequest {
  readonly at: string;
  /** Absent: the group's only volume. */
  readonly volume?: string | undefined;
  /** An absolute path, or an nbd URI. */
  readonly to: string;
  readonly format?: 'raw' | 'qcow2' | undefined;
  readonly overwrite?: boolean | undefined;
  readonly dryRun?: boolean | undefined;
}

export interface RestorePlanReply {
  readonly group: string;
  readonly volume: string;
  readonly at: PointReply;
  /** Why this position: "the last point at or before 2026-11-20T10:00:00Z", "bookmark before-upgrade". */
  readonly chosen: string;
  readonly to: string;
  readonly format: 'raw' | 'qcow2';
  readonly sizeBytes: number;
  /** Bytes that have to be written; the rest are holes. */
  readonly copyBytes: number | null;
  readonly steps: readonly string[];
}

export interface RestoreJobReply {
  readonly id: string;
  readonly plan: RestorePlanReply;
  readonly state: 'running' | 'verifying' | 'done' | 'failed' | 'cancelled';
  readonly doneBytes: number;
  readonly totalBytes: number;
  readonly startedAt: IsoTime;
  readonly endedAt: IsoTime | null;
  readonly error: ApiError | null;
}

/** `job` is null for a dry run. */
export interface RestoreReply {
  readonly plan: RestorePlanReply;
  readonly job: RestoreJobReply | null;
}

export interface RestoresReply {
  readonly restores: readonly RestoreJobReply[];
}
