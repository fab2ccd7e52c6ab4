import { TidemarkError } from './base/errors.ts';
import { BATCH_HEADER_BYTES, type BatchHeader } from './batch-codec.ts';
import type { Epoch, JournalAddress, JournalTime, Lsn } from './position.ts';
import { type JournalRecord, RECORD_HEADER_BYTES, RecordKind, readRecordHeader } from './record.ts';

/**
 * One verified batch of a journal. Iterating gives its records in order, PADs left out; payloads alias the reader's
 * buffer and are valid until the reader's next call. Iterating throws `journal-damaged` when the records do not fill
 * the batch exactly as its header counts them.
 */
export class BatchView implements Iterable<JournalRecord> {
  readonly header: BatchHeader;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #bodyStart: number;

  /** `bodyStart`: where the first record header lies in `bytes`. */
  constructor(header: BatchHeader, bytes: Uint8Array, bodyStart: number) {
    this.header = header;
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#bodyStart = bodyStart;
  }

  get firstLsn(): Lsn {
    return this.header.firstLsn;
  }

  /** `firstLsn - 1` in an empty batch. */
  get lastLsn(): Lsn {
    return this.header.firstLsn + this.header.count - 1;
  }

  get time(): JournalTime {
    return this.header.time;
  }

  get epoch(): Epoch {
    return this.header.epoch;
  }

  /** Counter. */
  get incarnation(): number {
    return this.header.incarnation;
  }

  /** Of the batch header. */
  get address(): JournalAddress {
    return this.header.address;
  }

  /** Behind the last byte of the last record, not aligned. */
  get bodyEndAddress(): JournalAddress {
    return this.header.address + BATCH_HEADER_BYTES + this.header.bodyBytes;
  }

  *[Symbol.iterator](): Generator<JournalRecord, void, undefined> {
    const end = this.#bodyStart + this.header.bodyBytes;
    const toAddress = this.header.address + BATCH_HEADER_BYTES - this.#bodyStart;
    let at = this.#bodyStart;
    let count = 0;
    while (at < end) {
      const record = readRecordHeader(this.#view, at, end);
      const payloadStart = at + RECORD_HEADER_BYTES;
      at = payloadStart + record.payloadBytes;
      if (record.kind === RecordKind.pad) continue;
      if (count === this.header.count) throw this.#miscounted();
      yield {
        kind: record.kind,
        flags: record.flags,
        volume: record.volume,
        sector: record.sector,
        sectors: record.sectors,
        requestId: record.requestId,
        lsn: this.header.firstLsn + count,
        payloadAddress: toAddress + payloadStart,
        payload: this.#bytes.subarray(payloadStart, at),
      };
      count++;
    }
    if (count !== this.header.count) throw this.#miscounted();
  }

  #miscounted(): TidemarkError {
    return new TidemarkError(
      'journal-damaged',
      `the batch at ${this.address} does not hold ${this.header.count} records`,
    );
  }
}
