import { TidemarkError } from './base/errors.ts';

/**
 * A record's number in its group: starts at 1, +1 each. 64 bits on disk and on the wire; in memory a number, which is
 * exact up to 2^53: 285 years at a million records a second. `readU64` refuses anything larger.
 */
export type Lsn = number;

/** Who may write: +1 at every failover. */
export type Epoch = number;

/** Byte address in a journal's endless linear address space; a recycled file gets a new, higher range of it. */
export type JournalAddress = number;

/** Microseconds since 1970-01-01T00:00:00Z, never going back within a journal (DESIGN rule 7). */
export type JournalTime = number;

/** The position before the first record: an empty volume. */
export const LSN_NONE: Lsn = 0;

/** Sectors are the unit of every extent: XFS logs and NTFS write 512 bytes (DESIGN rule 6). */
export const SECTOR_BYTES = 512;

export interface Position {
  readonly epoch: Epoch;
  readonly lsn: Lsn;
}

export function formatPosition(position: Position): string {
  return `${position.epoch}:${position.lsn}`;
}

/** Reads a 64-bit little-endian number that must fit 2^53; `what` names the field in the error. */
export function readU64(view: DataView, offset: number, what: string): number {
  const high = view.getUint32(offset + 4, true);
  if (high >= 0x200000) throw new TidemarkError('journal-damaged', `${what} is larger than 2^53`);
  return high * 0x1_0000_0000 + view.getUint32(offset, true);
}

export function writeU64(view: DataView, offset: number, value: number): void {
  view.setUint32(offset, value >>> 0, true);
  view.setUint32(offset + 4, (value / 0x1_0000_0000) >>> 0, true);
}
