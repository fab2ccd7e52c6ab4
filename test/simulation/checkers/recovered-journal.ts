import { crc32 } from '@node-rs/crc32';
import { neededPlace } from '../../../daemon/volume/checkpoint.ts';
import { hasCode } from '../../../journal/base/errors.ts';
import type { BatchHeader } from '../../../journal/batch-codec.ts';
import type { Host } from '../../../journal/host/host.ts';
import { Journal, type JournalOptions } from '../../../journal/journal.ts';
import type { JournalAddress, Lsn } from '../../../journal/position.ts';
import type { JournalRecord } from '../../../journal/record.ts';
import { GROUP_ID, GROUP_NAME, JOURNAL_DIRECTORY } from '../names.ts';
import type { RunOptions } from '../run-options.ts';

/** Who looks at every record that is handed out. */
export type Look = (record: JournalRecord, header: BatchHeader) => void;

/** What a journal is after it was opened and before anything is appended. */
export interface RecoveredJournal {
  readonly lastLsn: Lsn;
  readonly oldestLsn: Lsn;
  /** All of it in one line, the records as a checksum: equal for two recoveries that found the same. */
  readonly found: string;
  /** Where batches with records begin, in order. */
  readonly batches: readonly { readonly from: JournalAddress; readonly firstLsn: Lsn }[];
}

export function journalOptions({ journalFileBytes, journalFiles }: RunOptions): JournalOptions {
  return {
    directory: JOURNAL_DIRECTORY,
    groupId: GROUP_ID,
    groupName: GROUP_NAME,
    fileBytes: journalFileBytes,
    budgetBytes: journalFiles * journalFileBytes,
    syncIntervalMs: 25,
  };
}

/** Opens the journal as a start does and reads all it hands out. Rejects as `Journal.open` does. */
export async function recoverJournal(host: Host, options: JournalOptions, look: Look): Promise<RecoveredJournal> {
  const journal = await Journal.open(host, { ...options, needed: neededPlace(host, options) });
  try {
    return await readAll(journal, look);
  } finally {
    await journal.close();
  }
}

export async function readAll(journal: Journal, look: Look): Promise<RecoveredJournal> {
  const { endAddress, lastLsn, oldestLsn, report } = journal;
  const batches: { from: JournalAddress; firstLsn: Lsn }[] = [];
  const passed: string[] = [];
  let digest = 0;
  const reader = journal.reader(journal.oldestAddress);
  try {
    for (;;) {
      try {
        const batch = reader.next(endAddress);
        if (batch === undefined) break;
        const { address, epoch, firstLsn, incarnation, time } = batch.header;
        batches.push({ from: address, firstLsn });
        for (const record of batch) {
          look(record, batch.header);
          const { flags, kind, lsn, payload, requestId, sector, sectors, volume } = record;
          const what = [lsn, kind, flags, volume, sector, sectors, requestId, epoch, incarnation, time].join();
          digest = crc32(payload, crc32(what, digest));
        }
      } catch (error) {
        if (!hasCode(error, 'journal-damaged')) throw error;
        const skipped = reader.skipDamage(endAddress);
        if (skipped === undefined) break;
        passed.push(`${skipped.fromLsn}-${skipped.toLsn}`);
      }
    }
  } finally {
    await reader.close();
  }
  const { damage, epoch, incarnation } = report;
  const damaged = damage.map(({ address, fromLsn, toLsn }) => `${fromLsn}-${toLsn}@${address}`);
  const found = JSON.stringify({ lastLsn, oldestLsn, endAddress, epoch, incarnation, damaged, passed, digest });
  return { lastLsn, oldestLsn, found, batches };
}
