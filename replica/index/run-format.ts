import { crc32c } from '@node-rs/crc32';
import { TidemarkError } from '../../journal/base/errors.ts';
import { type Lsn, readU64, writeU64 } from '../../journal/position.ts';
import { CLASS_COUNT, ENTRY_BYTES } from './entry-format.ts';

/**
 * A run file: entries sorted by (volume, class, cell, LSN), covering the LSNs above `baseLsn` up to `lastLsn`.
 *
 * The file is 4 KiB pages: groups of up to 170 entry pages, each group followed by its fence page (the first key of
 * each entry page of the group); then the top (the first key of each group, 24 bytes each, padded to a page); then the
 * footer page. Only the top is kept in memory: 24 bytes per 17,340 entries.
 *
 * Entry page: 0 u32 crc32c of the page with this field 0 | 4 u32 entries | 8 entries of 40 bytes (102 at most)
 * Fence page: 0 u32 crc32c | 4 u32 fences | 8 fences of 24 bytes: u16 volume, u8 class, 5 bytes 0, u64 cell, u64 lsn
 * Footer page: 0 u32 magic 'TMR1' | 4 u16 version 1 | 6 u16 page KiB | 8 u32 crc32c (field 0) | 12 u32 top crc32c
 *  16 group id | 32 u64 base LSN | 40 u64 last LSN | 48 u64 entries | 56 u64 open from | 64 u32 groups
 *  72 8 x u64 entries per class
 *
 * "Open from": where a reader has to begin to see every piece of the requests that are open at `lastLsn`.
 */
export const PAGE_BYTES = 4096;
export const PAGE_HEADER_BYTES = 8;
export const ENTRIES_PER_PAGE: number = Math.floor((PAGE_BYTES - PAGE_HEADER_BYTES) / ENTRY_BYTES);
export const FENCE_BYTES = 24;
export const FENCES_PER_PAGE: number = Math.floor((PAGE_BYTES - PAGE_HEADER_BYTES) / FENCE_BYTES);
const MAGIC = 0x31524d54;
const VERSION = 1;

export interface RunFooter {
  readonly groupId: string;
  readonly baseLsn: Lsn;
  readonly lastLsn: Lsn;
  readonly entries: number;
  readonly openFromLsn: Lsn;
  readonly groups: number;
  readonly topCrc: number;
  readonly classCounts: readonly number[];
}

/** Which page of the file entry page `page` is. */
export function entryPageAt(page: number): number {
  return page + Math.floor(page / FENCES_PER_PAGE);
}

/** Which page of the file the fence page of group `group` is; `entryPages` of the whole run. */
export function fencePageAt(group: number, entryPages: number): number {
  return Math.min((group + 1) * FENCES_PER_PAGE, entryPages) + group;
}

export function runName(baseLsn: Lsn, lastLsn: Lsn): string {
  return `${baseLsn.toString(16).padStart(14, '0')}-${lastLsn.toString(16).padStart(14, '0')}.run`;
}

/** The range a file name stands for; nothing for other names. */
export function parseRunName(name: string): { baseLsn: Lsn; lastLsn: Lsn } | undefined {
  const match = /^([0-9a-f]{14})-([0-9a-f]{14})\.run$/.exec(name);
  if (match?.[1] === undefined || match[2] === undefined) return undefined;
  return { baseLsn: Number.parseInt(match[1], 16), lastLsn: Number.parseInt(match[2], 16) };
}

/** Puts the checksum over a page whose other bytes are final. */
export function sealPage(page: Buffer): void {
  page.writeUInt32LE(0, 0);
  page.writeUInt32LE(crc32c(page), 0);
}

export function checkPage(page: Buffer, what: string): void {
  const stored = page.readUInt32LE(0);
  page.writeUInt32LE(0, 0);
  const actual = crc32c(page);
  page.writeUInt32LE(stored, 0);
  if (stored !== actual) throw new TidemarkError('journal-damaged', `${what}: the checksum does not match`);
}

export function encodeFooter(footer: RunFooter): Buffer {
  const page = Buffer.alloc(PAGE_BYTES);
  const view = new DataView(page.buffer, page.byteOffset, page.byteLength);
  page.writeUInt32LE(MAGIC, 0);
  page.writeUInt16LE(VERSION, 4);
  page.writeUInt16LE(PAGE_BYTES / 1024, 6);
  page.writeUInt32LE(footer.topCrc, 12);
  page.write(footer.groupId, 16, 'hex');
  writeU64(view, 32, footer.baseLsn);
  writeU64(view, 40, footer.lastLsn);
  writeU64(view, 48, footer.entries);
  writeU64(view, 56, footer.openFromLsn);
  page.writeUInt32LE(footer.groups, 64);
  for (let i = 0; i < CLASS_COUNT; i += 1) writeU64(view, 72 + i * 8, footer.classCounts[i] ?? 0);
  page.writeUInt32LE(crc32c(page), 8);
  return page;
}

/** Throws `journal-damaged`, or `format-too-new` for a version this program does not know. */
export function decodeFooter(page: Buffer, what: string): RunFooter {
  const view = new DataView(page.buffer, page.byteOffset, page.byteLength);
  if (page.readUInt32LE(0) !== MAGIC) throw new TidemarkError('journal-damaged', `${what}: not an index run`);
  const stored = page.readUInt32LE(8);
  page.writeUInt32LE(0, 8);
  if (crc32c(page) !== stored)
    throw new TidemarkError('journal-damaged', `${what}: the footer's checksum does not match`);
  if (page.readUInt16LE(4) !== VERSION) {
    throw new TidemarkError(
      'format-too-new',
      `${what}: index run of version ${page.readUInt16LE(4)}, this program knows ${VERSION}`,
    );
  }
  return {
    groupId: page.toString('hex', 16, 32),
    baseLsn: readU64(view, 32, 'run base LSN'),
    lastLsn: readU64(view, 40, 'run last LSN'),
    entries: readU64(view, 48, 'run entries'),
    openFromLsn: readU64(view, 56, 'run open from'),
    groups: page.readUInt32LE(64),
    topCrc: page.readUInt32LE(12),
    classCounts: Array.from({ length: CLASS_COUNT }, (_, i) => readU64(view, 72 + i * 8, 'run class count')),
  };
}
