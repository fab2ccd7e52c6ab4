import { crc32c } from '@node-rs/crc32';
import { TidemarkError } from './base/errors.ts';
import type { Chain } from './chain.ts';
import { zstdOut } from './host/zstd.ts';
import { type Epoch, type JournalTime, type Lsn, SECTOR_BYTES, writeU64 } from './position.ts';
import { holdsContent, holdsZeroes, isRecordKind, RECORD_PAYLOAD_BYTES_MAX, RecordKind } from './record.ts';
import type { Incarnation } from './stream.ts';

/*
 * A frame: consecutive records of one group and epoch, sealed. Little endian.
 *
 *   header        160 bytes
 *   record list   one 40-byte entry per record, apart from the payload so that a replica indexes without unpacking
 *   chunk table   8 bytes per chunk
 *   chunks        the payloads of all records, one behind the other, cut every `chunkBytes`, each packed by itself
 *
 * Header:
 *   0 u32 magic 'TMF1'
 *   4 u16 version 1
 *   6 u16 header bytes 160
 *   8 u32 frame bytes           all of it
 *  12 u32 header crc            crc32c of the header with this field 0
 *  16 16B group id
 *  32 u64 first LSN
 *  40 u32 record count
 *  44 u32 epoch
 *  48 u32 incarnation counter   of the source that sealed the frame
 *  52 u32 flags                 0; a set bit that a reader does not know means: upgrade first
 *  56 8B  incarnation nonce
 *  64 u64 source durable LSN    when the frame was sealed
 *  72 u64 first record's time   microseconds
 *  80 u64 last record's time
 *  88 u64 chain before          the first record
 *  96 u64 chain after           the last record
 * 104 u32 record list, plain bytes
 * 108 u32 record list, stored bytes
 * 112 u32 record list crc       crc32c of the stored bytes
 * 116 u8  record list codec     0 raw, 1 zstd
 * 117 3B  reserved, 0
 * 120 u32 chunk bytes           plain length of every chunk but the last
 * 124 u32 chunk count
 * 128 u32 payload, plain bytes
 * 132 u32 payload, stored bytes
 * 136 u32 chunk table crc       crc32c
 * 140 20B reserved, 0
 *
 * Entry of the record list:
 *   0 u8  kind
 *   1 u8  flags
 *   2 u16 volume id
 *   4 u32 payload bytes
 *   8 u64 sector
 *  16 u32 sectors
 *  20 u32 payload crc           crc32c of the plain payload
 *  24 u64 time                  microseconds
 *  32 u32 request id
 *  36 u32 reserved, 0
 *
 * Entry of the chunk table:
 *   0 u32 stored bytes          bit 31: zstd, else raw
 *   4 u32 crc32c of the stored bytes
 *
 * Every version keeps the first 16 bytes as they are, and its header crc over `header bytes`, so that a reader tells a
 * newer frame from a damaged one.
 */

const FRAME_MAGIC = 0x31464d54;
export const FRAME_VERSION = 1;
export const FRAME_HEADER_BYTES = 160;
export const FRAME_ENTRY_BYTES = 40;
export const CHUNK_ENTRY_BYTES = 8;
export const CHUNK_PACKED = 0x8000_0000;

/** A whole frame, and its plain payload, stay below this. */
export const FRAME_BYTES_MAX: number = 4 * 1024 * 1024;
/** Records of one frame at most: 640 KiB of record list. */
export const FRAME_RECORDS_MAX = 16_384;
export const CHUNK_BYTES_DEFAULT: number = 64 * 1024;
export const CHUNK_BYTES_MAX: number = 1024 * 1024;
const HEADER_BYTES_MAX = 4096;

/** Features of a frame that a reader has to know. */
export const FrameFlag = {
  /** It may hold records of the kinds `lost` and `blank`. */
  gapHealed: 1,
} as const;
const FLAGS_KNOWN = FrameFlag.gapHealed;

