import { assert } from '../../journal/base/assert.ts';

/** Bytes of one block of a scratch overlay. */
export const SCRATCH_BLOCK_BYTES = 4096;
/** Blocks of one page of the map: 256 MiB of disk, so that zeroing a terabyte is 4096 marks. */
const PAGE_BLOCKS = 65_536;

export const ScratchState = { below: 0, data: 1, zero: 2 } as const;
export type ScratchState = (typeof ScratchState)[keyof typeof ScratchState];

/** Which blocks were written on top of a view. Memory: 64 KiB per touched 256 MiB. */
export class ScratchMap {
  readonly #pages = new Map<number, Uint8Array | 'zero'>();
  /** Blocks in state data: what the quota counts. */
  dataBlocks = 0;

  state(block: number): ScratchState {
    const page = this.#pages.get(Math.floor(block / PAGE_BLOCKS));
    if (page === undefined) return ScratchState.below;
    if (page === 'zero') return ScratchState.zero;
    return (page[block % PAGE_BLOCKS] ?? ScratchState.below) as ScratchState;
  }

  set(from: number, to: number, state: ScratchState): void {
    assert(state !== ScratchState.below, 'scratch writes are not taken back');
    for (let block = from; block < to; ) {
      const index = Math.floor(block / PAGE_BLOCKS);
      const end = Math.min(to, (index + 1) * PAGE_BLOCKS);
      const whole = block === index * PAGE_BLOCKS && end - block === PAGE_BLOCKS;
      if (state === ScratchState.zero && whole) {
        this.dataBlocks -= this.#dataIn(index, block, end);
        this.#pages.set(index, 'zero');
      } else if (state === ScratchState.data || this.#pages.get(index) !== 'zero') {
        const page = this.#page(index);
        this.dataBlocks -= this.#dataIn(index, block, end);
        page.fill(state, block - index * PAGE_BLOCKS, end - index * PAGE_BLOCKS);
        if (state === ScratchState.data) this.dataBlocks += end - block;
      }
      block = end;
    }
  }

  /** Blocks from `block`, at most up to `to`, that are in one state. */
  stretch(block: number, to: number): { state: ScratchState; blocks: number } {
    const state = this.state(block);
    let at = block + 1;
    while (at < to) {
      const index = Math.floor(at / PAGE_BLOCKS);
      const page = this.#pages.get(index);
      if (page instanceof Uint8Array) {
        if (page[at % PAGE_BLOCKS] !== state) break;
        at += 1;
      } else {
        if ((page === 'zero' ? ScratchState.zero : ScratchState.below) !== state) break;
        at = Math.min(to, (index + 1) * PAGE_BLOCKS);
      }
    }
    return { state, blocks: at - block };
  }

  #page(index: number): Uint8Array {
    const page = this.#pages.get(index);
    if (page instanceof Uint8Array) return page;
    const fresh = new Uint8Array(PAGE_BLOCKS).fill(page === 'zero' ? ScratchState.zero : ScratchState.below);
    this.#pages.set(index, fresh);
    return fresh;
  }

  #dataIn(index: number, from: number, to: number): number {
    const page = this.#pages.get(index);
    if (!(page instanceof Uint8Array)) return 0;
    let count = 0;
    for (let block = from; block < to; block += 1) if (page[block % PAGE_BLOCKS] === ScratchState.data) count += 1;
    return count;
  }
}
