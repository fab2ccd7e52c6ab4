import { hasCode } from './base/errors.ts';
import {
  BATCH_ALIGN,
  BATCH_BODY_BYTES_MAX,
  BATCH_HEADER_BYTES,
  BATCH_MAGIC,
  type BatchHeader,
  bodyIsWhole,
  readBatchHeader,
} from './batch-codec.ts';
import { BatchView } from './batch-view.ts';
import type { FileReads } from './file-reads.ts';
import { FILE_HEADER_BYTES } from './journal-file-header.ts';
import type { JournalAddress } from './position.ts';

const CHUNK_BYTES = 1024 * 1024;
/** A bad place of the medium is stepped over in pieces of this size. */
const UNREADABLE_STEP_BYTES = 4096;
/** The reason of a break where the medium itself fails. */
export const UNREADABLE = 'the medium cannot be read here';
const MAGIC = Buffer.alloc(4);
MAGIC.writeUInt32LE(BATCH_MAGIC);

/**
 * Reads whole batches out of a journal's files through one buffer of 1 MiB (or of one file, when that is smaller), which grows to the largest batch (4 MiB) and
 * no further. What it returns aliases the buffer until the next call.
 */
export class BatchWindow {
  readonly #reads: FileReads;
  readonly #fileBytes: number;
  readonly #salt: number;
  #buffer: Buffer;
  /** Address of the buffer's first byte, and how many bytes of it are valid. */
  #start: JournalAddress = 0;
  #valid = 0;
  #unreadable = false;

  constructor(reads: FileReads, fileBytes: number, salt: number) {
    this.#reads = reads;
    this.#fileBytes = fileBytes;
    this.#buffer = Buffer.allocUnsafeSlow(Math.min(CHUNK_BYTES, fileBytes));
    this.#salt = salt;
  }

  /** Start of the file that covers the address. */
  fileStart(address: JournalAddress): JournalAddress {
    return address - (address % this.#fileBytes);
  }

  /** Drops what is buffered: the files may have changed. */
  forget(): void {
    this.#valid = 0;
  }

  /**
   * The batch at the address, whole, or why there is none. Nothing at or behind `limit` is read (it may still be
   * written to); header, own address, bounds and both crcs are checked, the chain is not.
   */
  batch(address: JournalAddress, limit: JournalAddress): BatchView | string {
    const header = this.header(address, limit);
    if (typeof header === 'string') return header;
    const length = BATCH_HEADER_BYTES + header.bodyBytes;
    if (!this.#load(address, length, limit)) return this.#unreadable ? UNREADABLE : 'a batch is cut off';
    const bodyStart = address - this.#start + BATCH_HEADER_BYTES;
    if (!bodyIsWhole(this.#buffer, bodyStart, header)) return 'the body crc is wrong';
    return new BatchView(header, this.#buffer, bodyStart);
  }

  /** Only the header at the address, checked; the body may be damaged. */
  header(address: JournalAddress, limit: JournalAddress): BatchHeader | string {
    if (!this.#load(address, BATCH_HEADER_BYTES, limit)) {
      return this.#unreadable ? UNREADABLE : 'the file or the log ends here';
    }
    return readBatchHeader(this.#buffer, address - this.#start, address, this.#salt);
  }

  /** The bytes of a batch just returned by `batch`, header included. */
  bytesOf(batch: BatchView): Uint8Array {
    const at = batch.address - this.#start;
    return this.#buffer.subarray(at, at + BATCH_HEADER_BYTES + batch.header.bodyBytes);
  }

  /** The first whole batch between the addresses whose header is acceptable, looking at every place one may begin. */
  find(from: JournalAddress, end: JournalAddress, acceptable: (header: BatchHeader) => boolean): BatchView | undefined {
    let at = alignUp(from);
    while (at < end) {
      const fileStart = this.fileStart(at);
      const fileEnd = fileStart + this.#fileBytes;
      at = Math.max(at, fileStart + FILE_HEADER_BYTES);
      if (!this.#load(at, BATCH_HEADER_BYTES, Math.min(end, fileEnd))) {
        at = this.#unreadable ? at + UNREADABLE_STEP_BYTES : fileEnd;
        continue;
      }
      const hit = this.#nextMagic(at);
      if (hit === undefined) {
        // the last 63 bytes cannot hold a header; one that begins there is found in the next chunk
        at = alignUp(this.#start + this.#valid - BATCH_HEADER_BYTES + 1);
        continue;
      }
      const header = readBatchHeader(this.#buffer, hit - this.#start, hit, this.#salt);
      if (typeof header !== 'string' && acceptable(header)) {
        const batch = this.batch(hit, Math.min(end, fileEnd));
        if (typeof batch !== 'string') return batch;
      }
      at = hit + BATCH_ALIGN;
    }
    return undefined;
  }

  #nextMagic(from: JournalAddress): JournalAddress | undefined {
    let at = from - this.#start;
    while (true) {
      const found = this.#buffer.subarray(0, this.#valid).indexOf(MAGIC, at);
      if (found < 0 || found + BATCH_HEADER_BYTES > this.#valid) return undefined;
      if ((this.#start + found) % BATCH_ALIGN === 0) return this.#start + found;
      at = found + 1;
    }
  }

  /** Makes [address, address + length) valid in the buffer; false when the file or the limit ends before. */
  #load(address: JournalAddress, length: number, limit: JournalAddress): boolean {
    if (address >= this.#start && address + length <= Math.min(this.#start + this.#valid, limit)) return true;
    this.#unreadable = false;
    const available = Math.min(limit, this.fileStart(address) + this.#fileBytes) - address;
    if (length > available) return false;
    if (length > this.#buffer.length) {
      this.#buffer = Buffer.allocUnsafeSlow(BATCH_HEADER_BYTES + BATCH_BODY_BYTES_MAX);
    }
    const want = Math.min(Math.max(length, CHUNK_BYTES), available, this.#buffer.length);
    this.#start = address;
    this.#valid = this.#read(address, want);
    // a chunk may reach into a bad place that what is asked for does not touch
    if (this.#unreadable && length < want) this.#valid = this.#read(address, length);
    return this.#valid >= length;
  }

  /** Bytes read; none where there is no file, or where the medium fails. */
  #read(address: JournalAddress, length: number): number {
    const fileStart = this.fileStart(address);
    this.#unreadable = false;
    try {
      return this.#reads.read(fileStart / this.#fileBytes, address - fileStart, this.#buffer, 0, length);
    } catch (error) {
      // a file that is not there reads as nothing: the caller knows whether it should be
      if (hasCode(error, 'trimmed')) return 0;
      if (!hasCode(error, 'device-failed')) throw error;
      this.#unreadable = true;
      return 0;
    }
  }
}

function alignUp(address: JournalAddress): JournalAddress {
  return Math.ceil(address / BATCH_ALIGN) * BATCH_ALIGN;
}
