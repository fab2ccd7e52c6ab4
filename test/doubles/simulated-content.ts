const PAGE_BYTES = 4096;
const SECTOR_BYTES = 512;
const SECTORS_PER_PAGE = PAGE_BYTES / SECTOR_BYTES;
const FIRST_BYTES = 16 * 1024;

/** What a page was before the first write to it since some sync began; never changed, shared by all that were empty. */
const EMPTY_PAGE = new Uint8Array(PAGE_BYTES);

/** A page with sectors that are not proven durable. */
interface DirtyPage {
  /** Bit n: sector n of the page was written. */
  sectors: number;
  /** The page before the first of them was written. */
  readonly before: Uint8Array;
}

/** A sync under way: what it covers, as it stood when the sync began. */
export interface RunningSync {
  readonly pages: ReadonlyMap<number, DirtyPage>;
  readonly size: number;
}

/** What a power loss makes of a file's length, when it was changed and not synced. */
export type SizeAfterLoss = 'old' | 'new' | 'up-to-last-kept';

/**
 * The content of one simulated file: what its page cache shows, and what a power loss may bring back. Every sector
 * written since the last successful sync remembers the bytes it had before, so a power loss keeps or reverts each one
 * on its own: that is how sectors tear.
 */
export class SimulatedContent {
  /** Zeroes behind `#size`. */
  #bytes = new Uint8Array(FIRST_BYTES);
  #dirty = new Map<number, DirtyPage>();
  /** Oldest first. */
  #syncs: RunningSync[] = [];
  /** Sectors whose sync failed: the cache shows the new bytes as clean, the medium holds the old ones. */
  readonly #lost = new Map<number, Uint8Array>();
  #size = 0;
  #durableSize = 0;
  #changes = 0;
  /** Time of the last write, as a number; a power loss that takes writes back changes it. A copy may keep it. */
  modified = 0;

  get size(): number {
    return this.#size;
  }

  /** +1 at every change: what a file system shows as the time of the last one. */
  get changes(): number {
    return this.#changes;
  }

