import { createHash } from 'node:crypto';
import { existsSync, globSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, posix } from 'node:path';
import { PROJECT } from '../planted/patch-loader.ts';
import { runJudge } from './run-judge.ts';
import { type MeasuredUnit, SIMULATOR } from './unit.ts';

/**
 * Test files that judge: those whose tests run in one process. What starts daemons, guests, brokers or file systems, or
 * measures the process itself, is left to `make test`.
 */
const TEST_FILES = [
  'test/{journal,replica,volume,ship,stream}/*.test.ts',
  'test/fuzz/properties.test.ts',
  'test/kafka/{kafka-simulated,feedback-reader}.test.ts',
];

const CACHE = `${PROJECT}/node_modules/.cache/mutation-baseline`;

/** The simulator's runs that judge: the cheap ones among the first seeds. */
const SEEDS = Array.from({ length: 24 }, (_, index) => index + 1);
const SEED_CPU_MS_MAX = 800;
const SEEDS_KEPT = 12;

/** A unit is measured within this; the power-loss test alone takes most of a minute on a busy machine. */
const MEASURE_CPU_MS_MAX = 300_000;

/**
 * Every unit as it runs without a mutant. Throws when one does not pass: then nothing can be judged. Kept per test file
 * until the file or something it imports changes; with `takeOld` longer, which is quick and leaves out new tests.
 */
export async function measureUnits(takeOld: boolean, say: (line: string) => void): Promise<MeasuredUnit[]> {
  const files = TEST_FILES.flatMap((pattern) => globSync(pattern, { cwd: PROJECT })).toSorted();
  const units: MeasuredUnit[] = [];
  for (const file of files) units.push(...(await measured(file, [], takeOld, say)));
  const seeds = await measured(SIMULATOR, SEEDS, takeOld, say);
  units.push(...seeds.filter(({ cpuMs }) => cpuMs <= SEED_CPU_MS_MAX).slice(0, SEEDS_KEPT));
  return units;
}

interface KeptUnits {
  /** Of the test file and all it imports when it was measured. */
  readonly hash: string;
  readonly units: readonly MeasuredUnit[];
}

async function measured(
  file: string,
  seeds: readonly number[],
  takeOld: boolean,
  say: (line: string) => void,
): Promise<MeasuredUnit[]> {
  const path = `${CACHE}/${file.replaceAll('/', '-')}.json`;
  const hash = closureHash(file, seeds);
  const kept = existsSync(path) ? (JSON.parse(readFileSync(path, 'utf8')) as KeptUnits) : undefined;
  if (kept !== undefined && (kept.hash === hash || takeOld)) return [...kept.units];
  const outcome = await runJudge({ task: 'measure', file, seeds }, [], () => MEASURE_CPU_MS_MAX);
  if (outcome.how !== 'clean') {
    throw new Error(`${file} does not pass without a mutant (unit ${outcome.index}): ${outcome.message}`);
  }
  const cpuMs = outcome.measured.reduce((sum, unit) => sum + unit.cpuMs, 0);
  say(`measured ${file}: ${outcome.measured.length} units, ${(cpuMs / 1000).toFixed(1)} s`);
  mkdirSync(CACHE, { recursive: true });
  writeFileSync(path, JSON.stringify({ hash, units: outcome.measured } satisfies KeptUnits));
  return [...outcome.measured];
}

/** Of a file and all it imports by a relative path, however far. */
function closureHash(file: string, seeds: readonly number[]): string {
  const texts = new Map<string, string>();
  const queue = [file, 'test/mutation/serial-tests.ts'];
  for (let next = queue.pop(); next !== undefined; next = queue.pop()) {
    if (texts.has(next) || !existsSync(`${PROJECT}/${next}`)) continue;
    const text = readFileSync(`${PROJECT}/${next}`, 'utf8');
    texts.set(next, text);
    for (const [, path] of text.matchAll(/['"](\.{1,2}\/[^'"]+\.ts)['"]/g)) {
      queue.push(posix.join(dirname(next), path as string));
    }
  }
  const hash = createHash('sha256').update(JSON.stringify(seeds));
  for (const name of [...texts.keys()].toSorted()) hash.update(`${name}\0${texts.get(name)}\0`);
  return hash.digest('hex');
}
