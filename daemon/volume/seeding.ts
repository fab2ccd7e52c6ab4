import { hasCode, TidemarkError } from '../../journal/base/errors.ts';
import type { BlockDevice } from '../../journal/block-device.ts';
import type { AppendOptions, Journal } from '../../journal/journal.ts';
import { type Lsn, SECTOR_BYTES } from '../../journal/position.ts';
import { RecordKind } from '../../journal/record.ts';
import { encodeSeedEnd } from '../../journal/record-bodies.ts';

/** Of one SEED record. */
export const SEED_BYTES_MAX: number = 256 * 1024;
/** Zeroes are left out in units of this. */
const BLOCK_BYTES = 4096;
const MAP_STRETCH_BYTES = 1024 * 1024 * 1024;
/** The place reached is made durable after so much of the disk. */
const PROGRESS_BYTES = 64 * 1024 * 1024;

/** Of one BLANK record: 1 TiB. */
const BLANK_SECTORS: number = 2 ** 31;

const ZERO_BLOCK: Buffer = Buffer.alloc(BLOCK_BYTES);

export interface SeedingOptions {
  readonly journal: Journal;
  readonly volume: number;
  readonly device: BlockDevice;
  /** Bytes that the journal holds already. */
  readonly from: number;
  /** History knows other content of the volume: before the first block it is told that all of it is zeroes. */
  readonly anew: boolean;
  readonly signal: AbortSignal;
  /** Resolves when the journal may have room for a chunk; `wasRefused`: it had none just now. */
  readonly room: (wasRefused: boolean) => Promise<void>;
  /** So much more is on its way to the replicas. */
  readonly onAppended: (lsn: Lsn, bytes: number) => void;
  /** Everything below `bytes` is in the journal durably: to be kept for the next start. Also when interrupted. */
  readonly onProgress: (bytes: number) => Promise<void>;
}

/**
 * Journals the whole content of a disk as SEED records and ends with a durable SEED_END: history begins with a volume
 * that is known completely (DESIGN rule 11). Holes and zeroes are left out. The volume's export is shut meanwhile.
 */
export async function seedVolume(options: SeedingOptions): Promise<void> {
  const { journal, volume, device } = options;
  const buffer = Buffer.allocUnsafe(SEED_BYTES_MAX);
  let kept = options.from;
  const keep = async (reached: number): Promise<void> => {
    await journal.sync();
    await options.onProgress(reached);
    kept = reached;
  };
  if (options.anew && options.from === 0) await appendBlank(options);
  for await (const [offset, length] of chunks(device, options.from)) {
    if (offset - kept >= PROGRESS_BYTES) await keep(offset);
    try {
      if (options.signal.aborted) throw new TidemarkError('shutting-down', 'seeding was interrupted');
      const bytes = buffer.subarray(0, length);
      await device.read(offset, bytes);
      for (const [at, end] of usedRuns(bytes)) await appendSeed(options, offset + at, bytes.subarray(at, end));
    } catch (error) {
      if (hasCode(error, 'shutting-down')) await keep(offset);
      throw error;
    }
  }
  journal.append(RecordKind.seedEnd, { body: encodeSeedEnd({ volume }) });
  await journal.sync();
  await options.onProgress(device.size);
}

/** No write: it says nothing to the disk, which holds what is about to be journalled. */
async function appendBlank(options: SeedingOptions): Promise<void> {
  const total = options.device.size / SECTOR_BYTES;
  for (let sector = 0; sector < total; sector += BLANK_SECTORS) {
    await append(options, RecordKind.blank, { sector, sectors: Math.min(BLANK_SECTORS, total - sector) });
  }
}

function appendSeed(options: SeedingOptions, offset: number, body: Uint8Array): Promise<void> {
  const extent = { sector: offset / SECTOR_BYTES, sectors: body.length / SECTOR_BYTES };
  return append(options, RecordKind.seed, { ...extent, body });
}

async function append(options: SeedingOptions, kind: RecordKind, extent: AppendOptions): Promise<void> {
  const { journal, volume } = options;
  for (let wasRefused = false; ; wasRefused = true) {
    await options.room(wasRefused);
    try {
      const { lastLsn } = journal.append(kind, { volume, ...extent });
      options.onAppended(lastLsn, extent.body?.length ?? 0);
      return;
    } catch (error) {
      if (!hasCode(error, 'journal-full')) throw error;
    }
  }
}

/** True when the whole disk reads as zeroes; holes are not read. */
export async function isEmpty(device: BlockDevice): Promise<boolean> {
  const buffer = Buffer.allocUnsafe(SEED_BYTES_MAX);
  for await (const [offset, length] of chunks(device, 0)) {
    const bytes = buffer.subarray(0, length);
    await device.read(offset, bytes);
    if (usedRuns(bytes).length > 0) return false;
  }
  return true;
}

/** Offset and length of everything from `from` on that is not known to be zeroes, in pieces of at most a chunk. */
async function* chunks(device: BlockDevice, from: number): AsyncGenerator<readonly [number, number]> {
  for (let stretch = from; stretch < device.size; stretch += MAP_STRETCH_BYTES) {
    let offset = stretch;
    for (const extent of await device.extents(stretch, Math.min(MAP_STRETCH_BYTES, device.size - stretch))) {
      if (extent.kind === 'data') {
        for (let at = 0; at < extent.length; at += SEED_BYTES_MAX) {
          yield [offset + at, Math.min(SEED_BYTES_MAX, extent.length - at)];
        }
      }
      offset += extent.length;
    }
  }
}

/** The stretches of `bytes` that hold something, as [from, to). */
function usedRuns(bytes: Buffer): [number, number][] {
  const runs: [number, number][] = [];
  for (let at = 0; at < bytes.length; at += BLOCK_BYTES) {
    const block = bytes.subarray(at, at + BLOCK_BYTES);
    if (block.equals(block.length === BLOCK_BYTES ? ZERO_BLOCK : ZERO_BLOCK.subarray(0, block.length))) continue;
    const last = runs.at(-1);
    if (last !== undefined && last[1] === at) last[1] = at + block.length;
    else runs.push([at, at + block.length]);
  }
  return runs;
}
