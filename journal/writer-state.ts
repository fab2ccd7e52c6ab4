import { TidemarkError } from './base/errors.ts';
import type { JournalAddress, JournalTime, Lsn } from './position.ts';
import type { Incarnation } from './stream.ts';

export interface Appended {
  readonly firstLsn: Lsn;
  readonly lastLsn: Lsn;
  /** Of the first record header: a record at slab offset `o` has its header at `address + (o - start)`. */
  readonly address: JournalAddress;
  /** Where the next batch begins. */
  readonly endAddress: JournalAddress;
  readonly time: JournalTime;
}

export interface WriterOptions {
  readonly directory: string;
  readonly groupId: string;
  readonly groupName: string;
  readonly fileBytes: number;
  readonly budgetBytes: number;
  readonly syncIntervalMs: number;
}

/** Where a writer begins; it goes on from there by itself. */
export interface WriterState {
  readonly salt: number;
  address: JournalAddress;
  chain: number;
  nextLsn: Lsn;
  time: JournalTime;
  epoch: number;
  incarnation: Incarnation;
}

/** What a poisoned journal answers to everything: details.reason says what went wrong first. */
export function poisoned(reason: string, cause: unknown): TidemarkError {
  const message = cause instanceof Error ? cause.message : 'an earlier failure';
  return new TidemarkError('journal-poisoned', `the journal takes nothing until it is opened again: ${message}`, {
    cause,
    details: { reason },
  });
}
