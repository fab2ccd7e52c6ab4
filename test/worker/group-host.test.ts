import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import pino from 'pino';
import { filter, firstValueFrom, skip } from 'rxjs';
import { GroupHost, type Health } from '../../daemon/worker/group-host.ts';
import { hasCode } from '../../journal/base/errors.ts';
import type { TestMethods } from './worker-protocol.ts';

const CALL_MS = 20_000;

interface Started {
  readonly host: GroupHost<TestMethods, { readonly count: number }>;
  readonly lines: Record<string, unknown>[];
  readonly starts: () => number;
}

function start(t: ExecutionContext): Started {
  t.timeout(60_000);
  const directory = mkdtempSync(join(tmpdir(), 'tidemark-worker-'));
  const startsFile = join(directory, 'starts');
  const lines: Record<string, unknown>[] = [];
  const log = pino({}, { write: (line: string) => lines.push(JSON.parse(line) as Record<string, unknown>) });
  const host = new GroupHost<TestMethods, { readonly count: number }>({
    group: 'g',
    file: new URL('./worker-for-tests.ts', import.meta.url),
    workerData: startsFile,
    initial: { count: -1 },
    log,
  });
  t.teardown(async () => {
    await host.terminate();
    rmSync(directory, { recursive: true, force: true });
  });
  return { host, lines, starts: () => readFileSync(startsFile, 'utf8').split('\n').length - 1 };
}

async function health(host: Started['host'], state: Health['state']): Promise<Health> {
  return firstValueFrom(host.healthChanges.pipe(filter((now) => now.state === state)));
}

test('calls, answers, errors with their details, and reports cross the thread', async (t) => {
  const { host } = start(t);
  t.deepEqual(await host.rpc.call('add', { by: 3 }, CALL_MS), { count: 3 });
  const error = await t.throwsAsync(host.rpc.call('refuse', { code: 'trimmed' }, CALL_MS));
  t.true(hasCode(error, 'trimmed') && error.details['code'] === 'trimmed');
  const reported = await firstValueFrom(host.statusChanges.pipe(filter(({ count }) => count === 3)));
  t.is(reported.count, 3);
  t.true((host.ageSeconds ?? 99) < 10);
  t.true(hasCode(await t.throwsAsync(host.rpc.call('silence', null, 50)), 'timed-out'));
});

test('an assertion ends the group for good: never silently, never restarted', async (t) => {
  const { host, lines, starts } = start(t);
  const pending = host.rpc.call('silence', null, CALL_MS);
  const asserted = host.rpc.call('assert', null, CALL_MS);
  t.true(hasCode(await t.throwsAsync(asserted), 'shutting-down'));
  t.true(hasCode(await t.throwsAsync(pending), 'shutting-down'), 'every waiting call ends with it');
  const failed = await health(host, 'failed');
  t.true(failed.state === 'failed' && !failed.restarting && failed.error.message === 'as asked');
  const line = lines.find((entry) => entry['code'] === 'group-failed');
  t.is(line?.['reason'], 'bug');
  t.is(starts(), 1);
  t.true(hasCode(await t.throwsAsync(host.rpc.call('add', { by: 1 }, CALL_MS)), 'shutting-down'));
});

test('what the surroundings did is recovered from by a new worker; what needs a person is not', async (t) => {
  const { host, starts } = start(t);
  await host.rpc.call('add', { by: 1 }, CALL_MS);
  const failing = health(host, 'failed');
  await host.rpc.call('end', { code: 'sync-failed' }, CALL_MS).catch(() => undefined);
  const failed = await failing;
  t.true(failed.state === 'failed' && failed.restarting);
  await health(host, 'running');
  t.deepEqual(await host.rpc.call('add', { by: 1 }, CALL_MS), { count: 1 }, 'a new worker answers');
  t.is(starts(), 2);
  const ended = firstValueFrom(host.healthChanges.pipe(skip(1)));
  await host.rpc.call('end', { code: 'backing-changed' }, CALL_MS).catch(() => undefined);
  const last = await ended;
  t.true(last.state === 'failed' && !last.restarting);
});

test('a stop is waited for, and one that takes too long is ended', async (t) => {
  const { host } = start(t);
  await host.rpc.call('add', { by: 1 }, CALL_MS);
  await host.stop(async () => host.rpc.call('stop', null, CALL_MS));
  t.is(host.health.state, 'stopped');
  const { host: stuck, lines } = start(t);
  await stuck.rpc.call('add', { by: 1 }, CALL_MS);
  await stuck.stop(async () => stuck.rpc.call('silence', null, 50));
  t.is(stuck.health.state, 'stopped');
  t.true(lines.some((entry) => entry['code'] === 'stop-unclean'));
});
