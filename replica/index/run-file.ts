import { crc32c } from '@node-rs/crc32';
import { TidemarkError } from '../../journal/base/errors.ts';
import type { DiskFile, Host } from '../../journal/host/host.ts';
import { type Lsn, readU64 } from '../../journal/position.ts';
import {
  CLASS_COUNT,
  cellSectors,
  compareEntryToKey,
  ENTRY_BYTES,
  type EntryFields,
  emptyEntry,
  placeOf,
  readEntry,
} from './entry-format.ts';
import type { LookupWindow } from './lookup-window.ts';
import type { PageCache } from './page-cache.ts';
import {
  checkPage,
  decodeFooter,
  ENTRIES_PER_PAGE,
  entryPageAt,
  FENCE_BYTES,
  FENCES_PER_PAGE,
  fencePageAt,
  PAGE_BYTES,
  PAGE_HEADER_BYTES,
  type RunFooter,
} from './run-format.ts';

/** Pages that one search has read, kept until it ends. */
type Held = ReadonlyMap<number, DataView>;

/** Searches never wait, so one is enough for all. */
const scratchEntry = emptyEntry();

/** One immutable run on disk, searched through the page cache. Entries are addressed by their ordinal in sorted order. */
export class RunFile {
  readonly path: string;
  readonly footer: RunFooter;
  readonly bytes: number;
  readonly #file: DiskFile;
  readonly #cache: PageCache;
  /** Distinguishes this run's pages in the shared cache. */
  readonly #number: number;
  readonly #top: DataView;
  readonly #entryPages: number;

  private constructor(path: string, file: DiskFile, footer: RunFooter, top: DataView, cache: PageCache, bytes: number) {
    this.path = path;
    this.footer = footer;
    this.bytes = bytes;
    this.#file = file;
    this.#cache = cache;
    this.#top = top;
    this.#entryPages = Math.ceil(footer.entries / ENTRIES_PER_PAGE);
    this.#number = cache.newRun();
  }

