import type { FioResult } from './fio.ts';
import type { Row } from './rows.ts';

export interface Sample extends FioResult {
  /** CPU of the server per operation, microseconds, all its threads, the drain included. */
  readonly cpuMicrosPerOperation: number;
  readonly residentMib: number;
  /** From the end of the load until nothing was left over. */
  readonly drainSeconds: number;
}

export interface ServerFigures {
  readonly median: number;
  readonly min: number;
  readonly max: number;
  readonly p50_us: number;
  readonly p99_us: number;
  readonly p999_us: number;
  readonly max_us: number;
  readonly cpu_us_per_op: number;
  readonly rss_mib: number;
  /** The longest of the repetitions. */
  readonly drain_s: number;
  /** Sustained rows: the slowest second as a part of the median second, and the longest time without a completion. */
  readonly worst_second?: number;
  readonly longest_stop_ms?: number;
}

export interface RowFigures {
  readonly row: string;
  readonly unit: string;
  /** How often each server ran it. */
  readonly repetitions: number;
  readonly servers: Readonly<Record<string, ServerFigures>>;
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor((sorted.length - 1) / 2)] ?? 0;
}

function rounded(value: number): number {
  return value >= 100 ? Math.round(value) : Math.round(value * 10) / 10;
}

/** Medians over the repetitions of one server on one row. */
export function figures(samples: readonly Sample[]): ServerFigures {
  const rates = samples.map((sample) => sample.rate);
  const middle = (pick: (sample: Sample) => number): number => rounded(median(samples.map(pick)));
  const paces = samples.flatMap(({ pace }) => (pace === undefined ? [] : [pace]));
  const pace = {
    worst_second: Math.round(Math.min(...paces.map(({ worstSecond }) => worstSecond)) * 100) / 100,
    longest_stop_ms: Math.max(...paces.map(({ longestStopMs }) => longestStopMs)),
  };
  return {
    median: rounded(median(rates)),
    min: rounded(Math.min(...rates)),
    max: rounded(Math.max(...rates)),
    p50_us: middle((sample) => sample.p50Micros),
    p99_us: middle((sample) => sample.p99Micros),
    p999_us: middle((sample) => sample.p999Micros),
    max_us: Math.max(...samples.map((sample) => sample.maxMicros)),
    cpu_us_per_op: middle((sample) => sample.cpuMicrosPerOperation),
    rss_mib: middle((sample) => sample.residentMib),
    drain_s: rounded(Math.max(...samples.map((sample) => sample.drainSeconds))),
    ...(paces.length === 0 ? {} : pace),
  };
}

/** One line of the printed table: each server's median and range, and the ratio of ours to each peer. */
export function formatRow(row: Row, servers: Readonly<Record<string, ServerFigures>>): string {
  const ours = servers['tidemark'];
  const cells = Object.entries(servers).map(([name, server]) => {
    const ratio = ours === undefined || name === 'tidemark' ? '' : ` (x${(ours.median / server.median).toFixed(2)})`;
    const drain = name === 'tidemark' ? `, drained in ${server.drain_s} s` : '';
    const stop = server.longest_stop_ms === undefined ? '' : `, longest stop ${server.longest_stop_ms} ms`;
    const spread = `${server.median} [${server.min}..${server.max}]`;
    return `${name} ${spread}${ratio} p99 ${server.p99_us} us, cpu ${server.cpu_us_per_op} us${stop}${drain}`;
  });
  return `${row.name} ${row.unit}: ${cells.join(' | ')}`;
}
