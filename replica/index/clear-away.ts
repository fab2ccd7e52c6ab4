import { TidemarkError } from '../../journal/base/errors.ts';
import type { Host } from '../../journal/host/host.ts';

/** What is no run of this index goes; a directory, which nobody but a person makes, is put aside with what is in it. */
export function clearAway(host: Host, path: string): void {
  try {
    host.disk.unlink(path);
  } catch (error) {
    if (!isDirectory(error)) throw error;
    host.disk.rename(path, `${path}.put-aside`);
  }
}

/** What reading or removing a directory in place of a file fails with. */
export function isDirectory(error: unknown): boolean {
  return error instanceof TidemarkError && error.details['errno'] === 'EISDIR';
}
