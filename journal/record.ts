import { TidemarkError } from './base/errors.ts';
import { type JournalAddress, type Lsn, readU64, writeU64 } from './position.ts';

/*
 * Record header, 28 bytes, little endian; the payload follows unpadded. It has the size of an NBD request header, which
 * it overwrites in place, so that a guest's payload is never copied on its way into the journal.
 *
 *   0 u8  kind            RecordKind
 *   1 u8  flags           RecordFlag
 *   2 u16 volume id       0 for control records
 *   4 u32 payload bytes   at most 1 MiB; PAD: bytes to skip
 *   8 u64 sector          of 512 bytes
 *  16 u32 sectors
 *  20 u32 request id      0 unless PIECE; unique within an incarnation
 *  24 u32 reserved, 0
 */

export const RECORD_HEADER_BYTES = 28;

/** Payload bytes of one record at most; a longer request is cut into pieces (DESIGN rule 5). */
export const RECORD_PAYLOAD_BYTES_MAX: number = 1024 * 1024;

/** What a record is. Every kind but `pad` has an LSN. */
export const RecordKind = {
  /** Skip `payloadBytes`; no LSN. */
  pad: 0,
  write: 1,
  zero: 2,
  trim: 3,
  flush: 4,
  bookmark: 5,
  epoch: 6,
  incarnation: 7,
  seed: 8,
  seedEnd: 9,
  cycleCommit: 10,
  volumeAdded: 11,
  volumeResized: 12,
  heartbeat: 13,
  gap: 14,
  clockJump: 15,
  degreeChange: 16,
  /** Nobody holds what stood at this LSN any more, and an operator gave it up. No payload, or the gap's body (first one). */
  lost: 17,
  /** All of the extent is zeroes as far as history knows: a seed begins again behind a gap. Changes no disk at the source. */
  blank: 18,
} as const;
export type RecordKind = (typeof RecordKind)[keyof typeof RecordKind];

const KIND_NAMES: readonly string[] = Object.keys(RecordKind);

/** The name of a kind as it stands in `RecordKind`. */
export function recordKindName(kind: RecordKind): string {
  return KIND_NAMES[kind] ?? 'unknown';
}

export function isRecordKind(value: number): value is RecordKind {
  return value >= 0 && value < KIND_NAMES.length;
}

/** Records that change a volume. */
export type ChangeKind = (typeof RecordKind)['write' | 'zero' | 'trim' | 'seed' | 'blank'];

/** True for records that change a volume: write, zero, trim, seed, blank. */
export function changesVolume(kind: RecordKind): kind is ChangeKind {
  return holdsContent(kind) || holdsZeroes(kind);
}

/** True for records whose payload is the extent's content: write, seed. */
export function holdsContent(kind: RecordKind): boolean {
  return kind === RecordKind.write || kind === RecordKind.seed;
}

/** True for records that make an extent zeroes and have no payload: zero, trim, blank. */
export function holdsZeroes(kind: RecordKind): boolean {
  return kind === RecordKind.zero || kind === RecordKind.trim || kind === RecordKind.blank;
}

/** True for records that came with history in which a gap is healed: a replica that does not know them has to be upgraded. */
export function healsGap(kind: RecordKind): boolean {
  return kind === RecordKind.lost || kind === RecordKind.blank;
}

/** Bits of a record's flags. */
export const RecordFlag = {
  /** Part of an open request: no effect yet. */
  piece: 1,
  /** The last piece: the whole request takes effect at this record's LSN. */
  closes: 2,
  /** A ZERO that must allocate. */
  noHole: 4,
} as const;

const FLAGS_KNOWN = RecordFlag.piece | RecordFlag.closes | RecordFlag.noHole;

/** A record as read from a journal. `payload` aliases the reader's buffer: it is valid until the reader moves on. */
export interface JournalRecord {
  readonly kind: RecordKind;
  readonly flags: number;
  readonly volume: number;
  readonly sector: number;
  readonly sectors: number;
  readonly requestId: number;
  readonly lsn: Lsn;
  /** Where the payload begins in the journal's address space. */
  readonly payloadAddress: JournalAddress;
  readonly payload: Uint8Array;
}

/** Writes the 28 bytes of a record header at `at`. */
export function writeRecordHeader(
  view: DataView,
  at: number,
  kind: RecordKind,
  flags: number,
  volume: number,
  payloadBytes: number,
  sector: number,
  sectors: number,
  requestId: number,
): void {
  view.setUint8(at, kind);
  view.setUint8(at + 1, flags);
  view.setUint16(at + 2, volume, true);
  view.setUint32(at + 4, payloadBytes, true);
  writeU64(view, at + 8, sector);
  view.setUint32(at + 16, sectors, true);
  view.setUint32(at + 20, requestId, true);
  view.setUint32(at + 24, 0, true);
}

/** Makes the `length` bytes at `at` (28 or more) a record that every reader steps over. */
export function writePad(view: DataView, at: number, length: number): void {
  writeRecordHeader(view, at, RecordKind.pad, 0, 0, length - RECORD_HEADER_BYTES, 0, 0, 0);
}

export interface RecordHeader {
  readonly kind: RecordKind;
  readonly flags: number;
  readonly volume: number;
  readonly payloadBytes: number;
  readonly sector: number;
  readonly sectors: number;
  readonly requestId: number;
}

/**
 * Reads the record header at `at` of a body that ends at `end`. Throws `journal-damaged` for anything a writer never
 * writes: an unknown kind or flag, a payload beyond the end or the bound, a write whose length and sectors disagree.
 */
export function readRecordHeader(view: DataView, at: number, end: number): RecordHeader {
  if (end - at < RECORD_HEADER_BYTES) throw damaged('a record header is cut off');
  const kind = view.getUint8(at);
  if (!isRecordKind(kind)) throw damaged(`unknown record kind ${kind}`);
  const flags = view.getUint8(at + 1);
  if ((flags & ~FLAGS_KNOWN) !== 0) throw damaged(`unknown record flags ${flags}`);
  const payloadBytes = view.getUint32(at + 4, true);
  if (payloadBytes > end - at - RECORD_HEADER_BYTES) throw damaged('a payload reaches beyond its batch');
  if (kind !== RecordKind.pad && payloadBytes > RECORD_PAYLOAD_BYTES_MAX) throw damaged('a payload is over 1 MiB');
  const sectors = view.getUint32(at + 16, true);
  if (holdsContent(kind)) {
    if (payloadBytes !== sectors * 512) throw damaged('payload and sectors of a write disagree');
  } else if (holdsZeroes(kind) && payloadBytes !== 0) {
    throw damaged('a zero, trim or blank record has a payload');
  }
  return {
    kind,
    flags,
    volume: view.getUint16(at + 2, true),
    payloadBytes,
    sector: readU64(view, at + 8, 'sector'),
    sectors,
    requestId: view.getUint32(at + 20, true),
  };
}

function damaged(what: string): TidemarkError {
  return new TidemarkError('journal-damaged', what);
}
