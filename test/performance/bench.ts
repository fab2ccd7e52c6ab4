import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { fio } from './fio.ts';
import { mirror } from './mirror.ts';
import { cpuSeconds, residentMib, waitForQuiet } from './process-usage.ts';
import { ROWS, type Row } from './rows.ts';
import { type BenchDisk, type BenchServer, nbdkit, qemuNbd, tidemark } from './servers.ts';
import { figures, formatRow, type RowFigures, type Sample } from './table.ts';

/**
 * `npm run bench -- [--quick] [--rows a,b] [--json FILE] [--repetitions N]`: every row on every server in turn, so that
 * a machine whose speed drifts is unfair to none; medians and ratios, never single absolute figures. Before each run
 * the machine is waited for until it is quiet, and tidemark until its journal is written out and replicated.
 */
const { values } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    rows: { type: 'string' },
    json: { type: 'string' },
    repetitions: { type: 'string' },
  },
});

const seconds = values.quick ? 2 : 5;
const sustainedSeconds = values.quick ? 15 : 60;
const repetitions = Number(values.repetitions ?? 3);
const chosen = values.rows?.split(',');
const rows = ROWS.filter((row) => chosen === undefined || chosen.includes(row.name));
const unknown = chosen?.filter((name) => !ROWS.some((row) => row.name === name)) ?? [];
if (unknown.length > 0)
  throw new Error(`no such row: ${unknown.join(', ')}; rows: ${ROWS.map((row) => row.name).join(', ')}`);

async function measure(server: BenchServer, row: Row, disk: BenchDisk): Promise<Sample> {
  await server.drain();
  await waitForQuiet(10_000);
  const cpu = (): number => server.pids.reduce((sum, pid) => sum + cpuSeconds(pid), 0);
  const before = cpu();
  const result = await fio(server.uri, row, row.sustained === true ? sustainedSeconds : seconds, disk.areaBytes);
  const used = cpu() - before;
  return {
    ...result,
    cpuMicrosPerOperation: (used * 1e6) / Math.max(1, result.operations),
    residentMib: server.pids.reduce((sum, pid) => sum + residentMib(pid), 0),
  };
}

const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'tidemark-bench-'));
const disk: BenchDisk = { directory, sizeBytes: 2 * 1024 ** 3, areaBytes: 512 * 1024 ** 2 };
const servers: BenchServer[] = [];
try {
  for (const start of [tidemark, qemuNbd, nbdkit, mirror]) servers.push(await start(disk));
  console.log(
    `${rows.length} rows, ${repetitions} x ${seconds} s, servers interleaved; ratio = tidemark / peer, medians`,
  );
  const table: RowFigures[] = [];
  for (const row of rows) {
    const samples = new Map<string, Sample[]>(servers.map((server) => [server.name, []]));
    for (let repetition = 0; repetition < repetitions; repetition++) {
      for (const server of servers) samples.get(server.name)?.push(await measure(server, row, disk));
    }
    const byServer = Object.fromEntries([...samples].map(([name, list]) => [name, figures(list)]));
    table.push({ row: row.name, unit: row.unit, servers: byServer });
    console.log(formatRow(row, byServer));
  }
  if (values.json !== undefined) {
    const commit = execFileSync('git', ['rev-parse', '--short', 'HEAD'], { encoding: 'utf8' }).trim();
    const machine = `${os.cpus()[0]?.model ?? 'unknown'}, ${os.cpus().length} cores, ${Math.round(os.totalmem() / 1024 ** 3)} GiB`;
    const report = { machine, date: new Date().toISOString(), commit, rows: table };
    fs.writeFileSync(values.json, `${JSON.stringify(report, null, 2)}\n`);
  }
} finally {
  for (const server of servers) await server.stop();
  fs.rmSync(directory, { recursive: true, force: true });
}
