import type { TidemarkError } from '../../journal/base/errors.ts';
import type { Lsn } from '../../journal/position.ts';

interface Waiter {
  readonly lsn: Lsn;
  readonly resolve: () => void;
  readonly reject: (error: TidemarkError) => void;
}

/** Who waits for records to be synced in their backings. */
export class Drains {
  #waiters: Waiter[] = [];

  get areWaiting(): boolean {
    return this.#waiters.length > 0;
  }

  add(lsn: Lsn): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiters.push({ lsn, resolve, reject });
    });
  }

  /** Somebody waits for no more than `lsn`. */
  waitsFor(lsn: Lsn): boolean {
    return this.#waiters.some((waiter) => waiter.lsn <= lsn);
  }

  reached(lsn: Lsn): void {
    const reached = this.#waiters.filter((waiter) => waiter.lsn <= lsn);
    this.#waiters = this.#waiters.filter((waiter) => waiter.lsn > lsn);
    for (const waiter of reached) waiter.resolve();
  }

  reject(error: TidemarkError): void {
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const waiter of waiters) waiter.reject(error);
  }
}
