import type { Clock, Timer } from './host.ts';

/** The machine's clocks. Timers are unref'd: waiting for one never keeps the process alive. */
export class RealClock implements Clock {
  wallMicros(): number {
    return Date.now() * 1000;
  }

  monotonicMs(): number {
    return performance.now();
  }

  after(ms: number, run: () => void): Timer {
    // behind what the sockets bring meanwhile, and not a millisecond later, which is a timer's least
    if (ms === 0) {
      const immediate = setImmediate(run);
      return {
        cancel: () => {
          clearImmediate(immediate);
        },
      };
    }
    const timer = setTimeout(run, ms).unref();
    return {
      cancel: () => {
        clearTimeout(timer);
      },
    };
  }
}
