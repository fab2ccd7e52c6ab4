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
  let resumed = 0;
  for (const disk of kills) {
    const killed = memoryHost(22, disk);
    const state = await readReplicaState(killed, '/replica', GROUP);
    const reopened = await ReplicaGroup.open(killed, OPTIONS);
    t.is(reopened.floorLsn, state?.floorIntentLsn ?? 0, 'a move that was decided is done');
    if (state !== undefined && state.floorIntentLsn > state.floorLsn) resumed += 1;
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
  t.true(resumed > 0, 'killed in the middle of a move');
  t.true(floors.size > 1, 'killed before and behind the moment at which the move is decided');
});
