import type { Clock } from '../../journal/host/host.ts';
import type { Marks } from '../../journal/marks.ts';
import type { JournalAddress } from '../../journal/position.ts';
import { GuestLoad, restMs } from './guest-load.ts';

/** Part of the time that writing out takes at least. */
const SHARE_MIN = 0.02;

/** Leaves the machine to busy guests, the less the more waits: what they overwrite meanwhile is never written out. */
export class DestagePace {
  readonly #clock: Clock;
  readonly #marks: Marks;
  readonly #lagBytesMax: number;
  readonly #pressure: () => number;
  readonly #load = new GuestLoad();
  #beganMs = 0;

  /** `lagBytesMax`: journal bytes that may wait; at that, or when half of another bound is reached, there is no rest. */
  constructor(clock: Clock, marks: Marks, lagBytesMax: number, pressure: () => number) {
    this.#clock = clock;
    this.#marks = marks;
    this.#lagBytesMax = lagBytesMax;
    this.#pressure = pressure;
  }

  /** Work begins now. */
  begin(): void {
    this.#beganMs = this.#clock.monotonicMs();
  }

  /** How long to rest after what was done since `begin`, which has come to `position`. */
  restMs(position: JournalAddress): number {
    const nowMs = this.#clock.monotonicMs();
    if (!this.#load.isBusy(this.#marks.address('written'), nowMs)) return 0;
    const behind = (this.#marks.address('durable') - position) / this.#lagBytesMax;
    return restMs(nowMs - this.#beganMs, Math.max(SHARE_MIN, behind * behind, 2 * this.#pressure()));
  }
}
