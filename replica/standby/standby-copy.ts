import { TidemarkError } from '../../journal/base/errors.ts';
import type { Lsn } from '../../journal/position.ts';
import type { HistoryReader } from '../view/history-reader.ts';
import type { StandbyFiles } from './standby-files.ts';
import type { StandbyVolume } from './standby-stamp.ts';

interface CopyParts {
  readonly files: StandbyFiles;
  readonly history: HistoryReader;
  readonly volumes: readonly StandbyVolume[];
  readonly atLsn: Lsn;
  /** By volume: what a copy before this one had written and synced. */
  readonly copied: Readonly<Record<string, number>>;
  readonly isStopped: () => boolean;
  /** Everything of these volumes below these bytes was written; durable when it resolves. */
  readonly onProgress: (copied: Readonly<Record<string, number>>) => Promise<void>;
}

const CHUNK_BYTES = 1024 * 1024;
const PROGRESS_BYTES = 64 * 1024 * 1024;

/** Content of all volumes at one position into their files: data is written, everything else made zeroes. */
export async function copyVolumes(parts: CopyParts): Promise<void> {
  const { files, history, atLsn } = parts;
  const buffer = new Uint8Array(CHUNK_BYTES);
  for (const volume of parts.volumes) {
    let kept = parts.copied[volume.id] ?? 0;
    const file = await files.open(volume, kept > 0);
    const from = kept;
    if (from >= volume.sizeBytes) continue;
    for await (const { offset, length, data } of history.stretches(volume.id, atLsn, from, volume.sizeBytes - from)) {
      if (!data) await files.zero(file, offset, length);
      for (let at = 0; data && at < length; at += CHUNK_BYTES) {
        if (parts.isStopped()) throw new TidemarkError('shutting-down', 'the standby image is being closed');
        const bytes = buffer.subarray(0, Math.min(CHUNK_BYTES, length - at));
        await history.read(volume.id, atLsn, offset + at, bytes);
        await files.write(file, offset + at, bytes);
        if (offset + at + bytes.length - kept < PROGRESS_BYTES) continue;
        kept = offset + at + bytes.length;
        await parts.onProgress({ [volume.id]: kept });
      }
    }
    await parts.onProgress({ [volume.id]: volume.sizeBytes });
  }
}
