import { appendFileSync } from 'node:fs';
import { workerData } from 'node:worker_threads';
import { workerSide } from '../../daemon/worker/worker-side.ts';
import { assert } from '../../journal/base/assert.ts';
import { TidemarkError } from '../../journal/base/errors.ts';
import type { TestMethods } from './worker-protocol.ts';

/** A data path that does what a test asks of it. `workerData`: a file that gets one line per start. */
appendFileSync(workerData as string, 'start\n');
const side = workerSide<{ readonly count: number }>();
let count = 0;

side.serve<TestMethods>({
  add: ({ by }) => {
    count += by;
    return Promise.resolve({ count });
  },
  refuse: ({ code }) => Promise.reject(new TidemarkError(code, 'as asked', { details: { code } })),
  silence: () => new Promise(() => undefined),
  assert: () => {
    assert(false, 'as asked');
  },
  end: ({ code }) => {
    side.end(new TidemarkError(code, 'as asked'));
    return Promise.resolve(null);
  },
  stop: () => {
    setImmediate(() => side.close());
    return Promise.resolve(null);
  },
});
side.reportEvery(20, () => ({ count }));
