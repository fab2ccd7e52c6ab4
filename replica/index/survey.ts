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
import type { VersionPart } from './lookup-window.ts';
import type { Memtable } from './memtable.ts';
import { entryOffset, type RunFile } from './run-file.ts';
import { ENTRIES_PER_PAGE } from './run-format.ts';

/** Entries in sorted order, wherever they are: what a survey walks. */
export interface SortedEntries {
  readonly count: number;
  /** Ordinal of the first entry of (place, cell) or behind it. */
  find(place: number, cell: number): Promise<number>;
  read(ordinal: number, into: EntryFields): Promise<void>;
}

export function sortedMemtable(memtable: Memtable): SortedEntries {
  const order = memtable.sorted();
  return {
    count: order.length,
    find: (place, cell) => {
      let low = 0;
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
  };
}

export function sortedRun(run: RunFile): SortedEntries {
  return {
    count: run.footer.entries,
    find: (place, cell) => run.lowerBound(place, cell, 0, 0),
    read: async (ordinal, into) => {
      const page = Math.floor(ordinal / ENTRIES_PER_PAGE);
      readEntry(run.entryPageNow(page) ?? (await run.loadEntryPage(page)), entryOffset(ordinal), into);
    },
  };
}

/**
 * The first sector at or behind `sector` where an entry of the small classes may lie, whatever its LSN; `end` when
 * there is none before it. May name a place up to one cell too early, never too late.
 */
export async function nextSmallEntry(
  sources: readonly SortedEntries[],
  volume: number,
  sector: number,
  end: number,
): Promise<number> {
  let next = end;
  const entry = emptyEntry();
  for (const source of sources) {
    for (let sizeClass = 0; sizeClass < SMALL_CLASSES; sizeClass += 1) {
      const place = placeOf(volume, sizeClass);
      const unit = cellSectors(sizeClass);
      const at = await source.find(place, Math.floor(sector / unit));
      if (at >= source.count) continue;
      await source.read(at, entry);
      if (entry.place === place) next = Math.min(next, Math.max(entry.cell * unit, sector));
    }
  }
  return next;
}

/** Stretches of [sector, end) zeroed by entries of the large classes, sorted and disjoint: [first, behind] pairs. */
export async function largeZeroes(
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
      const place = placeOf(volume, sizeClass);
      const unit = cellSectors(sizeClass);
      const lastCell = Math.floor((end - 1) / unit);
      for (let at = await source.find(place, Math.floor(sector / unit)); at < source.count; at += 1) {
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
