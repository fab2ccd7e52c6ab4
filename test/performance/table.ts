import type { FioResult } from './fio.ts';
import type { Row } from './rows.ts';

export interface Sample extends FioResult {
  /** CPU of the server per operation, microseconds, all its threads. */
  readonly cpuMicrosPerOperation: number;
  readonly residentMib: number;
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
}

export interface RowFigures {
  readonly row: string;
  readonly unit: string;
  readonly servers: Record<string, ServerFigures>;
}

function median(values: readonly number[]): number {
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
  };
}

/** One line of the printed table: each server's median and range, and the ratio of ours to each peer. */
export function formatRow(row: Row, servers: Record<string, ServerFigures>): string {
  const ours = servers['tidemark'];
  const cells = Object.entries(servers).map(([name, server]) => {
    const ratio = ours === undefined || name === 'tidemark' ? '' : ` (x${(ours.median / server.median).toFixed(2)})`;
    return `${name} ${server.median} [${server.min}..${server.max}]${ratio} p99 ${server.p99_us} us, cpu ${server.cpu_us_per_op} us`;
  });
  return `${row.name} ${row.unit}: ${cells.join(' | ')}`;
}
