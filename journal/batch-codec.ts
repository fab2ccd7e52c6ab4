import { crc32 } from '@node-rs/crc32';
import { type Epoch, type JournalAddress, type JournalTime, type Lsn, readU64, writeU64 } from './position.ts';

/*
 * Batch header, 64 bytes, little endian, in the headroom before the first record.
 *
 *   0 u32 magic 'TMB1'
 *   4 u32 header crc        crc32 of the 64 bytes with this field 0, begun with the journal's salt
 *   8 u32 body bytes        all records with their headers and pads; at most 4 MiB
 *  12 u32 body crc          crc32 over the body
 *  16 u64 first LSN         of the first record; in an empty batch: of the next record
 *  24 u64 durable LSN       highest LSN known durable when the batch was written: the watermark
 *  32 u64 time              microseconds, never going back within a journal
 *  40 u32 incarnation       counter
 *  44 u32 previous          header crc of the batch before; first batch of a file: as in the file header
 *  48 u32 count             bits 0..29 records without PADs; bit 30: repaired; bit 31: the file ends here, the log goes on
 *                           in the next
 *  52 u32 epoch
 *  56 u64 own address
 *
 * An empty batch (count 0) is a watermark: it proves what is durable while nothing is written.
 *
 * A repaired batch stands, with others, where damaged ones stood. It proves nothing durable; in that field it has
 *  24 u32 chain             what the next batch names as `previous`: for the last one, what already stands behind it
 *  28 u32 skip              bytes between its end and the next batch
 */

export const BATCH_HEADER_BYTES = 64;
export const BATCH_MAGIC = 0x31424d54;
/** Batches begin at multiples of this. */
export const BATCH_ALIGN = 8;
/** Bound of one batch, checked before anything is allocated for it. */
export const BATCH_BODY_BYTES_MAX: number = 4 * 1024 * 1024;

const CLOSES_FILE = 0x8000_0000;
const REPAIRED = 0x4000_0000;
const COUNT_MASK = 0x3fff_ffff;

export interface BatchHeader {
  readonly headerCrc: number;
  readonly bodyBytes: number;
  readonly bodyCrc: number;
  readonly firstLsn: Lsn;
  readonly durableLsn: Lsn;
  readonly time: JournalTime;
  readonly incarnation: number;
  readonly previousCrc: number;
  readonly count: number;
  readonly closesFile: boolean;
  readonly epoch: Epoch;
  readonly address: JournalAddress;
  /** What the next batch names as the one before it. */
  readonly chain: number;
  /** Where the next batch of this file begins. */
  readonly nextAddress: JournalAddress;
}

/** What the writer puts into a header; the crcs are computed while writing. */
export interface BatchFields {
  firstLsn: Lsn;
  durableLsn: Lsn;
  time: JournalTime;
  incarnation: number;
  previousCrc: number;
  count: number;
  closesFile: boolean;
  epoch: Epoch;
  address: JournalAddress;
}

/** Where the batch after one that begins at `address` would begin. */
export function batchEnd(address: JournalAddress, bodyBytes: number): JournalAddress {
  return Math.ceil((address + BATCH_HEADER_BYTES + bodyBytes) / BATCH_ALIGN) * BATCH_ALIGN;
}

/**
 * Writes the header in the 64 bytes before `bodyStart` and returns its crc. One crc call over the whole body, one over
 * the header; nothing else is allocated.
 */
export function writeBatchHeader(
  slab: Uint8Array,
  view: DataView,
  bodyStart: number,
  bodyEnd: number,
  fields: BatchFields,
  salt: number,
): number {
  const at = bodyStart - BATCH_HEADER_BYTES;
  view.setUint32(at, BATCH_MAGIC, true);
  view.setUint32(at + 4, 0, true);
  view.setUint32(at + 8, bodyEnd - bodyStart, true);
  view.setUint32(at + 12, bodyEnd === bodyStart ? 0 : crc32(slab.subarray(bodyStart, bodyEnd)), true);
  writeU64(view, at + 16, fields.firstLsn);
  writeU64(view, at + 24, fields.durableLsn);
  writeU64(view, at + 32, fields.time);
  view.setUint32(at + 40, fields.incarnation, true);
  view.setUint32(at + 44, fields.previousCrc, true);
  view.setUint32(at + 48, fields.closesFile ? fields.count + CLOSES_FILE : fields.count, true);
  view.setUint32(at + 52, fields.epoch, true);
  writeU64(view, at + 56, fields.address);
  const headerCrc = crc32(slab.subarray(at, bodyStart), salt);
  view.setUint32(at + 4, headerCrc, true);
  return headerCrc;
}

