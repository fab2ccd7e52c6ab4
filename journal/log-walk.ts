import { BATCH_HEADER_BYTES } from './batch-codec.ts';
import type { BatchView } from './batch-view.ts';
import type { BatchWindow } from './batch-window.ts';
import type { FileReads } from './file-reads.ts';
import { FILE_HEADER_BYTES } from './journal-file-header.ts';
import type { JournalAddress, JournalTime, Lsn } from './position.ts';

/** What the next batch must continue; undefined fields are not known and taken from the first batch. */
export interface WalkStart {
  readonly address: JournalAddress;
  /** Header crc of the batch before. */
  readonly chain?: number;
  readonly nextLsn?: Lsn;
  readonly incarnation?: number;
}

/**
 * Follows the log from batch to batch and over the borders of files, and checks that each continues the one before:
 * chain, LSN, incarnation and time (DESIGN rule 2). It stands still at the first thing that does not.
 */
export class LogWalk {
  readonly #reads: FileReads;
  readonly #window: BatchWindow;
  readonly #fileBytes: number;
  address: JournalAddress;
  chain: number | undefined;
  nextLsn: Lsn | undefined;
  incarnation: number;
  time: JournalTime = 0;

  constructor(reads: FileReads, window: BatchWindow, fileBytes: number, start: WalkStart) {
    this.#reads = reads;
    this.#window = window;
    this.#fileBytes = fileBytes;
    this.address = start.address;
    this.chain = start.chain;
    this.nextLsn = start.nextLsn;
    this.incarnation = start.incarnation ?? 0;
  }

  /** The next batch, undefined at `limit`, or why the log does not go on at `address`. */
  step(limit: JournalAddress): BatchView | string | undefined {
    while (true) {
      if (this.address >= limit) return undefined;
      const fileStart = this.#window.fileStart(this.address);
      const fileEnd = fileStart + this.#fileBytes;
      if (this.address === fileStart) {
        const broken = this.#enterFile(fileStart / this.#fileBytes);
        if (broken !== undefined) return broken;
        continue;
      }
      if (fileEnd - this.address < BATCH_HEADER_BYTES) {
        this.address = fileEnd;
        continue;
      }
      const batch = this.#window.batch(this.address, limit);
      if (typeof batch === 'string') return batch;
      return this.#continuedBy(batch) ?? this.take(batch);
    }
  }

  /** Goes on behind this batch, whatever came before it. */
  take(batch: BatchView): BatchView {
    const { header } = batch;
    this.chain = header.chain;
    this.nextLsn = header.firstLsn + header.count;
    this.incarnation = header.incarnation;
    this.time = header.time;
    this.address = header.closesFile ? this.#window.fileStart(header.address) + this.#fileBytes : header.nextAddress;
    return batch;
  }

  #enterFile(sequence: number): string | undefined {
    const header = this.#reads.header(sequence);
    if (header === 'empty') return 'the file is gone, or empty';
    if (typeof header === 'string') return `file header: ${header}`;
    if (header.sequence !== sequence) return 'the file was not begun yet';
    if (this.chain !== undefined && header.chain !== this.chain) return 'the chain is broken at a file border';
    if (this.nextLsn !== undefined && header.firstLsn !== this.nextLsn) {
      return `the file begins with LSN ${header.firstLsn} instead of ${this.nextLsn}`;
    }
    this.chain = header.chain;
    this.nextLsn = header.firstLsn;
    this.address += FILE_HEADER_BYTES;
    return undefined;
  }

  #continuedBy(batch: BatchView): string | undefined {
    const { header } = batch;
    if (this.chain !== undefined && header.previousCrc !== this.chain) return 'the chain is broken';
    if (this.nextLsn !== undefined && header.firstLsn !== this.nextLsn) {
      return `the batch begins with LSN ${header.firstLsn} instead of ${this.nextLsn}`;
    }
    if (header.incarnation < this.incarnation) return `incarnation ${header.incarnation} is older`;
    if (header.time < this.time) return 'the time goes back';
    return undefined;
  }
}
