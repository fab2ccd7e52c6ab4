import type { Lsn } from '../../journal/position.ts';
import {
  CLASS_COUNT,
  cellSectors,
  type EntryFields,
  emptyEntry,
  placeOf,
  readEntry,
  SMALL_CLASSES,
} from './entry-format.ts';
import { LookupWindow, type VersionPart, WINDOW_SECTORS_MAX } from './lookup-window.ts';
import type { Memtable } from './memtable.ts';
import { entryOffset, type RunFile } from './run-file.ts';
import { ENTRIES_PER_PAGE } from './run-format.ts';

/** Step over large zeroes: 64 GiB. */
const STEP_SECTORS = 2 ** 27;

/** Entries in sorted order, wherever they are: what a survey walks. */
export interface SortedEntries {
  readonly count: number;
  /** False: no entry of the class, in any volume. */
  has(sizeClass: number): boolean;
  /** Ordinal of the first entry of (place, cell) or behind it; none before `hint` is. */
  find(place: number, cell: number, hint: number): Promise<number>;
  read(ordinal: number, into: EntryFields): Promise<void>;
  paint(window: LookupWindow, volume: number, atLsn: Lsn, floorLsn: Lsn): Promise<void> | undefined;
}

export function sortedMemtable(memtable: Memtable): SortedEntries {
  const order = memtable.sorted();
  return {
    count: order.length,
    has: (sizeClass) => memtable.classCount(sizeClass) > 0,
    find: (place, cell, hint) => {
      let low = hint;
      let high = order.length;
      while (low < high) {
        const middle = (low + high) >>> 1;
        if (memtable.compareToCell(order[middle] ?? 0, place, cell) < 0) low = middle + 1;
        else high = middle;
      }
      return Promise.resolve(low);
    },
    read: (ordinal, into) => {
      memtable.read(order[ordinal] ?? 0, into);
      return Promise.resolve();
    },
    paint: (window, volume, atLsn, floorLsn) => {
      memtable.paint(window, volume, atLsn, floorLsn);
      return undefined;
    },
  };
}

export function sortedRun(run: RunFile): SortedEntries {
  return {
    count: run.footer.entries,
    has: (sizeClass) => run.footer.classCounts[sizeClass] !== 0,
    find: (place, cell, hint) => run.lowerBound(place, cell, 0, hint),
    read: async (ordinal, into) => {
      const page = Math.floor(ordinal / ENTRIES_PER_PAGE);
      readEntry(run.entryPageNow(page) ?? (await run.loadEntryPage(page)), entryOffset(ordinal), into);
    },
    paint: (window, volume, atLsn, floorLsn) => run.paint(window, volume, atLsn, floorLsn),
  };
}

/** Where each source has its next entry of each small class: a survey goes forward, so every entry is found once. */
export class SmallCursors {
  readonly #volume: number;
  readonly #cursors: { source: SortedEntries; sizeClass: number; ordinal: number; next: number }[] = [];
  readonly #entry = emptyEntry();

  constructor(sources: readonly SortedEntries[], volume: number) {
    this.#volume = volume;
    for (const source of sources) {
      for (let sizeClass = 0; sizeClass < SMALL_CLASSES; sizeClass += 1) {
        if (source.has(sizeClass)) this.#cursors.push({ source, sizeClass, ordinal: 0, next: -1 });
      }
    }
  }

