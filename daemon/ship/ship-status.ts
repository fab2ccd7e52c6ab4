import type { JournalAddress, Lsn } from '../../journal/position.ts';
import type { StreamStatus, StreamTopicStatus } from '../../journal/stream.ts';
import type { ReplicaState } from './replica-registry.ts';
import type { RpoFigures } from './rpo-windows.ts';

/** How far something is behind the newest record; null: not known. Never less than the truth. */
export interface ShipLag {
  readonly records: number | null;
  /** Journal bytes. */
  readonly bytes: number | null;
  /** What would be lost now: everything written before the heartbeat of that age is there. */
  readonly seconds: number | null;
}

export interface ShipReplicaStatus {
  readonly name: string;
  readonly required: boolean;
  readonly state: ReplicaState;
  readonly reason: string;
  /** Null until the replica was heard in this run. */
  readonly durableLsn: Lsn | null;
  /** Up to here its records were compared with ours. */
  readonly provenLsn: Lsn;
  /** It had acknowledged this much before it lost data; null: it never did, or has it again. */
  readonly lostFromLsn: Lsn | null;
  readonly lag: ShipLag;
  /** Since its last state came; null: none came. */
  readonly heardSecondsAgo: number | null;
  /** For so long it has taken nothing although there was something to take; 0: it does. */
  readonly stoodStillSeconds: number;
}

export type ShipState = StreamStatus['state'] | 'needs-resync' | 'diverged';

/** A plain snapshot: what `status` shows of a group's way to its replicas. */
export interface ShipStatus {
  /** The worst of all lanes and required replicas. */
  readonly state: ShipState;
  readonly reason: string;
  readonly code: string | null;
  /** Taken by every stream. */
  readonly acceptedLsn: Lsn;
  /** Durable at every required replica, and compared. */
  readonly replicatedLsn: Lsn;
  /** The journal below is no longer needed for shipping. */
  readonly shippedAddress: JournalAddress;
  /** Of the required replica that is furthest behind. */
  readonly backlog: ShipLag;
  /** The same in seconds, over windows of time. */
  readonly rpo: readonly RpoFigures[];
  readonly replicas: readonly ShipReplicaStatus[];
  /** How full a capped topic is; null: there is no cap. */
  readonly topic: StreamTopicStatus | null;
  /** Names that read the stream without being registered: nothing is kept for them (DESIGN rule 20). */
  readonly unregistered: readonly string[];
}

/** The worse of each figure; what is not known of one is not known of both. */
export function worseLag(one: ShipLag, other: ShipLag): ShipLag {
  return {
    records: worse(one.records, other.records),
    bytes: worse(one.bytes, other.bytes),
    seconds: worse(one.seconds, other.seconds),
  };
}

function worse(one: number | null, other: number | null): number | null {
  return one === null || other === null ? null : Math.max(one, other);
}

/** Of several streams, the one that is furthest from sending. */
export function worstStream(streams: readonly StreamStatus[]): Pick<ShipStatus, 'state' | 'reason' | 'code'> {
  const order: readonly ShipState[] = ['stopped', 'retrying', 'connecting', 'streaming'];
  const worst = streams.reduce((one, other) => (order.indexOf(other.state) < order.indexOf(one.state) ? other : one));
  return { state: worst.state, reason: worst.reason, code: worst.code ?? null };
}
