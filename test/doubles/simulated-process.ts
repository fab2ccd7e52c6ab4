import type { Clock, Timer } from '../../journal/host/host.ts';
import type { Scheduler } from '../simulation/scheduler.ts';

/**
 * One run of a program on a simulated machine. Killing it needs nothing of the program: its timers are dead and what
 * it waits for never comes. Calls it had put into the kernel may still take effect, each on its own.
 */
export class SimulatedProcess {
  readonly #scheduler: Scheduler;
  /** The simulator's own look at a disk: no fault hits it. */
  readonly isObserver: boolean;
  readonly #inKernel = new Set<() => void>();
  readonly #atDeath: (() => void)[] = [];
  #alive = true;

  constructor(scheduler: Scheduler, isObserver = false) {
    this.#scheduler = scheduler;
    this.isObserver = isObserver;
  }

  get alive(): boolean {
    return this.#alive;
  }

  /** Told when the process dies: what the kernel does for it then (locks go, connections close). */
  atDeath(run: () => void): void {
    this.#atDeath.push(run);
  }

  /** kill -9. */
  kill(): void {
    if (!this.#alive) return;
    this.#alive = false;
    for (const effect of this.#inKernel) {
      if (!this.#scheduler.random.chance(0.5)) continue;
      try {
        effect();
      } catch {
        // The call failed and nobody is left to be told.
      }
    }
    this.#inKernel.clear();
    for (const run of this.#atDeath) run();
  }

  /** A call into the kernel that takes `micros`: its effect comes then, and never twice. */
  call<T>(micros: number, effect: () => T): Promise<T> {
    return new Promise((resolve, reject) => {
      this.#inKernel.add(effect);
      this.#scheduler.after(micros, () => {
        if (!this.#alive) return;
        this.#inKernel.delete(effect);
        try {
          resolve(effect());
        } catch (error) {
          reject(error as Error);
        }
      });
    });
  }
}

/** The clock of one simulated process. Its wall clock may be off and may jump; its monotonic clock never does.
 * Both run a little faster or slower than those of other machines. */
export class SimulatedClock implements Clock {
  readonly #scheduler: Scheduler;
  readonly #process: SimulatedProcess;
  readonly #wallOffsetMicros: () => number;
  readonly #rate: number;

  /** `rate`: microseconds this clock counts in one of the simulation's. */
  constructor(scheduler: Scheduler, process: SimulatedProcess, wallOffsetMicros: () => number, rate: number) {
    this.#scheduler = scheduler;
    this.#process = process;
    this.#wallOffsetMicros = wallOffsetMicros;
    this.#rate = rate;
  }

  wallMicros(): number {
    return Math.floor(this.#scheduler.nowMicros * this.#rate) + this.#wallOffsetMicros();
  }

  monotonicMs(): number {
    return (this.#scheduler.nowMicros * this.#rate) / 1000;
  }

  after(ms: number, run: () => void): Timer {
    // Time goes on between two timers, however short: a loop that waits for a rest of a nanosecond must come to its end.
    return this.#scheduler.after(Math.max(1, Math.ceil((ms * 1000) / this.#rate)), () => {
      if (!this.#process.alive) return;
      this.#scheduler.trace('timer');
      run();
    });
  }
}
