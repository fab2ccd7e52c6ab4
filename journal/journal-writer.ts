import { assert } from './base/assert.ts';
import { channel } from './base/channels.ts';
import { TidemarkError } from './base/errors.ts';
import {
  BATCH_BODY_BYTES_MAX,
  BATCH_HEADER_BYTES,
  type BatchFields,
  batchEnd,
  writeBatchHeader,
} from './batch-codec.ts';
import { ClockWatch } from './clock-watch.ts';
import { type FilePool, openForWriting, type WriterFile } from './file-pool.ts';
import { journalFileName } from './file-reads.ts';
import { closeFile, GroupSync } from './group-sync.ts';
import type { Host, Timer } from './host/host.ts';
import { FILE_HEADER_BYTES, type JournalFileHeader, writeFileHeader } from './journal-file-header.ts';
import type { LsnIndex } from './lsn-index.ts';
import type { Marks } from './marks.ts';
import type { JournalAddress, JournalTime, Lsn } from './position.ts';
import { type Appended, poisoned, type WriterOptions, type WriterState } from './writer-state.ts';

const PAGE_BYTES = 4096;
/** Kept free at the end of the last file within the budget, for control records such as a gap. */
const RESERVE_BYTES: number = 64 * 1024;
/** A watermark follows an idle sync within 100 ms (invariant R4); half of it leaves room for a late timer. */
const WATERMARK_DELAY_MS = 50;

const appendChannel = channel('tidemark:journal:append');
const syncChannel = channel('tidemark:journal:sync');
const rollChannel = channel('tidemark:journal:roll');
const poisonedChannel = channel('tidemark:journal:poisoned');
const fullChannel = channel('tidemark:journal:full');

/**
 * The single writer of a journal. One synchronous write per batch into a pre-written file; whatever goes wrong with a
 * write or a sync poisons it for good (invariant D4): nothing is acknowledged after that, and nothing tried again on
 * those descriptors.
 */
export class JournalWriter {
  readonly state: WriterState;
  readonly #host: Host;
  readonly #options: WriterOptions;
  readonly #marks: Marks;
  readonly #pool: FilePool;
  readonly #index: LsnIndex;
  readonly #live: number[];
  readonly #syncs: GroupSync;
  readonly #clock: ClockWatch;
  readonly #headerSlab: Buffer = Buffer.alloc(FILE_HEADER_BYTES);
  readonly #headerView: DataView;
  #current: WriterFile | undefined;
  #slab: Buffer | undefined;
  #view: DataView;
  /** Reused for every batch: an object each would be the only allocation. */
  readonly #fields: BatchFields;
  /** Highest watermark that a header on its way to the disk carries. */
  #announcedLsn: Lsn = 0;
  #syncTimer: Timer | undefined;
  #watermarkTimer: Timer | undefined;
  #poison: TidemarkError | undefined;
  #closed = false;