  /**
   * The first sector at or behind `sector` where an entry may lie, whatever its LSN; `end` when there is none before
   * it. May name a place up to one cell too early, never too late. `sector` never goes back.
   */
  async next(sector: number, end: number): Promise<number> {
    let next = end;
    for (const cursor of this.#cursors) {
      if (cursor.next < sector) {
        const place = placeOf(this.#volume, cursor.sizeClass);
        const unit = cellSectors(cursor.sizeClass);
        cursor.ordinal = await cursor.source.find(place, Math.floor(sector / unit), cursor.ordinal);
        cursor.next = Number.POSITIVE_INFINITY;
        if (cursor.ordinal < cursor.source.count) {
          await cursor.source.read(cursor.ordinal, this.#entry);
          if (this.#entry.place === place) cursor.next = Math.max(this.#entry.cell * unit, sector);
        }
      }
      if (cursor.next < next) next = cursor.next;
    }
    return next;
  }

  /** The sources that have a small entry before `end`, as `next` left them, or any entry of a large class. */
  relevant(sources: readonly SortedEntries[], end: number): SortedEntries[] {
    return sources.filter(
      (source) => hasLarge(source) || this.#cursors.some((cursor) => cursor.source === source && cursor.next < end),
    );
  }
}

function hasLarge(source: SortedEntries): boolean {
  for (let sizeClass = SMALL_CLASSES; sizeClass < CLASS_COUNT; sizeClass += 1) if (source.has(sizeClass)) return true;
  return false;
}

/** Stretches of [sector, end) zeroed by entries of the large classes, sorted and disjoint: [first, behind] pairs. */
async function largeZeroes(
  sources: readonly SortedEntries[],
  volume: number,
  sector: number,
  end: number,
  atLsn: Lsn,
  floorLsn: Lsn,
): Promise<[number, number][]> {
  const found: [number, number][] = [];
  const entry = emptyEntry();
  for (const source of sources) {
    for (let sizeClass = SMALL_CLASSES; sizeClass < CLASS_COUNT; sizeClass += 1) {
      if (!source.has(sizeClass)) continue;
      const place = placeOf(volume, sizeClass);
      const unit = cellSectors(sizeClass);
      const lastCell = Math.floor((end - 1) / unit);
      for (let at = await source.find(place, Math.floor(sector / unit), 0); at < source.count; at += 1) {
        await source.read(at, entry);
        if (entry.place !== place || entry.cell > lastCell) break;
        if (entry.lsn > atLsn || entry.lsn <= floorLsn) continue;
        const from = Math.max(entry.cell * unit + entry.start, sector);
        const to = Math.min(entry.cell * unit + entry.start + entry.sectors, end);
        if (from < to) found.push([from, to]);
      }
    }
  }
  return joined(found);
}

function joined(intervals: [number, number][]): [number, number][] {
  intervals.sort((a, b) => a[0] - b[0]);
  const result: [number, number][] = [];
  for (const [from, to] of intervals) {
    const last = result.at(-1);
    if (last !== undefined && from <= last[1]) last[1] = Math.max(last[1], to);
    else result.push([from, to]);
  }
  return result;
}

/** The parts of a stretch that no small entry touches. */
export function* emptyParts(sector: number, end: number, zeroes: readonly [number, number][]): Generator<VersionPart> {
  let at = sector;
  for (const [from, to] of zeroes) {
    if (from > at) yield { kind: 'base', sector: at, sectors: from - at };
    yield { kind: 'zero', sector: from, sectors: to - from };
    at = to;
  }
  if (at < end) yield { kind: 'base', sector: at, sectors: end - at };
}

/** The newest version at or below `atLsn` of [sector, end), part by part, in order and without holes. */
export async function* surveyed(
  sources: readonly SortedEntries[],
  volume: number,
  sector: number,
  end: number,
  atLsn: Lsn,
  floorLsn: Lsn,
): AsyncGenerator<VersionPart> {
  const cursors = new SmallCursors(sources, volume);
  for (let at = sector; at < end; ) {
    const next = await cursors.next(at, Math.min(end, at + STEP_SECTORS));
    if (next > at) {
      yield* emptyParts(at, next, await largeZeroes(sources, volume, at, next, atLsn, floorLsn));
      at = next;
    } else {
      const window = new LookupWindow(at, Math.min(end - at, WINDOW_SECTORS_MAX));
      at += window.sectors;
      for (const source of cursors.relevant(sources, at)) await source.paint(window, volume, atLsn, floorLsn);
      yield* window.parts();
    }
  }
}
