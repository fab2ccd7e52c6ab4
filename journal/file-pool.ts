import { assert } from './base/assert.ts';
import { channel } from './base/channels.ts';
import { TidemarkError } from './base/errors.ts';
import { journalFileName } from './file-reads.ts';
import type { DiskFile, Host } from './host/host.ts';

/** Files made ready ahead of the writer: one is filled while the next is prepared. */
const SPARES = 2;
/**
 * Files that were let go of are kept up to half the budget, where writers begin to be slowed down anyway, and up to so many
 * bytes: the next burst finds them written. New blocks take 250 MB/s where blocks that are there take 3 GB/s (measured), and
 * removing, making and filling a file anew cost a fifth of the source's CPU under 1 MiB writes.
 */
const KEPT_BYTES_MAX: number = 4 * 1024 ** 3;
/** Small pieces keep the page cache in small folios, which later batches overwrite faster (measured). */
const PREWRITE_PIECE_BYTES: number = 64 * 1024;
const PREPARING_NAME = 'prepare.tmj';

const failedChannel = channel('tidemark:journal:prepare-failed');

export interface FilePoolOptions {
  readonly directory: string;
  readonly groupName: string;
  readonly fileBytes: number;
  readonly budgetBytes: number;
}

/** A file being written. Two descriptors: the kernel reports a lost write once on each, so a blocking sync cannot miss an error that a queued one has taken. */
export interface WriterFile {
  readonly sequence: number;
  readonly file: DiskFile;
  readonly blockingSync: DiskFile;
}

interface Spare {
  readonly sequence: number;
  /** The name is durable. */
  named: boolean;
}

/**
 * The journal's files as a supply: pre-written with real zeroes in the background (a first write to new blocks costs
 * ten times an overwrite), reused when the log no longer needs them, never more of them than the budget allows.
 */
export class FilePool {
  readonly #host: Host;
  readonly #options: FilePoolOptions;
  readonly #filesMax: number;
  /** Files that hold the log. */
  #live: number;
  #nextSequence: number;
  readonly #spares: Spare[] = [];
  /** Sequences (names) of files that nobody needs any more, ready for reuse. */
  readonly #recycled: number[] = [];
  #preparing: Promise<void> | undefined;
  #firstSpare: (() => void) | undefined;
  #closed = false;
  /** Files the file system has room for, when it was last looked at: `filesLeft` is asked for with every write. */
  #roomFor = 0;

