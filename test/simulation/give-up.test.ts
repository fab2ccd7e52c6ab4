import test from 'ava';
import { World } from './world.ts';

/* Runs that end with records that nobody holds any more; each with what it goes through. */
for (const [seed, what] of [
  [8_200_001, 'direct, cut off: the word waits for the replica, and two starts that carry it out die'],
  [8_200_219, 'over Kafka: the topic expired'],
  [8_200_029, 'over Kafka: the brokers were down'],
  [8_200_048, 'direct: a gap that begins in what the replica holds, a word refused because the disks lack records'],
] as const) {
  test.serial(`given up in a simulated run: ${what}`, async (t) => {
    t.timeout(300_000);
    const world = new World(seed);
    t.true(world.options.giveUp !== undefined);
    const { violation } = await world.run();
    t.is(violation, undefined);
    t.true(world.model.history.lost.count > 0, 'something was given up');
  });
}
