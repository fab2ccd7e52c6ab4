import type { Lsn } from '../../journal/position.ts';

/** How long a replica has stood still although there was something for it to take. */
export class Standstill {
  #lsn: Lsn = 0;
  #movedMs: number | undefined;

  /** `heldLsn`: what it holds, undefined before it was heard; `newestLsn`: what there is. Returns seconds. */
  look(nowMs: number, heldLsn: Lsn | undefined, newestLsn: Lsn): number {
    const held = heldLsn ?? 0;
    if (this.#movedMs === undefined || held !== this.#lsn || held >= newestLsn) {
      this.#movedMs = nowMs;
      this.#lsn = held;
    }
    return (nowMs - this.#movedMs) / 1_000;
  }
}
