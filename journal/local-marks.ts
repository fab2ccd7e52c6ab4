import { assert } from './base/assert.ts';
import type { AddressMark, LsnMark, Marks } from './marks.ts';
import { ADDRESS_MARKS, LSN_MARKS } from './marks.ts';
import type { JournalAddress, Lsn } from './position.ts';

/** Marks for a data path whose parts all live on one thread. Listeners run in a microtask after the move. */
export class LocalMarks implements Marks {
  readonly #addresses = new Map<AddressMark, JournalAddress>(ADDRESS_MARKS.map((mark) => [mark, 0]));
  readonly #lsns = new Map<LsnMark, Lsn>(LSN_MARKS.map((mark) => [mark, 0]));
  readonly #listeners = new Set<() => void>();
  #announcing = false;

  address(mark: AddressMark): JournalAddress {
    return this.#addresses.get(mark) ?? 0;
  }

  lsn(mark: LsnMark): Lsn {
    return this.#lsns.get(mark) ?? 0;
  }

  advanceAddress(mark: AddressMark, to: JournalAddress): void {
    const present = this.address(mark);
    assert(to >= present, `mark ${mark} would go back from ${present} to ${to}`);
    if (to === present) return;
    this.#addresses.set(mark, to);
    this.#announce();
  }

  advanceLsn(mark: LsnMark, to: Lsn): void {
    const present = this.lsn(mark);
    assert(to >= present, `mark ${mark} would go back from LSN ${present} to ${to}`);
    if (to === present) return;
    this.#lsns.set(mark, to);
    this.#announce();
  }

  onMove(run: () => void): () => void {
    // one entry per call: the same function may be given twice
    const listener = (): void => {
      run();
    };
    this.#listeners.add(listener);
    return () => {
      this.#listeners.delete(listener);
    };
  }

  #announce(): void {
    if (this.#announcing || this.#listeners.size === 0) return;
    this.#announcing = true;
    queueMicrotask(() => {
      this.#announcing = false;
      for (const listener of this.#listeners) listener();
    });
  }
}