/** What a repaired batch has instead of a watermark. */
export interface RepairedFields extends Omit<BatchFields, 'durableLsn'> {
  /** What the next batch names; undefined: it is one of the same repair and names what this call returns. */
  chain: number | undefined;
  skipBytes: number;
}

/** As `writeBatchHeader`, for a batch that takes the place of a damaged one. Returns what the next batch has to name. */
export function writeRepairedHeader(
  slab: Uint8Array,
  view: DataView,
  bodyStart: number,
  bodyEnd: number,
  fields: RepairedFields,
  salt: number,
): number {
  const at = bodyStart - BATCH_HEADER_BYTES;
  const plainCrc = writeBatchHeader(slab, view, bodyStart, bodyEnd, { ...fields, durableLsn: 0 }, salt);
  const chain = fields.chain ?? plainCrc;
  view.setUint32(at + 4, 0, true);
  view.setUint32(at + 24, chain, true);
  view.setUint32(at + 28, fields.skipBytes, true);
  view.setUint32(at + 48, view.getUint32(at + 48, true) + REPAIRED, true);
  view.setUint32(at + 4, crc32(slab.subarray(at, bodyStart), salt), true);
  return chain;
}

const scratch = new Uint8Array(BATCH_HEADER_BYTES);
const scratchView = new DataView(scratch.buffer);

/**
 * The header at `at`, or what is wrong with it: magic, bounds, own address, crc. Nothing of the body is looked at.
 * Damage is an everyday answer here (a log ends with it), hence a string and not an exception.
 */
export function readBatchHeader(
  bytes: Uint8Array,
  at: number,
  address: JournalAddress,
  salt: number,
): BatchHeader | string {
  if (bytes.length - at < BATCH_HEADER_BYTES) return 'a batch header is cut off';
  scratch.set(bytes.subarray(at, at + BATCH_HEADER_BYTES));
  if (scratchView.getUint32(0, true) !== BATCH_MAGIC) return 'no batch begins here';
  const headerCrc = scratchView.getUint32(4, true);
  scratchView.setUint32(4, 0, true);
  if (crc32(scratch, salt) !== headerCrc) return 'the header crc is wrong';
  const bodyBytes = scratchView.getUint32(8, true);
  if (bodyBytes > BATCH_BODY_BYTES_MAX) return 'the body is longer than a batch may be';
  const count = scratchView.getUint32(48, true);
  const repaired = (count & REPAIRED) !== 0;
  for (const high of [20, 28, 36, 60]) {
    if (repaired && high === 28) continue;
    if (scratchView.getUint32(high, true) >= 0x20_0000) return 'a number is larger than 2^53';
  }
  const own = readU64(scratchView, 56, 'address');
  if (own !== address) return `the batch belongs to address ${own}`;
  return {
    headerCrc,
    bodyBytes,
    bodyCrc: scratchView.getUint32(12, true),
    firstLsn: readU64(scratchView, 16, 'first LSN'),
    durableLsn: repaired ? 0 : readU64(scratchView, 24, 'durable LSN'),
    time: readU64(scratchView, 32, 'time'),
    incarnation: scratchView.getUint32(40, true),
    previousCrc: scratchView.getUint32(44, true),
    count: count & COUNT_MASK,
    closesFile: count >= CLOSES_FILE,
    epoch: scratchView.getUint32(52, true),
    address: own,
    chain: repaired ? scratchView.getUint32(24, true) : headerCrc,
    nextAddress: batchEnd(own, bodyBytes) + (repaired ? scratchView.getUint32(28, true) : 0),
  };
}

/** True when the body that begins at `bodyStart` is whole. */
export function bodyIsWhole(bytes: Uint8Array, bodyStart: number, header: BatchHeader): boolean {
  if (bytes.length - bodyStart < header.bodyBytes) return false;
  if (header.bodyBytes === 0) return header.bodyCrc === 0 && header.count === 0;
  return crc32(bytes.subarray(bodyStart, bodyStart + header.bodyBytes)) === header.bodyCrc;
}
