import type { Random } from '../../../journal/host/host.ts';

/** Delays between attempts: doubling up to a limit, with jitter, so that many sources do not come back at one instant. */
export class Backoff {
  readonly #random: Random;
  readonly #minMs: number;
  readonly #maxMs: number;
  #nextMs: number;

  constructor(random: Random, minMs: number, maxMs: number) {
    this.#random = random;
    this.#minMs = minMs;
    this.#maxMs = maxMs;
    this.#nextMs = minMs;
  }

  /** Half to all of the present delay. */
  takeMs(): number {
    const ms = this.#nextMs;
    this.#nextMs = Math.min(this.#maxMs, ms * 2);
    return ms / 2 + this.#random.below(Math.max(1, Math.floor(ms / 2)));
  }

  /** After something worked. */
  reset(): void {
    this.#nextMs = this.#minMs;
  }
}
