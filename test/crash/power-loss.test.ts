import test from 'ava';
import { cannotMount } from './file-system-bench.ts';
import { powerLoss } from './power-loss-run.ts';

/* A share of `power-loss.ts`, with another seed every hour. */

const STATES = 12;
const HOUR_MS = 3_600_000;

test('what was flushed and acknowledged is there after a power loss at any moment, on a real file system', async (t) => {
  t.timeout(180_000);
  const reason = cannotMount(['ext4']);
  if (reason !== undefined) {
    if (process.env['CI'] === 'true') t.fail(`file systems cannot be mounted here: ${reason}`);
    else t.log(`skipped: ${reason}`);
    t.pass();
    return;
  }
  const seed = Math.floor(Date.now() / HOUR_MS);
  const { states, torn, withFloor, violations } = await powerLoss('ext4', STATES, seed);
  t.log(`seed ${seed}: ${states} states, ${torn} torn, ${withFloor} with something to keep`);
  t.is(states, STATES);
  t.true(withFloor > STATES / 2);
  t.deepEqual(violations, []);
});
