import type { Clock } from './host/host.ts';
import type { JournalTime } from './position.ts';

/** The wall clock may drift this far from the monotonic one between two looks before it counts as a jump. */
const JUMP_MICROS = 1_000_000;

export interface ClockStep {
  readonly fromMicros: number;
  readonly toMicros: number;
}

/** Journal time = max(wall clock, last), and an eye on steps of the wall clock (DESIGN rule 7). */
export class ClockWatch {
  readonly #clock: Clock;
  #last: JournalTime;
  #wallBase: number;
  #monotonicBase: number;

  constructor(clock: Clock, last: JournalTime) {
    this.#clock = clock;
    this.#last = last;
    this.#wallBase = clock.wallMicros();
    this.#monotonicBase = clock.monotonicMs();
  }

  now(): JournalTime {
    this.#last = Math.max(this.#last, this.#clock.wallMicros());
    return this.#last;
  }

  raise(time: JournalTime): void {
    this.#last = Math.max(this.#last, time);
  }

  /** The step since the last call, told once; slow drift (NTP slewing) is not one. */
  jump(): ClockStep | undefined {
    const wall = this.#clock.wallMicros();
    const monotonic = this.#clock.monotonicMs();
    const expected = this.#wallBase + (monotonic - this.#monotonicBase) * 1000;
    this.#wallBase = wall;
    this.#monotonicBase = monotonic;
    if (Math.abs(wall - expected) <= JUMP_MICROS) return undefined;
    return { fromMicros: Math.max(0, Math.round(expected)), toMicros: Math.max(0, Math.round(wall)) };
  }
}
