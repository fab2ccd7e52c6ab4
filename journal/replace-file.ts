import { TidemarkError } from './base/errors.ts';
import type { Disk } from './host/host.ts';

/** Makes a small file durable whole, by way of a temporary one and a rename. Throws `short-write` and what the disk says. */
export async function replaceFile(disk: Disk, directory: string, name: string, bytes: Uint8Array): Promise<void> {
  const path = `${directory}/${name}`;
  const temporary = `${path}.new`;
  disk.unlink(temporary);
  const file = disk.open(temporary, 'create');
  try {
    const written = file.writeSync(bytes, 0, bytes.length, 0);
    if (written !== bytes.length) {
      throw new TidemarkError('short-write', `${temporary}: ${written} of ${bytes.length}`);
    }
    await file.dataSync();
  } finally {
    await file.close();
  }
  disk.rename(temporary, path);
  await disk.syncDirectory(directory);
}