  /** `live`: files that hold the log; `found`: others in the directory, to be used first. */
  constructor(host: Host, options: FilePoolOptions, live: number, nextSequence: number, found: readonly number[]) {
    this.#host = host;
    this.#options = options;
    this.#filesMax = Math.floor(options.budgetBytes / options.fileBytes);
    this.#live = live;
    this.#nextSequence = nextSequence;
    host.disk.unlink(this.#path(PREPARING_NAME));
    for (const sequence of found) this.#adopt(sequence);
    this.measureRoom();
  }

  /** Whole files that may still be added to the log: within the budget, and as far as the file system has room. */
  get filesLeft(): number {
    const ready = this.#spares.length + this.#recycled.length;
    return Math.max(0, Math.min(this.#filesMax - this.#live, ready + this.#roomFor));
  }

  /** Looks again at how much the file system has left; others use it too. */
  measureRoom(): void {
    this.#roomFor = Math.floor(this.#host.disk.freeBytes(this.#options.directory) / this.#options.fileBytes);
  }

  /** True when `take` has a file. `reserve`: one file over the budget may be used. */
  canTake(reserve: boolean): boolean {
    if (this.#spares.length + this.#recycled.length > 0 && this.filesLeft > 0) return true;
    const filesMax = reserve ? this.#filesMax + 1 : this.#filesMax;
    return this.#live < filesMax && this.#host.disk.freeBytes(this.#options.directory) >= this.#options.fileBytes;
  }

  /** Which of the two bounds it is that leaves no room, for people. */
  get whyFull(): string {
    const { budgetBytes, directory } = this.#options;
    return this.#live < this.#filesMax
      ? `the file system of ${directory} is full`
      : `it has used its budget of ${budgetBytes} bytes`;
  }

  /** The next file, its name durable; `prepared` tells whether it was pre-written. Throws `journal-full`. */
  take(reserve: boolean): { file: WriterFile; prepared: boolean } {
    if (!this.canTake(reserve)) {
      throw new TidemarkError('journal-full', `the journal has no room: ${this.whyFull}`);
    }
    const sequence = this.#nextSequence;
    const path = this.#path(journalFileName(sequence));
    const spare = this.#spares.shift();
    const recycled = spare === undefined ? this.#recycled.shift() : undefined;
    if (spare !== undefined) {
      assert(spare.sequence === sequence, `spare file ${spare.sequence} is not the next, ${sequence}`);
      if (!spare.named) this.#host.disk.syncDirectoryNow(this.#options.directory);
    } else {
      if (recycled !== undefined) this.#host.disk.rename(this.#path(journalFileName(recycled)), path);
      else this.#makeSparse(path);
      this.#host.disk.syncDirectoryNow(this.#options.directory);
    }
    this.#nextSequence++;
    this.#live++;
    this.measureRoom();
    this.prepare();
    return {
      file: openForWriting(this.#host, path, sequence),
      prepared: spare !== undefined || recycled !== undefined,
    };
  }

  /** The log does not need this file any more. */
  recycle(sequence: number): void {
    this.#live--;
    this.#recycled.push(sequence);
    this.#removeSurplus();
    this.prepare();
  }

  /** Makes spares ready in the background until there are enough; called again whenever something changed. */
  prepare(): void {
    if (this.#closed || this.#preparing !== undefined || !this.#wantsSpare()) return;
    this.#preparing = this.#prepareSpares().finally(() => {
      this.#preparing = undefined;
    });
  }

  /** Resolves when a spare is ready, or none can be made now: a first file is worth waiting for. */
  async spareReady(): Promise<void> {
    this.prepare();
    if (this.#spares.length > 0 || this.#preparing === undefined) return;
    const first = Promise.withResolvers<void>();
    this.#firstSpare = first.resolve;
    await Promise.race([first.promise, this.#preparing]);
  }

  /** Waits for what is being prepared. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#preparing;
  }

  #adopt(sequence: number): void {
    const path = this.#path(journalFileName(sequence));
    const file = this.#host.disk.open(path, 'read');
    const size = file.size();
    void file.close();
    if (size !== this.#options.fileBytes || this.#spares.length >= this.#keptMax) this.#host.disk.unlink(path);
    else if (sequence === this.#nextSequence + this.#spares.length) this.#spares.push({ sequence, named: false });
    else this.#recycled.push(sequence);
  }

  get #keptMax(): number {
    const { budgetBytes, fileBytes } = this.#options;
    return Math.max(SPARES, Math.floor(Math.min(budgetBytes / 2, KEPT_BYTES_MAX) / fileBytes));
  }

  /** The oldest first, so that what still has its old name stays in one piece with the log. A failure is tried again. */
  #removeSurplus(): void {
    let oldest = this.#recycled[0];
    try {
      while (oldest !== undefined && this.#spares.length + this.#recycled.length > this.#keptMax) {
        this.#host.disk.unlink(this.#path(journalFileName(oldest)));
        this.#recycled.shift();
        oldest = this.#recycled[0];
      }
    } catch (error) {
      if (!(error instanceof TidemarkError)) throw error;
      failedChannel.publish({ group: this.#options.groupName, message: error.message });
    }
  }

  /** Whatever was let go of gets a name ahead at once: under its old one a start would take it for part of the log. */
  #wantsSpare(): boolean {
    if (this.#recycled.length > 0) return true;
    return this.#spares.length < SPARES && this.#live + this.#spares.length < this.#filesMax;
  }

  async #prepareSpares(): Promise<void> {
    try {
      while (!this.#closed && this.#wantsSpare()) {
        const fresh = this.#recycled.length === 0;
        if (fresh) await this.#prewrite();
        const named = fresh ? [this.#nameAhead(PREPARING_NAME)] : this.#nameRecycled();
        this.measureRoom();
        await this.#host.disk.syncDirectory(this.#options.directory);
        for (const spare of named) spare.named = true;
        this.#firstSpare?.();
      }
    } catch (error) {
      if (!(error instanceof TidemarkError)) throw error;
      if (this.#closed) return;
      failedChannel.publish({ group: this.#options.groupName, message: error.message });
    }
  }

  /** One sync of the directory serves them all. */
  #nameRecycled(): Spare[] {
    const named: Spare[] = [];
    for (let oldest = this.#recycled[0]; oldest !== undefined; oldest = this.#recycled[0]) {
      named.push(this.#nameAhead(journalFileName(oldest)));
      this.#recycled.shift();
    }
    return named;
  }

  /** The sequence is decided only now: the writer may have taken one meanwhile. */
  #nameAhead(from: string): Spare {
    const spare: Spare = { sequence: this.#nextSequence + this.#spares.length, named: false };
    this.#host.disk.rename(this.#path(from), this.#path(journalFileName(spare.sequence)));
    this.#spares.push(spare);
    return spare;
  }

  async #prewrite(): Promise<void> {
    const path = this.#path(PREPARING_NAME);
    this.#host.disk.unlink(path);
    const file = this.#host.disk.open(path, 'create');
    const zeroes = new Uint8Array(PREWRITE_PIECE_BYTES);
    try {
      let position = 0;
      while (position < this.#options.fileBytes && !this.#closed) {
        const length = Math.min(zeroes.length, this.#options.fileBytes - position);
        const written = await file.write(zeroes, 0, length, position);
        if (written !== length) throw new TidemarkError('no-space', `${path}: ${written} of ${length} bytes written`);
        position += length;
      }
      if (position < this.#options.fileBytes) throw new TidemarkError('shutting-down', 'the journal is being closed');
      await file.dataSync();
    } catch (error) {
      this.#host.disk.unlink(path);
      throw error;
    } finally {
      await file.close();
    }
  }

  #makeSparse(path: string): void {
    const file = this.#host.disk.open(path, 'create');
    file.truncate(this.#options.fileBytes);
    void file.close();
  }

  #path(name: string): string {
    return `${this.#options.directory}/${name}`;
  }
}

/** Opens a journal file for the writer. */
export function openForWriting(host: Host, path: string, sequence: number): WriterFile {
  return { sequence, file: host.disk.open(path, 'write'), blockingSync: host.disk.open(path, 'write') };
}
