import { crc32c } from '@node-rs/crc32';
import { assert } from './base/assert.ts';
import { advanceChain, type Chain, sameChain } from './chain.ts';
import {
  CHUNK_ENTRY_BYTES,
  CHUNK_PACKED,
  FRAME_ENTRY_BYTES,
  FRAME_HEADER_BYTES,
  type FrameHeader,
  frameDamaged,
  framePrefixBytes,
  type RecordEntry,
  readEntry,
  readFrameHeader,
  unpack,
} from './frame-codec.ts';
import type { Lsn } from './position.ts';

/** One record's payload where it is stored as it is: to be read and checked without the rest of its chunk. */
export interface PlainRecord {
  /** Of its first byte, in the plain payload. */
  readonly payload: number;
  readonly bytes: number;
  /** Offset in the frame. */
  readonly storedOffset: number;
  /** crc32c of the payload. */
  readonly crc: number;
}

/** The chunks that cover a stretch of the plain payload, and the bytes of the frame they are stored in. */
export interface ChunkRange {
  readonly first: number;
  readonly last: number;
  /** Offset in the frame of the first stored byte. */
  readonly storedOffset: number;
  readonly storedBytes: number;
}

/**
 * All of a frame but its payload: header, record list and chunk table, verified. A view that wants 4 KiB of a frame on
 * disk reads this prefix once, and then only the chunks it needs:
 *
 *   header = readFrameHeader(first 160 bytes);  prefix = framePrefixBytes(header)
 *   layout = FrameLayout.parse(prefix bytes);   range = layout.chunkRange(offset, length)
 *   stored = bytes [range.storedOffset, + range.storedBytes) of the frame
 *   layout.readFrom(stored, range, offset, length, into, at)
 */
export class FrameLayout {
  readonly header: FrameHeader;
  readonly #entries: Uint8Array;
  readonly #entriesView: DataView;
  /** Plain payload offset of record i; one more: the end. */
  readonly #payloadOffsets: Uint32Array;
  /** Offset in the frame of chunk i; one more: the end of the frame. */
  readonly #chunkOffsets: Uint32Array;
  readonly #table: DataView;

  private constructor(header: FrameHeader, entries: Uint8Array, table: Uint8Array) {
    this.header = header;
    this.#entries = entries;
    this.#entriesView = new DataView(entries.buffer, entries.byteOffset, entries.byteLength);
    this.#table = new DataView(table.buffer, table.byteOffset, table.byteLength);
    this.#payloadOffsets = this.#sumPayloads();
    this.#chunkOffsets = this.#sumChunks();
    if (!sameChain(advanceChain(header.chainBefore, entries), header.chainAfter)) {
      throw frameDamaged('the chain value of a frame is not that of its records', { firstLsn: header.firstLsn });
    }
  }

  /**
   * `prefix`: the frame's bytes up to its first chunk at least; it is not kept. Throws `frame-damaged`,
   * `upgrade-replica-first`.
   */
  static parse(prefix: Uint8Array): FrameLayout {
    const header = readFrameHeader(prefix);
    const listEnd = FRAME_HEADER_BYTES + header.listStoredBytes;
    const tableEnd = framePrefixBytes(header);
    if (prefix.length < tableEnd) throw frameDamaged('a frame ends within its record list or chunk table');
    const stored = prefix.subarray(FRAME_HEADER_BYTES, listEnd);
    if (crc32c(stored) !== header.listCrc) {
      throw frameDamaged('the crc of a record list is wrong', { firstLsn: header.firstLsn });
    }
    // Not slice(): that of a Buffer is no copy.
    const table = new Uint8Array(prefix.subarray(listEnd, tableEnd));
    if (crc32c(table) !== header.tableCrc) {
      throw frameDamaged('the crc of a chunk table is wrong', { firstLsn: header.firstLsn });
    }
    const entries = header.listPacked ? unpack(stored, header.listPlainBytes) : new Uint8Array(stored);
    return new FrameLayout(header, entries, table);
  }

  get firstLsn(): Lsn {
    return this.header.firstLsn;
  }

  get lastLsn(): Lsn {
    return this.header.firstLsn + this.header.recordCount - 1;
  }

  get recordCount(): number {
    return this.header.recordCount;
  }