  /** Reads footer and top. Throws `journal-damaged`, `journal-foreign`, `format-too-new`. */
  static async open(host: Host, path: string, groupId: string, cache: PageCache): Promise<RunFile> {
    const file = host.disk.open(path, 'read');
    try {
      const size = file.size();
      if (size < PAGE_BYTES || size % PAGE_BYTES !== 0) {
        throw new TidemarkError('journal-damaged', `${path}: ${size} bytes is no whole number of pages`);
      }
      const page = Buffer.alloc(PAGE_BYTES);
      await readFully(file, page, size - PAGE_BYTES);
      const footer = decodeFooter(page, path);
      if (footer.groupId !== groupId) {
        throw new TidemarkError('journal-foreign', `${path} belongs to group ${footer.groupId}`);
      }
      const topBytes = footer.groups * FENCE_BYTES;
      const topAt = size - PAGE_BYTES - Math.ceil(topBytes / PAGE_BYTES) * PAGE_BYTES;
      const entryPages = Math.ceil(footer.entries / ENTRIES_PER_PAGE);
      if (
        footer.groups !== Math.ceil(entryPages / FENCES_PER_PAGE) ||
        topAt !== (entryPages + footer.groups) * PAGE_BYTES
      )
        throw new TidemarkError('journal-damaged', `${path}: its length is not what its footer says`);
      const top = Buffer.alloc(topBytes);
      await readFully(file, top, topAt);
      if (crc32c(top) !== footer.topCrc) throw new TidemarkError('journal-damaged', `${path}: damaged fences`);
      const view = new DataView(top.buffer, top.byteOffset, top.byteLength);
      return new RunFile(path, file, footer, view, cache, size);
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /** Paints what is at or below `atLsn` and above `floorLsn`. */
  async paint(window: LookupWindow, volume: number, atLsn: Lsn, floorLsn: Lsn): Promise<void> {
    await this.#complete((held) => this.#paint(window, volume, atLsn, floorLsn, held));
  }

  /** As `paint` when every page it needs is in memory, else false: it may have painted in part, which does no harm. */
  paintNow(window: LookupWindow, volume: number, atLsn: Lsn, floorLsn: Lsn): boolean {
    return this.#paint(window, volume, atLsn, floorLsn, undefined) >= 0;
  }

  /** Ordinal of the first entry at or behind the key; `hint`: no entry before this ordinal is. */
  lowerBound(place: number, cell: number, lsn: Lsn, hint: number): Promise<number> {
    return this.#complete((held) => this.#lowerBound(place, cell, lsn, hint, held));
  }

  /** The page when it is in memory; its entry `ordinal` stands at `entryOffset(ordinal)`. */
  entryPageNow(page: number): DataView | undefined {
    return this.#pageNow(entryPageAt(page), undefined);
  }

  loadEntryPage(page: number): Promise<DataView> {
    return this.#loadPage(entryPageAt(page));
  }

  /** Reads entry pages [page, page + count) into `buffer`, past the cache, checked: for merges. */
  async readPages(page: number, count: number, buffer: Buffer): Promise<void> {
    for (let i = 0; i < count; ) {
      // A group's entry pages are consecutive in the file; its fence page stands between two groups.
      const inGroup = Math.min(count - i, FENCES_PER_PAGE - ((page + i) % FENCES_PER_PAGE));
      const part = buffer.subarray(i * PAGE_BYTES, (i + inGroup) * PAGE_BYTES);
      await readFully(this.#file, part, entryPageAt(page + i) * PAGE_BYTES);
      i += inGroup;
    }
    for (let i = 0; i < count; i += 1) {
      checkPage(buffer.subarray(i * PAGE_BYTES, (i + 1) * PAGE_BYTES), `${this.path} page ${page + i}`);
    }
  }

  close(): Promise<void> {
    return this.#file.close();
  }

  /**
   * Runs a search that never waits. Below zero it says which page of the file it lacks (`~page`): that page is read, and
   * the search begins again with it in hand, so that it ends however small the cache is.
   */
  async #complete(search: (held: Held | undefined) => number): Promise<number> {
    let held: Map<number, DataView> | undefined;
    for (;;) {
      const result = search(held);
      if (result >= 0) return result;
      held ??= new Map();
      held.set(~result, await this.#loadPage(~result));
    }
  }

  #paint(window: LookupWindow, volume: number, atLsn: Lsn, floorLsn: Lsn, held: Held | undefined): number {
    for (let sizeClass = 0; sizeClass < CLASS_COUNT; sizeClass += 1) {
      if (this.footer.classCounts[sizeClass] === 0) continue;
      const missing = this.#paintClass(window, volume, sizeClass, atLsn, floorLsn, held);
      if (missing < 0) return missing;
    }
    return 0;
  }

  #paintClass(
    window: LookupWindow,
    volume: number,
    sizeClass: number,
    atLsn: Lsn,
    floorLsn: Lsn,
    held: Held | undefined,
  ): number {
    const place = placeOf(volume, sizeClass);
    const unit = cellSectors(sizeClass);
    const lastCell = Math.floor((window.sector + window.sectors - 1) / unit);
    const entry = scratchEntry;
    let at = this.#lowerBound(place, Math.floor(window.sector / unit), 0, 0, held);
    while (at >= 0 && at < this.footer.entries) {
      let missing = this.#readEntry(at, entry, held);
      if (missing < 0) return missing;
      if (entry.place !== place || entry.cell > lastCell) return 0;
      const cell = entry.cell;
      const end = this.#lowerBound(place, cell, atLsn + 1, at, held);
      for (let i = end - 1; i >= at; i -= 1) {
        missing = this.#readEntry(i, entry, held);
        if (missing < 0) return missing;
        if (entry.lsn <= floorLsn || window.settled(cell * unit, unit, entry.lsn)) break;
        window.paint(
          cell * unit + entry.start,
          entry.sectors,
          entry.lsn,
          entry.zero,
          entry.segment,
          entry.frame,
          entry.payload,
        );
      }
      if (end < 0) return end;
      if (cell === lastCell) return 0;
      at = this.#lowerBound(place, cell + 1, 0, end, held);
    }
    return Math.min(at, 0);
  }

  #lowerBound(place: number, cell: number, lsn: Lsn, hint: number, held: Held | undefined): number {
    const entries = this.footer.entries;
    if (hint >= entries) return entries;
    const hintPage = Math.floor(hint / ENTRIES_PER_PAGE);
    let page = hintPage;
    let view = this.#pageNow(entryPageAt(page), held);
    if (view === undefined) return ~entryPageAt(page);
    let count = Math.min(ENTRIES_PER_PAGE, entries - page * ENTRIES_PER_PAGE);
    if (compareEntryToKey(view, PAGE_HEADER_BYTES + (count - 1) * ENTRY_BYTES, place, cell, lsn) < 0) {
      page = this.#pageOf(place, cell, lsn, held);
      if (page < 0) return page;
      page = Math.max(page, hintPage);
      view = this.#pageNow(entryPageAt(page), held);
      if (view === undefined) return ~entryPageAt(page);
      count = Math.min(ENTRIES_PER_PAGE, entries - page * ENTRIES_PER_PAGE);
    }
    let low = page === hintPage ? hint % ENTRIES_PER_PAGE : 0;
    let high = count;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (compareEntryToKey(view, PAGE_HEADER_BYTES + middle * ENTRY_BYTES, place, cell, lsn) < 0) low = middle + 1;
      else high = middle;
    }
    return page * ENTRIES_PER_PAGE + low;
  }

  #readEntry(ordinal: number, into: EntryFields, held: Held | undefined): number {
    const page = entryPageAt(Math.floor(ordinal / ENTRIES_PER_PAGE));
    const view = this.#pageNow(page, held);
    if (view === undefined) return ~page;
    readEntry(view, entryOffset(ordinal), into);
    return 0;
  }

  /** The last entry page whose first key is at or before the key. */
  #pageOf(place: number, cell: number, lsn: Lsn, held: Held | undefined): number {
    const group = lastBefore(this.#top, 0, this.footer.groups, place, cell, lsn);
    const at = fencePageAt(group, this.#entryPages);
    const view = this.#pageNow(at, held);
    if (view === undefined) return ~at;
    const fences = view.getUint32(4, true);
    if (fences > FENCES_PER_PAGE) {
      throw new TidemarkError('journal-damaged', `${this.path} page ${at}: ${fences} fences on one page`);
    }
    return group * FENCES_PER_PAGE + lastBefore(view, PAGE_HEADER_BYTES, fences, place, cell, lsn);
  }

  /** A page that is held, cached, or in the kernel's memory; undefined when the disk has to be waited for. */
  #pageNow(page: number, held: Held | undefined): DataView | undefined {
    const known = held?.get(page) ?? this.#cache.now(this.#number, page);
    if (known !== undefined || this.#file.readNow === undefined) return known;
    return this.#cache.fill(this.#number, page, (into) => {
      if (this.#file.readNow?.(into, page * PAGE_BYTES) !== true) return false;
      checkPage(into, `${this.path} page ${page}`);
      return true;
    });
  }

  #loadPage(page: number): Promise<DataView> {
    return this.#cache.load(this.#number, page, async () => {
      const buffer = Buffer.allocUnsafeSlow(PAGE_BYTES);
      await readFully(this.#file, buffer, page * PAGE_BYTES);
      checkPage(buffer, `${this.path} page ${page}`);
      return buffer;
    });
  }
}

/** Where an entry stands in its page. */
export function entryOffset(ordinal: number): number {
  return PAGE_HEADER_BYTES + (ordinal % ENTRIES_PER_PAGE) * ENTRY_BYTES;
}

/**
 * Index of the last of `count` fences before the key, 0 when none is: pieces of one request have one key, and where they
 * stand on two pages the first of them is on the page before.
 */
function lastBefore(view: DataView, offset: number, count: number, place: number, cell: number, lsn: Lsn): number {
  let low = 0;
  let high = count;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const at = offset + middle * FENCE_BYTES;
    const fencePlace = view.getUint16(at, true) * CLASS_COUNT + view.getUint8(at + 2);
    const order =
      fencePlace - place || readU64(view, at + 8, 'fence cell') - cell || readU64(view, at + 16, 'fence LSN') - lsn;
    if (order < 0) low = middle + 1;
    else high = middle;
  }
  return Math.max(low - 1, 0);
}

async function readFully(file: DiskFile, into: Buffer, position: number): Promise<void> {
  const read = await file.read(into, 0, into.length, position);
  if (read < into.length) throw new TidemarkError('journal-damaged', `${file.path}: ends at ${position + read}`);
}
