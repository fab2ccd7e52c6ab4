import { mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type Execution, readJson, runScript } from './execute.ts';
import type { RawResult } from './raw-result.ts';
import { readCrashRun, readFuzz, readMutation, readPlanted, readSimulator, readTests } from './read-outputs.ts';
import type { SavedRow } from './saved-results.ts';

/** How much of a method is asked for. */
export interface Order {
  /** Its share of the hours; absent: what the options say, or what the method does by itself. */
  readonly budgetSeconds?: number;
  readonly options: Readonly<Record<string, string | undefined>>;
  /** Its lines of the last time: how long a unit took, and which seeds are still fresh. */
  readonly known: readonly SavedRow[];
}

export interface Outcome {
  readonly rows: readonly RawResult[];
  /** What runs it again. */
  readonly command: string;
  /** Everything of the method ran, not a chosen part. */
  readonly whole: boolean;
}

export interface Method {
  readonly id: string;
  /** Of the hours, in per cent. */
  readonly share: number;
  /** With their meaning, as `--help` prints them. */
  readonly options: Readonly<Record<string, string>>;
  run(order: Order): Promise<Outcome>;
}

const HOUR = 3600;
/** What has no budget of its own may take so long. */
const UNBOUNDED_SECONDS: number = 24 * HOUR;
/** A budget is what a method aims at; it is ended when it takes this many times as long. */
const PATIENCE = 4;

function limitOf(order: Order, leastSeconds: number): number {
  return order.budgetSeconds === undefined ? UNBOUNDED_SECONDS : Math.max(order.budgetSeconds * PATIENCE, leastSeconds);
}

/** Units that fit a budget: by the option, by what a unit took last time, or by a first guess. */
function unitsFor(order: Order, option: string, unit: string, guessSeconds: number, standard: number): number {
  const given = order.options[option];
  if (given !== undefined) return Number(given);
  if (order.budgetSeconds === undefined) return standard;
  const units = order.known.reduce((sum, row) => sum + (row.counts[unit] ?? 0), 0);
  const seconds = order.known.reduce((sum, row) => sum + row.seconds, 0);
  const each = units > 0 ? seconds / units : guessSeconds;
  return Math.max(1, Math.floor(order.budgetSeconds / each));
}