  read(into: Uint8Array, position: number): number {
    const length = Math.max(0, Math.min(into.length, this.#size - position));
    if (length > 0) into.set(this.#bytes.subarray(position, position + length));
    return length;
  }

  write(from: Uint8Array, position: number): void {
    if (from.length === 0) return;
    this.#changes++;
    this.modified++;
    const end = position + from.length;
    this.#reserve(end);
    this.#remember(position, end);
    this.#bytes.set(from, position);
    this.#size = Math.max(this.#size, end);
  }

  truncate(length: number): void {
    this.#changes++;
    this.modified++;
    if (length < this.#size) {
      this.#remember(length, this.#size);
      this.#bytes.fill(0, length, this.#size);
    }
    this.#reserve(length);
    this.#size = length;
  }

  beginSync(): RunningSync {
    const sync = { pages: this.#dirty, size: this.#size };
    this.#dirty = new Map();
    this.#syncs.push(sync);
    return sync;
  }

  endSync(sync: RunningSync, succeeded: boolean): void {
    const index = this.#syncs.indexOf(sync);
    if (index < 0) return;
    if (succeeded) {
      // A sync also covers what an older one is still writing.
      const covered = this.#syncs.splice(0, index + 1);
      // A sector that was written again and synced is proven, whatever a failed sync did to it before.
      if (this.#lost.size > 0) for (const { pages } of covered) eachSector(pages, (at) => this.#lost.delete(at));
      this.#durableSize = sync.size;
      return;
    }
    this.#syncs.splice(index, 1);
    // fsyncgate: after a failed sync the pages count as clean although the medium still has the old bytes.
    eachSector(sync.pages, (at, before) => {
      if (!this.#lost.has(at)) this.#lost.set(at, before);
    });
  }

  /** Power is gone: each sector not proven durable keeps its new bytes when `keep` says so, else has the old ones. */
  losePower(keep: () => boolean, sizeAfter: SizeAfterLoss): void {
    const unsynced = this.#dirty.size > 0 || this.#syncs.length > 0;
    // a sync under way of what was written long ago takes nothing back
    const changed = this.#dirty.size > 0 || this.#syncs.some(({ pages }) => pages.size > 0);
    if (changed || this.#size !== this.#durableSize || this.#lost.size > 0) this.modified++;
    let keptEnd = this.#durableSize;
    const layers = [...this.#syncs.map(({ pages }) => pages), this.#dirty].reverse();
    this.#reserve(this.#durableSize);
    for (const pages of layers) {
      eachSector(pages, (at, before) => {
        if (keep()) keptEnd = Math.max(keptEnd, at + SECTOR_BYTES);
        else this.#restore(at, before);
      });
    }
    for (const [at, before] of this.#lost) this.#restore(at, before);
    this.#lost.clear();
    if (sizeAfter === 'old') this.#size = this.#durableSize;
    else if (sizeAfter === 'up-to-last-kept' && unsynced) this.#size = Math.min(this.#size, keptEnd);
    this.#bytes.fill(0, this.#size);
    this.#dirty = new Map();
    this.#syncs = [];
    this.#durableSize = this.#size;
    this.#changes++;
  }

  /** Sectors in [from, to) that the cache shows as clean although the medium never took them: a sync of them failed. */
  unprovenSectors(from: number, to: number): number {
    return [...this.#lost.keys()].filter((at) => at + SECTOR_BYTES > from && at < to).length;
  }

  /** Sectors of which a power loss may bring back other bytes in [from, to): no sync that has ended covers these. */
  pendingSectors(from: number, to: number): number {
    const pending = new Set<number>();
    const look = (at: number, before: Uint8Array): void => {
      const [begin, end] = [Math.max(at, from), Math.min(at + SECTOR_BYTES, to)];
      if (begin >= end || pending.has(at)) return;
      // what was there already when the sector was written on is there in either case
      const now = this.#bytes.subarray(begin, end);
      if (Buffer.compare(now, before.subarray(begin - at, end - at)) !== 0) pending.add(at);
    };
    for (const [at, before] of this.#lost) look(at, before);
    for (const pages of [...this.#syncs.map((sync) => sync.pages), this.#dirty]) eachSector(pages, look);
    return pending.size;
  }

  /** Bit rot: flips one bit of the stored bytes, seen by cache and medium alike. */
  flipBit(position: number, bit: number): void {
    this.#bytes[position] = (this.#bytes[position] as number) ^ (1 << bit);
  }

  #reserve(end: number): void {
    if (end <= this.#bytes.length) return;
    const larger = new Uint8Array(Math.max(2 * this.#bytes.length, Math.ceil(end / PAGE_BYTES) * PAGE_BYTES));
    larger.set(this.#bytes);
    this.#bytes = larger;
  }

  /** Keeps what the sectors of [from, to) hold now, those that were written already since the newest sync excepted. */
  #remember(from: number, to: number): void {
    const first = Math.floor(from / SECTOR_BYTES);
    const end = Math.ceil(to / SECTOR_BYTES);
    for (let sector = first; sector < end; ) {
      const page = Math.floor(sector / SECTORS_PER_PAGE);
      const start = page * SECTORS_PER_PAGE;
      const stop = Math.min(end, start + SECTORS_PER_PAGE);
      this.#rememberPage(page, ((1 << (stop - start)) - 1) & ~((1 << (sector - start)) - 1));
      sector = stop;
    }
  }

  #rememberPage(page: number, sectors: number): void {
    const at = page * PAGE_BYTES;
    const known = this.#dirty.get(page);
    if (known === undefined) {
      const before = at >= this.#size ? EMPTY_PAGE : this.#bytes.slice(at, at + PAGE_BYTES);
      this.#dirty.set(page, { sectors, before });
      return;
    }
    // A sector not written since the page was copied is in that copy as it still is.
    known.sectors |= sectors;
  }

  #restore(at: number, bytes: Uint8Array): void {
    this.#reserve(at + SECTOR_BYTES);
    this.#bytes.set(bytes, at);
  }
}

/** Every sector of these pages with its byte position and what it held before. */
function eachSector(pages: ReadonlyMap<number, DirtyPage>, take: (at: number, before: Uint8Array) => void): void {
  for (const [page, { sectors, before }] of pages) {
    for (let sector = 0; sector < SECTORS_PER_PAGE; sector++) {
      if ((sectors & (1 << sector)) === 0) continue;
      const start = sector * SECTOR_BYTES;
      take(page * PAGE_BYTES + start, before.subarray(start, start + SECTOR_BYTES));
    }
  }
}
