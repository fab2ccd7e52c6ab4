import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import test from 'ava';
import { World } from './world.ts';

const run = promisify(execFile);
const SIMULATE = fileURLToPath(new URL('simulate.ts', import.meta.url));
const SEEDS = 100;
/** Programs side by side: a run is one thread. */
const PROGRAMS = 2;

for (let program = 0; program < PROGRAMS; program++) {
  const seeds = SEEDS / PROGRAMS;
  const from = 1 + program * seeds;
  test(`source, stream and replica keep their promises: seeds ${from} to ${from + seeds - 1}`, async (t) => {
    t.timeout(600_000);
    const args = [SIMULATE, '--seeds', String(seeds), '--from', String(from)];
    const outcome = await run(process.execPath, args, { maxBuffer: 1 << 26 }).catch(
      (error: unknown) => error as { stdout: string; stderr: string; code: number },
    );
    t.log(outcome.stdout.trim().split('\n').at(-1));
    t.false('code' in outcome, `${outcome.stdout}\n${outcome.stderr}`);
  });
}

test('one seed is one run', async (t) => {
  for (const seed of [3, 27]) {
    const first = await new World(seed).run();
    const second = await new World(seed).run();
    t.is(second.traceHash, first.traceHash, `seed ${seed}`);
    t.is(second.events, first.events);
  }
});
