import { readFileSync, writeFileSync } from 'node:fs';
import test from 'ava';
import { readStamp } from '../../daemon/backing/backing-stamp.ts';
import type { GroupOptions } from '../../daemon/volume/group-options.ts';
import { VolumeRegistry } from '../../daemon/volume/volume-registry.ts';
import { TidemarkError } from '../../journal/base/errors.ts';
import type { Host } from '../../journal/host/host.ts';
import { realHost } from '../../journal/host/real-host.ts';
import { GroupBench, HandClient, MIB } from './support/group-bench.ts';

const SIZE = 4 * MIB;
const pattern = Buffer.alloc(65_536, 7);

/** A machine that is told of every file before and after it gets its name. */
function watchedHost(before: (path: string) => void, after: (path: string) => void): Host {
  const host = realHost();
  const disk: Host['disk'] = Object.create(host.disk) as Host['disk'];
  disk.rename = (from, to) => {
    before(to);
    host.disk.rename(from, to);
    after(to);
  };
  return { ...host, disk };
}

function twoDisks(): { readonly bench: GroupBench; readonly options: () => GroupOptions } {
  const bench = new GroupBench();
  bench.disk('a.raw', SIZE);
  bench.disk('b.raw', SIZE);
  const volume = (name: string) => ({ name, backing: bench.exactBacking(`${name}.raw`) });
  return { bench, options: () => bench.options([volume('a'), volume('b')]) };
}

// Simulation seed 500191: the stop wrote what it says of every disk of its own over what the detaching had said.
test('a group that is closed while a volume is detached says of the disk what was answered', async (t) => {
  for (const moment of ['volume-1.stamp', 'volumes.state']) {
    const { bench, options } = twoDisks();
    let closed: Promise<void> | undefined;
    let close = (): void => undefined;
    const host = watchedHost(
      () => undefined,
      (path) => {
        if (path.endsWith(moment)) close();
      },
    );
    const group = await bench.open(options(), host);
    const client = new HandClient(group.exports('local')[0]!);
    await client.write(0, pattern);
    client.client.detach();
    close = () => {
      closed ??= group.close();
    };
    await group.detach('a');
    await closed;
    t.is(readStamp(host, bench.place, 1)?.state, 'detached', moment);
    t.is(readStamp(host, bench.place, 2)?.state, 'clean', moment);
    t.true(readFileSync(bench.path('a.raw')).subarray(0, pattern.length).equals(pattern));
    bench.remove();
  }
});

test('a volume is not detached any more when the group is being closed', async (t) => {
  const { bench, options } = twoDisks();
  const group = await bench.open(options());
  const closing = group.close();
  await t.throwsAsync(group.detach('a'));
  await closing;
  t.is(readStamp(realHost(), bench.place, 1)?.state, 'clean');
  await (await bench.open(options())).close();
  bench.remove();
});

// Simulation seed 301036: a volume was detached while another one's seed ended, and both wrote one temporary file.
test('the list of volumes is saved by two at the same time', async (t) => {
  const { bench, options } = twoDisks();
  const group = await bench.open(options());
  await Promise.all([group.detach('a'), group.detach('b')]);
  t.deepEqual(group.status().volumes, []);
  await group.close();
  const registry = VolumeRegistry.load(realHost(), bench.place);
  registry.add('c', SIZE, undefined);
  await t.notThrowsAsync(Promise.all([registry.save(), registry.save(), registry.save()]));
  t.is(VolumeRegistry.load(realHost(), bench.place).all.length, 3);
  bench.remove();
});

// Simulation seed 301036: the stamp said that the disk was nobody's, guests wrote to it, and the next start refused it.
test('a volume whose detaching fails at its end is held again before anybody writes to it', async (t) => {
  const { bench, options } = twoDisks();
  let failing = 0;
  const host = watchedHost(
    (path) => {
      if (failing === 0 || !path.endsWith('volumes.state')) return;
      failing--;
      throw new TidemarkError('no-space', path);
    },
    () => undefined,
  );
  const group = await bench.open(options(), host);
  failing = 1;
  await t.throwsAsync(group.detach('a'), { code: 'no-space' });
  t.is(readStamp(host, bench.place, 1)?.state, 'dirty');
  const client = new HandClient(group.exports('local')[0]!);
  t.is(await client.write(0, pattern), 'ok');
  client.client.detach();
  // What cannot be said is not done: nobody is let on, until it can.
  failing = 2;
  await t.throwsAsync(group.detach('a'), { code: 'no-space' });
  t.is(group.status().volumes[0]?.state, 'shut');
  t.throws(() => new HandClient(group.exports('local')[0]!), { code: 'precondition-failed' });
  await group.detach('a');
  await group.close();
  t.is(readStamp(host, bench.place, 1)?.state, 'detached');
  await (await bench.open(options())).close();
  bench.remove();
});

// Simulation seed 510437 (D1): the end of the seed opened the volume again, and what guests wrote then was on no disk.
test('a volume is not detached before the last step of its seed', async (t) => {
  const bench = new GroupBench();
  writeFileSync(bench.disk('a.raw', SIZE), Buffer.alloc(SIZE, 3));
  let detach = (): void => undefined;
  const host = watchedHost(
    (path) => {
      if (path.endsWith('volumes.state')) detach();
    },
    () => undefined,
  );
  const options = bench.options([{ name: 'a', backing: bench.exactBacking('a.raw'), seed: true }]);
  const group = await bench.open(options, host);
  const refused: Promise<unknown>[] = [];
  detach = () => {
    refused.push(t.throwsAsync(group.detach('a'), { code: 'precondition-failed' }));
  };
  await group.seeded();
  t.true(refused.length > 0);
  await Promise.all(refused);
  const client = new HandClient(group.exports('local')[0]!);
  t.is(await client.write(0, pattern), 'ok');
  client.client.detach();
  const first = group.detach('a');
  await t.throwsAsync(group.detach('a'), { code: 'precondition-failed' });
  await first;
  await group.close();
  t.true(readFileSync(bench.path('a.raw')).subarray(0, pattern.length).equals(pattern));
  bench.remove();
});

// Simulation seed 510476 (L1): the directory could not be synced once, and the volume stayed shut until a restart.
test('a volume whose seed is over opens although what says so could not be written at first', async (t) => {
  for (const name of ['volume-1.stamp', 'volumes.state']) {
    const bench = new GroupBench();
    writeFileSync(bench.disk('a.raw', SIZE), Buffer.alloc(SIZE, 3));
    let failing = 0;
    const host = watchedHost(
      (path) => {
        if (failing === 0 || !path.endsWith(name)) return;
        failing--;
        throw new TidemarkError('sync-failed', path);
      },
      () => undefined,
    );
    const group = await bench.open(
      bench.options([{ name: 'a', backing: bench.exactBacking('a.raw'), seed: true }]),
      host,
    );
    failing = 1;
    // the product's own timers keep no process alive
    const alive = setInterval(() => undefined, 1_000);
    await group.seeded();
    clearInterval(alive);
    t.is(failing, 0, name);
    const client = new HandClient(group.exports('local')[0]!);
    t.is(await client.write(0, pattern), 'ok', name);
    client.client.detach();
    await group.close();
    bench.remove();
  }
});