export interface FrameHeader {
  readonly frameBytes: number;
  /** 32 hex digits. */
  readonly groupId: string;
  readonly firstLsn: Lsn;
  readonly recordCount: number;
  readonly epoch: Epoch;
  readonly incarnation: Incarnation;
  readonly sourceDurableLsn: Lsn;
  readonly firstTime: JournalTime;
  readonly lastTime: JournalTime;
  readonly chainBefore: Chain;
  readonly chainAfter: Chain;
  readonly listPlainBytes: number;
  readonly listStoredBytes: number;
  readonly listCrc: number;
  readonly listPacked: boolean;
  readonly chunkBytes: number;
  readonly chunkCount: number;
  readonly payloadPlainBytes: number;
  readonly payloadStoredBytes: number;
  readonly tableCrc: number;
  /** Bits of `FrameFlag`. */
  readonly flags: number;
}

/** What the record list says of one record. */
export interface RecordEntry {
  readonly lsn: Lsn;
  readonly kind: RecordKind;
  readonly flags: number;
  readonly volume: number;
  readonly sector: number;
  readonly sectors: number;
  readonly requestId: number;
  readonly time: JournalTime;
  readonly payloadBytes: number;
  /** crc32c of the plain payload. */
  readonly payloadCrc: number;
  /** Where the payload begins in the frame's plain payload. */
  readonly payloadOffset: number;
}

export function frameDamaged(what: string, details?: Record<string, string | number>): TidemarkError {
  return new TidemarkError('frame-damaged', what, details === undefined ? {} : { details });
}

/** Writes the 160 bytes of a header at the start of `frame`, its crc included. */
export function writeFrameHeader(frame: Uint8Array, header: FrameHeader): void {
  const view = new DataView(frame.buffer, frame.byteOffset, FRAME_HEADER_BYTES);
  frame.fill(0, 0, FRAME_HEADER_BYTES);
  view.setUint32(0, FRAME_MAGIC, true);
  view.setUint16(4, FRAME_VERSION, true);
  view.setUint16(6, FRAME_HEADER_BYTES, true);
  view.setUint32(8, header.frameBytes, true);
  frame.set(Buffer.from(header.groupId, 'hex'), 16);
  writeU64(view, 32, header.firstLsn);
  view.setUint32(40, header.recordCount, true);
  view.setUint32(44, header.epoch, true);
  view.setUint32(48, header.incarnation.counter, true);
  view.setUint32(52, header.flags, true);
  frame.set(Buffer.from(header.incarnation.nonce, 'hex'), 56);
  writeU64(view, 64, header.sourceDurableLsn);
  writeU64(view, 72, header.firstTime);
  writeU64(view, 80, header.lastTime);
  writeChain(view, 88, header.chainBefore);
  writeChain(view, 96, header.chainAfter);
  view.setUint32(104, header.listPlainBytes, true);
  view.setUint32(108, header.listStoredBytes, true);
  view.setUint32(112, header.listCrc, true);
  view.setUint8(116, header.listPacked ? 1 : 0);
  view.setUint32(120, header.chunkBytes, true);
  view.setUint32(124, header.chunkCount, true);
  view.setUint32(128, header.payloadPlainBytes, true);
  view.setUint32(132, header.payloadStoredBytes, true);
  view.setUint32(136, header.tableCrc, true);
  view.setUint32(12, crc32c(frame.subarray(0, FRAME_HEADER_BYTES)), true);
}

/**
 * Reads and checks the header at the start of `bytes`, every length against every other, so that whatever is allocated
 * for the frame afterwards is bounded. Throws `frame-damaged`, or `upgrade-replica-first` for a whole header of a newer
 * version (DESIGN rule 23).
 */
