import type { JournalAddress } from '../../journal/position.ts';

/** The rate is taken over stretches of at least this. */
const MEASURE_MS = 100;
/** From here on guests are busy: below it whatever goes on in the background costs them nothing they would notice. */
const BUSY_BYTES_PER_MS = 1024;
/** One rest at most, so that a change of load is noticed. */
const REST_MS_MAX = 100;

/**
 * How fast guests write, seen by the growth of the journal, and what that leaves to work in the background. On few cores each
 * millisecond of destaging or sealing is one that a guest waits for: work that is put off while guests write costs them
 * nothing, and what is overwritten meanwhile needs no writing out at all.
 */
export class GuestLoad {
  #atMs = 0;
  #address: JournalAddress = 0;
  #bytesPerMs = 0;

  /** `written`: the mark of that name. True while guests write fast. */
  isBusy(written: JournalAddress, nowMs: number): boolean {
    const elapsedMs = nowMs - this.#atMs;
    if (elapsedMs >= MEASURE_MS) {
      this.#bytesPerMs = this.#atMs === 0 ? 0 : (written - this.#address) / elapsedMs;
      this.#atMs = nowMs;
      this.#address = written;
    }
    return this.#bytesPerMs >= BUSY_BYTES_PER_MS;
  }
}

/** How long to rest after so much work to take up this share of the time, at most a tenth of a second. */
export function restMs(workMs: number, share: number): number {
  return share >= 1 ? 0 : Math.min(REST_MS_MAX, workMs * (1 / share - 1));
}
