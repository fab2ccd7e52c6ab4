import type { JournalAddress, Lsn } from './position.ts';

/**
 * How far each part of a group's data path has come. Marks only move forward within one run (rule 9 rolls `applied`
 * back by a restart of the volume's destage, which makes a new Marks). Each has one owner that advances it; everybody
 * may read it, also from another thread, where a mark may be seen late but never early (rule 27).
 */
export interface Marks {
  address(mark: AddressMark): JournalAddress;
  lsn(mark: LsnMark): Lsn;
  /** Moves the mark up and wakes who waits; a lower value than the present one is an assertion. */
  advanceAddress(mark: AddressMark, to: JournalAddress): void;
  advanceLsn(mark: LsnMark, to: Lsn): void;
  /** Calls `run` soon after any mark moved (many moves may be one call); returns the unsubscribe. */
  onMove(run: () => void): () => void;
}

/** Addresses: everything below has been ... */
export const ADDRESS_MARKS = [
  /** ... handed to the page cache of the journal. */
  'written',
  /** ... fdatasynced in the journal. */
  'durable',
  /** ... written to its backing, not necessarily synced there; overlay entries below it are dead. */
  'applied',
  /** ... synced in its backing; where recovery begins to replay. */
  'checkpoint',
  /** ... sealed into frames that every required replica holds durably. */
  'shipped',
] as const;
export type AddressMark = (typeof ADDRESS_MARKS)[number];

/** LSNs: the newest record that is ... */
export const LSN_MARKS = [
  /** ... in the journal's page cache. */
  'written',
  /** ... durable in the journal. */
  'durable',
  /** ... synced in its backing. */
  'checkpoint',
  /** ... taken by the stream (Kafka acks=all; over direct: received by the replica's process). */
  'accepted',
  /** ... durable at every required replica. */
  'replicated',
] as const;
export type LsnMark = (typeof LSN_MARKS)[number];
