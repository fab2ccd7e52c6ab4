import { crc32c } from '@node-rs/crc32';
import { TidemarkError } from '../../journal/base/errors.ts';
import { type JournalTime, type Lsn, readU64, writeU64 } from '../../journal/position.ts';

/**
 * A segment: a header page, frames verbatim one behind the other, and, once sealed, the frame directory and a footer.
 *
 * Header, 4 KiB: 0 u32 magic 'TMS1' | 4 u16 version 1 | 6 u16 0 | 8 u32 crc32c of the page (field 0) | 12 u32 0
 *  16 group id | 32 u64 sequence | 40 u64 first LSN
 * Footer, the last 64 bytes: 0 u32 magic 'TMSF' | 4 u32 crc32c of the footer (field 0) | 8 u32 crc32c of the directory
 *  12 u32 directory entries | 16 u64 directory offset | 24 u64 first LSN | 32 u64 last LSN | 40 u64 open from
 *  48 u64 first time us | 56 u64 last time us
 *
 * "Open from": the lowest LSN of a piece whose request is still open at the last LSN, else the LSN behind it.
 */
export const SEGMENT_HEADER_BYTES = 4096;
export const SEGMENT_FOOTER_BYTES = 64;
/** Offsets in a segment are 32 bits. */
export const SEGMENT_BYTES_MAX: number = 2 ** 32 - 2 ** 24;
const HEADER_MAGIC = 0x31534d54;
const FOOTER_MAGIC = 0x46534d54;
const VERSION = 1;

export interface SegmentHeader {
  readonly groupId: string;
  readonly sequence: number;
  readonly firstLsn: Lsn;
}

export interface SegmentFooter {
  readonly directoryCrc: number;
  readonly entries: number;
  readonly directoryOffset: number;
  readonly firstLsn: Lsn;
  readonly lastLsn: Lsn;
  readonly openFromLsn: Lsn;
  readonly firstTime: JournalTime;
  readonly lastTime: JournalTime;
}

export function segmentName(sequence: number): string {
  return `${String(sequence).padStart(12, '0')}.seg`;
}

/** Of a segment that is made in place of one that is gone, until it is whole. */
export function temporarySegmentName(sequence: number): string {
  return `${segmentName(sequence)}.tmp`;
}

export function isTemporarySegmentName(name: string): boolean {
  return name.endsWith('.seg.tmp');
}

export function parseSegmentName(name: string): number | undefined {
  return /^\d{12}\.seg$/.test(name) ? Number.parseInt(name, 10) : undefined;
}

export function encodeSegmentHeader(header: SegmentHeader): Buffer {
  const page = Buffer.alloc(SEGMENT_HEADER_BYTES);
  const view = viewOf(page);
  page.writeUInt32LE(HEADER_MAGIC, 0);
  page.writeUInt16LE(VERSION, 4);
  page.write(header.groupId, 16, 'hex');
  writeU64(view, 32, header.sequence);
  writeU64(view, 40, header.firstLsn);
  page.writeUInt32LE(crc32c(page), 8);
  return page;
}

/** Throws `journal-damaged`, `format-too-new`. */
export function decodeSegmentHeader(page: Buffer, what: string): SegmentHeader {
  if (page.readUInt32LE(0) !== HEADER_MAGIC) throw damaged(what, 'not a segment');
  // In every version the page has its checksum here: a bit that turned in the version is no newer program.
  checkCrc(page, 8, what);
  if (page.readUInt16LE(4) > VERSION) {
    throw new TidemarkError(
      'format-too-new',
      `${what}: segment of version ${page.readUInt16LE(4)}, this program knows ${VERSION}`,
    );
  }
  const view = viewOf(page);
  return {
    groupId: page.toString('hex', 16, 32),
    sequence: readU64(view, 32, 'segment sequence'),
    firstLsn: readU64(view, 40, 'segment first LSN'),
  };
}

/**
 * The first LSN of the segment that follows on records up to `heldLsn`. Throws `journal-foreign` when it is another
 * group's, and `journal-damaged` also when it begins at or before what is held: no segment is made so.
 */
export function segmentBegins(page: Buffer, what: string, groupId: string, heldLsn: Lsn): Lsn {
  const header = decodeSegmentHeader(page, what);
  if (header.groupId !== groupId) {
    throw new TidemarkError('journal-foreign', `${what} belongs to group ${header.groupId}`);
  }
  if (header.firstLsn <= heldLsn) throw damaged(what, `it begins at LSN ${header.firstLsn}, ${heldLsn} is held`);
  return header.firstLsn;
}

export function encodeSegmentFooter(footer: SegmentFooter): Buffer {
  const bytes = Buffer.alloc(SEGMENT_FOOTER_BYTES);
  const view = viewOf(bytes);
  bytes.writeUInt32LE(FOOTER_MAGIC, 0);
  bytes.writeUInt32LE(footer.directoryCrc, 8);
  bytes.writeUInt32LE(footer.entries, 12);
  writeU64(view, 16, footer.directoryOffset);
  writeU64(view, 24, footer.firstLsn);
  writeU64(view, 32, footer.lastLsn);
  writeU64(view, 40, footer.openFromLsn);
  writeU64(view, 48, footer.firstTime);
  writeU64(view, 56, footer.lastTime);
  bytes.writeUInt32LE(crc32c(bytes), 4);
  return bytes;
}

/** Throws `journal-damaged` when these are not a footer: the segment is not sealed. */
export function decodeSegmentFooter(bytes: Buffer, what: string): SegmentFooter {
  if (bytes.readUInt32LE(0) !== FOOTER_MAGIC) throw damaged(what, 'not sealed');
  checkCrc(bytes, 4, what);
  const view = viewOf(bytes);
  return {
    directoryCrc: bytes.readUInt32LE(8),
    entries: bytes.readUInt32LE(12),
    directoryOffset: readU64(view, 16, 'directory offset'),
    firstLsn: readU64(view, 24, 'segment first LSN'),
    lastLsn: readU64(view, 32, 'segment last LSN'),
    openFromLsn: readU64(view, 40, 'segment open from'),
    firstTime: readU64(view, 48, 'segment first time'),
    lastTime: readU64(view, 56, 'segment last time'),
  };
}

function checkCrc(bytes: Buffer, field: number, what: string): void {
  const stored = bytes.readUInt32LE(field);
  bytes.writeUInt32LE(0, field);
  const actual = crc32c(bytes);
  bytes.writeUInt32LE(stored, field);
  if (actual !== stored) throw damaged(what, 'the checksum does not match');
}

function viewOf(bytes: Buffer): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function damaged(what: string, why: string): TidemarkError {
  return new TidemarkError('journal-damaged', `${what}: ${why}`);
}
