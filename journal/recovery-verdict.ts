import { UNREADABLE } from './batch-window.ts';
import { journalFileName } from './file-reads.ts';
import type { JournalAddress, Lsn } from './position.ts';
import type { DamagedRange, JournalCut } from './recovery-report.ts';
import type { LogRun, LogScan } from './recovery-scan.ts';

/** What is to be done with a scanned log. */
export interface RecoveryVerdict {
  /** The stretches that stay, in order. */
  readonly kept: readonly LogRun[];
  /** Those behind the cut. */
  readonly dropped: readonly LogRun[];
  readonly damage: readonly DamagedRange[];
  readonly cut?: JournalCut;
  /** Highest LSN proven durable by any witness. */
  readonly provenLsn: Lsn;
  /** LSN of the newest record that exists or is proven to have existed. */
  readonly lastLsn: Lsn;
  /** Records at the very end are damaged, not torn: what comes next must go into a file of its own. */
  readonly endDamaged: boolean;
  readonly bootChanged: boolean;
}

/**
 * Torn tail or damage (invariants R2, R3; DESIGN rules 2 and 3)?
 *
 * A break at or below the highest proven LSN is damage: it stays where it is, is reported, and the log goes on with the
 * next stretch. A break above it, after the machine was started anew, is a torn tail: everything behind is cut, also
 * whole batches, because sectors reach the medium out of order. Within one boot the page cache loses nothing, so only a
 * batch in flight may be torn, with nothing whole behind it; anything else is damage even without a witness.
 * A place that the medium cannot read is damage wherever it lies.
 */
export function judge(
  scan: Pick<LogScan, 'runs' | 'tornBytes'>,
  witnessedLsn: Lsn,
  bootId: string,
  fileBytes: number,
): RecoveryVerdict {
  const { runs } = scan;
  const provenLsn = Math.max(witnessedLsn, ...runs.map((run) => run.durableLsn));
  const lastBoot = runs.at(-1)?.bootId ?? '';
  const bootChanged = lastBoot !== '' && lastBoot !== bootId;
  const kept: LogRun[] = [];
  const damage: DamagedRange[] = [];
  let previous: LogRun | undefined;
  for (const run of runs) {
    if (previous !== undefined) {
      // behind an unproven hole nothing can be kept: those records are nowhere, and what follows is no prefix
      if (bootChanged && (previous.nextLsn > provenLsn || run.firstLsn > provenLsn + 1)) break;
      damage.push(damagedRange(previous, run.firstLsn - 1, run.from, fileBytes));
    }
    kept.push(run);
    previous = run;
  }
  const dropped = runs.slice(kept.length);
  const droppedBytes = dropped.reduce((sum, run) => sum + run.bytes, 0) + scan.tornBytes;
  const endDamaged = previous !== undefined && (previous.nextLsn <= provenLsn || previous.endReason === UNREADABLE);
  if (previous !== undefined && endDamaged)
    damage.push(damagedRange(previous, Math.max(provenLsn, previous.nextLsn - 1), previous.end, fileBytes));
  const lastLsn = Math.max((previous?.nextLsn ?? 1) - 1, provenLsn);
  const cut =
    droppedBytes > 0 && previous !== undefined
      ? { cut: { afterLsn: lastLsn, droppedBytes, reason: previous.endReason } }
      : {};
  return { kept, dropped, damage, ...cut, provenLsn, lastLsn, endDamaged, bootChanged };
}

function damagedRange(before: LogRun, toLsn: Lsn, resumeAddress: JournalAddress, fileBytes: number): DamagedRange {
  return {
    fromLsn: before.nextLsn,
    toLsn,
    address: before.end,
    resumeAddress,
    file: journalFileName(Math.floor(before.end / fileBytes)),
    offset: before.end % fileBytes,
    reason: before.endReason,
  };
}
