import { hasCode } from '../../journal/base/errors.ts';
import type { BatchView } from '../../journal/batch-view.ts';
import type { JournalReader } from '../../journal/journal-reader.ts';
import type { JournalAddress } from '../../journal/position.ts';

/**
 * As `reader.next`, but passes over damage that took no record (a damaged watermark). Throws `journal-damaged` where
 * records are lost: what a backing holds must not depend on records that nobody can read.
 */
export function nextHealthyBatch(reader: JournalReader, limit: JournalAddress): BatchView | undefined {
  for (;;) {
    try {
      return reader.next(limit);
    } catch (error) {
      if (!hasCode(error, 'journal-damaged')) throw error;
      const skipped = reader.skipDamage(limit);
      if (skipped === undefined || skipped.toLsn >= skipped.fromLsn) throw error;
    }
  }
}
