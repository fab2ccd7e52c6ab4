import test from 'ava';
import { PAST_RUNS } from './past-seeds.ts';
import { World } from './world.ts';

for (const { found, options, seed } of PAST_RUNS) {
  test.serial(`run ${seed} stays clean: ${found}`, async (t) => {
    t.timeout(300_000);
    const { violation, ...report } = await new World(seed, undefined, () => options).run();
    t.is(violation, undefined);
    t.deepEqual(report.options, options);
  });
}
