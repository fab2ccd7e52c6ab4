import { crc32 } from '@node-rs/crc32';
import { hasCode, TidemarkError } from './base/errors.ts';
import { journalFileName } from './file-reads.ts';
import type { Disk, DiskFile } from './host/host.ts';
import { type JournalAddress, readU64, writeU64 } from './position.ts';
import { replaceFile } from './replace-file.ts';

/*
 * File `journal.mending`, 48 bytes, little endian: where damaged records are being put back. It is durable before the
 * first of them is written and goes when they are synced, so that a start that finds it knows of bytes that the page
 * cache may show and the disk may not have: watermarks behind them speak of what stood there before.
 *
 *   0 u32 magic 'TMM1'
 *   4 u32 crc              crc32 of the 48 bytes with this field 0
 *   8 u32 version          1
 *  12 zeroes
 *  16 16B group id
 *  32 u64 from address
 *  40 u64 to address
 */

const FILE_NAME = 'journal.mending';
const NOTE_BYTES = 48;
const NOTE_MAGIC = 0x314d4d54;
const NOTE_VERSION = 1;
const CHUNK_BYTES = 1024 * 1024;

export interface MendingNote {
  readonly groupId: string;
  readonly from: JournalAddress;
  readonly to: JournalAddress;
}

/**
 * Notes that a place is being mended. A place noted before, whose mending did not end, stays noted: one range around
 * both. Resolves with what was noted before. A full disk keeps nobody from mending: then nothing is noted.
 */
export async function noteMending(disk: Disk, directory: string, note: MendingNote): Promise<MendingNote | undefined> {
  const before = await readNote(disk, directory, note.groupId);
  const from = Math.min(note.from, before?.from ?? note.from);
  const to = Math.max(note.to, before?.to ?? note.to);
  await writeNoteIfRoom(disk, directory, { ...note, from, to });
  return before;
}

/** The mended place is synced; `before`: what had been noted already. */
export async function endMending(disk: Disk, directory: string, before: MendingNote | undefined): Promise<void> {
  // one that comes back after a power loss costs the next start some writes
  if (before === undefined) disk.unlink(`${directory}/${FILE_NAME}`);
  else await writeNoteIfRoom(disk, directory, before);
}

/**
 * Writes what stands in a noted place once more, as it is read, and syncs it; files that are gone are passed over. What
 * is still damaged stays so. Resolves with the bytes written. Throws what the disk says; done again by the next start.
 */
export async function rewriteNoted(disk: Disk, directory: string, fileBytes: number, groupId: string): Promise<number> {
  const note = await readNote(disk, directory, groupId);
  if (note === undefined) return 0;
  const chunk = Buffer.alloc(Math.min(CHUNK_BYTES, fileBytes));
  let bytes = 0;
  for (let address = note.from; address < note.to; ) {
    const fileEnd = address - (address % fileBytes) + fileBytes;
    const to = Math.min(note.to, fileEnd);
    const path = `${directory}/${journalFileName(Math.floor(address / fileBytes))}`;
    bytes += await rewriteFile(disk, path, { from: address % fileBytes, to: to - fileEnd + fileBytes }, chunk);
    address = to;
  }
  await disk.syncDirectory(directory);
  await endMending(disk, directory, undefined);
  return bytes;
}

async function rewriteFile(
  disk: Disk,
  path: string,
  { from, to }: { readonly from: number; readonly to: number },
  chunk: Buffer,
): Promise<number> {
  let file: DiskFile;
  try {
    file = disk.open(path, 'write');
  } catch (error) {
    if (hasCode(error, 'not-found')) return 0;
    throw error;
  }
  let at = from;
  try {
    while (at < to) {
      const read = file.readSync(chunk, 0, Math.min(chunk.length, to - at), at);
      if (read === 0) break;
      const written = await file.write(chunk, 0, read, at);
      if (written !== read) throw new TidemarkError('no-space', `${path}: ${written} of ${read} bytes written again`);
      at += written;
    }
    await file.dataSync();
  } finally {
    await file.close();
  }
  return at - from;
}

async function writeNoteIfRoom(disk: Disk, directory: string, note: MendingNote): Promise<void> {
  try {
    await writeNote(disk, directory, note);
  } catch (error) {
    if (!hasCode(error, 'no-space') && !hasCode(error, 'short-write')) throw error;
  }
}

async function writeNote(disk: Disk, directory: string, { groupId, from, to }: MendingNote): Promise<void> {
  const bytes = Buffer.alloc(NOTE_BYTES);
  const view = new DataView(bytes.buffer, bytes.byteOffset, NOTE_BYTES);
  view.setUint32(0, NOTE_MAGIC, true);
  view.setUint32(8, NOTE_VERSION, true);
  bytes.write(groupId, 16, 'hex');
  writeU64(view, 32, from);
  writeU64(view, 40, to);
  view.setUint32(4, crc32(bytes), true);
  await replaceFile(disk, directory, FILE_NAME, bytes);
}

/** One that cannot be read says nothing: then the place may be trusted too early, after two faults, not after one. */
async function readNote(disk: Disk, directory: string, groupId: string): Promise<MendingNote | undefined> {
  const bytes = Buffer.alloc(NOTE_BYTES);
  try {
    const file = disk.open(`${directory}/${FILE_NAME}`, 'read');
    try {
      if (file.readSync(bytes, 0, NOTE_BYTES, 0) !== NOTE_BYTES) return undefined;
    } finally {
      await file.close();
    }
  } catch (error) {
    if (hasCode(error, 'not-found')) return undefined;
    throw error;
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, NOTE_BYTES);
  const crc = view.getUint32(4, true);
  view.setUint32(4, 0, true);
  const isWhole = view.getUint32(0, true) === NOTE_MAGIC && crc32(bytes) === crc;
  if (!isWhole || view.getUint32(8, true) !== NOTE_VERSION || bytes.toString('hex', 16, 32) !== groupId)
    return undefined;
  const [from, to] = [readU64(view, 32, 'from address'), readU64(view, 40, 'to address')];
  return { groupId, from, to };
}
