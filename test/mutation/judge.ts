import { readFileSync, writeSync } from 'node:fs';
import { Session } from 'node:inspector/promises';
import { PROJECT, projectPath } from '../planted/patch-loader.ts';
import { runTest, takeDeclared } from './serial-tests.ts';
import { type JudgeEvent, type JudgeTask, type MeasuredUnit, SIMULATOR, seedOf, type Unit } from './unit.ts';

/**
 * Runs units in this process until one fails: node --import serial-preload.ts judge.ts TASK.json. The process is given
 * the mutant by test/planted/patch-loader.ts; what becomes of the units goes to descriptor 3. Or measures them without a
 * mutant: what each costs and what it runs.
 */
type Runnable = () => Promise<void>;

const task = JSON.parse(readFileSync(process.argv[2] as string, 'utf8')) as JudgeTask;
const WAIT_MS = 1000;
/** Of a unit. */
const WAITS_MAX = 6;
let ended = false;
/** Rejected and nobody has asked yet: a fault when the unit ends, as ava has it. */
const unasked = new Map<Promise<unknown>, unknown>();

process.on('uncaughtException', (error) => fail('crash', error));
process.on('unhandledRejection', (error, promise) => unasked.set(promise, error));
process.on('rejectionHandled', (promise) => unasked.delete(promise));
// nothing is left that could go on but the product's timers, which keep no process alive: they get some time
let waits = 0;
process.on('beforeExit', () => {
  if (ended) return;
  if (waits++ === WAITS_MAX) fail('stuck', new Error('nothing is left to wait for'));
  setTimeout(() => undefined, WAIT_MS);
});

if (task.task === 'measure') await measure(task.file, task.seeds);
else await judge(task.units);
ended = true;
tell({ event: 'end' });
process.exit(0);

async function judge(units: readonly Unit[]): Promise<void> {
  const tests = new Map<string, Map<string, Runnable>>();
  for (const [index, unit] of units.entries()) {
    tell({ event: 'begin', index, title: unit.title });
    waits = 0;
    let runnable: Runnable | undefined;
    try {
      const known = tests.get(unit.file) ?? (await testsOf(unit.file, [seedOf(unit)]));
      if (unit.file !== SIMULATOR) tests.set(unit.file, known);
      runnable = known.get(unit.title);
    } catch (error) {
      return fail('load', error);
    }
    // a test file that declares its tests by what a module says may declare others with the mutant
    if (runnable === undefined) return fail('load', new Error('the test is not declared any more'));
    try {
      await runnable();
      await allAsked();
    } catch (error) {
      return fail(unit.file === SIMULATOR ? 'violation' : 'test', error);
    }
  }
}

async function measure(file: string, seeds: readonly number[]): Promise<void> {
  const session = new Session();
  session.connect();
  await session.post('Profiler.enable');
  await session.post('Profiler.startPreciseCoverage', { callCount: true, detailed: true });
  const tests = await testsOf(file, seeds);
  await session.post('Profiler.takePreciseCoverage');
  let index = 0;
  for (const [title, runnable] of tests) {
    tell({ event: 'begin', index: index++, title });
    waits = 0;
    const before = process.cpuUsage();
    const began = performance.now();
    try {
      await runnable();
      await allAsked();
    } catch (error) {
      return fail('test', error);
    }
    const { user, system } = process.cpuUsage(before);
    const wallMs = Math.round(performance.now() - began);
    const { result } = await session.post('Profiler.takePreciseCoverage');
    const covers: Record<string, number[]> = {};
    for (const { url, functions } of result) {
      const path = url.startsWith('file:') ? projectPath(url) : '';
      if (!/^(?:journal|replica|daemon)\//.test(path)) continue;
      const run = stretches(functions.flatMap(({ ranges }) => ranges));
      if (run.length > 0) covers[path] = run;
    }
    const unit: MeasuredUnit = { file, title, cpuMs: Math.round((user + system) / 1000), wallMs, covers };
    tell({ event: 'measured', unit });
  }
}

/** Throws what was rejected in this unit and nobody took. */
async function allAsked(): Promise<void> {
  await new Promise(setImmediate);
  for (const error of unasked.values()) throw error;
}

interface Range {
  readonly startOffset: number;
  readonly endOffset: number;
  readonly count: number;
}

/** Nested ranges with counts, the inner one says more -> the stretches that were run. */
function stretches(ranges: readonly Range[]): number[] {
  const ordered = ranges.toSorted((a, b) => a.startOffset - b.startOffset || b.endOffset - a.endOffset);
  const ran = new Uint8Array(Math.max(0, ...ordered.map(({ endOffset }) => endOffset)));
  for (const { startOffset, endOffset, count } of ordered) ran.fill(count > 0 ? 1 : 0, startOffset, endOffset);
  const found: number[] = [];
  for (let at = ran.indexOf(1); at !== -1; ) {
    const end = ran.indexOf(0, at);
    found.push(at, end === -1 ? ran.length : end);
    at = end === -1 ? -1 : ran.indexOf(1, end);
  }
  return found;
}

async function testsOf(file: string, seeds: readonly number[]): Promise<Map<string, Runnable>> {
  if (file === SIMULATOR) {
    const { World } = await import('../simulation/world.ts');
    return new Map(
      seeds.map((seed) => [
        `seed ${seed}`,
        async () => {
          const { violation } = await new World(seed).run();
          if (violation !== undefined) throw violation;
        },
      ]),
    );
  }
  await import(`${PROJECT}/${file}`);
  return new Map(takeDeclared().map((one) => [one.title, () => runTest(one)]));
}

function fail(how: 'test' | 'violation' | 'load' | 'crash' | 'stuck', error: unknown): never {
  const text = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  tell({ event: 'failed', how, message: text.slice(0, 2000) });
  process.exit(1);
}

function tell(event: JudgeEvent): void {
  writeSync(3, `${JSON.stringify(event)}\n`);
}
