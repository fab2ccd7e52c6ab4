import { crc32 } from '@node-rs/crc32';
import { hasCode, TidemarkError } from './base/errors.ts';
import type { Disk } from './host/host.ts';
import { type JournalAddress, type Lsn, readU64, writeU64 } from './position.ts';
import { replaceFile } from './replace-file.ts';

/*
 * File `journal.stop`, 64 bytes, little endian: how the last run ended. It counts as long as the log ends exactly
 * where it says, so a new run need not remove it.
 *
 *   0 u32 magic 'TMS1'
 *   4 u32 crc              crc32 of the 64 bytes with this field 0
 *   8 u32 version          1
 *  12 u32 incarnation      counter
 *  16 16B group id
 *  32 8B  incarnation nonce
 *  40 u64 last LSN         durable
 *  48 u64 end address
 *  56 zeroes
 */

const FILE_NAME = 'journal.stop';
const MARK_BYTES = 64;
const MARK_MAGIC = 0x31534d54;
const MARK_VERSION = 1;

export interface StopMark {
  readonly groupId: string;
  readonly incarnation: number;
  readonly nonce: string;
  readonly lastLsn: Lsn;
  readonly endAddress: JournalAddress;
}

/** Makes the mark durable by way of a temporary file and a rename. */
export async function writeStopMark(disk: Disk, directory: string, mark: StopMark): Promise<void> {
  const bytes = Buffer.alloc(MARK_BYTES);
  const view = new DataView(bytes.buffer, bytes.byteOffset, MARK_BYTES);
  view.setUint32(0, MARK_MAGIC, true);
  view.setUint32(8, MARK_VERSION, true);
  view.setUint32(12, mark.incarnation, true);
  bytes.write(mark.groupId, 16, 'hex');
  bytes.write(mark.nonce, 32, 'hex');
  writeU64(view, 40, mark.lastLsn);
  writeU64(view, 48, mark.endAddress);
  view.setUint32(4, crc32(bytes), true);
  await replaceFile(disk, directory, FILE_NAME, bytes);
}

/** The mark, or undefined when there is none or it cannot be read: then nothing is known about how the run ended. */
export async function readStopMark(disk: Disk, directory: string): Promise<StopMark | undefined> {
  const bytes = Buffer.alloc(MARK_BYTES);
  try {
    const file = disk.open(`${directory}/${FILE_NAME}`, 'read');
    try {
      if (file.readSync(bytes, 0, MARK_BYTES, 0) !== MARK_BYTES) return undefined;
    } finally {
      await file.close();
    }
  } catch (error) {
    if (hasCode(error, 'not-found') || hasCode(error, 'device-failed')) return undefined;
    throw error;
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, MARK_BYTES);
  const crc = view.getUint32(4, true);
  view.setUint32(4, 0, true);
  if (view.getUint32(0, true) !== MARK_MAGIC || crc32(bytes) !== crc) return undefined;
  if (view.getUint32(8, true) > MARK_VERSION) {
    throw new TidemarkError('format-too-new', `${FILE_NAME} was written by a newer version`);
  }
  return {
    groupId: bytes.toString('hex', 16, 32),
    incarnation: view.getUint32(12, true),
    nonce: bytes.toString('hex', 32, 40),
    lastLsn: readU64(view, 40, 'last LSN'),
    endAddress: readU64(view, 48, 'end address'),
  };
}
