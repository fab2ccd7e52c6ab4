import { assert } from './base/assert.ts';
import { TidemarkError } from './base/errors.ts';
import {
  BATCH_BODY_BYTES_MAX,
  BATCH_HEADER_BYTES,
  batchEnd,
  bodyIsWhole,
  readBatchHeader,
  writeRepairedHeader,
} from './batch-codec.ts';
import type { DamagedStretch, StretchAnchor } from './damaged-stretch.ts';
import { journalFileName } from './file-reads.ts';
import type { DiskFile, Host } from './host/host.ts';
import { FILE_HEADER_BYTES, readFileHeader, writeFileHeader } from './journal-file-header.ts';
import type { JournalOptions, RestoredRecord } from './journal-options.ts';
import { endMending, type MendingNote, noteMending } from './mending-note.ts';
import type { JournalAddress, Lsn } from './position.ts';
import { RECORD_HEADER_BYTES, RecordKind, writeRecordHeader } from './record.ts';
import { decodeIncarnation } from './record-bodies.ts';
import type { Incarnation } from './stream.ts';

/** What the writer needs of the journal it mends. */
export interface StretchHome {
  readonly host: Host;
  readonly options: JournalOptions;
  readonly salt: number;
  /** Of the run that mends: files of this run are told apart from older ones by it. */
  readonly incarnation: Incarnation;
  /** Of that run. */
  readonly bootId: string;
  /** Files below are somebody else's by now. */
  readonly oldestAddress: () => JournalAddress;
  /** Told every record that was put back. */
  readonly learn: (record: RestoredRecord) => void;
}

/** A record on its way back to its place. */
export interface MendedRecord extends RestoredRecord {
  readonly epoch: number;
}

/**
 * Writes the records of a damaged stretch into it again, as repaired batches (batch-codec.ts): those of one time,
 * incarnation and epoch together, so that they are never more bytes than what stood there. Batches and files that others
 * point at begin again where they did; the last batch is called what the one behind the stretch names. A kill in the
 * middle leaves a stretch that is damaged from there on. The caller has proven the records.
 */
export class StretchWriter {
  readonly #home: StretchHome;
  readonly #stretch: DamagedStretch;
  readonly #slab: Buffer = Buffer.alloc(BATCH_HEADER_BYTES + BATCH_BODY_BYTES_MAX);
  readonly #view: DataView = new DataView(this.#slab.buffer, this.#slab.byteOffset, this.#slab.byteLength);
  readonly #anchors: StretchAnchor[];
  readonly #files: Map<number, DiskFile> = new Map();
  /** What had been noted already as being mended. */
  readonly #notedBefore: MendingNote | undefined;
  #address: JournalAddress;
  /** Of the batch right before `#address`. */
  #previous: JournalAddress | undefined;
  #chain: number;
  #nextLsn: Lsn;
  #incarnation: number;
  #time: number;
  #epoch = 0;
  /** The batch at hand holds an INCARNATION record, and nothing else may be in it. */
  #alone = false;
  #bodyBytes = 0;
  #count = 0;

  private constructor(home: StretchHome, stretch: DamagedStretch, notedBefore: MendingNote | undefined) {
    this.#home = home;
    this.#notedBefore = notedBefore;
    this.#stretch = stretch;
    this.#anchors = [...stretch.anchors];
    this.#address = stretch.address;
    this.#previous = stretch.previous;
    this.#chain = stretch.chain;
    this.#nextLsn = stretch.fromLsn;
    this.#incarnation = stretch.incarnation;
    this.#time = stretch.time;
    this.#epoch = stretch.fileHeader?.epoch ?? 0;
  }

  /** Notes the place (mending-note.ts); nothing else is written yet. */
  static async begin(home: StretchHome, stretch: DamagedStretch): Promise<StretchWriter> {
    const { directory, groupId } = home.options;
    const from = stretch.toLsn < stretch.fromLsn ? (stretch.previous ?? stretch.address) : stretch.address;
    const note = { groupId, from, to: stretch.resumeAddress };
    return new StretchWriter(home, stretch, await noteMending(home.host.disk, directory, note));
  }

  /** The record that is to come now. */
  get nextLsn(): Lsn {
    return this.#nextLsn;
  }

