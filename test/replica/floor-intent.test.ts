import test from 'ava';
import { REPLICA_DEFAULTS, ReplicaGroup, type ReplicaGroupOptions } from '../../replica/replica-group.ts';
import { readReplicaState } from '../../replica/store/replica-state.ts';
import { GROUP, HandSource, History, Model, seal, VOLUMES } from './support/history.ts';
import { type MemoryHost, memoryHost } from './support/memory-host.ts';

const OPTIONS: ReplicaGroupOptions = {
  ...REPLICA_DEFAULTS,
  directory: '/replica',
  groupId: GROUP,
  replica: 'r1',
  segmentBytes: 64 * 1024,
  reserveBytes: 64 * 1024,
  memtableEntries: 128,
};
/** Turns of the loop of microtasks between two kills. */
const TURNS = 29;

test('killed at any turn of a floor move, no view is made of a base that is merged in part', async (t) => {
  t.timeout(120_000);
  const history = new History(21);
  history.addVolumes();
  history.fill(250);
  const host = memoryHost(21);
  const group = await ReplicaGroup.open(host, { ...OPTIONS, policy: { windowMs: 1, bytesMax: 0 } });
  const source = new HandSource();
  group.start(source);
  for (const frame of seal(history)) {
    source.push(frame);
    await group.idle();
  }
  const kills: MemoryHost['disk'][] = [];
  let moving = true;
  const retained = group.retain().finally(() => {
    moving = false;
  });
  for (let turn = 0; moving; turn += 1) {
    await Promise.resolve();
    if (turn % TURNS === 0) kills.push(host.disk.copy());
  }
  await retained;
  await group.close();
  t.true(group.floorLsn > 0 && kills.length > 5, `${kills.length} kills`);
  const floors = new Set<number>();
  for (const disk of kills) {
    const reopened = await ReplicaGroup.open(memoryHost(22, disk), OPTIONS);
    const lsn = Math.max(reopened.floorLsn, VOLUMES.length + 10);
    floors.add(reopened.floorLsn);
    const model = new Model();
    model.advance(history, lsn);
    const view = reopened.openView({ lsn, owner: 'test', scratchBytesMax: 0 });
    for (const { volume, device } of view.volumes) {
      const bytes = Buffer.alloc(device.size);
      await device.read(0, bytes);
      t.true(bytes.equals(model.disk(volume.id)), `${volume.name} at LSN ${lsn}, floor ${reopened.floorLsn}`);
    }
    await reopened.close();
  }
  t.log(`${kills.length} kills`);
  t.true(floors.size > 1, 'killed before and behind the moment at which the move is decided');
});

test('a floor move that was decided before a kill is done by the next start', async (t) => {
  const history = new History(22);
  history.addVolumes();
  history.fill(60);
  const host = memoryHost(22);
  const options = { ...OPTIONS, segmentBytes: 16 * 1024 };
  const group = await ReplicaGroup.open(host, { ...options, policy: { windowMs: 1, bytesMax: 0 } });
  const source = new HandSource();
  group.start(source);
  for (const frame of seal(history)) source.push(frame);
  await group.idle();
  let moving = true;
  const retained = group.retain().finally(() => {
    moving = false;
  });
  let killed: MemoryHost | undefined;
  while (moving && killed === undefined) {
    await Promise.resolve();
    const now = memoryHost(23, host.disk.copy());
    const state = await readReplicaState(now, '/replica', GROUP);
    if (state !== undefined && state.floorIntentLsn > state.floorLsn) killed = now;
  }
  await retained;
  await group.close();
  if (killed === undefined) return t.fail('no move was under way');
  const reopened = await ReplicaGroup.open(killed, options);
  const { floorLsn, floorIntentLsn } = (await readReplicaState(killed, '/replica', GROUP))!;
  t.deepEqual([floorLsn, floorIntentLsn, reopened.floorLsn], [group.floorLsn, group.floorLsn, group.floorLsn]);
  await reopened.close();
});

test('a replica that is stopped in the middle of a floor move takes nothing more meanwhile, and ends the move', async (t) => {
  const history = new History(24);
  history.addVolumes();
  history.fill(250);
  const frames = seal(history);
  const late = frames.splice(-3);
  const host = memoryHost(24);
  const group = await ReplicaGroup.open(host, { ...OPTIONS, policy: { windowMs: 1, bytesMax: 0 } });
  const source = new HandSource();
  group.start(source);
  for (const frame of frames) source.push(frame);
  await group.idle();
  const synced = Promise.withResolvers<void>();
  host.disk.syncOf = (path) => (path.includes('/base/') ? synced.promise : undefined);
  const heldLsn = group.headLsn;
  const retained = group.retain();
  for (let turn = 0; turn < 200; turn += 1) await new Promise(setImmediate);
  const closed = group.close();
  for (const frame of late) source.push(frame);
  for (let turn = 0; turn < 200; turn += 1) await new Promise(setImmediate);
  t.is(group.headLsn, heldLsn);
  synced.resolve();
  t.true((await retained).floorLsn > 0);
  await closed;
  t.is(group.floorLsn, (await retained).floorLsn);
});
