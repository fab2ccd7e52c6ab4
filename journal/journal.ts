import { assert } from './base/assert.ts';
import { channel } from './base/channels.ts';
import { TidemarkError } from './base/errors.ts';
import { BATCH_HEADER_BYTES } from './batch-codec.ts';
import { BatchWindow } from './batch-window.ts';
import { type DamagedStretch, findStretch, type StretchAnchor } from './damaged-stretch.ts';
import { FilePool } from './file-pool.ts';
import { FileReads, READER_FILES_MAX } from './file-reads.ts';
import type { DirectoryLock, Host } from './host/host.ts';
import { type AppendOptions, checkOptions, type JournalOptions, type RestoredRecord } from './journal-options.ts';
import { JournalReader } from './journal-reader.ts';
import { JournalWriter } from './journal-writer.ts';
import { LocalMarks } from './local-marks.ts';
import { locate } from './locate.ts';
import type { LsnIndex } from './lsn-index.ts';
import type { Marks } from './marks.ts';
import { type Epoch, type JournalAddress, type JournalTime, LSN_NONE, type Lsn } from './position.ts';
import {
  changesVolume,
  RECORD_HEADER_BYTES,
  RECORD_PAYLOAD_BYTES_MAX,
  RecordKind,
  writeRecordHeader,
} from './record.ts';
import { decodeEpoch, decodeIncarnation, encodeClockJump, encodeIncarnation } from './record-bodies.ts';
import { emptyLog, type RecoveredLog, recoverLog } from './recovery.ts';
import { publishRecovery, type RecoveryReport } from './recovery-report.ts';
import { writeStopMark } from './stop-mark.ts';
import type { Incarnation } from './stream.ts';
import { StretchWriter } from './stretch-writer.ts';
import type { Appended } from './writer-state.ts';

export type { AppendOptions, JournalOptions, RestoredRecord } from './journal-options.ts';
export type { Appended } from './writer-state.ts';

const jumpChannel = channel('tidemark:journal:clock-jump');

/**
 * A group's write-ahead log: one ordering point, one process (the directory is locked), one thread that appends.
 *
 * Life: `open` (recovers) -> `restoreRecords` where the far side held more -> `begin` -> appends -> `close`.
 * After `journal-poisoned` the object is finished: `close` it and `open` again, which writes everything unproven anew.
 */
export class Journal {
  readonly report: RecoveryReport;
  /**
   * The newest run before this one that is known to have begun. Later than that of the report when all its records are lost
   * here: others may have heard of it, and no run may have its counter.
   */
  readonly begunBefore: Incarnation;
  readonly fileBytes: number;
  readonly marks: Marks;
  readonly #host: Host;
  readonly #options: JournalOptions;
  readonly #lock: DirectoryLock;
  readonly #reads: FileReads;
  readonly #pool: FilePool;
  readonly #index: LsnIndex;
  readonly #writer: JournalWriter;
  readonly #window: BatchWindow;
  /** Headroom, one record of the largest size, and the padding behind it. */
  readonly #slab: Buffer = Buffer.alloc(BATCH_HEADER_BYTES + RECORD_HEADER_BYTES + RECORD_PAYLOAD_BYTES_MAX + 4096);
  readonly #slabView: DataView;
  #incarnation: Incarnation | undefined;
  #closing: Promise<void> | undefined;

  private constructor(host: Host, options: JournalOptions, lock: DirectoryLock, recovered: RecoveredLog, marks: Marks) {
    const { fileBytes, directory } = options;
    this.#host = host;
    this.#options = options;
    this.fileBytes = options.fileBytes;
    this.#lock = lock;
    this.report = recovered.report;
    this.marks = marks;
    this.#slabView = new DataView(this.#slab.buffer, this.#slab.byteOffset, this.#slab.byteLength);
    this.#reads = new FileReads(host.disk, directory);
    this.#index = recovered.index;
    this.begunBefore = recovered.begun;
    this.#window = new BatchWindow(this.#reads, fileBytes, recovered.salt);
    const begun = recovered.endAddress % fileBytes !== 0;
    const nextSequence = Math.floor(recovered.endAddress / fileBytes) + (begun ? 1 : 0);
    this.#pool = new FilePool(host, options, recovered.sequences.length, nextSequence, recovered.spareSequences);
    const state = {
      salt: recovered.salt,
      address: recovered.endAddress,
      chain: recovered.chain,
      nextLsn: recovered.report.lastLsn + 1,
      time: recovered.time,
      epoch: recovered.epoch,
      incarnation: recovered.report.incarnation,
    };
    this.#writer = new JournalWriter(host, options, state, marks, this.#pool, this.#index, recovered.sequences);
  }

