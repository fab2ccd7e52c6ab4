import { crc32 } from '@node-rs/crc32';
import { TidemarkError } from './base/errors.ts';
import { type Epoch, type JournalTime, type Lsn, readU64, writeU64 } from './position.ts';
import type { Incarnation } from './stream.ts';

/*
 * Header of a journal file: 4 KiB at its start, of which the first 256 bytes hold something. Little endian. Every later
 * version keeps the first 32 bytes and the crc over 256 bytes, so that an old program recognises a newer file.
 *
 *   0 u32 magic 'TMJ1'
 *   4 u32 crc               crc32 of the first 256 bytes with this field 0
 *   8 u16 version           1
 *  10 u16 header bytes      4096
 *  12 u32 salt              random, one per journal: every batch header crc begins with it
 *  16 16B group id
 *  32 u64 sequence          the file covers addresses [sequence * file bytes, (sequence + 1) * file bytes)
 *  40 u64 file bytes
 *  48 u64 first LSN         of the first record in this file
 *  56 u64 durable LSN       watermark when the file was begun
 *  64 u64 time              microseconds, journal time when the file was begun
 *  72 u32 chain             header crc of the batch before this file
 *  76 u32 incarnation       counter
 *  80 8B  incarnation nonce
 *  88 u32 epoch
 *  92 u32 boot id bytes     0..64
 *  96 64B boot id           ASCII, zero padded
 * 160 zeroes
 */

export const FILE_HEADER_BYTES = 4096;
const FILE_MAGIC = 0x314a4d54;
const JOURNAL_VERSION = 1;
const CHECKED_BYTES = 256;
const BOOT_ID_BYTES = 64;

export interface JournalFileHeader {
  readonly salt: number;
  /** 32 hex digits. */
  readonly groupId: string;
  readonly sequence: number;
  readonly fileBytes: number;
  readonly firstLsn: Lsn;
  readonly durableLsn: Lsn;
  readonly time: JournalTime;
  readonly chain: number;
  readonly incarnation: Incarnation;
  readonly epoch: Epoch;
  readonly bootId: string;
}

/** Writes the header into the first 4 KiB of `into`. */
export function writeFileHeader(into: Uint8Array, header: JournalFileHeader): void {
  into.fill(0, 0, FILE_HEADER_BYTES);
  writeHeaderBegin(into, header.groupId);
  const view = new DataView(into.buffer, into.byteOffset, FILE_HEADER_BYTES);
  view.setUint32(12, header.salt, true);
  writeU64(view, 32, header.sequence);
  writeU64(view, 40, header.fileBytes);
  writeU64(view, 48, header.firstLsn);
  writeU64(view, 56, header.durableLsn);
  writeU64(view, 64, header.time);
  view.setUint32(72, header.chain, true);
  view.setUint32(76, header.incarnation.counter, true);
  into.set(Buffer.from(header.incarnation.nonce, 'hex'), 80);
  view.setUint32(88, header.epoch, true);
  const bootId = Buffer.from(header.bootId, 'latin1').subarray(0, BOOT_ID_BYTES);
  view.setUint32(92, bootId.length, true);
  into.set(bootId, 96);
  view.setUint32(4, crc32(into.subarray(0, CHECKED_BYTES)), true);
}

/** What every header of a group begins with: all of the first 32 bytes but crc and salt. */
export function writeHeaderBegin(into: Uint8Array, groupId: string): void {
  const view = new DataView(into.buffer, into.byteOffset, FILE_HEADER_BYTES);
  view.setUint32(0, FILE_MAGIC, true);
  view.setUint16(8, JOURNAL_VERSION, true);
  view.setUint16(10, FILE_HEADER_BYTES, true);
  into.set(Buffer.from(groupId, 'hex'), 16);
}

/**
 * The header in the first bytes of `bytes`, or what is wrong with it; 'empty' when the place holds zeroes only (a file
 * that was prepared and never used). Throws `format-too-new` for a later version, which must be left untouched (H5).
 */
export function readFileHeader(bytes: Uint8Array): JournalFileHeader | string {
  if (bytes.length < CHECKED_BYTES) return 'the file header is cut off';
  const checked = Uint8Array.from(bytes.subarray(0, CHECKED_BYTES));
  const view = new DataView(checked.buffer);
  if (view.getUint32(0, true) !== FILE_MAGIC) {
    return checked.every((byte) => byte === 0) ? 'empty' : 'the file does not begin like a journal file';
  }
  const crc = view.getUint32(4, true);
  view.setUint32(4, 0, true);
  if (crc32(checked) !== crc) return 'the file header crc is wrong';
  const version = view.getUint16(8, true);
  if (version > JOURNAL_VERSION) {
    throw new TidemarkError('format-too-new', `journal format ${version} is newer than ${JOURNAL_VERSION}`);
  }
  const bootIdBytes = view.getUint32(92, true);
  const sequence = readU64(view, 32, 'sequence');
  const fileBytes = readU64(view, 40, 'file bytes');
  if (version === 0 || bootIdBytes > BOOT_ID_BYTES || fileBytes < 2 * FILE_HEADER_BYTES) {
    return 'the file header makes no sense';
  }
  // beyond that addresses are not told apart any more, and who walks over them does not come on
  if (!Number.isSafeInteger((sequence + 2) * fileBytes)) return 'the file lies beyond every address';
  const buffer = Buffer.from(checked.buffer);
  return {
    salt: view.getUint32(12, true),
    groupId: buffer.toString('hex', 16, 32),
    sequence,
    fileBytes,
    firstLsn: readU64(view, 48, 'first LSN'),
    durableLsn: readU64(view, 56, 'durable LSN'),
    time: readU64(view, 64, 'time'),
    chain: view.getUint32(72, true),
    incarnation: { counter: view.getUint32(76, true), nonce: buffer.toString('hex', 80, 88) },
    epoch: view.getUint32(88, true),
    bootId: buffer.toString('latin1', 96, 96 + bootIdBytes),
  };
}
