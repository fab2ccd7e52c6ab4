import type { Journal } from '../../../journal/journal.ts';
import type { Lsn } from '../../../journal/position.ts';
import { must } from '../violation.ts';

const WITHIN_MICROS = 100_000;
/** The last place of a file is kept for the mark that closes it: there the next file's header is the proof. */
const FILE_END_BYTES = 128;

/** An idle journal proves its end: soon after a sync some header on the disk says what is durable. Only looks. */
export class IdleProof {
  #seen: { readonly journal: Journal; readonly durableLsn: Lsn; readonly atMicros: number } | undefined;

  /** `announcedLsn`: the highest watermark that this start has written. */
  look(journal: Journal | undefined, announcedLsn: Lsn, nowMicros: number): void {
    const before = this.#seen;
    if (journal === undefined || journal.poisonedBy !== undefined) {
      this.#seen = undefined;
      return;
    }
    if (before?.journal === journal && nowMicros - before.atMicros < WITHIN_MICROS) return;
    this.#seen = { journal, durableLsn: journal.marks.lsn('durable'), atMicros: nowMicros };
    if (before?.journal !== journal || journal.fileBytes - (journal.endAddress % journal.fileBytes) < FILE_END_BYTES)
      return;
    if (journal.endAddress % journal.fileBytes === 0) return;
    must('R4', announcedLsn >= before.durableLsn, () => {
      const age = Math.round((nowMicros - before.atMicros) / 1000);
      return `LSN ${before.durableLsn} was durable ${age} ms ago, the newest header proves ${announcedLsn} only`;
    });
  }
}
