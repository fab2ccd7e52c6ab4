import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { SeedOrder, SeedReport } from './seed-runner.ts';

const RUNNER = fileURLToPath(new URL('seed-runner.ts', import.meta.url));
/** All cores run seeds already: helper threads only take turns away. Most of what a run allocates dies young. */
const NODE_FLAGS = ['--single-threaded', '--max-semi-space-size=64'];

/**
 * Runs each order in one of `jobs` processes and calls `done` as they end, in any order; resolves when all have, or
 * when `done` wants no more. Rejects when a process ends by itself: a run must not be able to do that.
 */
export async function runSeeds(
  orders: Iterable<SeedOrder>,
  jobs: number,
  done: (report: SeedReport) => undefined | 'enough',
): Promise<void> {
  const left = orders[Symbol.iterator]();
  let enough = false;
  const work = async (): Promise<void> => {
    const child = fork(RUNNER, { execArgv: NODE_FLAGS, stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
    try {
      for (let next = left.next(); next.done !== true && !enough; next = left.next()) {
        if (done(await runOne(child, next.value)) === 'enough') enough = true;
      }
    } finally {
      child.kill();
    }
  };
  await Promise.all(Array.from({ length: jobs }, work));
}

function runOne(child: ChildProcess, order: SeedOrder): Promise<SeedReport> {
  return new Promise((resolve, reject) => {
    const ended = (code: number | null): void =>
      reject(new Error(`seed ${order.seed}: the process ended with ${code}`));
    child.once('exit', ended);
    child.once('message', (report) => {
      child.off('exit', ended);
      resolve(report as SeedReport);
    });
    child.send(order);
  });
}