  /**
   * Takes the directory's lock and recovers what is there, or makes an empty journal. Nothing may be appended before
   * `begin`. The journal advances `written` and `durable` of the marks (a LocalMarks when left out). Rejects with
   * `journal-locked`, `journal-foreign`, `format-too-new` (all leave the directory untouched), `journal-damaged` when no
   * file header can be read, `device-failed`, `network-file-system`, `precondition-failed` for another file size.
   */
  static async open(host: Host, options: JournalOptions, marks: Marks = new LocalMarks()): Promise<Journal> {
    checkOptions(options);
    host.disk.makeDirectory(options.directory);
    const lock = host.disk.lockDirectory(options.directory);
    try {
      const began = host.clock.monotonicMs();
      const recovered = await recoverLog(host, options);
      await host.disk.syncDirectory(options.directory);
      const journal = new Journal(host, options, lock, recovered ?? emptyLog(host, options), marks);
      if (recovered !== undefined) publishRecovery(options.groupName, journal.report, host.clock.monotonicMs() - began);
      // everything kept was proven durable or has just been written again and synced
      marks.advanceAddress('written', recovered?.endAddress ?? 0);
      marks.advanceAddress('durable', recovered?.endAddress ?? 0);
      marks.advanceLsn('written', journal.report.lastLsn);
      marks.advanceLsn('durable', journal.report.lastLsn);
      journal.#pool.prepare();
      return journal;
    } catch (error) {
      lock.release();
      throw error;
    }
  }

  get lastLsn(): Lsn {
    return this.#writer.state.nextLsn - 1;
  }

  /** Where the next batch will begin, or the end of the file before it. */
  get endAddress(): JournalAddress {
    return this.#writer.state.address;
  }

  get epoch(): Epoch {
    return this.#writer.state.epoch;
  }

  /** Of this run; undefined before `begin`. */
  get incarnation(): Incarnation | undefined {
    return this.#incarnation;
  }

  /** LSN of the oldest record still held; `lastLsn + 1` when none is. */
  get oldestLsn(): Lsn {
    return this.#index.oldestLsn ?? this.lastLsn + 1;
  }

  /** Where a reader of everything begins. */
  get oldestAddress(): JournalAddress {
    return this.#writer.oldestSequence * this.#options.fileBytes;
  }

  get usedBytes(): number {
    return this.#writer.usedBytes;
  }

  /** What may still be appended within the budget. */
  get freeBytes(): number {
    return this.#writer.freeBytes;
  }

  /** Looks again at the file system's room, which `freeBytes` counts in; to be called now and then. */
  measureRoom(): void {
    this.#writer.measureRoom();
  }

  /** Why nothing can be appended any more: `no-space`, `short-write`, `device-failed`, `sync-failed` ...; else undefined. */
  get poisonedBy(): string | undefined {
    return this.#writer.poisonedBy;
  }

