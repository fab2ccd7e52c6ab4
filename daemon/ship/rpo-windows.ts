/** One window: what of the time the loss would have been at most so many seconds; null: not known. */
export interface RpoFigures {
  readonly windowSeconds: number;
  readonly p50Seconds: number | null;
  readonly p99Seconds: number | null;
  /** Parts of the window there is a sample of, known or not: 1 when it has passed whole. */
  readonly covered: number;
}

export const RPO_WINDOWS_SECONDS = [60, 3_600, 86_400] as const;

const LONGEST_SECONDS = RPO_WINDOWS_SECONDS[RPO_WINDOWS_SECONDS.length - 1] as number;
/** The figures of a window are computed anew when so much of it has passed. */
const FRESH_PART = 1 / 60;

/**
 * The seconds of writes that would have been lost, sampled once a second, over a minute, an hour and a day. A moment at which
 * it was not known is worse than any that was (promise 9), and so is one at which nobody looked: the process stood still.
 */
export class RpoWindows {
  /** A ring by the second; infinite: not known. */
  readonly #samples = new Float32Array(LONGEST_SECONDS);
  #count = 0;
  #lastSecond = Number.NEGATIVE_INFINITY;
  readonly #cached = new Map<number, { readonly atSecond: number; readonly figures: RpoFigures }>();

  /** To be called at least once a second; further calls within one are passed over. `null`: not known. */
  note(nowMs: number, seconds: number | null): void {
    const second = Math.floor(nowMs / 1_000);
    if (second <= this.#lastSecond) return;
    const missed = this.#count === 0 ? 0 : Math.min(LONGEST_SECONDS, second - this.#lastSecond - 1);
    for (let count = 0; count < missed; count++) this.#push(Number.POSITIVE_INFINITY);
    this.#push(seconds ?? Number.POSITIVE_INFINITY);
    this.#lastSecond = second;
  }

  get figures(): readonly RpoFigures[] {
    return RPO_WINDOWS_SECONDS.map((windowSeconds) => {
      const cached = this.#cached.get(windowSeconds);
      if (cached !== undefined && this.#lastSecond - cached.atSecond < windowSeconds * FRESH_PART)
        return cached.figures;
      const figures = this.#figuresOf(windowSeconds);
      this.#cached.set(windowSeconds, { atSecond: this.#lastSecond, figures });
      return figures;
    });
  }

  #push(seconds: number): void {
    this.#samples[this.#count % LONGEST_SECONDS] = seconds;
    this.#count += 1;
  }

  #figuresOf(windowSeconds: number): RpoFigures {
    const length = Math.min(this.#count, windowSeconds);
    const sorted = new Float32Array(length);
    for (let back = 0; back < length; back++) {
      sorted[back] = this.#samples[(this.#count - 1 - back) % LONGEST_SECONDS] as number;
    }
    sorted.sort();
    const at = (part: number): number | null => {
      const value = sorted[Math.ceil(part * length) - 1];
      return value === undefined || value === Number.POSITIVE_INFINITY ? null : Math.round(value * 1e3) / 1e3;
    };
    return { windowSeconds, p50Seconds: at(0.5), p99Seconds: at(0.99), covered: length / windowSeconds };
  }
}
