/** 32 hex digits. */
export const GROUP_ID: string = '5'.repeat(32);
export const GROUP_NAME = 'g';
export const TOPIC = 'tidemark.g';
export const FEEDBACK_TOPIC = 'tidemark.g.feedback';
export const JOURNAL_DIRECTORY = '/source/journal';
/** What frames leave free on a replica's disk that fills up. */
export const REPLICA_RESERVE_BYTES: number = 128 * 1024;
export const REPLICA_DIRECTORY = '/replica/g';

/** One replica of the group: its name at the source, and where it listens. Each has a machine of its own. */
export interface ReplicaPlace {
  readonly name: string;
  readonly address: string;
  /** The journal keeps what it does not hold. */
  readonly required: boolean;
}

export const REPLICA: ReplicaPlace = { name: 'r', address: 'replica:10809', required: true };
/** The other one, where there are two. */
export const SECOND: Omit<ReplicaPlace, 'required'> = { name: 'r2', address: 'second:10809' };

/** The machines of a run. */
export type NodeName = 'source' | 'replica' | 'second';
