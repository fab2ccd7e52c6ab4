import { journalFileName } from './file-reads.ts';
import type { Host } from './host/host.ts';
import type { JournalAddress, Lsn } from './position.ts';

/** From where on somebody needs the log: every file from there on was begun, and none was given free. */
export interface NeededPlace {
  readonly address: JournalAddress;
  /** Of the first record there. */
  readonly lsn: Lsn;
}

/** More files than any journal has: then it is the place that is wrong. */
const GONE_MAX = 4096;

/**
 * Sequences of files that are not there, from the needed place up to `newest`, for a log whose files are in one piece only
 * from `oldest` on; none when so many are missing that the place cannot be this log's.
 */
export function goneFiles(
  sequences: readonly number[],
  { needed, oldest, newest }: { readonly needed: number; readonly oldest: number; readonly newest: number },
): number[] {
  if (needed >= oldest || oldest - needed > GONE_MAX) return [];
  const there = new Set(sequences);
  return Array.from({ length: newest - needed }, (_, index) => needed + index).filter((each) => !there.has(each));
}

/**
 * Puts an empty file in the place of each that is gone: damage like any other, which can be put back. Durable when it
 * resolves; done again after a kill.
 */
export async function standIn(
  host: Host,
  { directory, fileBytes }: { readonly directory: string; readonly fileBytes: number },
  gone: readonly number[],
): Promise<void> {
  for (const sequence of gone) {
    const file = host.disk.open(`${directory}/${journalFileName(sequence)}`, 'create');
    file.truncate(fileBytes);
    await file.close();
  }
  if (gone.length > 0) await host.disk.syncDirectory(directory);
}
