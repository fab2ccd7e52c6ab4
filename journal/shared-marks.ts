import { assert } from './base/assert.ts';
import { ADDRESS_MARKS, type AddressMark, LSN_MARKS, type LsnMark, type Marks } from './marks.ts';
import type { JournalAddress, Lsn } from './position.ts';

/*
 * Shared memory of a SharedMarks:
 *   0 i32  generation: +1 at every move, what sleepers wait on
 *   4 i32  sleepers: threads that wait; nobody is woken when it is 0
 *   8 i64  one per address mark, then one per LSN mark, in the order of marks.ts
 */
const GENERATION = 0;
const SLEEPERS = 1;
const FIRST_MARK = 1;

/**
 * Marks in shared memory: each thread makes its own object over the same `buffer`. A mark is written whole by one
 * atomic store, so a reader sees an old value or the new one, never a mixture and never one too early (rule 27).
 */
export class SharedMarks implements Marks {
  /** Give this to the other threads' constructors. */
  readonly buffer: SharedArrayBuffer;
  readonly #words: Int32Array;
  readonly #values: BigInt64Array;
  readonly #listeners = new Set<() => void>();
  #waiting = false;

  constructor(buffer?: SharedArrayBuffer) {
    this.buffer = buffer ?? new SharedArrayBuffer(8 * (FIRST_MARK + ADDRESS_MARKS.length + LSN_MARKS.length));
    this.#words = new Int32Array(this.buffer);
    this.#values = new BigInt64Array(this.buffer);
  }

  address(mark: AddressMark): JournalAddress {
    return this.#load(addressSlot(mark));
  }

  lsn(mark: LsnMark): Lsn {
    return this.#load(lsnSlot(mark));
  }

  advanceAddress(mark: AddressMark, to: JournalAddress): void {
    this.#advance(addressSlot(mark), mark, to);
  }

  advanceLsn(mark: LsnMark, to: Lsn): void {
    this.#advance(lsnSlot(mark), mark, to);
  }

  onMove(run: () => void): () => void {
    const listener = (): void => {
      run();
    };
    this.#listeners.add(listener);
    this.#wait();
    return () => {
      this.#listeners.delete(listener);
    };
  }

  #load(slot: number): number {
    return Number(Atomics.load(this.#values, slot));
  }

  #advance(slot: number, mark: string, to: number): void {
    const present = this.#load(slot);
    assert(to >= present, `mark ${mark} would go back from ${present} to ${to}`);
    if (to === present) return;
    Atomics.store(this.#values, slot, BigInt(to));
    Atomics.add(this.#words, GENERATION, 1);
    if (Atomics.load(this.#words, SLEEPERS) > 0) Atomics.notify(this.#words, GENERATION);
  }

  /** Sleeps until the generation moves, then tells the listeners; ends by itself when nobody listens any more. */
  #wait(): void {
    if (this.#waiting || this.#listeners.size === 0) return;
    this.#waiting = true;
    const seen = Atomics.load(this.#words, GENERATION);
    // counted before waiting: an advance in between changes the generation, and the wait returns at once
    Atomics.add(this.#words, SLEEPERS, 1);
    const outcome = Atomics.waitAsync(this.#words, GENERATION, seen);
    const woken = (): void => {
      Atomics.sub(this.#words, SLEEPERS, 1);
      this.#waiting = false;
      // armed again before the listeners run: a move during them is not missed
      this.#wait();
      for (const listener of this.#listeners) listener();
    };
    if (outcome.async) void outcome.value.then(woken);
    else queueMicrotask(woken);
  }
}

function addressSlot(mark: AddressMark): number {
  return FIRST_MARK + ADDRESS_MARKS.indexOf(mark);
}

function lsnSlot(mark: LsnMark): number {
  return FIRST_MARK + ADDRESS_MARKS.length + LSN_MARKS.indexOf(mark);
}
