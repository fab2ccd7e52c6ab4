import { TidemarkError } from '../../journal/base/errors.ts';
import type { Disk, DiskFile } from '../../journal/host/host.ts';

/** Fills `into`; throws `journal-damaged` when the file ends before. */
export async function readFully(file: DiskFile, into: Uint8Array, position: number): Promise<void> {
  // what the page cache holds costs a fifteenth of the way through the thread pool
  if (file.readNow?.(into, position) === true) return;
  const read = await file.read(into, 0, into.length, position);
  if (read < into.length) {
    throw new TidemarkError(
      'journal-damaged',
      `${file.path}: ends at ${position + read}, before ${position + into.length}`,
    );
  }
}

/** Writes all of `from`; a disk that fills up says so with a short write: `no-space`. */
export async function writeFully(file: DiskFile, from: Uint8Array, position: number): Promise<void> {
  const written = await file.write(from, 0, from.length, position);
  if (written < from.length) {
    throw new TidemarkError('no-space', `${file.path}: the disk took ${written} of ${from.length} bytes`);
  }
}

/** Puts `bytes` at `path` so that a crash leaves the old content or the new one, never a mixture. */
export async function replaceFile(disk: Disk, directory: string, name: string, bytes: Uint8Array): Promise<void> {
  const temporary = `${directory}/${name}.tmp`;
  disk.unlink(temporary);
  const file = disk.open(temporary, 'create');
  try {
    await writeFully(file, bytes, 0);
    await file.dataSync();
  } finally {
    await file.close();
  }
  disk.rename(temporary, `${directory}/${name}`);
  await disk.syncDirectory(directory);
}

/** The whole content of a small file; nothing when it does not exist. */
export async function readWhole(disk: Disk, path: string): Promise<Buffer | undefined> {
  if (!disk.exists(path)) return undefined;
  const file = disk.open(path, 'read');
  try {
    const bytes = Buffer.alloc(file.size());
    await readFully(file, bytes, 0);
    return bytes;
  } finally {
    await file.close();
  }
}
