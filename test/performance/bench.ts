import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { fio } from './fio.ts';
import { mirror } from './mirror.ts';
import { writePages } from './page.ts';
import { formatPart, type PartFigures, partVerdicts } from './parts/part-figures.ts';
import { PART_SPECS } from './parts/part-specs.ts';
import { chosenParts, measurePart } from './parts/run-parts.ts';
import { cpuSeconds, residentMib, waitForQuiet } from './process-usage.ts';
import { type Report, verdicts } from './report.ts';
import { ROWS, type Row } from './rows.ts';
import { type BenchDisk, type BenchServer, nbdkit, qemuNbd, tidemark } from './servers.ts';
import { figures, formatRow, type RowFigures, type Sample } from './table.ts';

/**
 * `npm run bench -- [--quick] [--rows a,b] [--json FILE] [--repetitions N]`: every row on every server in turn, so that
 * a machine whose speed drifts is unfair to none; medians and ratios, never single absolute figures. Before each run
 * the machine is waited for until it is quiet, and tidemark until its journal is written out and replicated. Behind them
 * come the parts (`parts/part-specs.ts`): replica, history, scale, Kafka, each with figures and peers of its own.
 * `npm run bench -- --page` measures nothing: it writes the page and the chart from the saved run.
 */
const args = process.argv.slice(2);
const { values } = parseArgs({
  args,
  options: {
    quick: { type: 'boolean', default: false },
    rows: { type: 'string' },
    json: { type: 'string' },
    repetitions: { type: 'string' },
    page: { type: 'boolean', default: false },
  },
});

const seconds = values.quick ? 2 : 5;
const sustainedSeconds = values.quick ? 15 : 60;
const repetitions = Number(values.repetitions ?? 3);
if (!Number.isInteger(repetitions) || repetitions < 1) throw new Error('--repetitions: a number of at least 1');
const chosen = values.rows?.split(',');
const rows = ROWS.filter((row) => chosen === undefined || chosen.includes(row.name));
const parts = chosenParts(chosen, values.quick);
const names = [...ROWS.map((row) => row.name), ...PART_SPECS.map((part) => part.row)];
const unknown = chosen?.filter((name) => !names.includes(name)) ?? [];
if (unknown.length > 0) throw new Error(`no such row: ${unknown.join(', ')}; rows: ${names.join(', ')}`);

function repetitionsOf(row: Row): number {
  // In quick runs a sustained row is as long as all repetitions of another one.
  if (values.quick && row.sustained === true) return 1;
  return values.repetitions === undefined ? (row.repetitions ?? repetitions) : repetitions;
}

async function measure(server: BenchServer, row: Row, disk: BenchDisk): Promise<Sample> {
  await waitForQuiet(10_000);
  const cpu = (): number => server.pids.reduce((sum, pid) => sum + cpuSeconds(pid), 0);
  const before = cpu();
  const result = await fio(server.uri, row, row.sustained === true ? sustainedSeconds : seconds, disk.areaBytes);
  const ended = performance.now();
  await server.drain();
  // The drain counts: work that is put off is work.
  const used = cpu() - before;
  return {
    ...result,
    cpuMicrosPerOperation: (used * 1e6) / Math.max(1, result.operations),
    residentMib: server.pids.reduce((sum, pid) => sum + residentMib(pid), 0),
    drainSeconds: (performance.now() - ended) / 1000,
  };
}

async function measureRow(row: Row, servers: readonly BenchServer[], disk: BenchDisk): Promise<RowFigures> {
  const samples = new Map<string, Sample[]>(servers.map((server) => [server.name, []]));
  const times = repetitionsOf(row);
  for (let repetition = 0; repetition < times; repetition++) {
    for (const server of servers) samples.get(server.name)?.push(await measure(server, row, disk));
  }
  const byServer = Object.fromEntries([...samples].map(([name, list]) => [name, figures(list)]));
  return { row: row.name, unit: row.unit, repetitions: times, servers: byServer };
}

function report(table: readonly RowFigures[], measured: readonly PartFigures[]): Report {
  const commit = execFileSync('git', ['rev-parse', '--short', 'HEAD'], { encoding: 'utf8' }).trim();
  const machine = `${os.cpus()[0]?.model ?? 'unknown'}, ${os.cpus().length} cores, ${Math.round(os.totalmem() / 1024 ** 3)} GiB`;
  const given = args.filter((argument, index) => argument !== '--json' && args[index - 1] !== '--json');
  const command = ['npm run bench', ...(given.length > 0 ? ['--', ...given] : [])].join(' ');
  return { machine, date: new Date().toISOString(), commit, command, rows: table, parts: measured };
}

/** After every row and part: a run that is cut short keeps what it has. */
function save(table: readonly RowFigures[], measured: readonly PartFigures[]): void {
  if (values.json !== undefined) fs.writeFileSync(values.json, `${JSON.stringify(report(table, measured), null, 2)}\n`);
}

async function measureRows(): Promise<RowFigures[]> {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'tidemark-bench-'));
  const disk: BenchDisk = { directory, sizeBytes: 2 * 1024 ** 3, areaBytes: 512 * 1024 ** 2 };
  const servers: BenchServer[] = [];
  const table: RowFigures[] = [];
  try {
    for (const start of [tidemark, qemuNbd, nbdkit, mirror]) servers.push(await start(disk));
    for (const server of servers) await server.drain();
    console.log(
      `${rows.length} rows, ${repetitions} x ${seconds} s, servers interleaved; ratio = tidemark / peer, medians`,
    );
    for (const row of rows) {
      const measured = await measureRow(row, servers, disk);
      table.push(measured);
      console.log(formatRow(row, measured.servers));
      save(table, []);
    }
  } finally {
    for (const server of servers) await server.stop();
    fs.rmSync(directory, { recursive: true, force: true });
  }
  return table;
}

async function run(): Promise<void> {
  const table = rows.length === 0 ? [] : await measureRows();
  const measured: PartFigures[] = [];
  for (const part of parts) {
    measured.push(await measurePart(part, { quick: values.quick, repetitions }));
    console.log(formatPart(measured.at(-1) as PartFigures));
    save(table, measured);
  }
  for (const { row, what, goal, isUpper, measured: figure, isMet } of [...verdicts(table), ...partVerdicts(measured)]) {
    const bound = `${isUpper ? 'at most' : 'at least'} ${goal}`;
    console.log(`${isMet ? 'met   ' : 'missed'} ${row}: ${what} ${figure.toFixed(2)}, ${bound}`);
  }
}

if (values.page) writePages();
else await run();
