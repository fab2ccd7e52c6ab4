import { assert } from '../../journal/base/assert.ts';
import { type Lsn, readU64, writeU64 } from '../../journal/position.ts';

/**
 * Extents of any length in an index that is searched by place.
 *
 * Every extent goes into the smallest size class whose cells are at least as long as it is, and is split where it
 * crosses a cell border of that class, so an extent is at most two entries (three when it is longer than the largest
 * cell), and a search for a place looks at one cell per class. A payload is at most 1 MiB, so the classes above
 * `SMALL_CLASSES` hold zeroes only.
 *
 * Entry, 40 bytes, little endian (journal/FORMAT.md "Replica segments and index"):
 *  0 u16 volume | 2 u8 class | 3 u8 flags (1 = zeroes) | 4 u32 sectors | 8 u64 cell | 16 u64 lsn
 * 24 u32 start, sectors from the cell's border | 28 u32 segment | 32 u32 frame, byte in the segment
 * 36 u32 payload, byte in the frame's plain payload
 */
export const ENTRY_BYTES = 40;
const ENTRY_FLAG_ZERO = 1;

/** Cells of 4 KiB, 64 KiB, 1 MiB, 16 MiB, 256 MiB, 4 GiB, 64 GiB, 1 TiB. */
export const CLASS_COUNT = 8;
/** Classes 0..2 (to 1 MiB) hold writes and short zeroes; the others only zeroes. */
export const SMALL_CLASSES = 3;

const CELL_SECTORS: readonly number[] = Array.from({ length: CLASS_COUNT }, (_, index) => 8 * 16 ** index);

/** Sectors of one cell of a class. */
export function cellSectors(sizeClass: number): number {
  const sectors = CELL_SECTORS[sizeClass];
  assert(sectors !== undefined, `no size class ${sizeClass}`);
  return sectors;
}

/** The class an extent of `sectors` is kept in. */
export function classOf(sectors: number): number {
  for (let sizeClass = 0; sizeClass < CLASS_COUNT - 1; sizeClass += 1) {
    if (sectors <= cellSectors(sizeClass)) return sizeClass;
  }
  return CLASS_COUNT - 1;
}

/** Volume and class in one number, the first part of an entry's key. */
export function placeOf(volume: number, sizeClass: number): number {
  return volume * CLASS_COUNT + sizeClass;
}

/** Where an extent's newest bytes are. `payload` is the byte in the frame's plain payload of the extent's first byte. */
export interface PayloadLocation {
  readonly segment: number;
  readonly frame: number;
  readonly payload: number;
}

/** The fields of one entry, reused between calls: an object per entry would be most of the cost of a merge. */
export interface EntryFields {
  place: number;
  cell: number;
  lsn: Lsn;
  start: number;
  sectors: number;
  zero: boolean;
  segment: number;
  frame: number;
  payload: number;
}

export function emptyEntry(): EntryFields {
  return { place: 0, cell: 0, lsn: 0, start: 0, sectors: 0, zero: false, segment: 0, frame: 0, payload: 0 };
}

export function writeEntry(view: DataView, offset: number, entry: EntryFields): void {
  view.setUint16(offset, Math.floor(entry.place / CLASS_COUNT), true);
  view.setUint8(offset + 2, entry.place % CLASS_COUNT);
  view.setUint8(offset + 3, entry.zero ? ENTRY_FLAG_ZERO : 0);
  view.setUint32(offset + 4, entry.sectors, true);
  writeU64(view, offset + 8, entry.cell);
  writeU64(view, offset + 16, entry.lsn);
  view.setUint32(offset + 24, entry.start, true);
  view.setUint32(offset + 28, entry.segment, true);
  view.setUint32(offset + 32, entry.frame, true);
  view.setUint32(offset + 36, entry.payload, true);
}

export function readEntry(view: DataView, offset: number, into: EntryFields): void {
  into.place = placeAt(view, offset);
  into.zero = (view.getUint8(offset + 3) & ENTRY_FLAG_ZERO) !== 0;
  into.sectors = view.getUint32(offset + 4, true);
  into.cell = cellAt(view, offset);
  into.lsn = lsnAt(view, offset);
  into.start = view.getUint32(offset + 24, true);
  into.segment = view.getUint32(offset + 28, true);
  into.frame = view.getUint32(offset + 32, true);
  into.payload = view.getUint32(offset + 36, true);
}

export function placeAt(view: DataView, offset: number): number {
  return view.getUint16(offset, true) * CLASS_COUNT + view.getUint8(offset + 2);
}

export function cellAt(view: DataView, offset: number): number {
  return readU64(view, offset + 8, 'index cell');
}

export function lsnAt(view: DataView, offset: number): Lsn {
  return readU64(view, offset + 16, 'index LSN');
}

/** Below zero when the entry at `offset` sorts before the key. */
export function compareEntryToKey(view: DataView, offset: number, place: number, cell: number, lsn: Lsn): number {
  return placeAt(view, offset) - place || cellAt(view, offset) - cell || lsnAt(view, offset) - lsn;
}