  /** Records come in order. Throws `trimmed` when the place was reused meanwhile, `journal-damaged` when they do not fit. */
  add(record: MendedRecord): void {
    assert(record.lsn === this.#nextLsn, `record ${record.lsn} is mended instead of ${this.#nextLsn}`);
    this.#passAnchors();
    const bytes = RECORD_HEADER_BYTES + record.payload.length;
    const begins = record.kind === RecordKind.incarnation;
    const other = record.time !== this.#time || record.epoch !== this.#epoch;
    if (begins || this.#alone || other) this.#close();
    this.#alone = begins;
    this.#time = record.time;
    this.#epoch = record.epoch;
    if (begins) this.#incarnation = decodeIncarnation(record.payload).counter;
    this.#makeRoom(bytes);
    const at = BATCH_HEADER_BYTES + this.#bodyBytes;
    const { kind, flags, volume, payload, sector, sectors, requestId } = record;
    writeRecordHeader(this.#view, at, kind, flags, volume, payload.length, sector, sectors, requestId);
    this.#slab.set(payload, at + RECORD_HEADER_BYTES);
    this.#home.learn(record);
    this.#bodyBytes += bytes;
    this.#count++;
    this.#nextLsn++;
  }

  /** All records are there: closes the stretch and syncs. Resolves with the bytes between its ends. */
  async finish(): Promise<number> {
    const { toLsn, resumeAddress, resumeChain, address } = this.#stretch;
    assert(this.#nextLsn === Math.max(toLsn + 1, this.#stretch.fromLsn), 'all records of a stretch are mended');
    this.#passAnchors();
    this.#closeAt(resumeAddress, resumeChain);
    for (const file of this.#files.values()) await file.dataSync();
    const { host, options } = this.#home;
    await host.disk.syncDirectory(options.directory);
    await endMending(host.disk, options.directory, this.#notedBefore);
    return resumeAddress - address;
  }

  /** Lets go of the files; what was not finished stays damaged. */
  async close(): Promise<void> {
    for (const file of this.#files.values()) await file.close();
  }

  #passAnchors(): void {
    for (let next = this.#anchors[0]; next !== undefined && next.lsn <= this.#nextLsn; next = this.#anchors[0]) {
      this.#closeAt(next.address, next.chain);
      this.#anchors.shift();
    }
  }

  get #limit(): JournalAddress {
    const { fileBytes } = this.#home.options;
    const fileEnd = this.#fileStart(this.#address) + fileBytes;
    return Math.min(fileEnd, this.#anchors[0]?.address ?? fileEnd, this.#stretch.resumeAddress);
  }

  #fileStart(address: JournalAddress): JournalAddress {
    return address - (address % this.#home.options.fileBytes);
  }

  #makeRoom(bytes: number): void {
    if (this.#address === this.#fileStart(this.#address)) this.#beginFile();
    const whole = this.#bodyBytes + bytes;
    if (whole <= BATCH_BODY_BYTES_MAX && this.#address + BATCH_HEADER_BYTES + whole <= this.#limit) return;
    if (this.#count > 0 && batchEnd(this.#address, this.#bodyBytes) + BATCH_HEADER_BYTES + bytes <= this.#limit) {
      this.#close();
      return;
    }
    const nextFile = this.#fileStart(this.#address) + this.#home.options.fileBytes;
    if (this.#limit < nextFile || this.#anchors[0]?.address === nextFile) throw this.#misfit();
    if (nextFile >= this.#stretch.resumeAddress) throw this.#misfit();
    this.#closeAt(nextFile);
  }

  /** Ends the batch at hand; the next one follows at once. */
  #close(): void {
    if (this.#count > 0) this.#writeBatch(undefined, false, batchEnd(this.#address, this.#bodyBytes));
  }

  /** Goes on at a place that is given; `chain`: what is called there, absent: nothing whole stands there. */
  #closeAt(to: JournalAddress, chain?: number): void {
    if (this.#address === this.#fileStart(this.#address)) this.#beginFile();
    const nextFile = this.#fileStart(this.#address) + this.#home.options.fileBytes;
    if (to > nextFile) this.#closeAt(nextFile);
    if (to === this.#address && this.#count === 0) {
      if (chain !== undefined && chain !== this.#chain) this.#rename(chain);
      return;
    }
    const newFile = to === this.#fileStart(this.#address) + this.#home.options.fileBytes;
    // too little is left for a mark, and readers go on by themselves
    const unmarked = newFile && this.#count === 0 && to - this.#address < BATCH_HEADER_BYTES;
    // a batch that stands right behind the header that is written anew names what that header has to say
    const { resumeAddress, resumeChain } = this.#stretch;
    const named = newFile && to + FILE_HEADER_BYTES === resumeAddress ? (chain ?? resumeChain) : chain;
    if (!unmarked) this.#writeBatch(named, newFile, to);
    else if (named !== undefined && named !== this.#chain) throw this.#misfit();
    this.#address = to;
    if (!newFile) return;
    if (chain === undefined) this.#beginFile();
    else {
      this.#address += FILE_HEADER_BYTES;
      this.#chain = chain;
    }
  }

  #writeBatch(chain: number | undefined, closesFile: boolean, next: JournalAddress): void {
    const end = batchEnd(this.#address, this.#bodyBytes);
    if (end > (closesFile ? this.#limit : next)) throw this.#misfit();
    const bodyEnd = BATCH_HEADER_BYTES + this.#bodyBytes;
    this.#chain = writeRepairedHeader(
      this.#slab,
      this.#view,
      BATCH_HEADER_BYTES,
      bodyEnd,
      {
        firstLsn: this.#nextLsn - this.#count,
        time: this.#time,
        incarnation: this.#incarnation,
        previousCrc: this.#chain,
        count: this.#count,
        closesFile,
        epoch: this.#epoch,
        address: this.#address,
        chain,
        skipBytes: closesFile ? 0 : next - end,
      },
      this.#home.salt,
    );
    this.#write(this.#slab.subarray(0, bodyEnd), this.#address);
    this.#previous = this.#address;
    this.#address = next;
    this.#bodyBytes = 0;
    this.#count = 0;
  }

  /**
   * Calls what stands right before by the name that the batch behind it uses. Power that goes in a repair leaves some
   * sectors of it and some of what stood there: both sides of a border are whole then, and do not know each other.
   */
  #rename(chain: number): void {
    const { salt, options } = this.#home;
    if (this.#address % options.fileBytes === FILE_HEADER_BYTES) {
      const at = this.#fileStart(this.#address);
      const bytes = this.#read(at, FILE_HEADER_BYTES);
      const header = readFileHeader(bytes);
      if (typeof header === 'string') throw this.#misfit();
      writeFileHeader(bytes, { ...header, chain });
      this.#write(bytes, at);
    }
    if (this.#previous !== undefined) this.#renameBatch(this.#previous, chain, salt);
    this.#chain = chain;
  }

  #renameBatch(address: JournalAddress, chain: number, salt: number): void {
    const header = readBatchHeader(this.#read(address, BATCH_HEADER_BYTES), 0, address, salt);
    if (typeof header === 'string') throw this.#misfit();
    const end = BATCH_HEADER_BYTES + header.bodyBytes;
    this.#slab.set(this.#read(address, end));
    if (!bodyIsWhole(this.#slab.subarray(0, end), BATCH_HEADER_BYTES, header)) throw this.#misfit();
    const skipBytes = header.closesFile ? 0 : header.nextAddress - batchEnd(address, header.bodyBytes);
    writeRepairedHeader(this.#slab, this.#view, BATCH_HEADER_BYTES, end, { ...header, chain, skipBytes }, salt);
    this.#write(this.#slab.subarray(0, BATCH_HEADER_BYTES), address);
  }

  #beginFile(): void {
    const { options, bootId, salt, incarnation } = this.#home;
    const sequence = this.#address / options.fileBytes;
    const before = this.#stretch.fileHeader;
    const ours = incarnation.counter === this.#incarnation;
    const header = new Uint8Array(FILE_HEADER_BYTES);
    writeFileHeader(header, {
      salt,
      groupId: options.groupId,
      sequence,
      fileBytes: options.fileBytes,
      firstLsn: this.#nextLsn,
      durableLsn: 0,
      time: this.#time,
      chain: this.#chain,
      incarnation: ours ? incarnation : (before?.incarnation ?? { counter: this.#incarnation, nonce: '0'.repeat(16) }),
      epoch: this.#epoch,
      bootId: ours ? bootId : (before?.bootId ?? bootId),
    });
    this.#write(header, this.#address);
    this.#address += FILE_HEADER_BYTES;
  }

  /** Look and write in one turn: a file that is let go of changes its name, and is another's from then on. */
  #write(bytes: Uint8Array, address: JournalAddress): void {
    const { options, oldestAddress } = this.#home;
    if (address < oldestAddress())
      throw new TidemarkError('trimmed', `journal address ${address} is not needed any more`);
    const file = this.#file(address);
    const written = file.writeSync(bytes, 0, bytes.length, address % options.fileBytes);
    if (written !== bytes.length)
      throw new TidemarkError('no-space', `${file.path}: ${written} of ${bytes.length} bytes`);
  }

  #read(address: JournalAddress, length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    const read = this.#file(address).readSync(bytes, 0, length, address % this.#home.options.fileBytes);
    if (read !== length) throw this.#misfit();
    return bytes;
  }

  #file(address: JournalAddress): DiskFile {
    const { options, host } = this.#home;
    const sequence = Math.floor(address / options.fileBytes);
    const known = this.#files.get(sequence);
    if (known !== undefined) return known;
    const file = host.disk.open(`${options.directory}/${journalFileName(sequence)}`, 'write');
    this.#files.set(sequence, file);
    return file;
  }

  #misfit(): TidemarkError {
    const { fromLsn, toLsn } = this.#stretch;
    return new TidemarkError('journal-damaged', `records ${fromLsn} to ${toLsn} do not fit into the place they had`);
  }
}
