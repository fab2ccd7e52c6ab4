import { channel } from './base/channels.ts';
import type { Epoch, JournalAddress, Lsn } from './position.ts';
import type { Incarnation } from './stream.ts';

const recoveredChannel = channel('tidemark:journal:recovered');
const damageChannel = channel('tidemark:journal:damage');

/** What opening a journal found and did: shown by `status`, logged, and what the source settles with the far side. */
export interface RecoveryReport {
  /** The newest record; 0 in an empty journal. */
  readonly lastLsn: Lsn;
  /** Highest LSN proven durable before recovery wrote the rest again; all up to `lastLsn` is durable when open returns. */
  readonly durableLsn: Lsn;
  /** The last run ended with `close()`. */
  readonly cleanStop: boolean;
  /** The machine was started anew since the last run: page cache is gone (rules 3 and 12). False for an empty journal. */
  readonly bootChanged: boolean;
  /** A torn tail was cut behind this LSN. */
  readonly cut?: JournalCut;
  /** Records at or below the watermark that cannot be read, in LSN order: never truncated, to be mended or marked as a gap. */
  readonly damage: readonly DamagedRange[];
  /** Of the last run; counter 0 in an empty journal. */
  readonly incarnation: Incarnation;
  /** Kernel boot id of the last run; '' in an empty journal. */
  readonly bootId: string;
  readonly epoch: Epoch;
  /** Bytes that were written again because nothing proved them durable (invariant D5). */
  readonly rewrittenBytes: number;
}

export interface JournalCut {
  readonly afterLsn: Lsn;
  /** Bytes of batches that stood whole behind the tear and were dropped with it, and of the torn batch as far as known. */
  readonly droppedBytes: number;
  readonly reason: string;
}

export interface DamagedRange {
  /** `toLsn < fromLsn`: a batch without records (a watermark) is damaged, nothing is lost. */
  readonly fromLsn: Lsn;
  readonly toLsn: Lsn;
  /** Where the damage begins. */
  readonly address: JournalAddress;
  /** Where reading goes on; equals the journal's end when nothing whole stands behind the damage. */
  readonly resumeAddress: JournalAddress;
  /** Name of the file the damage begins in, and the byte offset in it. */
  readonly file: string;
  readonly offset: number;
  readonly reason: string;
}

/** Tells what opening a journal found. */
export function publishRecovery(group: string, report: RecoveryReport, durationMs: number): void {
  const { lastLsn, durableLsn, cleanStop, bootChanged, cut, damage, rewrittenBytes } = report;
  recoveredChannel.publish({
    group,
    lastLsn,
    durableLsn,
    cleanStop,
    bootChanged,
    cutAfterLsn: cut?.afterLsn ?? 0,
    droppedBytes: cut?.droppedBytes ?? 0,
    damagedRanges: damage.length,
    rewrittenBytes,
    durationMs,
  });
  for (const { fromLsn, toLsn, address, reason } of damage) {
    damageChannel.publish({ group, fromLsn, toLsn, address, reason });
  }
}
