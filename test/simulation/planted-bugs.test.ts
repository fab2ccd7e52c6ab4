import test from 'ava';
import { PLANTED_BUGS, seamsOf } from './planted-bugs.ts';
import type { Violation } from './violation.ts';
import { World } from './world.ts';

const SEEDS = 25;

for (const bug of PLANTED_BUGS) {
  test.serial(`found: ${bug.name}`, async (t) => {
    t.timeout(120_000);
    for (let seed = 1; seed <= SEEDS; seed++) {
      const { violation } = await new World(seed, seamsOf(bug), bug.change).run();
      if (violation === undefined) continue;
      t.log(`seed ${seed}: ${violation.message.slice(0, 150)}`);
      t.true(bug.noticedAs.includes((violation as Violation).invariant), violation.message);
      return;
    }
    t.fail(`not found within ${SEEDS} seeds`);
  });
}
