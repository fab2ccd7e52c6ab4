import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import test from 'ava';
import { PROMISES } from './promises.ts';
import { World } from './world.ts';

const run = promisify(execFile);
const SIMULATE = fileURLToPath(new URL('simulate.ts', import.meta.url));
const SEEDS = 100;
/** Processes side by side: a run is one thread. */
const JOBS = 2;

test(`source, stream and replica keep their promises: ${SEEDS} seeds`, async (t) => {
  t.timeout(600_000);
  const args = [SIMULATE, '--seeds', String(SEEDS), '--jobs', String(JOBS)];
  const outcome = await run(process.execPath, args, { maxBuffer: 1 << 26 }).catch(
    (error: unknown) => error as { stdout: string; stderr: string; code: number },
  );
  t.log(outcome.stdout.trim().split('\n').at(-1));
  t.false('code' in outcome, `${outcome.stdout}\n${outcome.stderr}`);
});

test('every promise is raised where the table says', (t) => {
  for (const [name, { file }] of Object.entries(PROMISES)) {
    t.true(readFileSync(new URL(file, import.meta.url), 'utf8').includes(`'${name}'`), `${name} in ${file}`);
  }
});

test('one seed is one run', async (t) => {
  for (const seed of [3, 27]) {
    const first = await new World(seed).run();
    const second = await new World(seed).run();
    t.is(second.traceHash, first.traceHash, `seed ${seed}`);
    t.is(second.events, first.events);
  }
});
