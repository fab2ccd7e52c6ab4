import { type TidemarkError } from '../../../journal/base/errors.ts';
import { type Clock, delay, type Random } from '../../../journal/host/host.ts';

const FIRST_MS = 50;
const LAST_MS = 250;
/** A wrong password is not tried four times a second. */
const OPERATOR_MS = 10_000;

/** 50 to 250 ms with jitter: enough not to hammer a broker that is down, short beside any outage worth noticing. */
export class RetryDelay {
  readonly #clock: Clock;
  readonly #random: Random;
  #ceilingMs = FIRST_MS;

  constructor(clock: Clock, random: Random) {
    this.#clock = clock;
    this.#random = random;
  }

  /** `error` is what failed: what a person has to mend is tried again at a person's pace. */
  wait(error: TidemarkError): Promise<void> {
    if (error.next !== 'retry') return delay(this.#clock, OPERATOR_MS);
    const ms = FIRST_MS + this.#random.below(Math.max(1, this.#ceilingMs - FIRST_MS + 1));
    this.#ceilingMs = Math.min(LAST_MS, this.#ceilingMs * 2);
    return delay(this.#clock, ms);
  }

  /** After something worked. */
  reset(): void {
    this.#ceilingMs = FIRST_MS;
  }
}
