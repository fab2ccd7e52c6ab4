import { crc32 } from '@node-rs/crc32';
import type { BatchHeader } from '../../../journal/batch-codec.ts';
import type { Lsn } from '../../../journal/position.ts';
import { type JournalRecord, RecordKind } from '../../../journal/record.ts';
import type { SimulatedDisk } from '../../doubles/simulated-disk.ts';
import { must } from '../violation.ts';

const JOURNAL_FILE = /\/journal-[0-9a-f]+\.tmj$/;
/** The layout of journal/FORMAT.md once more, by other code than the product's. */
const BATCH_MAGIC = 0x31424d54;
const FILE_MAGIC = 0x314a4d54;
const BATCH_HEADER_BYTES = 64;
const RECORD_HEADER_BYTES = 28;
const REPAIRED = 0x4000_0000;
const COUNT_MASK = 0x3fff_ffff;

type Place = Pick<BatchHeader, 'epoch' | 'incarnation' | 'time'>;
type Fields = Pick<JournalRecord, 'flags' | 'kind' | 'payload' | 'requestId' | 'sector' | 'sectors' | 'volume'>;

const scratch = new Uint8Array(64);
const fields = new DataView(scratch.buffer);

/**
 * What the source's journal was ever given to hold, noted as it goes to the disk and whether or not it arrives: a record
 * that a journal hands out later has to be one of these, to the byte. Draws nothing and lets no time pass.
 */
export class AppendedRecords {
  /** LSN -> fingerprints: a power loss may take a record back, and the next start gives its number again. */
  readonly #known: Map<Lsn, number[]> = new Map();
  /** Counter of the start that writes; 0 before its first record names it. */
  #incarnation = 0;
  /** Highest watermark in any header that this start has written. */
  announcedLsn: Lsn = 0;

  constructor(disk: SimulatedDisk) {
    disk.onWrite = (path, bytes): void => this.#note(path, bytes);
  }

  /** Another process begins to write. */
  started(): void {
    this.#incarnation = 0;
    this.announcedLsn = 0;
  }

  /** Somebody was handed this record by a journal. What an operator gave up says so, and was nobody's before. */
  mustHold(record: JournalRecord, place: Place): void {
    if (record.kind === RecordKind.lost) return;
    const { lsn } = record;
    const found = fingerprint(lsn, record, place);
    must('R1', this.#known.get(lsn)?.includes(found) === true, () => {
      const { epoch, incarnation, time } = place;
      const what = `kind ${record.kind}, ${record.payload.length} bytes, epoch ${epoch}, incarnation ${incarnation}, time ${time}`;
      return `LSN ${lsn} (${what}) is handed out and was never appended`;
    });
  }

  #note(path: string, bytes: Uint8Array): void {
    if (bytes.length < BATCH_HEADER_BYTES || !JOURNAL_FILE.test(path)) return;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const magic = view.getUint32(0, true);
    if (magic === FILE_MAGIC) this.#announced(u64(view, 56));
    const countWord = view.getUint32(48, true);
    // What is put back in place of something damaged is nothing new.
    if (magic !== BATCH_MAGIC || (countWord & REPAIRED) !== 0) return;
    this.#announced(u64(view, 24));
    const count = countWord & COUNT_MASK;
    const firstLsn = u64(view, 16);
    const place = { incarnation: view.getUint32(40, true), epoch: view.getUint32(52, true), time: u64(view, 32) };
    let at = BATCH_HEADER_BYTES;
    for (let index = 0; index < count; ) {
      const kind = view.getUint8(at) as JournalRecord['kind'];
      const payloadStart = at + RECORD_HEADER_BYTES;
      const end = payloadStart + view.getUint32(at + 4, true);
      if (kind !== RecordKind.pad) {
        const record = {
          kind,
          flags: view.getUint8(at + 1),
          volume: view.getUint16(at + 2, true),
          sector: u64(view, at + 8),
          sectors: view.getUint32(at + 16, true),
          requestId: view.getUint32(at + 20, true),
          payload: bytes.subarray(payloadStart, end),
        };
        this.#learn(firstLsn + index, record, place);
        index++;
      }
      at = end;
    }
  }

  #learn(lsn: Lsn, record: Fields, place: Place): void {
    const found = fingerprint(lsn, record, place);
    const known = this.#known.get(lsn);
    if (known?.includes(found) === true) return;
    if (record.kind === RecordKind.incarnation) this.#incarnation = place.incarnation;
    // Before a start has named itself it puts back what an earlier one appended.
    if (place.incarnation !== this.#incarnation) return;
    if (known === undefined) this.#known.set(lsn, [found]);
    else known.push(found);
  }

  #announced(lsn: Lsn): void {
    this.announcedLsn = Math.max(this.announcedLsn, lsn);
  }
}

function fingerprint(lsn: Lsn, record: Fields, { epoch, incarnation, time }: Place): number {
  fields.setFloat64(0, lsn);
  fields.setFloat64(8, time);
  fields.setFloat64(16, record.sector);
  fields.setUint32(24, record.sectors);
  fields.setUint32(28, record.requestId);
  fields.setUint32(32, incarnation);
  fields.setUint32(36, epoch);
  fields.setUint32(40, record.payload.length);
  fields.setUint16(44, record.volume);
  fields.setUint8(46, record.kind);
  fields.setUint8(47, record.flags);
  return crc32(record.payload, crc32(scratch));
}

function u64(view: DataView, at: number): number {
  return view.getUint32(at, true) + view.getUint32(at + 4, true) * 0x1_0000_0000;
}
