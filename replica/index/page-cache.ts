import { assert } from '../../journal/base/assert.ts';

/** Pages of memory that are taken at once, when they are first needed. */
const SLAB_PAGES = 64;

/**
 * Pages of index runs in memory; one cache for all runs and all views of a group, bounded in bytes. Two that want one
 * page at the same time share one read. The pages lie in slabs that are kept and used again: pages of their own left the
 * collector four times the bound in garbage. A page that was not looked at since the hand last passed gives way (clock).
 */
export class PageCache {
  readonly #pageBytes: number;
  readonly #slots: number;
  readonly #pages: Buffer[] = [];
  readonly #views: DataView[] = [];
  /** What each slot holds; run 0: nothing. */
  readonly #run: Uint32Array;
  readonly #page: Uint32Array;
  readonly #seen: Uint8Array;
  /** Open addressing from run and page to slot + 1. */
  readonly #table: Uint32Array;
  readonly #loading = new Map<number, Promise<DataView>>();
  #runs = 0;
  #hand = 0;

  constructor(bytesMax: number, pageBytes: number) {
    assert(bytesMax >= pageBytes * 8, 'a page cache holds at least eight pages');
    this.#pageBytes = pageBytes;
    this.#slots = Math.floor(bytesMax / pageBytes);
    this.#run = new Uint32Array(this.#slots);
    this.#page = new Uint32Array(this.#slots);
    this.#seen = new Uint8Array(this.#slots);
    this.#table = new Uint32Array(2 ** Math.ceil(Math.log2(this.#slots * 2)));
  }

  /** A number under which the pages of one more run are kept. */
  newRun(): number {
    this.#runs += 1;
    return this.#runs;
  }

  /** The page when it is in memory, good until another one is taken in. `run` is below 2^21, `page` below 2^32. */
  now(run: number, page: number): DataView | undefined {
    const slot = (this.#table[this.#find(run, page)] ?? 0) - 1;
    if (slot < 0) return undefined;
    this.#seen[slot] = 1;
    return this.#views[slot];
  }

  /** Takes a page in that `read` fills without waiting; nothing when it returns false. The view is as that of `now`. */
  fill(run: number, page: number, read: (into: Buffer) => boolean): DataView | undefined {
    const slot = this.#freeSlot();
    if (!read(this.#pages[slot] as Buffer)) return undefined;
    this.#put(slot, run, page);
    return this.#views[slot];
  }

  /** Reads a page and takes it in. The view is the caller's to keep. */
  async load(run: number, page: number, read: () => Promise<Buffer>): Promise<DataView> {
    const key = run * 0x1_0000_0000 + page;
    const underWay = this.#loading.get(key);
    if (underWay !== undefined) return underWay;
    const loading = this.#load(run, page, read).finally(() => this.#loading.delete(key));
    this.#loading.set(key, loading);
    return loading;
  }

  async #load(run: number, page: number, read: () => Promise<Buffer>): Promise<DataView> {
    const bytes = await read();
    if (this.now(run, page) === undefined) {
      const slot = this.#freeSlot();
      bytes.copy(this.#pages[slot] as Buffer);
      this.#put(slot, run, page);
    }
    return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  #put(slot: number, run: number, page: number): void {
    this.#run[slot] = run;
    this.#page[slot] = page;
    this.#seen[slot] = 0;
    this.#table[this.#find(run, page)] = slot + 1;
  }

  /** A slot that holds nothing: a new one as long as there are any, else that of a page that has to go. */
  #freeSlot(): number {
    while (this.#pages.length === this.#slots && this.#seen[this.#hand] === 1) {
      this.#seen[this.#hand] = 0;
      this.#hand = (this.#hand + 1) % this.#slots;
    }
    const slot = this.#hand;
    if (this.#pages.length <= slot) this.#grow();
    this.#hand = (this.#hand + 1) % this.#slots;
    if (this.#run[slot] !== 0) this.#forget(slot);
    return slot;
  }

  #grow(): void {
    const pages = Math.min(SLAB_PAGES, this.#slots - this.#pages.length);
    const slab = Buffer.allocUnsafeSlow(pages * this.#pageBytes);
    for (let at = 0; at < slab.length; at += this.#pageBytes) {
      this.#pages.push(slab.subarray(at, at + this.#pageBytes));
      this.#views.push(new DataView(slab.buffer, slab.byteOffset + at, this.#pageBytes));
    }
  }

  /** Where (run, page) stands in the table, or the empty place where it would. */
  #find(run: number, page: number): number {
    const mask = this.#table.length - 1;
    let at = hash(run, page) & mask;
    for (;;) {
      const slot = (this.#table[at] ?? 0) - 1;
      if (slot < 0 || (this.#page[slot] === page && this.#run[slot] === run)) return at;
      at = (at + 1) & mask;
    }
  }

  /** Takes a slot's page out of the table; what stands behind it moves up, so that no search ends before it. */
  #forget(slot: number): void {
    const mask = this.#table.length - 1;
    let hole = this.#find(this.#run[slot] ?? 0, this.#page[slot] ?? 0);
    for (let at = (hole + 1) & mask; this.#table[at] !== 0; at = (at + 1) & mask) {
      const other = (this.#table[at] ?? 0) - 1;
      const home = hash(this.#run[other] ?? 0, this.#page[other] ?? 0) & mask;
      if (((at - home) & mask) < ((at - hole) & mask)) continue;
      this.#table[hole] = other + 1;
      hole = at;
    }
    this.#table[hole] = 0;
    this.#run[slot] = 0;
  }
}

function hash(run: number, page: number): number {
  const mixed = Math.imul(page, 0x9e3779b1) ^ Math.imul(run, 0x85ebca6b);
  return mixed ^ (mixed >>> 15);
}
