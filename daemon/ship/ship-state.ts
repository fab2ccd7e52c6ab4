import { crc32c } from '@node-rs/crc32';
import { hasCode, TidemarkError } from '../../journal/base/errors.ts';
import type { Disk } from '../../journal/host/host.ts';
import { readU64, writeU64 } from '../../journal/position.ts';
import type { ChainCheckpoint } from './chain-checkpoints.ts';

/*
 * ship.state in the journal's directory: the chain at places the journal still holds. It is replaced as a whole before
 * the journal is trimmed, for without it the chain could not be told any more. Little endian.
 *
 *   0 u32 magic 'TMS1'
 *   4 u32 version 1
 *   8 16B group id
 *  24 u32 checkpoints
 *  28 u32 crc          crc32c of everything with this field 0
 *  32     per checkpoint, 24 bytes: u64 LSN, u64 journal address, u32 chain low, u32 chain high
 */

const MAGIC = 0x31534d54;
const VERSION = 1;
const HEADER_BYTES = 32;
const ENTRY_BYTES = 24;
const ENTRIES_MAX = 65_536;

const SHIP_STATE_FILE = 'ship.state';

export function encodeShipState(groupId: string, checkpoints: readonly ChainCheckpoint[]): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES + checkpoints.length * ENTRY_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, MAGIC, true);
  view.setUint32(4, VERSION, true);
  bytes.set(Buffer.from(groupId, 'hex'), 8);
  view.setUint32(24, checkpoints.length, true);
  for (const [index, { lsn, address, chain }] of checkpoints.entries()) {
    const at = HEADER_BYTES + index * ENTRY_BYTES;
    writeU64(view, at, lsn);
    writeU64(view, at + 8, address);
    view.setUint32(at + 16, chain.low, true);
    view.setUint32(at + 20, chain.high, true);
  }
  view.setUint32(28, crc32c(bytes), true);
  return bytes;
}

/** Throws `journal-damaged`, `journal-foreign`, `format-too-new`. */
export function decodeShipState(bytes: Uint8Array, groupId: string): ChainCheckpoint[] {
  const damaged = (): TidemarkError => new TidemarkError('journal-damaged', `${SHIP_STATE_FILE} is damaged`);
  if (bytes.length < HEADER_BYTES) throw damaged();
  // Not slice(): that of a Buffer is no copy.
  const copy = new Uint8Array(bytes);
  const view = new DataView(copy.buffer);
  const crc = view.getUint32(28, true);
  view.setUint32(28, 0, true);
  const count = view.getUint32(24, true);
  if (view.getUint32(0, true) !== MAGIC || crc32c(copy) !== crc) throw damaged();
  if (view.getUint32(4, true) !== VERSION) {
    throw new TidemarkError('format-too-new', `${SHIP_STATE_FILE} has format ${view.getUint32(4, true)}`);
  }
  if (count > ENTRIES_MAX || copy.length !== HEADER_BYTES + count * ENTRY_BYTES) throw damaged();
  if (Buffer.from(copy.buffer, 8, 16).toString('hex') !== groupId) {
    throw new TidemarkError('journal-foreign', `${SHIP_STATE_FILE} belongs to another group`);
  }
  return Array.from({ length: count }, (_, index) => {
    const at = HEADER_BYTES + index * ENTRY_BYTES;
    return {
      lsn: readU64(view, at, 'LSN'),
      address: readU64(view, at + 8, 'address'),
      chain: { low: view.getUint32(at + 16, true), high: view.getUint32(at + 20, true) },
    };
  });
}

/** Empty when there is no file yet. */
export async function loadShipState(disk: Disk, directory: string, groupId: string): Promise<ChainCheckpoint[]> {
  const path = `${directory}/${SHIP_STATE_FILE}`;
  if (!disk.exists(path)) return [];
  const file = disk.open(path, 'read');
  try {
    const size = Math.min(file.size(), HEADER_BYTES + (ENTRIES_MAX + 1) * ENTRY_BYTES);
    const bytes = new Uint8Array(size);
    const read = await file.read(bytes, 0, size, 0);
    return decodeShipState(bytes.subarray(0, read), groupId);
  } finally {
    await file.close();
  }
}

/** Durable when it resolves; a crash on the way leaves the old file. */
export async function saveShipState(
  disk: Disk,
  directory: string,
  groupId: string,
  checkpoints: readonly ChainCheckpoint[],
): Promise<void> {
  const path = `${directory}/${SHIP_STATE_FILE}`;
  const next = `${path}.new`;
  disk.unlink(next);
  const bytes = encodeShipState(groupId, checkpoints);
  const file = disk.open(next, 'create');
  try {
    const written = await file.write(bytes, 0, bytes.length, 0);
    if (written !== bytes.length) throw new TidemarkError('no-space', `${next}: ${written} of ${bytes.length} bytes`);
    await file.dataSync();
  } finally {
    await file.close();
  }
  disk.rename(next, path);
  await disk.syncDirectory(directory);
}

/** What a damaged file means: the chain is unknown, as if there were none. */
export function isUnreadable(error: unknown): error is TidemarkError {
  return hasCode(error, 'journal-damaged');
}
