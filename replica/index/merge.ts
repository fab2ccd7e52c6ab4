import { assert } from '../../journal/base/assert.ts';
import type { Host } from '../../journal/host/host.ts';
import type { Lsn } from '../../journal/position.ts';
import { cellAt, ENTRY_BYTES, emptyEntry, lsnAt, placeAt, writeEntry } from './entry-format.ts';
import type { Memtable } from './memtable.ts';
import type { RunFile } from './run-file.ts';
import { ENTRIES_PER_PAGE, PAGE_BYTES, PAGE_HEADER_BYTES } from './run-format.ts';
import { RunWriter } from './run-writer.ts';

const READ_PAGES = 16;

/** Writes a memtable as a run; returns its path. `openFromLsn`: see run-format.ts. */
export async function writeMemtable(
  host: Host,
  directory: string,
  groupId: string,
  memtable: Memtable,
  openFromLsn: Lsn,
): Promise<string> {
  const { baseLsn, lastLsn } = memtable;
  const writer = new RunWriter(host, directory, { groupId, baseLsn, lastLsn, openFromLsn });
  try {
    const view = new DataView(writer.page.buffer, writer.page.byteOffset, writer.page.byteLength);
    const entry = emptyEntry();
    for (const index of memtable.sorted()) {
      if (writer.full) await writer.drain();
      memtable.read(index, entry);
      writeEntry(view, writer.place(), entry);
    }
    return await writer.finish();
  } catch (error) {
    await writer.abandon();
    throw error;
  }
}

/**
 * Merges neighbouring runs, oldest first, into one that keeps every version above `floorLsn`: an entry at or below it
 * has become part of the base. Streams with 64 KiB per run. Returns the new run's path.
 */
export async function mergeRuns(
  host: Host,
  directory: string,
  groupId: string,
  runs: readonly RunFile[],
  floorLsn: Lsn,
): Promise<string> {
  const first = runs[0];
  const last = runs.at(-1);
  assert(first !== undefined && last !== undefined, 'a merge of no runs');
  const writer = new RunWriter(host, directory, {
    groupId,
    baseLsn: Math.max(first.footer.baseLsn, Math.min(floorLsn, last.footer.lastLsn)),
    lastLsn: last.footer.lastLsn,
    openFromLsn: last.footer.openFromLsn,
  });
  try {
    const words = wordsOf(writer.page);
    const cursors = runs.map((run) => new RunCursor(run));
    for (const cursor of cursors) await cursor.fill();
    for (;;) {
      let least: RunCursor | undefined;
      // Of equal cells the older run's entries come first: its LSNs are all lower.
      for (const cursor of cursors) {
        if (!cursor.done && (least === undefined || cursor.before(least))) least = cursor;
      }
      if (least === undefined) break;
      if (least.lsn > floorLsn) {
        if (writer.full) await writer.drain();
        least.copyTo(words, writer.place() / 4);
      }
      if (!least.advance()) await least.fill();
    }
    return await writer.finish();
  } catch (error) {
    await writer.abandon();
    throw error;
  }
}

const ENTRY_WORDS = ENTRY_BYTES / 4;

/** Pages are allocated by themselves, so their entries stand on whole words. */
function wordsOf(pages: Buffer): Uint32Array {
  return new Uint32Array(pages.buffer, pages.byteOffset, pages.length / 4);
}

class RunCursor {
  readonly #run: RunFile;
  readonly #buffer = Buffer.allocUnsafeSlow(READ_PAGES * PAGE_BYTES);
  readonly #view = new DataView(this.#buffer.buffer, this.#buffer.byteOffset, this.#buffer.byteLength);
  readonly #words = wordsOf(this.#buffer);
  /** Ordinal of the entry the cursor stands on. */
  #ordinal = 0;
  #filledFrom = 0;
  #filledTo = 0;
  #at = 0;
  place = 0;
  cell = 0;
  lsn = 0;

  constructor(run: RunFile) {
    this.#run = run;
  }

  get done(): boolean {
    return this.#ordinal >= this.#run.footer.entries;
  }

  before(other: RunCursor): boolean {
    return (this.place - other.place || this.cell - other.cell) < 0;
  }

  /** Steps on; false when more pages have to be read by `fill`. */
  advance(): boolean {
    this.#ordinal += 1;
    if (this.done) return true;
    if (this.#ordinal >= this.#filledTo) return false;
    this.#stand();
    return true;
  }

  async fill(): Promise<void> {
    if (this.done) return;
    const page = Math.floor(this.#ordinal / ENTRIES_PER_PAGE);
    const pages = Math.min(READ_PAGES, Math.ceil(this.#run.footer.entries / ENTRIES_PER_PAGE) - page);
    await this.#run.readPages(page, pages, this.#buffer);
    this.#filledFrom = page * ENTRIES_PER_PAGE;
    this.#filledTo = (page + pages) * ENTRIES_PER_PAGE;
    this.#stand();
  }

  /** Word by word: a native copy of 40 bytes was a quarter of a merge. */
  copyTo(words: Uint32Array, at: number): void {
    const from = this.#at / 4;
    for (let i = 0; i < ENTRY_WORDS; i += 1) words[at + i] = this.#words[from + i] ?? 0;
  }

  #stand(): void {
    const index = this.#ordinal - this.#filledFrom;
    this.#at =
      Math.floor(index / ENTRIES_PER_PAGE) * PAGE_BYTES + PAGE_HEADER_BYTES + (index % ENTRIES_PER_PAGE) * ENTRY_BYTES;
    this.place = placeAt(this.#view, this.#at);
    this.cell = cellAt(this.#view, this.#at);
    this.lsn = lsnAt(this.#view, this.#at);
  }
}

/** Runs of one level that become one run. */
const MERGE_FAN_IN = 8;

/** The newest eight neighbours of one size class, sizes growing by the fan-in. */
export function pickMerge(runs: readonly RunFile[], memtableEntries: number): RunFile[] | undefined {
  const level = (run: RunFile): number =>
    Math.max(0, Math.floor(Math.log2(Math.max(run.footer.entries, 1) / memtableEntries) / 3 + 0.5));
  let end = runs.length;
  while (end > 0) {
    const last = runs[end - 1];
    if (last === undefined) return undefined;
    let start = end - 1;
    while (start > 0 && level(runs[start - 1] as RunFile) <= level(last) && end - start < MERGE_FAN_IN) start -= 1;
    if (end - start === MERGE_FAN_IN) return runs.slice(start, end);
    end -= 1;
  }
  return undefined;
}