export function readFrameHeader(bytes: Uint8Array): FrameHeader {
  const headerBytes = checkHeaderCrc(bytes);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const version = view.getUint16(4, true);
  const flags = version === FRAME_VERSION && headerBytes === FRAME_HEADER_BYTES ? view.getUint32(52, true) : 0;
  const unknown = (flags & ~FLAGS_KNOWN) >>> 0;
  if (version > FRAME_VERSION || unknown !== 0) {
    throw new TidemarkError(
      'upgrade-replica-first',
      `a frame of format ${version}${unknown === 0 ? '' : ` with features ${unknown}`} has come, this program reads format ${FRAME_VERSION}: upgrade the replica first`,
      { details: { version, flags, readable: FRAME_VERSION } },
    );
  }
  if (version !== FRAME_VERSION || headerBytes !== FRAME_HEADER_BYTES) {
    throw frameDamaged(`no frame has version ${version} and a header of ${headerBytes} bytes`);
  }
  const listCodec = view.getUint8(116);
  const header: FrameHeader = {
    frameBytes: view.getUint32(8, true),
    groupId: hexOf(bytes, 16, 16),
    firstLsn: readSafe(view, 32, 'first LSN'),
    recordCount: view.getUint32(40, true),
    epoch: view.getUint32(44, true),
    incarnation: { counter: view.getUint32(48, true), nonce: hexOf(bytes, 56, 8) },
    sourceDurableLsn: readSafe(view, 64, 'durable LSN'),
    firstTime: readSafe(view, 72, 'first time'),
    lastTime: readSafe(view, 80, 'last time'),
    chainBefore: readChain(view, 88),
    chainAfter: readChain(view, 96),
    listPlainBytes: view.getUint32(104, true),
    listStoredBytes: view.getUint32(108, true),
    listCrc: view.getUint32(112, true),
    listPacked: listCodec === 1,
    chunkBytes: view.getUint32(120, true),
    chunkCount: view.getUint32(124, true),
    payloadPlainBytes: view.getUint32(128, true),
    payloadStoredBytes: view.getUint32(132, true),
    tableCrc: view.getUint32(136, true),
    flags,
  };
  if (listCodec > 1) throw frameDamaged(`unknown codec ${listCodec} of the record list`);
  checkLengths(header);
  return header;
}

const headerScratch = new Uint8Array(HEADER_BYTES_MAX);

function checkHeaderCrc(bytes: Uint8Array): number {
  if (bytes.length < FRAME_HEADER_BYTES) throw frameDamaged(`a frame of ${bytes.length} bytes has no header`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(0, true) !== FRAME_MAGIC) throw frameDamaged('no frame begins here');
  const headerBytes = view.getUint16(6, true);
  if (headerBytes < 16 || headerBytes > HEADER_BYTES_MAX || headerBytes > bytes.length) {
    throw frameDamaged(`a frame header cannot have ${headerBytes} bytes`);
  }
  headerScratch.set(bytes.subarray(0, headerBytes));
  headerScratch.fill(0, 12, 16);
  if (crc32c(headerScratch.subarray(0, headerBytes)) !== view.getUint32(12, true)) {
    throw frameDamaged('the crc of a frame header is wrong');
  }
  return headerBytes;
}

function checkLengths(header: FrameHeader): void {
  const wrong =
    header.frameBytes > FRAME_BYTES_MAX ||
    header.payloadPlainBytes > FRAME_BYTES_MAX ||
    header.recordCount === 0 ||
    header.recordCount > FRAME_RECORDS_MAX ||
    header.firstLsn === 0 ||
    !Number.isSafeInteger(header.firstLsn + header.recordCount) ||
    header.listPlainBytes !== header.recordCount * FRAME_ENTRY_BYTES ||
    (header.listPacked
      ? header.listStoredBytes >= header.listPlainBytes
      : header.listStoredBytes !== header.listPlainBytes) ||
    header.chunkBytes < SECTOR_BYTES ||
    header.chunkBytes > CHUNK_BYTES_MAX ||
    header.chunkCount !== Math.ceil(header.payloadPlainBytes / header.chunkBytes) ||
    header.payloadStoredBytes > header.payloadPlainBytes ||
    header.frameBytes !== framePrefixBytes(header) + header.payloadStoredBytes;
  if (wrong) throw frameDamaged('the lengths in a frame header contradict each other', { firstLsn: header.firstLsn });
}

