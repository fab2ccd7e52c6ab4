import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { run } from '../servers/child.ts';
import { type Pace, paceOf } from './pace.ts';
import type { Row } from './rows.ts';

/** What one run of fio measured, seen from the client. */
export interface FioResult {
  /** In the row's unit. */
  readonly rate: number;
  readonly operations: number;
  readonly p50Micros: number;
  readonly p99Micros: number;
  readonly p999Micros: number;
  readonly maxMicros: number;
  /** Of sustained rows. */
  readonly pace?: Pace;
}

interface FioDirection {
  readonly iops: number;
  readonly bw_bytes: number;
  readonly total_ios: number;
  readonly clat_ns: { readonly max: number; readonly percentile?: Record<string, number> };
}

/** Completions are counted in steps of this. */
const STEP_MS = 10;

/** Runs the row's load for `seconds` on an NBD URI. Data is refilled and half compressible, as real disks are. */
export async function fio(uri: string, row: Row, seconds: number, areaBytes: number): Promise<FioResult> {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'tidemark-fio-'));
  try {
    const log = path.join(directory, 'steps');
    const text = await run('fio', [
      '--name=row',
      '--ioengine=nbd',
      `--uri=${uri}`,
      `--size=${areaBytes}`,
      '--time_based',
      `--runtime=${seconds}`,
      '--refill_buffers',
      '--buffer_compress_percentage=50',
      '--group_reporting',
      '--output-format=json',
      ...(row.sustained === true ? [`--write_iops_log=${log}`, `--log_avg_msec=${STEP_MS}`] : []),
      ...row.load,
    ]);
    const result = resultOf(row, text);
    if (row.sustained !== true) return result;
    return { ...result, pace: paceOf(fs.readFileSync(`${log}_iops.1.log`, 'utf8'), STEP_MS, seconds * 1000) };
  } finally {
    fs.rmSync(directory, { recursive: true, force: true });
  }
}

function resultOf(row: Row, text: string): FioResult {
  const report = JSON.parse(text.slice(text.indexOf('{'))) as { jobs: { read: FioDirection; write: FioDirection }[] };
  const job = report.jobs[0];
  if (job === undefined) throw new Error(`fio reported no job:\n${text}`);
  const sides = [job.read, job.write].filter((side) => side.total_ios > 0);
  const main = sides.reduce((a, b) => (a.total_ios >= b.total_ios ? a : b));
  const total = (pick: (side: FioDirection) => number): number => sides.reduce((sum, side) => sum + pick(side), 0);
  const percentile = (name: string): number => Math.round((main.clat_ns.percentile?.[name] ?? 0) / 1000);
  return {
    rate: row.unit === 'IOPS' ? total((side) => side.iops) : total((side) => side.bw_bytes) / 1024 ** 2,
    operations: total((side) => side.total_ios),
    p50Micros: percentile('50.000000'),
    p99Micros: percentile('99.000000'),
    p999Micros: percentile('99.900000'),
    maxMicros: Math.round(Math.max(...sides.map((side) => side.clat_ns.max)) / 1000),
  };
}
