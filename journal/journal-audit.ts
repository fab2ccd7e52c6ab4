import { BatchWindow } from './batch-window.ts';
import { FileReads, journalFileName, listSequences } from './file-reads.ts';
import type { Host } from './host/host.ts';
import { type JournalShape, readShape } from './journal-reader.ts';
import { LogWalk } from './log-walk.ts';
import type { Lsn } from './position.ts';
import type { DamagedRange } from './recovery-report.ts';

export interface JournalAudit {
  readonly groupId: string;
  readonly firstLsn: Lsn;
  readonly lastLsn: Lsn;
  /** Highest watermark found: what must be there. */
  readonly durableLsn: Lsn;
  readonly files: number;
  readonly batches: number;
  readonly records: number;
  /** Bytes of batches read and found whole. */
  readonly bytes: number;
  readonly damage: readonly DamagedRange[];
}

/**
 * Reads every batch of every file again, checks crcs, chain, LSNs and the shape of each record, and reports what does
 * not hold. Changes nothing and takes no lock, so it may run beside the daemon; then it may meet batches of the present
 * moment and end a little before the head. Damage at the very end shows only when a watermark proves that something
 * was there.
 */
export function auditJournal(host: Host, directory: string): JournalAudit {
  const reads = new FileReads(host.disk, directory);
  try {
    const shape = readShape(host.disk, directory, reads);
    return new Audit(reads, shape, listSequences(host.disk, directory)).run();
  } finally {
    void reads.close();
  }
}

class Audit {
  readonly #reads: FileReads;
  readonly #shape: JournalShape;
  readonly #sequences: readonly number[];
  readonly #window: BatchWindow;
  readonly #damage: DamagedRange[] = [];
  #firstLsn: Lsn = 0;
  #durableLsn: Lsn = 0;
  #batches = 0;
  #records = 0;
  #bytes = 0;

  constructor(reads: FileReads, shape: JournalShape, sequences: readonly number[]) {
    this.#reads = reads;
    this.#shape = shape;
    this.#sequences = sequences;
    this.#window = new BatchWindow(reads, shape.fileBytes, shape.salt);
  }

  run(): JournalAudit {
    const { fileBytes, groupId } = this.#shape;
    const live = this.#sequences.filter((sequence) => this.#wasBegun(sequence));
    const first = live[0] ?? 0;
    const end = ((live.at(-1) ?? 0) + 1) * fileBytes;
    let walk = new LogWalk(this.#reads, this.#window, fileBytes, { address: first * fileBytes });
    while (true) {
      const step = walk.step(end);
      if (typeof step === 'object') {
        this.#take(step);
        continue;
      }
      const next = this.#resume(walk, step ?? 'the files end here', end);
      if (next === undefined) break;
      walk = next;
    }
    return {
      groupId,
      firstLsn: this.#firstLsn,
      lastLsn: Math.max((walk.nextLsn ?? 1) - 1, this.#durableLsn),
      durableLsn: this.#durableLsn,
      files: live.length,
      batches: this.#batches,
      records: this.#records,
      bytes: this.#bytes,
      damage: this.#damage,
    };
  }

  #wasBegun(sequence: number): boolean {
    const header = this.#reads.header(sequence);
    return typeof header === 'string' ? header !== 'empty' && header !== 'missing' : header.sequence === sequence;
  }

  #take(batch: Parameters<LogWalk['take']>[0]): void {
    this.#batches++;
    this.#bytes += batch.header.bodyBytes;
    this.#durableLsn = Math.max(this.#durableLsn, batch.header.durableLsn);
    if (this.#firstLsn === 0 && batch.header.count > 0) this.#firstLsn = batch.firstLsn;
    for (const record of batch) this.#records += record.lsn > 0 ? 1 : 0;
  }

  /** A walk from the next whole batch behind a break; undefined at the end of the log. */
  #resume(walk: LogWalk, reason: string, end: number): LogWalk | undefined {
    const { fileBytes } = this.#shape;
    const nextLsn = walk.nextLsn ?? 1;
    const found = this.#window.find(
      walk.address,
      end,
      (header) => header.firstLsn >= nextLsn && header.incarnation >= walk.incarnation,
    );
    const toLsn = found === undefined ? this.#durableLsn : found.firstLsn - 1;
    if (found !== undefined || toLsn >= nextLsn) {
      this.#damage.push({
        fromLsn: nextLsn,
        toLsn,
        address: walk.address,
        resumeAddress: found?.address ?? walk.address,
        file: journalFileName(Math.floor(walk.address / fileBytes)),
        offset: walk.address % fileBytes,
        reason,
      });
    }
    if (found === undefined) return undefined;
    return new LogWalk(this.#reads, this.#window, fileBytes, { address: found.address });
  }
}