/** Bytes before the chunks: header, record list and chunk table. */
export function framePrefixBytes(header: FrameHeader): number {
  return FRAME_HEADER_BYTES + header.listStoredBytes + header.chunkCount * CHUNK_ENTRY_BYTES;
}

/** What an entry is made of: a journal's record with the time of its batch. */
export interface EntryFields {
  readonly kind: RecordKind;
  readonly flags: number;
  readonly volume: number;
  readonly sector: number;
  readonly sectors: number;
  readonly requestId: number;
  readonly time: JournalTime;
}

/** Writes the 40 bytes of an entry at `at`; the reserved field must be 0 already. */
export function writeEntry(view: DataView, at: number, record: EntryFields, payloadBytes: number, crc: number): void {
  view.setUint8(at, record.kind);
  view.setUint8(at + 1, record.flags);
  view.setUint16(at + 2, record.volume, true);
  view.setUint32(at + 4, payloadBytes, true);
  writeU64(view, at + 8, record.sector);
  view.setUint32(at + 16, record.sectors, true);
  view.setUint32(at + 20, crc, true);
  writeU64(view, at + 24, record.time);
  view.setUint32(at + 32, record.requestId, true);
}

/** Reads the entry at `at`; throws `frame-damaged` for what no source writes. */
export function readEntry(view: DataView, at: number, lsn: Lsn, payloadOffset: number): RecordEntry {
  const kind = view.getUint8(at);
  if (!isRecordKind(kind) || kind === RecordKind.pad) throw frameDamaged(`unknown record kind ${kind}`, { lsn });
  const payloadBytes = view.getUint32(at + 4, true);
  const sectors = view.getUint32(at + 16, true);
  const carries = holdsContent(kind);
  const empty = holdsZeroes(kind);
  if (
    payloadBytes > RECORD_PAYLOAD_BYTES_MAX ||
    (carries && payloadBytes !== sectors * SECTOR_BYTES) ||
    (empty && payloadBytes !== 0)
  ) {
    throw frameDamaged(`a record cannot have ${payloadBytes} bytes for ${sectors} sectors`, { lsn });
  }
  return {
    lsn,
    kind,
    flags: view.getUint8(at + 1),
    volume: view.getUint16(at + 2, true),
    sector: readSafe(view, at + 8, 'sector'),
    sectors,
    requestId: view.getUint32(at + 32, true),
    time: readSafe(view, at + 24, 'time'),
    payloadBytes,
    payloadCrc: view.getUint32(at + 20, true),
    payloadOffset,
  };
}

/** A packed chunk or list made plain; throws `frame-damaged` unless exactly `plainBytes` come out. Never allocates more than that. */
export function unpack(
  packed: Uint8Array,
  plainBytes: number,
  plain: Uint8Array = new Uint8Array(plainBytes),
): Uint8Array {
  if (!zstdOut(plain, packed)) throw frameDamaged(`a part of a frame does not unpack to ${plainBytes} bytes`);
  return plain;
}

function readSafe(view: DataView, at: number, what: string): number {
  const high = view.getUint32(at + 4, true);
  if (high >= 0x20_0000) throw frameDamaged(`${what} is larger than 2^53`);
  return high * 0x1_0000_0000 + view.getUint32(at, true);
}

function readChain(view: DataView, at: number): Chain {
  return { low: view.getUint32(at, true), high: view.getUint32(at + 4, true) };
}

function writeChain(view: DataView, at: number, chain: Chain): void {
  view.setUint32(at, chain.low, true);
  view.setUint32(at + 4, chain.high, true);
}

function hexOf(bytes: Uint8Array, at: number, length: number): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset + at, length).toString('hex');
}
