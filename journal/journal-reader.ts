import { TidemarkError } from './base/errors.ts';
import type { BatchView } from './batch-view.ts';
import { BatchWindow } from './batch-window.ts';
import { FileReads, listSequences, READER_FILES_MAX } from './file-reads.ts';
import type { Disk, Host } from './host/host.ts';
import { LogWalk } from './log-walk.ts';
import type { JournalAddress, Lsn } from './position.ts';

/** Where reading went on behind damage: the records from `fromLsn` to `toLsn` cannot be read here. */
export interface SkippedDamage {
  readonly fromLsn: Lsn;
  /** Less than `fromLsn` when no record was lost (a damaged watermark). */
  readonly toLsn: Lsn;
  readonly resumeAddress: JournalAddress;
}

export interface JournalReaderOptions {
  readonly directory: string;
  /** 32 hex digits; another group's journal is refused. */
  readonly groupId: string;
}

/** What every reader of one journal needs to know; found in any of its file headers. */
export interface JournalShape {
  readonly salt: number;
  readonly fileBytes: number;
  readonly groupId: string;
}

/** The shape of the journal in a directory. Throws `not-found`, `journal-damaged`, `format-too-new`. */
export function readShape(disk: Disk, directory: string, reads: FileReads): JournalShape {
  const sequences = listSequences(disk, directory);
  if (sequences.length === 0) throw new TidemarkError('not-found', `there is no journal in ${directory}`);
  for (const sequence of sequences) {
    const header = reads.header(sequence);
    if (typeof header !== 'string') return header;
  }
  throw new TidemarkError('journal-damaged', `no file in ${directory} has a readable header`);
}

/**
 * Follows the journal batch by batch, up to a mark. Every batch is verified against its crcs and the one before it.
 * A reader owns its files and its buffer, so it works on any thread while the journal is written on another.
 */
export class JournalReader {
  readonly #disk: Disk;
  readonly #directory: string;
  readonly #reads: FileReads;
  readonly #shape: JournalShape;
  readonly #window: BatchWindow;
  #walk: LogWalk;

  constructor(disk: Disk, directory: string, reads: FileReads, shape: JournalShape, from: JournalAddress) {
    this.#disk = disk;
    this.#directory = directory;
    this.#reads = reads;
    this.#shape = shape;
    this.#window = new BatchWindow(reads, shape.fileBytes, shape.salt);
    this.#walk = this.#walkFrom(from);
  }

  /** For a thread without the Journal: `from` is the address of a batch, as `addressOf` or a mark gives it. */
  static open(host: Host, options: JournalReaderOptions, from: JournalAddress): JournalReader {
    const reads = new FileReads(host.disk, options.directory, READER_FILES_MAX);
    const shape = readShape(host.disk, options.directory, reads);
    if (shape.groupId !== options.groupId) {
      void reads.close();
      throw new TidemarkError('journal-foreign', `${options.directory} holds the journal of group ${shape.groupId}`);
    }
    return new JournalReader(host.disk, options.directory, reads, shape, from);
  }

  /** The batch `next` would return begins at or behind this address. */
  get address(): JournalAddress {
    return this.#walk.address;
  }

  /**
   * The next batch with records that ends at or below `limit` (a mark), verified; undefined when there is none yet.
   * Throws `trimmed` when the place was recycled, `journal-damaged` (details: address) when it cannot be read.
   * The view and its payloads are valid until the next call.
   */
  next(limit: JournalAddress): BatchView | undefined {
    while (true) {
      const batch = this.#walk.step(limit);
      if (batch === undefined) return undefined;
      if (typeof batch === 'string') throw this.#unreadable(batch);
      if (batch.header.count > 0) return batch;
    }
  }

  /** After `journal-damaged`: goes on at the next whole batch below `limit`, if there is one. */
  skipDamage(limit: JournalAddress): SkippedDamage | undefined {
    const fromLsn = this.#walk.nextLsn ?? 1;
    const { incarnation, address } = this.#walk;
    this.#window.forget();
    const found = this.#window.find(
      address,
      limit,
      (header) => header.firstLsn >= fromLsn && header.incarnation >= incarnation,
    );
    if (found === undefined) return undefined;
    this.#walk = this.#walkFrom(found.address);
    return { fromLsn, toLsn: found.firstLsn - 1, resumeAddress: found.address };
  }

  /** Goes to the batch at this address. */
  seek(address: JournalAddress): void {
    this.#window.forget();
    this.#walk = this.#walkFrom(address);
  }

  close(): Promise<void> {
    return this.#reads.close();
  }

  #walkFrom(address: JournalAddress): LogWalk {
    return new LogWalk(this.#reads, this.#window, this.#shape.fileBytes, { address });
  }

  #unreadable(reason: string): TidemarkError {
    const { address } = this.#walk;
    this.#window.forget();
    const sequence = Math.floor(address / this.#shape.fileBytes);
    const oldest = listSequences(this.#disk, this.#directory)[0];
    const details = { address, sequence };
    // a recycled file has lost its name: what its old descriptor shows may be anything
    if (oldest === undefined || oldest > sequence) {
      return new TidemarkError('trimmed', `journal address ${address} was recycled`, { details });
    }
    return new TidemarkError('journal-damaged', `journal address ${address}: ${reason}`, { details });
  }
}
