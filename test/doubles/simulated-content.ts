const PAGE_BYTES = 4096;
const SECTOR_BYTES = 512;

/** A sync under way: what it covers, as it stood when the sync began. */
export interface RunningSync {
  /** Sector -> the bytes the medium had before. */
  readonly sectors: Map<number, Uint8Array>;
  readonly size: number;
}

/**
 * The content of one simulated file: what its page cache shows, and what a power loss may bring back. Every sector
 * written since the last successful sync remembers the bytes it had before, so a power loss keeps or reverts each one
 * on its own: that is how sectors tear.
 */
export class SimulatedContent {
  readonly #pages = new Map<number, Uint8Array>();
  /** Sector -> bytes before the first write since the newest sync began. */
  #dirty = new Map<number, Uint8Array>();
  /** Oldest first. */
  #syncs: RunningSync[] = [];
  /** Sectors whose sync failed: the cache shows the new bytes as clean, the medium holds the old ones. */
  readonly #lost = new Map<number, Uint8Array>();
  #size = 0;
  #durableSize = 0;
  #changes = 0;

  get size(): number {
    return this.#size;
  }

  /** +1 at every change: what a file system shows as the time of the last one. */
  get changes(): number {
    return this.#changes;
  }

  read(into: Uint8Array, position: number): number {
    const length = Math.max(0, Math.min(into.length, this.#size - position));
    for (let done = 0; done < length; ) {
      const at = position + done;
      const inPage = at % PAGE_BYTES;
      const count = Math.min(PAGE_BYTES - inPage, length - done);
      const page = this.#pages.get(Math.floor(at / PAGE_BYTES));
      if (page === undefined) into.fill(0, done, done + count);
      else into.set(page.subarray(inPage, inPage + count), done);
      done += count;
    }
    return length;
  }

  write(from: Uint8Array, position: number): void {
    if (from.length === 0) return;
    this.#changes++;
    const first = Math.floor(position / SECTOR_BYTES);
    const last = Math.floor((position + from.length - 1) / SECTOR_BYTES);
    for (let sector = first; sector <= last; sector++) this.#remember(sector);
    for (let done = 0; done < from.length; ) {
      const at = position + done;
      const inPage = at % PAGE_BYTES;
      const count = Math.min(PAGE_BYTES - inPage, from.length - done);
      this.#page(Math.floor(at / PAGE_BYTES)).set(from.subarray(done, done + count), inPage);
      done += count;
    }
    this.#size = Math.max(this.#size, position + from.length);
  }

  truncate(length: number): void {
    this.#changes++;
    if (length < this.#size) this.write(new Uint8Array(this.#size - length), length);
    this.#size = length;
  }

  beginSync(): RunningSync {
    const sync = { sectors: this.#dirty, size: this.#size };
    this.#dirty = new Map();
    this.#syncs.push(sync);
    return sync;
  }

  endSync(sync: RunningSync, succeeded: boolean): void {
    const index = this.#syncs.indexOf(sync);
    if (index < 0) return;
    if (succeeded) {
      // A sync also covers what an older one is still writing.
      for (const older of this.#syncs.splice(0, index + 1)) {
        // A sector that was written again and synced is proven, whatever a failed sync did to it before.
        for (const sector of older.sectors.keys()) this.#lost.delete(sector);
      }
      this.#durableSize = sync.size;
      return;
    }
    this.#syncs.splice(index, 1);
    // fsyncgate: after a failed sync the pages count as clean although the medium still has the old bytes.
    for (const [sector, before] of sync.sectors) if (!this.#lost.has(sector)) this.#lost.set(sector, before);
  }

  /**
   * Power is gone: each sector not proven durable keeps its new bytes when `keep` says so, else has the old ones, and
   * the size may be the one of the last sync.
   */
  losePower(keep: () => boolean, oldSize: boolean): void {
    for (const layer of [this.#dirty, ...this.#syncs.map((sync) => sync.sectors).reverse()]) {
      for (const [sector, before] of layer) if (!keep()) this.#restore(sector, before);
    }
    for (const [sector, before] of this.#lost) this.#restore(sector, before);
    this.#lost.clear();
    if (oldSize && this.#durableSize < this.#size) this.truncate(this.#durableSize);
    else if (oldSize) this.#size = this.#durableSize;
    this.#dirty = new Map();
    this.#syncs = [];
    this.#durableSize = this.#size;
  }

  /** Bit rot: flips one bit of the stored bytes, seen by cache and medium alike. */
  flipBit(position: number, bit: number): void {
    const page = this.#page(Math.floor(position / PAGE_BYTES));
    const at = position % PAGE_BYTES;
    page[at] = (page[at] as number) ^ (1 << bit);
  }

  #remember(sector: number): void {
    if (this.#dirty.has(sector)) return;
    const before = new Uint8Array(SECTOR_BYTES);
    const start = sector * SECTOR_BYTES;
    if (start < this.#size) this.read(before, start);
    this.#dirty.set(sector, before);
  }

  #restore(sector: number, bytes: Uint8Array): void {
    const start = sector * SECTOR_BYTES;
    this.#page(Math.floor(start / PAGE_BYTES)).set(bytes, start % PAGE_BYTES);
  }

  #page(index: number): Uint8Array {
    let page = this.#pages.get(index);
    if (page === undefined) {
      page = new Uint8Array(PAGE_BYTES);
      this.#pages.set(index, page);
    }
    return page;
  }
}