  /**
   * Puts back records that the far side holds and we lost, in order, from `lastLsn + 1` on, under the incarnation and at
   * the time that wrote them: both are in their chain. Only before `begin`, which makes them durable.
   */
  restoreRecords(records: readonly RestoredRecord[]): void {
    assert(this.#incarnation === undefined, 'records are restored before begin');
    for (const record of records) {
      assert(record.lsn === this.lastLsn + 1, `LSN ${record.lsn} restored behind ${this.lastLsn}`);
      this.#learn(record);
      const { kind, flags, volume, payload, sector, sectors, requestId, time } = record;
      this.#appendOne(kind, flags, volume, payload, sector, sectors, requestId, true, time);
    }
  }

  /**
   * Starts a new incarnation: its record is durable when this resolves (rule 1). Rejects with `needs-resync` (details:
   * headLsn, farLsn) when the far side holds more than we do: restore those records first.
   */
  async begin(settled: { readonly highestLsn: Lsn } = { highestLsn: LSN_NONE }): Promise<Incarnation> {
    assert(this.#incarnation === undefined, 'begin is called once');
    if (settled.highestLsn > this.lastLsn) {
      throw new TidemarkError(
        'needs-resync',
        `the far side holds records up to LSN ${settled.highestLsn}, this journal ends at ${this.lastLsn}`,
        { details: { headLsn: this.lastLsn, farLsn: settled.highestLsn } },
      );
    }
    const { state } = this.#writer;
    const nonce = Buffer.from(this.#host.random.bytes(8)).toString('hex');
    const incarnation = { counter: Math.max(state.incarnation.counter, this.begunBefore.counter) + 1, nonce };
    // what was put back was not cut after all
    const cutAfterLsn = this.report.cut?.afterLsn;
    const cut = cutAfterLsn === this.lastLsn ? { cutAfterLsn } : {};
    if (state.address % this.#options.fileBytes === 0) await this.#pool.spareReady();
    state.incarnation = incarnation;
    const body = encodeIncarnation({ ...incarnation, bootId: this.#host.bootId, ...cut });
    this.#appendOne(RecordKind.incarnation, 0, 0, body, 0, 0, 0, true);
    await this.#writer.sync();
    this.#incarnation = incarnation;
    return incarnation;
  }

  /**
   * Records laid out in [start, end) of the slab become a batch; the 64 bytes before `start` are overwritten by its
   * header, and what follows `end` up to the next 4 KiB of the file may be written too (give the slab that much room).
   * One synchronous write. `count`: records without PADs, at least one; at most 4 MiB. Throws `journal-full` (nothing
   * happened; may be tried again) or `journal-poisoned` (details: reason).
   */
  appendInPlace(slab: Buffer, start: number, end: number, count: number): Appended {
    this.#beforeAppend();
    return this.#writer.append(slab, start, end, count, false);
  }

  /**
   * One record of its own batch: control records, seed blocks, zeroes. Control records may use the reserve when the
   * budget is spent. An EPOCH record changes the epoch from its own batch on.
   */
  append(kind: RecordKind, options: AppendOptions = {}): Appended {
    this.#beforeAppend();
    const body = options.body ?? NOTHING;
    if (kind === RecordKind.epoch) this.#writer.state.epoch = decodeEpoch(body).epoch;
    const { volume = 0, sector = 0, sectors = 0, flags = 0 } = options;
    return this.#appendOne(kind, flags, volume, body, sector, sectors, 0, !changesVolume(kind));
  }

  /** All appended so far is durable; one fdatasync serves all who wait. Rejects `journal-poisoned`. */
  sync(): Promise<void> {
    return this.#writer.sync();
  }

  /** The same, blocking: for a lone flush. Right also while a `sync` is under way. Throws `journal-poisoned`. */
  syncNow(): void {
    this.#writer.syncNow();
  }

  /** True while a `sync` is under way: joining it is cheaper than `syncNow`. */
  get syncing(): boolean {
    return this.#writer.syncing;
  }

  /** Payload bytes at an address, from the page cache; not verified. Throws `trimmed`, `device-failed`. */
  readInto(address: JournalAddress, length: number, into: Uint8Array, offset: number): void {
    const { fileBytes } = this.#options;
    const sequence = Math.floor(address / fileBytes);
    if (address < this.oldestAddress) throw this.#trimmed(address);
    assert(address + length <= this.endAddress, 'only what was written can be read');
    const done = this.#reads.read(sequence, address - sequence * fileBytes, into, offset, length);
    if (done !== length) throw new TidemarkError('device-failed', `${done} of ${length} bytes read at ${address}`);
  }

  /** `from`: the address of a batch, as `addressOf`, `oldestAddress` or a mark gives it. */
  reader(from: JournalAddress): JournalReader {
    if (from < this.oldestAddress) throw this.#trimmed(from);
    const { directory, fileBytes, groupId } = this.#options;
    const shape = { salt: this.#writer.state.salt, fileBytes, groupId };
    return new JournalReader(
      this.#host.disk,
      directory,
      new FileReads(this.#host.disk, directory, READER_FILES_MAX),
      shape,
      from,
    );
  }

  /** Address of the batch that holds the record; behind the last record: the end. Throws `trimmed`, `journal-damaged`. */
  addressOf(lsn: Lsn): JournalAddress {
    if (lsn > this.lastLsn) return this.endAddress;
    const from = this.#index.floor(lsn);
    if (from === undefined) throw new TidemarkError('trimmed', `LSN ${lsn} is older than ${this.oldestLsn}`);
    return locate(this.#window, this.#options.fileBytes, lsn, from, this.endAddress);
  }

  /**
   * The damage at an address that a reader could not read; undefined when it reads well there. `anchors`: beginnings of
   * batches that the caller goes on relying on. Reads one file, at one go.
   */
  damageAt(address: JournalAddress, anchors: readonly StretchAnchor[] = []): DamagedStretch | undefined {
    const { fileBytes } = this.#options;
    const { state } = this.#writer;
    const end = { address: state.address, chain: state.chain, lastLsn: this.lastLsn };
    const { oldestAddress } = this;
    const search = {
      reads: this.#reads,
      window: this.#window,
      fileBytes,
      index: this.#index,
      oldestAddress,
      end,
      anchors,
    };
    return findStretch(search, address);
  }

  /** Puts proven records into a stretch that `damageAt` told, in its place. */
  mend(stretch: DamagedStretch): Promise<StretchWriter> {
    const { salt } = this.#writer.state;
    const begun = this.#incarnation;
    const incarnation = begun ?? this.report.incarnation;
    const bootId = begun === undefined ? this.report.bootId : this.#host.bootId;
    const home = { host: this.#host, options: this.#options, salt, incarnation, bootId };
    // of a lost end nobody knows what it said of runs and times
    const atEnd = begun === undefined && stretch.resumeAddress === this.endAddress;
    const learn = (record: RestoredRecord): void => (atEnd ? this.#learn(record) : undefined);
    return StretchWriter.begin({ ...home, oldestAddress: () => this.oldestAddress, learn }, stretch);
  }

  /** Whole files below the address may be reused; never anything that is not durable. */
  recycleBelow(address: JournalAddress): void {
    for (const sequence of this.#writer.recycleBelow(address)) {
      this.#reads.drop(sequence);
      this.#pool.recycle(sequence);
    }
    this.#index.dropBelow(this.#writer.oldestSequence);
  }

  /** Syncs, records a clean stop unless the journal is poisoned or never began, releases the directory. Idempotent. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    try {
      if (this.#incarnation !== undefined && this.poisonedBy === undefined) await this.#stopCleanly(this.#incarnation);
    } finally {
      await this.#writer.close();
      await this.#pool.close();
      await this.#reads.close();
      this.#lock.release();
    }
  }

  async #stopCleanly(incarnation: Incarnation): Promise<void> {
    // a watermark behind the mark would make the stop an unclean one
    await this.#writer.settle();
    await writeStopMark(this.#host.disk, this.#options.directory, {
      groupId: this.#options.groupId,
      incarnation: incarnation.counter,
      nonce: incarnation.nonce,
      lastLsn: this.lastLsn,
      endAddress: this.endAddress,
    });
  }

  /** What comes behind goes on from this record, although this run did not write it. */
  #learn(record: RestoredRecord): void {
    const { state } = this.#writer;
    if (record.kind === RecordKind.incarnation) {
      const body = decodeIncarnation(record.payload);
      state.incarnation = { counter: body.counter, nonce: body.nonce };
    } else if (record.kind === RecordKind.epoch) {
      state.epoch = decodeEpoch(record.payload).epoch;
    }
    this.#writer.setTime(record.time);
  }

  #beforeAppend(): void {
    assert(this.#incarnation !== undefined, 'nothing is appended before begin');
    const jump = this.#writer.clockJump();
    if (jump === undefined) return;
    jumpChannel.publish({ group: this.#options.groupName, ...jump });
    this.#appendOne(RecordKind.clockJump, 0, 0, encodeClockJump(jump), 0, 0, 0, true);
  }

  #appendOne(
    kind: RecordKind,
    flags: number,
    volume: number,
    payload: Uint8Array,
    sector: number,
    sectors: number,
    requestId: number,
    reserve: boolean,
    time?: JournalTime,
  ): Appended {
    assert(payload.length <= RECORD_PAYLOAD_BYTES_MAX, 'the payload of a record is at most 1 MiB');
    const start = BATCH_HEADER_BYTES;
    writeRecordHeader(this.#slabView, start, kind, flags, volume, payload.length, sector, sectors, requestId);
    this.#slab.set(payload, start + RECORD_HEADER_BYTES);
    return this.#writer.append(this.#slab, start, start + RECORD_HEADER_BYTES + payload.length, 1, reserve, time);
  }

  #trimmed(address: JournalAddress): TidemarkError {
    return new TidemarkError('trimmed', `journal address ${address} is older than ${this.oldestAddress}`);
  }
}

const NOTHING = new Uint8Array(0);
