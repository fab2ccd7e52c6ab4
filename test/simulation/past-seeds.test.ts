import test from 'ava';
import { PAST_SEEDS } from './past-seeds.ts';
import { World } from './world.ts';

for (const { found, seed } of PAST_SEEDS) {
  test(`seed ${seed} stays clean: ${found}`, async (t) => {
    t.timeout(120_000);
    const { violation } = await new World(seed).run();
    t.is(violation, undefined);
  });
}
