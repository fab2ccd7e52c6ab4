import type { Lsn } from '../../journal/position.ts';
import type { Memtable } from './memtable.ts';

/** LSNs above `baseLsn` up to `lastLsn` that no run covers: to be read from the segments again. */
export interface IndexGap {
  readonly baseLsn: Lsn;
  readonly lastLsn: Lsn;
  /** Where reading has to begin so that no piece of an open request is missed; 0: at the oldest segment. */
  readonly fromLsn: Lsn;
}

/**
 * Reads the segments of a gap again: fills memtables, in LSN order and of bounded size, and hands each over with the
 * "open from" of its last LSN (run-format.ts). Together they cover the gap exactly.
 */
export type RebuildIndex = (
  gap: IndexGap,
  emit: (memtable: Memtable, openFromLsn: Lsn) => Promise<void>,
) => Promise<void>;