  constructor(
    host: Host,
    options: WriterOptions,
    state: WriterState,
    marks: Marks,
    pool: FilePool,
    index: LsnIndex,
    live: readonly number[],
  ) {
    this.#host = host;
    this.#options = options;
    this.state = state;
    this.#marks = marks;
    this.#pool = pool;
    this.#index = index;
    this.#live = [...live];
    this.#headerView = new DataView(this.#headerSlab.buffer, this.#headerSlab.byteOffset, FILE_HEADER_BYTES);
    this.#view = this.#headerView;
    this.#clock = new ClockWatch(host.clock, state.time);
    this.#fields = {
      ...state,
      firstLsn: 0,
      durableLsn: 0,
      incarnation: 0,
      previousCrc: 0,
      count: 0,
      closesFile: false,
    };
    const sequence = Math.floor(state.address / options.fileBytes);
    if (state.address % options.fileBytes !== 0) {
      this.#current = openForWriting(host, `${options.directory}/${journalFileName(sequence)}`, sequence);
    }
    this.#syncs = new GroupSync(host.clock, {
      written: () => ({ address: this.state.address, lsn: this.state.nextLsn - 1 }),
      durable: (to, durationMs, waiters) => {
        this.#becameDurable(to.address, to.lsn, durationMs, waiters);
      },
      failed: (cause) => this.#poisonWith('sync-failed', cause),
    });
  }

  /** Why nothing can be appended any more. */
  get poisonedBy(): string | undefined {
    return this.#poison === undefined ? undefined : String(this.#poison.details['reason']);
  }

  get syncing(): boolean {
    return this.#syncs.running;
  }

  get oldestSequence(): number {
    return this.#live[0] ?? Math.floor(this.state.address / this.#options.fileBytes);
  }

  get usedBytes(): number {
    return Math.max(0, this.state.address - this.oldestSequence * this.#options.fileBytes);
  }

  get freeBytes(): number {
    const { fileBytes } = this.#options;
    const rest = this.#current === undefined ? 0 : fileBytes - (this.state.address % fileBytes) - this.#reserve;
    return Math.max(0, rest + this.#pool.filesLeft * (fileBytes - FILE_HEADER_BYTES));
  }

  measureRoom(): void {
    this.#pool.measureRoom();
  }

  get #reserve(): number {
    return Math.min(RESERVE_BYTES, this.#options.fileBytes / 8);
  }

  /**
   * Makes the records in [start, end) of the slab a batch. `reserve`: it may use what is kept for control records.
   * `time`: of records that are put back, which keep theirs. Throws `journal-full` before anything happened,
   * `journal-poisoned` otherwise.
   */
  append(slab: Buffer, start: number, end: number, count: number, reserve: boolean, time?: JournalTime): Appended {
    assert(start >= BATCH_HEADER_BYTES && end > start && end <= slab.length, 'a batch must lie in its slab');
    assert(end - start <= BATCH_BODY_BYTES_MAX, 'a batch is at most 4 MiB');
    assert(count > 0, 'a batch holds at least one record');
    const firstLsn = this.state.nextLsn;
    const address = this.#write(slab, start, end, count, reserve, time ?? this.#clock.now());
    this.state.nextLsn = firstLsn + count;
    this.#index.note(firstLsn, address);
    this.#marks.advanceAddress('written', this.state.address);
    this.#marks.advanceLsn('written', this.state.nextLsn - 1);
    this.#armSync();
    if (appendChannel.hasSubscribers) {
      appendChannel.publish({ group: this.#options.groupName, records: count, bytes: end - start });
    }
    return {
      firstLsn,
      lastLsn: firstLsn + count - 1,
      address: address + BATCH_HEADER_BYTES,
      endAddress: this.state.address,
      time: this.state.time,
    };
  }

  /** How far the wall clock has jumped since the last call, when it did by more than a second. */
  clockJump(): { fromMicros: number; toMicros: number } | undefined {
    return this.#clock.jump();
  }

  /** Journal time of what is appended next is at least this. */
  setTime(time: JournalTime): void {
    this.#clock.raise(time);
  }

  sync(): Promise<void> {
    if (this.#poison !== undefined) return Promise.reject(this.#poisonedError());
    if (this.#marks.address('durable') >= this.state.address) return Promise.resolve();
    return this.#syncs.sync();
  }

  syncNow(): void {
    if (this.#poison !== undefined) throw this.#poisonedError();
    if (this.#marks.address('durable') < this.state.address) this.#syncs.now();
  }

  /** Whole files below the address, and below what is durable, go back to the pool. Returns the sequences. */
  recycleBelow(address: JournalAddress): number[] {
    const limit = Math.min(address, this.#marks.address('durable'));
    const released: number[] = [];
    const current = Math.floor(this.state.address / this.#options.fileBytes);
    let oldest = this.#live[0];
    while (oldest !== undefined && oldest < current && (oldest + 1) * this.#options.fileBytes <= limit) {
      released.push(oldest);
      this.#live.shift();
      oldest = this.#live[0];
    }
    return released;
  }

  /** All is durable, and nothing is written by itself any more: the end stays where it is. `close` follows. */
  async settle(): Promise<void> {
    this.#endTimers();
    await this.sync();
  }

  /** Ends every timer, waits for a sync under way and closes the files. */
  async close(): Promise<void> {
    this.#endTimers();
    await this.#syncs.close();
    if (this.#current !== undefined) await closeFile(this.#current);
    this.#current = undefined;
  }

  #endTimers(): void {
    this.#closed = true;
    this.#syncTimer?.cancel();
    this.#watermarkTimer?.cancel();
  }

  /** One write: header, records, and padding up to the page border so that the next batch finds whole pages. */
  #write(slab: Buffer, start: number, end: number, count: number, reserve: boolean, at: JournalTime): JournalAddress {
    if (this.#poison !== undefined) throw this.#poisonedError();
    assert(!this.#closed, 'the journal is closed');
    const total = BATCH_HEADER_BYTES + end - start;
    const file = this.#room(total, reserve);
    if (slab !== this.#slab) {
      this.#slab = slab;
      this.#view = new DataView(slab.buffer, slab.byteOffset, slab.byteLength);
    }
    const { address } = this.state;
    this.state.time = Math.max(this.state.time, at);
    const chain = this.#header(slab, this.#view, start, end, count, false);
    const headerAt = start - BATCH_HEADER_BYTES;
    const position = address % this.#options.fileBytes;
    const padded = Math.ceil((position + total) / PAGE_BYTES) * PAGE_BYTES - position;
    this.#writeFully(file, slab, headerAt, Math.min(padded, slab.length - headerAt), position);
    this.state.chain = chain;
    this.state.address = batchEnd(address, end - start);
    return address;
  }

  #header(slab: Buffer, view: DataView, start: number, end: number, count: number, closesFile: boolean): number {
    const fields = this.#fields;
    fields.firstLsn = this.state.nextLsn;
    fields.durableLsn = this.#marks.lsn('durable');
    fields.time = this.state.time;
    fields.incarnation = this.state.incarnation.counter;
    fields.previousCrc = this.state.chain;
    fields.count = count;
    fields.closesFile = closesFile;
    fields.epoch = this.state.epoch;
    fields.address = this.state.address;
    this.#announcedLsn = fields.durableLsn;
    return writeBatchHeader(slab, view, start, end, fields, this.state.salt);
  }

  /** The file a batch of this size goes to: the present one, or the next. */
  #room(total: number, reserve: boolean): WriterFile {
    const { fileBytes } = this.#options;
    assert(total <= fileBytes - FILE_HEADER_BYTES, 'a batch must fit a journal file');
    const position = this.state.address % fileBytes;
    const rest = fileBytes - position;
    if (this.#current === undefined || position === 0 || total > rest) return this.#roll(reserve);
    if (reserve || total <= rest - this.#reserve || this.#pool.canTake(false)) return this.#current;
    throw this.#full();
  }

  #roll(reserve: boolean): WriterFile {
    if (!this.#pool.canTake(reserve)) throw this.#full();
    const { fileBytes } = this.#options;
    this.#closeCurrent();
    const { file, prepared } = this.#takeFile(reserve);
    this.state.address = file.sequence * fileBytes;
    const header: JournalFileHeader = {
      ...this.state,
      groupId: this.#options.groupId,
      sequence: file.sequence,
      fileBytes,
      firstLsn: this.state.nextLsn,
      durableLsn: this.#marks.lsn('durable'),
      bootId: this.#host.bootId,
    };
    writeFileHeader(this.#headerSlab, header);
    this.#live.push(file.sequence);
    this.#current = file;
    this.#writeFully(file, this.#headerSlab, 0, FILE_HEADER_BYTES, 0);
    this.state.address += FILE_HEADER_BYTES;
    this.#index.addFile(file.sequence, this.state.nextLsn);
    // A journal is born with its first header: records that a power loss left without one would be damage for ever.
    if (header.firstLsn === 1) this.#syncs.now();
    rollChannel.publish({ group: this.#options.groupName, sequence: file.sequence, prepared });
    return file;
  }

  /** The present file is closed already: a name that cannot be made durable leaves nowhere to write to. */
  #takeFile(reserve: boolean): ReturnType<FilePool['take']> {
    try {
      return this.#pool.take(reserve);
    } catch (cause) {
      if (!(cause instanceof TidemarkError)) throw cause;
      throw this.#poisonWith(cause.code, cause);
    }
  }

  /** The mark that tells readers to go on in the next file, where there is room for it. */
  #closeCurrent(): void {
    const file = this.#current;
    if (file === undefined) return;
    const position = this.state.address % this.#options.fileBytes;
    if (position !== 0 && this.#options.fileBytes - position >= BATCH_HEADER_BYTES) {
      const end = BATCH_HEADER_BYTES;
      const chain = this.#header(this.#headerSlab, this.#headerView, end, end, 0, true);
      this.#writeFully(file, this.#headerSlab, 0, BATCH_HEADER_BYTES, position);
      this.state.chain = chain;
    }
    this.#syncs.touched(file);
    this.#syncs.retire(file);
    this.#current = undefined;
  }

  #writeFully(file: WriterFile, bytes: Buffer, offset: number, length: number, position: number): void {
    this.#syncs.touched(file);
    let written: number;
    try {
      written = file.file.writeSync(bytes, offset, length, position);
    } catch (cause) {
      if (!(cause instanceof TidemarkError)) throw cause;
      throw this.#poisonWith(cause.code, cause);
    }
    if (written !== length) {
      throw this.#poisonWith('short-write', new TidemarkError('short-write', `${written} of ${length} bytes written`));
    }
  }

  #becameDurable(address: JournalAddress, lsn: Lsn, durationMs: number, waiters: number): void {
    if (address > this.#marks.address('durable')) this.#marks.advanceAddress('durable', address);
    if (lsn > this.#marks.lsn('durable')) this.#marks.advanceLsn('durable', lsn);
    syncChannel.publish({ group: this.#options.groupName, durationMs, durableLsn: lsn, waiters });
    this.#armSync();
    if (this.#closed || this.#watermarkTimer !== undefined || this.#announcedLsn >= lsn) return;
    this.#watermarkTimer = this.#host.clock.after(WATERMARK_DELAY_MS, () => {
      this.#watermarkTimer = undefined;
      this.#writeWatermark();
    });
  }

  /** While idle nobody else's header carries the watermark. It has no LSN, so it makes none necessary itself. */
  #writeWatermark(): void {
    if (this.#closed || this.#poison !== undefined || this.#current === undefined) return;
    if (this.#announcedLsn >= this.#marks.lsn('durable')) return;
    const { fileBytes } = this.#options;
    const position = this.state.address % fileBytes;
    // at the very end of a file the next header carries it instead
    if (position === 0 || fileBytes - position < 2 * BATCH_HEADER_BYTES) return;
    const chain = this.#header(this.#headerSlab, this.#headerView, BATCH_HEADER_BYTES, BATCH_HEADER_BYTES, 0, false);
    try {
      this.#writeFully(this.#current, this.#headerSlab, 0, BATCH_HEADER_BYTES, position);
    } catch (error) {
      // the poison is known by now; the next append or sync tells it to somebody who waits
      if (error instanceof TidemarkError) return;
      throw error;
    }
    this.state.chain = chain;
    this.state.address += BATCH_HEADER_BYTES;
    this.#marks.advanceAddress('written', this.state.address);
    this.#armSync();
  }

  /** What nobody syncs is synced in the background soon after: shipping waits for it. */
  #armSync(): void {
    if (this.#syncTimer !== undefined || this.#closed || this.#poison !== undefined) return;
    if (this.#marks.address('durable') >= this.state.address) return;
    this.#syncTimer = this.#host.clock.after(this.#options.syncIntervalMs, () => {
      this.#syncTimer = undefined;
      if (this.#closed || this.#poison !== undefined) return;
      if (this.#syncs.running || this.#marks.address('durable') >= this.state.address) return;
      void this.#syncs.sync();
    });
  }

  #full(): TidemarkError {
    const { groupName, budgetBytes } = this.#options;
    const reason = this.#pool.whyFull;
    fullChannel.publish({ group: groupName, usedBytes: this.usedBytes, budgetBytes, reason });
    return new TidemarkError('journal-full', `the journal of ${groupName} has no room: ${reason}`, {
      details: { usedBytes: this.usedBytes, budgetBytes },
    });
  }

  #poisonWith(reason: string, cause: TidemarkError): TidemarkError {
    if (this.#poison === undefined) {
      this.#poison = poisoned(reason, cause);
      poisonedChannel.publish({ group: this.#options.groupName, reason, message: cause.message });
    }
    return this.#poisonedError();
  }

  #poisonedError(): TidemarkError {
    return poisoned(this.poisonedBy ?? 'unknown', this.#poison?.cause);
  }
}
