import type { PartFigures } from './parts/part-figures.ts';
import { ROWS, type Row } from './rows.ts';
import type { RowFigures, ServerFigures } from './table.ts';

/** What `npm run bench -- --json FILE` writes. */
export interface Report {
  readonly machine: string;
  /** ISO 8601. */
  readonly date: string;
  readonly commit: string;
  /** As it was called, behind `npm run bench`. */
  readonly command: string;
  readonly rows: readonly RowFigures[];
  /** What is no load of fio on every server: replica, history, scale, Kafka. */
  readonly parts?: readonly PartFigures[];
}

export const PEERS = ['qemu-nbd', 'nbdkit', 'mirror'] as const;

/** One goal of one row, and what came of it. */
export interface Verdict {
  readonly row: string;
  /** What is compared with what. */
  readonly what: string;
  /** `at least` or `at most` this. */
  readonly goal: number;
  readonly isUpper: boolean;
  readonly measured: number;
  readonly isMet: boolean;
}

/** CPU per operation against qemu-nbd's, at most. */
const CPU_GOALS: Readonly<Record<string, number>> = { 'w4k-q32': 0.6, 'w1m-q8': 1.5 };
const TAIL_ROW = 'w4k-q32';

/** Every goal of the rows that were measured. */
export function verdicts(rows: readonly RowFigures[]): Verdict[] {
  return rows.flatMap((figures) => {
    const row = ROWS.find(({ name }) => name === figures.row);
    const ours = figures.servers['tidemark'];
    if (row === undefined || ours === undefined) return [];
    const ratios = PEERS.flatMap((peer) => {
      const [goal, theirs] = [row.goals[peer], figures.servers[peer]];
      if (goal === undefined || theirs === undefined) return [];
      return [atLeast(row.name, `${row.unit} / ${peer}'s`, goal, ours.median / theirs.median)];
    });
    return [...ratios, ...paceVerdicts(row, ours), ...qemuVerdicts(row, ours, figures.servers['qemu-nbd'])];
  });
}

function paceVerdicts(row: Row, { worst_second: worst, longest_stop_ms: stop }: ServerFigures): Verdict[] {
  return [
    ...(row.worstSecond === undefined || worst === undefined
      ? []
      : [atLeast(row.name, 'slowest second / median second', row.worstSecond, worst)]),
    ...(row.stopMsMax === undefined || stop === undefined
      ? []
      : [atMost(row.name, 'longest stop of the guest, ms', row.stopMsMax, stop)]),
  ];
}

function qemuVerdicts(row: Row, ours: ServerFigures, theirs: ServerFigures | undefined): Verdict[] {
  if (theirs === undefined) return [];
  const cpu = CPU_GOALS[row.name];
  return [
    ...(row.name === TAIL_ROW ? [atMost(row.name, "p99.9 / qemu-nbd's", 1, ours.p999_us / theirs.p999_us)] : []),
    ...(cpu === undefined
      ? []
      : [atMost(row.name, "CPU per operation / qemu-nbd's", cpu, ours.cpu_us_per_op / theirs.cpu_us_per_op)]),
  ];
}

function atLeast(row: string, what: string, goal: number, measured: number): Verdict {
  return { row, what, goal, isUpper: false, measured, isMet: measured >= goal };
}

function atMost(row: string, what: string, goal: number, measured: number): Verdict {
  return { row, what, goal, isUpper: true, measured, isMet: measured <= goal };
}