async function inWorkFolder<T>(run: (folder: string) => Promise<T>): Promise<T> {
  const folder = mkdtempSync(path.join(tmpdir(), 'tidemark-reliability-'));
  try {
    return await run(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function noResult(name: string, { code, seconds }: Execution): RawResult {
  return { name, seconds, counts: {}, violations: [`it ended with ${code} and no result`] };
}

/** Runs a script with --json and reads what it wrote; without it the run itself is the violation. */
async function withJson(
  script: string,
  args: readonly string[],
  limitSeconds: number,
  name: string,
  read: (output: unknown, execution: Execution) => RawResult[],
): Promise<RawResult[]> {
  return inWorkFolder(async (folder) => {
    const file = path.join(folder, 'result.json');
    const execution = await runScript(script, [...args, '--json', file], limitSeconds);
    const output = readJson(file);
    if (output === undefined) return [noResult(name, execution)];
    try {
      return read(output, execution);
    } catch (error) {
      return [{ name, seconds: execution.seconds, counts: {}, violations: [`its result: ${String(error)}`] }];
    }
  });
}

/** An ava run whose figures are its summary. */
function tests(id: string, share: number, files: readonly string[], name: string): Method {
  return {
    id,
    share,
    options: {},
    async run(order) {
      const execution = await runScript('test:summary', files, limitOf(order, HOUR));
      const command = files.length === 0 ? 'make test' : `npx ava ${files.join(' ')}`;
      return { rows: [readTests(name, execution.printed, execution.seconds)], command, whole: true };
    },
  };
}

/** Acceptance tests that keep a result each; a failure that none of them explains is one of the run. */
async function acceptance(
  file: string,
  matches: readonly string[],
  limitSeconds: number,
  env: Readonly<Record<string, string>>,
): Promise<RawResult[]> {
  return inWorkFolder(async (folder) => {
    const results = path.join(folder, 'results');
    mkdirSync(results);
    const args = [file, ...matches.flatMap((pattern) => ['--match', pattern])];
    const execution = await runScript('acceptance', args, limitSeconds, { ...env, TIDEMARK_RESULT_DIRECTORY: results });
    const rows = readdirSync(results).map((name) => readJson(path.join(results, name)) as RawResult);
    const explained = rows.some(({ violations }) => violations.length > 0);
    if (execution.code === 0 || explained) return rows;
    return [...rows, { ...noResult('the run itself', execution), violations: [`ava ended with ${execution.code}`] }];
  });
}

const SEEDS_STANDARD = 2_000;
/** Seeds of a run while a budget lasts. */
const SEEDS_EACH = 200;

const simulator: Method = {
  id: 'simulator',
  share: 30,
  options: { seeds: 'number of seeds', from: 'the first seed; seeds no run before has seen when it is left out' },
  async run(order) {
    const last = order.known[0]?.counts;
    const first = Number(order.options['from'] ?? (last?.['firstSeed'] ?? 0) + (last?.['seeds'] ?? 0) + 1);
    const budget = order.options['seeds'] === undefined ? order.budgetSeconds : undefined;
    const wanted = Number(order.options['seeds'] ?? SEEDS_STANDARD);
    const outputs: unknown[] = [];
    const began = performance.now();
    const passed = (): number => (performance.now() - began) / 1000;
    let next = first;
    const more = (): boolean => (budget === undefined ? next < first + wanted : passed() < budget);
    do {
      const seeds = budget === undefined ? wanted : SEEDS_EACH;
      const args = ['--seeds', String(seeds), '--from', String(next)];
      const failed = await withJson('simulate', args, limitOf(order, HOUR), 'fresh seeds', (output) => {
        outputs.push(output);
        return [];
      });
      if (failed.length > 0) return { rows: failed, command: 'npm run simulate', whole: true };
      next += seeds;
    } while (more());
    const command = `npm run simulate -- --seeds ${next - first} --from ${first}`;
    return { rows: readSimulator(outputs, passed()), command, whole: true };
  },
};

const planted: Method = {
  id: 'planted',
  share: 8,
  options: {},
  async run(order) {
    const rows = await withJson('simulate', ['--planted'], limitOf(order, 2 * HOUR), 'all', readPlanted);
    return { rows, command: 'npm run simulate -- --planted', whole: true };
  },
};

const MUTANT_SECONDS = 8;
const MUTANTS_STANDARD = 300;

const mutation: Method = {
  id: 'mutation',
  share: 10,
  options: { mutants: 'number of mutants' },
  async run(order) {
    const all = { ...order, known: order.known.slice(0, 1) };
    const count = unitsFor(all, 'mutants', 'mutants', MUTANT_SECONDS, MUTANTS_STANDARD);
    const args = ['--mutants', String(count)];
    const rows = await withJson('mutate', args, limitOf(order, 2 * HOUR), 'all files', (output, { seconds }) =>
      readMutation(output, seconds),
    );
    return { rows, command: `npm run mutate -- --mutants ${count}`, whole: true };
  },
};

const ROLES = ['source', 'replica'] as const;
const CALL_FAULTS = ['kill', 'eio', 'enospc'] as const;
/** All points of a role and a fault. */
const EVERY_CALL_POINTS = 320;
const EVERY_CALL_POINT_SECONDS = 0.7;

const everyCall: Method = {
  id: 'every-call',
  share: 12,
  options: { share: 'n/m: every m-th point, beginning with the n-th; 0/1 is all of them' },
  async run(order) {
    const points = unitsFor(order, 'points', 'run', EVERY_CALL_POINT_SECONDS, Number.POSITIVE_INFINITY);
    const of = Math.max(1, Math.ceil((EVERY_CALL_POINTS * ROLES.length * CALL_FAULTS.length) / points));
    const share = order.options['share'] ?? `${Math.floor(Math.random() * of)}/${of}`;
    const rows: RawResult[] = [];
    for (const role of ROLES) {
      for (const fault of CALL_FAULTS) {
        const name = `${role}: ${fault}`;
        const args = ['--role', role, '--fault', fault, '--share', share];
        rows.push(
          ...(await withJson('crash:calls', args, limitOf(order, HOUR), name, (output, { seconds }) => [
            readCrashRun(name, output, seconds),
          ])),
        );
      }
    }
    return { rows, command: `npm run reliability -- --only every-call --share ${share}`, whole: true };
  },
};

const SYSTEMS = ['ext4', 'xfs', 'btrfs'] as const;
const STATE_SECONDS = 1;
const STATES_STANDARD = 100;

const powerLoss: Method = {
  id: 'power-loss',
  share: 8,
  options: { states: 'disks per file system', seed: 'which subsets of sectors are kept' },
  async run(order) {
    const budget = order.budgetSeconds === undefined ? {} : { budgetSeconds: order.budgetSeconds / SYSTEMS.length };
    const count = unitsFor({ ...order, ...budget }, 'states', 'states', STATE_SECONDS, STATES_STANDARD);
    const seed = order.options['seed'] ?? String(1 + Math.floor(Math.random() * 1_000_000));
    const rows: RawResult[] = [];
    for (const system of SYSTEMS) {
      const args = ['--fs', system, '--states', String(count), '--seed', seed];
      rows.push(
        ...(await withJson('crash:power', args, limitOf(order, HOUR), system, (output, { seconds }) => [
          readCrashRun(system, output, seconds),
        ])),
      );
    }
    return {
      rows,
      command: `npm run reliability -- --only power-loss --states ${count} --seed ${seed}`,
      whole: true,
    };
  },
};

const KILLS_STANDARD = 20;
const KILL_SECONDS = 3;

const guestKills: Method = {
  id: 'guest-kills',
  share: 6,
  options: { kills: 'of the source, and as many of the replica', stream: 'direct or kafka; both when left out' },
  async run(order) {
    const { stream } = order.options;
    const streams = stream === undefined ? ['direct', 'kafka'] : [stream];
    const both = unitsFor(order, 'kills', 'sourceKills', KILL_SECONDS * 2, KILLS_STANDARD * streams.length);
    const kills = order.options['kills'] === undefined ? Math.max(1, Math.floor(both / streams.length)) : both;
    const rows = await acceptance(
      'test/acceptance/kills.acceptance.ts',
      streams.map((name) => `*, ${name}`),
      limitOf(order, HOUR),
      { TIDEMARK_KILLS: String(kills) },
    );
    const chosen = stream === undefined ? '' : ` --stream ${stream}`;
    const command = `npm run reliability -- --only guest-kills --kills ${kills}${chosen}`;
    return { rows, command, whole: stream === undefined };
  },
};

/** All faults, when no run has said how long they take. */
const KAFKA_SECONDS = 1800;
/** What a budget too small for all of them runs, one of both. */
const KAFKA_PARTS = ['three brokers: *', 'one broker: *'];

const kafka: Method = {
  id: 'kafka',
  share: 10,
  options: { match: "some of them by title, '*' for anything: 'three brokers: leader*'" },
  async run(order) {
    const { match } = order.options;
    const needed = order.known.reduce((sum, row) => sum + row.seconds, 0) || KAFKA_SECONDS;
    const enough = order.budgetSeconds === undefined || order.budgetSeconds >= needed;
    const part = KAFKA_PARTS[Math.floor(Math.random() * KAFKA_PARTS.length)] ?? '*';
    const patterns = match === undefined ? (enough ? [] : [part]) : [match];
    const rows = await acceptance('test/acceptance/kafka-cluster.acceptance.ts', patterns, limitOf(order, HOUR), {});
    const chosen = patterns.map((pattern) => ` --match '${pattern}'`).join('');
    return { rows, command: `npm run reliability -- --only kafka${chosen}`, whole: patterns.length === 0 };
  },
};

const FUZZ_TARGETS = 30;
const FUZZ_SECONDS_STANDARD = 10;

const fuzzing: Method = {
  id: 'fuzzing',
  share: 5,
  options: { runs: 'inputs per target', seconds: 'per target', seed: 'of the mutations' },
  async run(order) {
    const { runs, seconds } = order.options;
    const each = seconds ?? String(Math.max(1, Math.floor((order.budgetSeconds ?? 0) / FUZZ_TARGETS)));
    const timed = order.budgetSeconds === undefined && seconds === undefined ? String(FUZZ_SECONDS_STANDARD) : each;
    const amount = runs === undefined ? ['--seconds', timed] : ['--runs', runs];
    const seed = order.options['seed'] ?? String(1 + Math.floor(Math.random() * 1_000_000));
    const args = ['--target', 'all', '--seed', seed, ...amount];
    const rows = await withJson('fuzz', args, limitOf(order, HOUR), 'all targets', readFuzz);
    return { rows, command: `npm run fuzz -- ${args.join(' ')}`, whole: true };
  },
};

/** In the order in which they run: what takes minutes first, so that a short run has touched everything. */
export const METHODS: readonly Method[] = [
  tests('tests', 6, [], 'make test'),
  tests(
    'golden',
    1,
    ['test/replica/golden.test.ts', 'test/journal/format.test.ts', 'test/journal/frame.test.ts'],
    'all',
  ),
  tests('properties', 2, ['test/fuzz/properties.test.ts'], 'all'),
  tests('file-systems', 2, ['test/crash/file-systems.test.ts'], 'ext4, xfs, btrfs'),
  planted,
  fuzzing,
  guestKills,
  powerLoss,
  kafka,
  everyCall,
  mutation,
  simulator,
];
