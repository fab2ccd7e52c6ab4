import { spawnSync } from 'node:child_process';
import test from 'ava';
import { everyCall, type Fault, type Role } from './every-call-run.ts';

/*
 * A share of `every-call.ts`: another one every hour, all of them in this many hours. Every point is run before a
 * release: node test/crash/every-call.ts --role ... --fault ...
 */

const SHARES: Readonly<Record<Fault, number>> = { kill: 40, eio: 60, enospc: 60 };
const HOUR_MS = 3_600_000;

/** Why calls cannot be injected here; undefined: they can. */
function cannotInject(): string | undefined {
  const { status, error } = spawnSync('strace', ['-f', '-qq', '-o', '/dev/null', '-e', 'trace=fsync', 'true']);
  return status === 0 ? undefined : `strace does not run: ${error?.message ?? `exit ${status}`}`;
}

for (const role of ['source', 'replica'] as const satisfies Role[]) {
  test.serial(`a ${role} killed at, or failed by, any of its storage calls keeps what it promised`, async (t) => {
    t.timeout(300_000);
    const reason = cannotInject();
    if (reason !== undefined) {
      if (process.env['CI'] === 'true') t.fail(reason);
      else t.log(`skipped: ${reason}`);
      t.pass();
      return;
    }
    for (const [fault, of] of Object.entries(SHARES) as [Fault, number][]) {
      const index = Math.floor(Date.now() / HOUR_MS) % of;
      const { calls, points, run, missed, violations } = await everyCall(role, fault, { index, of }, (text) => {
        // a sign of life for the time limit
        t.timeout(300_000, text);
      });
      t.log(`${fault}: ${calls} calls, share ${index}/${of}: ${run} of ${points} points, ${missed} not reached`);
      t.true(calls > 100 && calls <= 500, `${calls} storage calls`);
      t.deepEqual(violations, []);
    }
  });
}
