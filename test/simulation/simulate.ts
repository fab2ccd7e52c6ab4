import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { parseArgs } from 'node:util';
import { PROMISES } from './promises.ts';
import { completed, type RunOptions } from './run-options.ts';
import { runSeeds } from './seed-pool.ts';
import type { SeedOrder, SeedReport } from './seed-runner.ts';
import { shrink } from './shrink.ts';

/*
 * node test/simulation/simulate.ts [--seeds N] [--from S] [--jobs J] [--json FILE] [--verbose]
 * node test/simulation/simulate.ts --from S --options JSON|@FILE     one run, other options than the seed draws; or --seeds N
 * node test/simulation/simulate.ts --from S [--options ...] --shrink  the shortest run found that still fails
 * node test/simulation/simulate.ts --verify-determinism N [--from S]  each seed twice: the same trace hash?
 * node test/simulation/simulate.ts --planted [...]                    every planted bug, who notices it (test/planted)
 *
 * The exit code is 1 when a promise was broken. The trace hash covers, each with its simulated time: every call of a
 * simulated disk that reads, changes or syncs a file or a directory, with a checksum of the bytes; every dial, send,
 * arrival and end of a connection; what Kafka takes and gives; every act of the nemesis, every timer that fires, and how
 * every request of a guest ended.
 */

if (process.argv.includes('--planted')) {
  const { plantedCommand } = await import('../planted/run-planted.ts');
  process.exit((await plantedCommand(process.argv.slice(2))) ? 0 : 1);
}

const { values } = parseArgs({
  options: {
    seeds: { type: 'string' },
    from: { type: 'string', default: '1' },
    jobs: { type: 'string', default: String(availableParallelism()) },
    json: { type: 'string' },
    options: { type: 'string' },
    shrink: { type: 'boolean', default: false },
    'verify-determinism': { type: 'string' },
    verbose: { type: 'boolean', default: false },
  },
});
const PROGRESS_MS = 15_000;
const from = Number(values.from);
const jobs = Number(values.jobs);
const options = readOptions(values.options);
const print = (line: string): void => {
  process.stdout.write(`${line}\n`);
};

if (values.shrink) await runShrink();
else if (values['verify-determinism'] === undefined)
  await runAll(Number(values.seeds ?? (options === undefined ? 100 : 1)));
else await verifyDeterminism(Number(values['verify-determinism']));

async function runAll(seeds: number): Promise<void> {
  const totals = { events: 0, simulatedMicros: 0, crashes: 0, records: 0, acknowledged: 0, views: 0 };
  const failed: SeedReport[] = [];
  const traceHashes: Record<number, string> = {};
  const began = performance.now();
  let done = 0;
  let told = began;
  await runSeeds(ordersFor(seeds), Math.min(jobs, seeds), (report) => {
    done++;
    for (const key of ['events', 'simulatedMicros', 'crashes', 'records', 'acknowledged', 'views'] as const) {
      totals[key] += report[key];
    }
    if (seeds <= 1000) traceHashes[report.seed] = report.traceHash;
    if (report.violation !== undefined) {
      failed.push(report);
      tell(report);
    }
    if (values.verbose) print(lineOf(report));
    if (performance.now() - told < PROGRESS_MS) return undefined;
    told = performance.now();
    process.stderr.write(`${done} of ${seeds} seeds, ${failed.length} violations\n`);
    return undefined;
  });
  const seconds = (performance.now() - began) / 1000;
  const simulatedSeconds = totals.simulatedMicros / 1e6;
  const eventsPerSecond = Math.round(totals.events / seconds);
  const simulatedToReal = Number((simulatedSeconds / seconds).toFixed(1));
  const simulatedHours = Number((simulatedSeconds / 3600).toFixed(2));
  print(
    `${seeds} seeds from ${from}: ${totals.events} events, ${simulatedHours} simulated hours, ${totals.crashes} crashes, ` +
      `${totals.records} records, ${totals.acknowledged} acknowledged, ${totals.views} views checked, ` +
      `${failed.length} violations; ${seconds.toFixed(1)} s, ${eventsPerSecond} events/s, ` +
      `${simulatedToReal} times real time`,
  );
  if (failed.length > 0) process.exitCode = 1;
  if (values.json === undefined) return;
  const { crashes, records, acknowledged, views, events } = totals;
  const violations = failed.map(({ seed, violation, options: drawn }) => {
    return { seed, ...violation, command: replayOf(seed, drawn) };
  });
  const report = {
    commit: commit(),
    from,
    seeds,
    events,
    simulatedHours,
    crashes,
    records,
    acknowledged,
    views,
    eventsPerSecond,
    simulatedToReal,
    seconds,
    violations,
    ...(seeds <= 1000 && { traceHashes }),
  };
  writeFileSync(values.json, `${JSON.stringify(report, undefined, 2)}\n`);
}

async function verifyDeterminism(seeds: number): Promise<void> {
  const hashes = new Map<number, string>();
  const different: number[] = [];
  await runSeeds([...ordersFor(seeds), ...ordersFor(seeds)], jobs, ({ seed, traceHash, events }) => {
    const hash = `${traceHash}/${events}`;
    if ((hashes.get(seed) ?? hash) !== hash) different.push(seed);
    hashes.set(seed, hash);
    return undefined;
  });
  const what = different.length === 0 ? 'every trace hash the same' : `different: seeds ${different.join(', ')}`;
  print(`${seeds} seeds from ${from} run twice: ${what}`);
  if (different.length > 0) process.exitCode = 1;
}

async function runShrink(): Promise<void> {
  const shrunk = await shrink({ seed: from, ...(options && { options }) }, jobs, print);
  if (shrunk === undefined) {
    print(`seed ${from} does not fail`);
    return;
  }
  tell(shrunk);
  process.exitCode = 1;
}

function* ordersFor(seeds: number): Generator<SeedOrder> {
  for (let seed = from; seed < from + seeds; seed++) yield { seed, ...(options && { options }) };
}

function tell(report: SeedReport): void {
  const { violation, seed, simulatedMicros, options: drawn } = report;
  print(`\nseed ${seed} failed after ${(simulatedMicros / 1e6).toFixed(3)} simulated seconds:`);
  print(violation?.message ?? '');
  if (violation !== undefined) print(`promised: ${PROMISES[violation.invariant].text}`);
  print(`options: ${JSON.stringify(drawn)}`);
  print(`replay: ${replayOf(seed, drawn)}`);
}

function lineOf({ seed, crashes, events, records, traceHash, views }: SeedReport): string {
  return `seed ${seed}: ${events} events, ${records} records, ${crashes} crashes, ${views} views, trace ${traceHash}`;
}

/** One command; a run with other options than its seed draws needs them. */
function replayOf(seed: number, drawn: RunOptions): string {
  const command = `npm run simulate -- --seeds 1 --from ${seed}`;
  const isAsDrawn = options === undefined && !values.shrink;
  return isAsDrawn ? command : `${command} --options '${JSON.stringify(drawn)}'`;
}

function readOptions(given: string | undefined): RunOptions | undefined {
  if (given === undefined) return undefined;
  return completed(JSON.parse(given.startsWith('@') ? readFileSync(given.slice(1), 'utf8') : given) as RunOptions);
}

function commit(): string {
  try {
    return execFileSync('git', ['describe', '--always', '--dirty', '--abbrev=40', '--exclude', '*'], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    }).trim();
  } catch {
    return 'unknown';
  }
}
