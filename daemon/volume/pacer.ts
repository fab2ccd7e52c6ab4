/** Pressure (0: nothing waits, 1: a bound is reached) from which writes are slowed down. */
const SLOW_FROM = 0.5;
/** Pressure from which nothing more is taken, and below which it is taken again. */
const STOP_FROM = 0.95;
export const GO_ON_BELOW = 0.9;
/** Debts below this are not slept: a timer costs more. */
const DEBT_MS_MIN = 1;
/** One sleep: long enough to matter, short enough that a guest sees slowness and no stop. */
const DELAY_MS_MAX = 40;
/** The drain is measured over stretches of this length. */
const MEASURE_MS = 800;
const DRAIN_BYTES_PER_MS_MIN = 1024;

/**
 * Slows writers down to the pace of what carries their writes away, before a bound is reached: a budget that is hit at
 * full speed stops a guest for seconds (reference/performance.md section 6). Allowed are three times the drain when
 * the slowing begins, the drain itself half way, nothing at the end.
 */
export class Pacer {
  #drainBytesPerMs = 64 * 1024;
  #measuredAtMs = 0;
  #measuredAt = 0;
  #debtMs = 0;
  #chargedAtMs = 0;
  #stopped = false;

  /** `drained`: a count of bytes carried away so far, from any origin. Learnt only under load, an idle drain says nothing. */
  observe(drained: number, pressure: number, nowMs: number): void {
    if (pressure < SLOW_FROM / 2) {
      this.#measuredAtMs = 0;
      return;
    }
    if (this.#measuredAtMs === 0) {
      this.#measuredAtMs = nowMs;
      this.#measuredAt = drained;
      return;
    }
    const elapsedMs = nowMs - this.#measuredAtMs;
    if (elapsedMs < MEASURE_MS) return;
    const rate = (drained - this.#measuredAt) / elapsedMs;
    this.#drainBytesPerMs = Math.max(DRAIN_BYTES_PER_MS_MIN, (this.#drainBytesPerMs + rate) / 2);
    this.#measuredAtMs = nowMs;
    this.#measuredAt = drained;
  }

  /** Writers must wait until this turns false. */
  mustStop(pressure: number): boolean {
    this.#stopped = pressure >= (this.#stopped ? GO_ON_BELOW : STOP_FROM);
    return this.#stopped;
  }

  /** Whether writers that had to wait would not have to at this pressure. */
  mayGoOn(pressure: number): boolean {
    return pressure < GO_ON_BELOW;
  }

  /** How long the writer of these bytes is to be held back, in ms; 0: not at all. */
  delayMs(bytes: number, pressure: number, nowMs: number): number {
    const elapsedMs = nowMs - this.#chargedAtMs;
    this.#chargedAtMs = nowMs;
    if (pressure < SLOW_FROM) {
      this.#debtMs = 0;
      return 0;
    }
    const way = Math.min(1, (pressure - SLOW_FROM) / (STOP_FROM - SLOW_FROM));
    const factor = Math.max(0.02, way < 0.5 ? 3 - 4 * way : 2 - 2 * way);
    this.#debtMs = Math.max(0, this.#debtMs - elapsedMs) + bytes / (this.#drainBytesPerMs * factor);
    this.#debtMs = Math.min(this.#debtMs, 2 * DELAY_MS_MAX);
    return this.#debtMs < DEBT_MS_MIN ? 0 : Math.min(this.#debtMs, DELAY_MS_MAX);
  }
}
