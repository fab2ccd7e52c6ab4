import { mkdtempSync, readdirSync, readFileSync, realpathSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { DeviceExport } from '../../daemon/nbd/device-export.ts';
import { NbdServer } from '../../daemon/nbd/server.ts';
import { MountedViews } from '../../daemon/replica/mounted-views.ts';
import { RestoreJobs } from '../../daemon/replica/restore-jobs.ts';
import { RestoreTargets } from '../../daemon/replica/restore-targets.ts';
import { TidemarkError } from '../../journal/base/errors.ts';
import { realHost } from '../../journal/host/real-host.ts';
import { REPLICA_DEFAULTS, ReplicaGroup } from '../../replica/replica-group.ts';
import { MemoryDevice } from '../doubles/memory-device.ts';
import { GROUP, HandSource, History, Model, seal } from './support/history.ts';

/* Restores and mounted views of a group on real files: what an operator is told of them. */

async function onDisk(t: ExecutionContext, host = realHost()) {
  const directory = realpathSync(mkdtempSync(join(tmpdir(), 'tidemark-jobs-')));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  const history = new History(43);
  history.addVolumes();
  history.fill(300);
  const group = await ReplicaGroup.open(host, {
    ...REPLICA_DEFAULTS,
    directory: join(directory, 'replica'),
    groupId: GROUP,
    replica: 'r1',
    reserveBytes: 0,
  });
  const source = new HandSource();
  group.start(source);
  for (const frame of seal(history)) source.push(frame);
  await group.idle();
  const targets = new RestoreTargets(host, { directories: [join(directory, 'replica')], sockets: [] });
  const jobs = new RestoreJobs(host, group, 'shop', targets, (error) => t.fail(String(error)));
  return { directory, history, group, jobs };
}

test('restores that are asked for at the same time are each known by a name of their own', async (t) => {
  const { directory, history, group, jobs } = await onDisk(t);
  const names = ['system', 'data', 'system', 'data'];
  const paths = names.map((name, index) => join(directory, `${name}-${index}.raw`));
  const began = await Promise.all(
    names.map((volume, index) => jobs.start({ at: '300', volume, to: paths[index] ?? '' })),
  );
  const ids = began.map(({ job }) => job?.id ?? '');
  t.is(new Set(ids).size, names.length);
  const model = new Model();
  model.advance(history, 300);
  for (const [index, id] of ids.entries()) {
    while (jobs.get(id).endedAt === null) await new Promise((resolve) => setTimeout(resolve, 5));
    t.like(jobs.get(id), { state: 'done', plan: { to: paths[index] } });
    t.true(readFileSync(paths[index] ?? '').equals(model.disk(names[index] === 'system' ? 1 : 2)));
  }
  t.is(jobs.list().length, names.length);
  t.deepEqual(group.leases.list(), []);
  await group.close();
});

test('a view that cannot be served whole is not left open, nor part of it served', async (t) => {
  const { directory, group } = await onDisk(t);
  const path = join(directory, 'nbd.sock');
  const server = await NbdServer.start({ listeners: [{ address: { kind: 'unix', path } }] });
  t.teardown(() => server.close());
  const views = new MountedViews(group, { server, address: { kind: 'unix', path }, tls: false });
  // of another view, whose name and volume read the same together
  const taken = new DeviceExport(new MemoryDevice(4096), { name: 'drill.data' });
  server.addExport(taken);
  await t.throwsAsync(views.mount({ at: 'latest', name: 'drill' }), { code: 'already-exists' });
  t.deepEqual(group.leases.list(), []);
  t.deepEqual(group.views.list(), []);
  await server.removeExport('drill.data');
  t.is((await views.mount({ at: 'latest', name: 'drill' })).exports.length, 2);
  await views.unmount('drill');
  t.deepEqual(group.leases.list(), []);
  await group.close();
});

test('a writable view whose scratch files cannot all be made holds nothing back', async (t) => {
  const host = realHost();
  const { directory, group } = await onDisk(t, host);
  const open = host.disk.open.bind(host.disk);
  host.disk.open = (file, mode) => {
    if (/\/scratch\/view-\d+-2$/.test(file)) throw new TidemarkError('no-space', file);
    return open(file, mode);
  };
  const request = { lsn: 300, owner: 'drill', scratchBytesMax: 1024 * 1024 };
  t.throws(() => group.openView(request), { code: 'no-space' });
  host.disk.open = open;
  await new Promise((resolve) => setTimeout(resolve, 50));
  t.deepEqual(group.leases.list(), []);
  t.deepEqual(readdirSync(join(directory, 'replica/scratch')), []);
  await group.close();
});

test('a restore is done when the name of its file is durable, whatever the format', async (t) => {
  const host = realHost();
  const { directory, group, jobs } = await onDisk(t, host);
  const sync = host.disk.syncDirectory.bind(host.disk);
  const synced: string[][] = [];
  host.disk.syncDirectory = async (path) => {
    if (path === directory) synced.push(readdirSync(path));
    await sync(path);
  };
  for (const name of ['disk.raw', 'disk.qcow2']) {
    const { job } = await jobs.start({ at: '300', volume: 'system', to: join(directory, name) });
    while (jobs.get(job?.id ?? '').endedAt === null) await new Promise((resolve) => setTimeout(resolve, 5));
    t.like(jobs.get(job?.id ?? ''), { state: 'done', error: null });
    const last = synced.at(-1) ?? [];
    t.true(last.includes(name), name);
    t.false(last.includes(`${name}.unfinished`));
  }
  await group.close();
});
