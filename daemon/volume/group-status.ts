import type { JournalTime, Lsn } from '../../journal/position.ts';
import type { DegreeStatus } from '../synchrony/degree-status.ts';
import type { GivenUp } from './change-map.ts';
import type { DestageState } from './destager.ts';

/** Plain data, taken at one moment. */
export interface VolumeStatus {
  readonly id: number;
  readonly name: string;
  /** Bytes. */
  readonly size: number;
  readonly state: 'open' | 'seeding' | 'shut';
  readonly reason: string;
  readonly clients: number;
  /** Memory of the overlay. */
  readonly overlayBytes: number;
  /** Of `size`, while seeding. */
  readonly seededBytes?: number;
}

/**
 * `failed`: nothing can be written, the group must be opened anew. `backing-failed`: guests go on, their writes collect
 * in the journal. `unprotected`: guests go on, history was given up and no longer grows at the replica.
 */
export type GroupState = 'protecting' | 'seeding' | 'backing-failed' | 'unprotected' | 'failed' | 'closed';

export interface GroupStatus {
  readonly name: string;
  readonly state: GroupState;
  readonly reason: string;
  /** The newest record; it may not be told outside before `durableLsn` has reached it (rule 1). */
  readonly headLsn: Lsn;
  readonly durableLsn: Lsn;
  readonly checkpointLsn: Lsn;
  readonly journalUsedBytes: number;
  readonly journalFreeBytes: number;
  /** 0: no write is slowed down; 1: a bound is reached. */
  readonly pressure: number;
  readonly destage: DestageState;
  readonly destagedBytes: number;
  /** Clients that take no writes until there is room. */
  readonly clientsHeldBack: number;
  /** They wait for room in the journal: its budget or its file system is spent, and not the overlays' memory. */
  readonly heldForRoom: boolean;
  /** Remote guests are kept out until `release` (rule 12). */
  readonly remoteHeld: boolean;
  readonly givenUp?: GivenUp;
  readonly degree: DegreeStatus;
  readonly volumes: readonly VolumeStatus[];
}

/** A place in history that is durable. */
export interface BookmarkPlaced {
  readonly lsn: Lsn;
  readonly time: JournalTime;
}
