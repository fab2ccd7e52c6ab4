import { assert } from '../../journal/base/assert.ts';

/**
 * Pages of index runs in memory, the least recently used given up first; one cache for all runs and all views of a
 * group, bounded in bytes. Two that want one page at the same time share one read.
 */
export class PageCache {
  readonly #pagesMax: number;
  #runs = 0;
  readonly #pages = new Map<number, DataView>();
  readonly #loading = new Map<number, Promise<DataView>>();

  constructor(bytesMax: number, pageBytes: number) {
    assert(bytesMax >= pageBytes * 8, 'a page cache holds at least eight pages');
    this.#pagesMax = Math.floor(bytesMax / pageBytes);
  }

  /** A number under which the pages of one more run are kept. */
  newRun(): number {
    this.#runs += 1;
    return this.#runs;
  }

  /** The page when it is in memory. `run` is a number below 2^21, `page` below 2^32. */
  now(run: number, page: number): DataView | undefined {
    const key = run * 0x1_0000_0000 + page;
    const view = this.#pages.get(key);
    if (view === undefined) return undefined;
    this.#pages.delete(key);
    this.#pages.set(key, view);
    return view;
  }

  async load(run: number, page: number, read: () => Promise<DataView>): Promise<DataView> {
    const key = run * 0x1_0000_0000 + page;
    const underWay = this.#loading.get(key);
    if (underWay !== undefined) return underWay;
    const loading = read();
    this.#loading.set(key, loading);
    try {
      const view = await loading;
      this.#pages.set(key, view);
      if (this.#pages.size > this.#pagesMax) {
        const oldest = this.#pages.keys().next();
        if (oldest.done !== true) this.#pages.delete(oldest.value);
      }
      return view;
    } finally {
      this.#loading.delete(key);
    }
  }
}