  record(index: number): RecordEntry {
    assert(index >= 0 && index < this.recordCount, `record ${index} of a frame with ${this.recordCount}`);
    return readEntry(
      this.#entriesView,
      index * FRAME_ENTRY_BYTES,
      this.header.firstLsn + index,
      this.#payloadOffsets[index]!,
    );
  }

  forEach(run: (record: RecordEntry, index: number) => void): void {
    for (let index = 0; index < this.recordCount; index++) run(this.record(index), index);
  }

  /** Where record `index` begins in the plain payload; `recordCount` gives the end. */
  payloadOffset(index: number): number {
    assert(index >= 0 && index <= this.recordCount, `record ${index} of a frame with ${this.recordCount}`);
    return this.#payloadOffsets[index]!;
  }

  /** The 40 bytes of one entry: equal bytes mean equal records (DESIGN rule 17). */
  entryBytes(index: number): Uint8Array {
    return this.#entries.subarray(index * FRAME_ENTRY_BYTES, (index + 1) * FRAME_ENTRY_BYTES);
  }

  /** The chain value after `lsn`, which lies in the frame or right before it. */
  chainAt(lsn: Lsn): Chain {
    const count = lsn + 1 - this.header.firstLsn;
    assert(count >= 0 && count <= this.recordCount, `LSN ${lsn} is not in this frame`);
    if (count === this.recordCount) return this.header.chainAfter;
    return advanceChain(this.header.chainBefore, this.#entries.subarray(0, count * FRAME_ENTRY_BYTES));
  }

  /** The chunks for `length` (1 or more) bytes of the plain payload at `offset`. */
  chunkRange(offset: number, length: number): ChunkRange {
    assert(
      offset >= 0 && length > 0 && offset + length <= this.header.payloadPlainBytes,
      `payload bytes [${offset}, +${length}) of ${this.header.payloadPlainBytes}`,
    );
    const first = Math.floor(offset / this.header.chunkBytes);
    const last = Math.floor((offset + length - 1) / this.header.chunkBytes);
    const storedOffset = this.#chunkOffsets[first]!;
    return { first, last, storedOffset, storedBytes: this.#chunkOffsets[last + 1]! - storedOffset };
  }

  /**
   * The record that holds all of [offset, offset + length) when none of its bytes are packed; undefined where they are,
   * or where the stretch is of several records.
   */
  plainRecord(offset: number, length: number): PlainRecord | undefined {
    const index = this.#recordAt(offset);
    const payload = this.#payloadOffsets[index]!;
    const bytes = this.#payloadOffsets[index + 1]! - payload;
    if (offset + length > payload + bytes) return undefined;
    const { first, last, storedOffset } = this.chunkRange(payload, bytes);
    for (let chunk = first; chunk <= last; chunk++) {
      if (this.isPacked(chunk)) return undefined;
    }
    const stored = storedOffset + payload - first * this.header.chunkBytes;
    return { payload, bytes, storedOffset: stored, crc: this.record(index).payloadCrc };
  }

  /** Checks the payload of a record that `plainRecord` gave; throws `frame-damaged`. */
  verifyRecord({ payload, crc }: PlainRecord, stored: Uint8Array): void {
    if (crc32c(stored) === crc) return;
    const lsn = this.firstLsn + this.#recordAt(payload);
    throw frameDamaged(`the payload of record ${lsn} is damaged`, { firstLsn: this.firstLsn, lastLsn: this.lastLsn });
  }

  /** Checks the crc of one chunk, which lies at `at` in `stored`; throws `frame-damaged`. */
  verifyChunk(index: number, stored: Uint8Array, at: number): void {
    const bytes = this.#chunkOffsets[index + 1]! - this.#chunkOffsets[index]!;
    const part = stored.subarray(at, at + bytes);
    if (part.length !== bytes || crc32c(part) !== this.#table.getUint32(index * CHUNK_ENTRY_BYTES + 4, true)) {
      throw frameDamaged(`chunk ${index} of a frame is damaged`, {
        firstLsn: this.firstLsn,
        lastLsn: this.lastLsn,
        chunk: index,
      });
    }
  }

  isPacked(chunk: number): boolean {
    return this.#table.getUint32(chunk * CHUNK_ENTRY_BYTES, true) >= CHUNK_PACKED;
  }

  /**
   * As `unpackChunk` of exactly the stored bytes, into memory of the caller's, whose front it returns. What is not packed
   * is there already: `stored` is that front.
   */
  unpackChunkInto(index: number, stored: Uint8Array, into: Uint8Array): Uint8Array {
    this.verifyChunk(index, stored, 0);
    const plain = into.subarray(0, this.#plainBytes(index));
    return this.isPacked(index) ? unpack(stored, plain.length, plain) : plain;
  }

  /** Checks and unpacks one chunk, which lies at `at` in `stored`; the result may alias `stored`. */
  unpackChunk(index: number, stored: Uint8Array, at: number): Uint8Array {
    this.verifyChunk(index, stored, at);
    const bytes = this.#chunkOffsets[index + 1]! - this.#chunkOffsets[index]!;
    const part = stored.subarray(at, at + bytes);
    return this.isPacked(index) ? unpack(part, this.#plainBytes(index)) : part;
  }

  /**
   * Copies `length` bytes of the plain payload at `offset` into `into` at `at`. `stored` holds exactly the bytes of
   * `range`, as `chunkRange(offset, length)` named it. Throws `frame-damaged`.
   */
  readFrom(stored: Uint8Array, range: ChunkRange, offset: number, length: number, into: Uint8Array, at: number): void {
    for (let chunk = range.first; chunk <= range.last; chunk++) {
      const plain = this.unpackChunk(chunk, stored, this.#chunkOffsets[chunk]! - range.storedOffset);
      copyOverlap(plain, chunk * this.header.chunkBytes, offset, length, into, at);
    }
  }

  /** The record whose payload has the byte at `offset`, which lies in the plain payload. */
  #recordAt(offset: number): number {
    let low = 0;
    let high = this.recordCount;
    // the first that ends behind it: records without a payload end where they begin
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#payloadOffsets[middle + 1]! <= offset) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #plainBytes(index: number): number {
    return Math.min(this.header.chunkBytes, this.header.payloadPlainBytes - index * this.header.chunkBytes);
  }

  #sumPayloads(): Uint32Array {
    const offsets = new Uint32Array(this.recordCount + 1);
    let sum = 0;
    let time = this.header.firstTime;
    for (let index = 0; index < this.recordCount; index++) {
      const entry = readEntry(this.#entriesView, index * FRAME_ENTRY_BYTES, this.firstLsn + index, sum);
      if (entry.time < time) throw frameDamaged('the time of a record goes back', { lsn: entry.lsn });
      time = entry.time;
      sum += entry.payloadBytes;
      if (sum > this.header.payloadPlainBytes) break;
      offsets[index + 1] = sum;
    }
    if (sum !== this.header.payloadPlainBytes || time !== this.header.lastTime) {
      throw frameDamaged('record list and header of a frame disagree', { firstLsn: this.firstLsn });
    }
    return offsets;
  }

  #sumChunks(): Uint32Array {
    const count = this.header.chunkCount;
    const offsets = new Uint32Array(count + 1);
    const start = framePrefixBytes(this.header);
    let sum = 0;
    for (let index = 0; index < count; index++) {
      const word = this.#table.getUint32(index * CHUNK_ENTRY_BYTES, true);
      const packed = word >= CHUNK_PACKED;
      const stored = packed ? word - CHUNK_PACKED : word;
      const plain = this.#plainBytes(index);
      if (packed ? stored === 0 || stored >= plain : stored !== plain) {
        throw frameDamaged(`chunk ${index} of a frame has an impossible length`, { firstLsn: this.firstLsn });
      }
      offsets[index] = start + sum;
      sum += stored;
    }
    offsets[count] = start + sum;
    if (sum !== this.header.payloadStoredBytes) {
      throw frameDamaged('chunk table and header of a frame disagree', { firstLsn: this.firstLsn });
    }
    return offsets;
  }
}

/** Copies what `plain`, which begins at `start` of the payload, has of [offset, offset + length). */
export function copyOverlap(
  plain: Uint8Array,
  start: number,
  offset: number,
  length: number,
  into: Uint8Array,
  at: number,
): void {
  const from = Math.max(offset, start);
  const to = Math.min(offset + length, start + plain.length);
  into.set(plain.subarray(from - start, to - start), at + from - offset);
}
