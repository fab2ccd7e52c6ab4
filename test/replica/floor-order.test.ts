import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import test from 'ava';
import { RecordKind } from '../../journal/record.ts';
import { REPLICA_DEFAULTS, ReplicaGroup, type ReplicaGroupOptions } from '../../replica/replica-group.ts';
import { readReplicaState } from '../../replica/store/replica-state.ts';
import { GROUP, HandSource, History, Model, seal } from './support/history.ts';
import { type MemoryDisk, type MemoryHost, memoryHost } from './support/memory-host.ts';

const OPTIONS: ReplicaGroupOptions = {
  ...REPLICA_DEFAULTS,
  directory: '/replica',
  groupId: GROUP,
  replica: 'r1',
  segmentBytes: 48 * 1024,
  reserveBytes: 64 * 1024,
  memtableEntries: 128,
  policy: { windowMs: 100, bytesMax: 0 },
};

async function received(host: MemoryHost, history: History): Promise<ReplicaGroup> {
  const group = await ReplicaGroup.open(host, OPTIONS);
  const source = new HandSource();
  group.start(source);
  for (const frame of seal(history)) {
    source.push(frame);
    await group.idle();
  }
  return group;
}

function madeHistory(seed: number): History {
  const history = new History(seed);
  history.addVolumes();
  return history.fill(400);
}

async function turns(count: number): Promise<void> {
  for (let turn = 0; turn < count; turn++) await new Promise(setImmediate);
}

async function equalsModel(group: ReplicaGroup, history: History, lsn: number): Promise<boolean> {
  const model = new Model();
  model.advance(history, lsn);
  const view = group.openView({ lsn, owner: 't', scratchBytesMax: 0 });
  let same = true;
  for (const { volume, device } of view.volumes) {
    const bytes = Buffer.alloc(volume.size);
    await device.read(0, bytes);
    same &&= bytes.equals(model.disk(volume.id));
  }
  await group.views.close(view.id);
  return same;
}

for (const [what, of] of [
  ['the image of a base', (path: string) => path.endsWith('.img')],
  ['the map of a base', (path: string) => path.endsWith('.map.tmp')],
] as const) {
  test(`a floor is stated only when ${what} is durable, and nothing goes before it is stated`, async (t) => {
    const history = madeHistory(61);
    const host = memoryHost(61);
    const group = await received(host, history);
    const segments = host.disk.list('/replica/segments');
    const synced = Promise.withResolvers<void>();
    let waiting = 0;
    host.disk.syncOf = (path) => {
      if (!of(path)) return undefined;
      waiting++;
      return synced.promise;
    };
    const retained = group.retain();
    await turns(200);
    t.true(waiting > 0);
    const stated = await readReplicaState(host, '/replica', GROUP);
    t.is(stated?.floorLsn, 0);
    t.is(stated?.floorIntentLsn, group.floorLsn, 'where it goes');
    t.deepEqual(host.disk.list('/replica/segments'), segments);
    synced.resolve();
    await retained;
    t.is((await readReplicaState(host, '/replica', GROUP))?.floorLsn, group.floorLsn);
    t.true(group.floorLsn > 0);
    t.true(host.disk.list('/replica/segments').length < segments.length);
    t.true(await equalsModel(group, history, group.floorLsn));
    await group.close();
  });
}

test('segments and runs that a kill left below the floor go with the next start', async (t) => {
  const history = madeHistory(62);
  const host = memoryHost(62);
  const group = await received(host, history);
  const before = host.disk.copy();
  const told: Record<string, unknown>[] = [];
  const listen = (payload: unknown): void => {
    told.push(payload as Record<string, unknown>);
  };
  subscribe('tidemark:replica:floor', listen);
  t.teardown(() => unsubscribe('tidemark:replica:floor', listen));
  await group.retain();
  const { floorLsn } = group;
  t.true(floorLsn > 0);
  t.true(told.some((one) => one['floorLsn'] === floorLsn && Number(one['mergedBytes']) > 0));
  await group.close();
  const kept = host.disk.list('/replica/segments');
  const killed = host.disk.copy();
  for (const [path, content] of before.files) {
    if (path.endsWith('.seg') && !killed.files.has(path)) killed.files.set(path, content);
  }
  t.true(killed.list('/replica/segments').length > kept.length);
  const again = await ReplicaGroup.open(memoryHost(63, killed), OPTIONS);
  t.is(again.floorLsn, floorLsn);
  t.deepEqual(killed.list('/replica/segments'), kept);
  for (const lsn of [floorLsn, floorLsn + 1, history.lastLsn]) t.true(await equalsModel(again, history, lsn));
  await again.close();
});

test('a floor does not move past what is in use, and not back', async (t) => {
  const history = madeHistory(64);
  const host = memoryHost(64);
  const group = await received(host, history);
  const view = group.openView({ lsn: 150, owner: 'somebody', scratchBytesMax: 0 });
  await group.retain();
  t.true(group.floorLsn <= 150);
  const floorLsn = group.floorLsn;
  t.throws(() => group.openView({ lsn: floorLsn - 1, owner: 't', scratchBytesMax: 0 }), { code: 'trimmed' });
  t.true(await equalsModel(group, history, Math.max(floorLsn, 12)));
  await group.retain();
  t.is(group.floorLsn, floorLsn);
  await group.views.close(view.id);
  await group.retain();
  t.true(group.floorLsn > 150);
  t.is((await group.status()).leases.length, 0);
  await group.close();
});

test('damage that went below the floor is named no more, also when a kill came right behind the segment that held it', async (t) => {
  const history = new History(64);
  history.addVolumes();
  for (let count = 0; count < 60; count += 1) {
    const payload = new Uint8Array(4096).map(() => history.random.below(256));
    history.push(RecordKind.write, { volume: 2, sector: 0, sectors: 8, payload });
  }
  history.fill(400);
  const host = memoryHost(64);
  const frames = seal(history, { recordsPerFrame: () => 20 });
  const group = await ReplicaGroup.open(host, OPTIONS);
  const source = new HandSource();
  group.start(source);
  for (const frame of frames) {
    source.push(frame);
    await group.idle();
  }
  // what the view's last record wrote was written again before any floor
  const spoilt = frames[1]!;
  for (const { bytes } of host.disk.files.values()) {
    const at = bytes.indexOf(spoilt.bytes.subarray(0, 160));
    if (at > 0) bytes.fill(0, at + spoilt.bytes.length - 5000, at + spoilt.bytes.length);
  }
  const view = group.openView({ lsn: spoilt.lastLsn, owner: 't', scratchBytesMax: 0 });
  const { device } = view.volumes.find(({ volume }) => volume.id === 2)!;
  await t.throwsAsync(device.read(0, Buffer.alloc(4096)), { code: 'frame-damaged' });
  await group.views.close(view.id);
  t.is((await group.status()).damage.length, 1);
  const segments = host.disk.list('/replica/segments').length;
  const sync = host.disk.syncDirectory.bind(host.disk);
  let killed: MemoryDisk | undefined;
  host.disk.syncDirectory = () => {
    if (host.disk.list('/replica/segments').length < segments) killed ??= host.disk.copy();
    return sync();
  };
  await group.retain();
  t.deepEqual((await group.status()).damage, []);
  await group.close();
  const again = await ReplicaGroup.open(memoryHost(65, killed), OPTIONS);
  t.is(again.floorLsn, group.floorLsn);
  t.deepEqual((await again.status()).damage, []);
  await again.close();
});
