/** How evenly a load went, from fio's log of completions. */
export interface Pace {
  /** The slowest whole second as a part of the median second. */
  readonly worstSecond: number;
  /** The longest time without a single completion, milliseconds. */
  readonly longestStopMs: number;
}

/**
 * Reads an iops log (`time ms, completions per second, direction, ...`; a line per step in which something completed,
 * with the rate since the line before it) of a run of `runMs`.
 */
export function paceOf(log: string, stepMs: number, runMs: number): Pace {
  const seconds = Array.from({ length: Math.floor(runMs / 1000) }, () => 0);
  let [before, longestStopMs] = [0, 0];
  for (const line of log.split('\n')) {
    if (line.trim() === '') continue;
    const [at = Number.NaN, rate = Number.NaN] = line.split(',').map(Number);
    if (Number.isNaN(at) || Number.isNaN(rate)) throw new Error(`no line of a log of completions: ${line}`);
    // the first line tells when the connection stood, too
    if (before > 0) longestStopMs = Math.max(longestStopMs, at - before - stepMs);
    const second = Math.floor((at - 1) / 1000);
    if (second < seconds.length) seconds[second] = (seconds[second] ?? 0) + (rate * (at - before)) / 1000;
    before = at;
  }
  longestStopMs = Math.max(longestStopMs, runMs - before - stepMs);
  // fio's first second begins with connecting
  const sorted = seconds.slice(1).sort((one, other) => one - other);
  const median = sorted[Math.floor(sorted.length / 2)] ?? 0;
  return { worstSecond: median === 0 ? 0 : (sorted[0] ?? 0) / median, longestStopMs };
}
