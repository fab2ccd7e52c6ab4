import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { ReplicaGroup } from '../../replica/replica-group.ts';
import { readReplicaState, StateKeeper } from '../../replica/store/replica-state.ts';
import { encodeSegmentHeader, segmentName } from '../../replica/store/segment-format.ts';
import { goldenReplica, goldenReplicaHistory, goldenReplicaOptions } from '../golden/make-replica.ts';
import { GROUP, HandSource, Model, seal } from './support/history.ts';
import { MemoryDisk, type MemoryHost, memoryHost } from './support/memory-host.ts';

/** The golden directory of version 1 on a disk in memory. */
function goldenHost(): MemoryHost {
  const disk = new MemoryDisk();
  for (const name of readdirSync(goldenReplica, { recursive: true, encoding: 'utf8' })) {
    if (!/(?:\.(?:seg|run|img|map)|^(?:position|state))$/.test(name)) continue;
    const bytes = readFileSync(path.join(goldenReplica, name));
    disk.files.set(`/r/${name}`, { bytes, length: bytes.length });
  }
  return memoryHost(9, disk);
}

async function sameAsModel(t: ExecutionContext, group: ReplicaGroup): Promise<number> {
  const history = goldenReplicaHistory();
  const model = new Model();
  let points = 0;
  for (let lsn = group.floorLsn; lsn <= group.headLsn; lsn += 1) {
    model.advance(history, lsn);
    const view = group.openView({ lsn, owner: 'test', scratchBytesMax: 0 });
    for (const { volume, device } of view.volumes) {
      const bytes = Buffer.alloc(128 * 1024);
      await device.read(0, bytes);
      if (!bytes.equals(model.disk(volume.id).subarray(0, bytes.length)))
        t.fail(`${volume.name} at LSN ${lsn} differs`);
      points += 1;
    }
    await group.views.close(view.id);
  }
  return points;
}

test('a replica directory of version 1 is read by this version, with its index, and goes on', async (t) => {
  const host = goldenHost();
  const runs = [...host.disk.files.keys()].filter((name) => name.endsWith('.run'));
  const group = await ReplicaGroup.open(host, goldenReplicaOptions('/r'));
  t.is(group.headLsn, goldenReplicaHistory().lastLsn);
  t.true(group.floorLsn > 20 && group.floorLsn < group.headLsn - 20);
  t.deepEqual(
    runs.filter((name) => !host.disk.exists(name)),
    [],
    'its runs are used, not built again',
  );
  t.true((await sameAsModel(t, group)) > 80);
  t.is(group.bookmarks().at(-1)?.note, 'kept');
  const longer = goldenReplicaHistory();
  const head = longer.lastLsn;
  longer.bookmark('later');
  const source = new HandSource();
  group.start(source);
  for (const frame of seal(longer, { fromLsn: head + 1 })) source.push(frame);
  await group.idle();
  t.is(group.headLsn, head + 1);
  await group.close();
});

test('a replica directory of version 1 without its index is indexed again', async (t) => {
  const host = goldenHost();
  for (const name of host.disk.files.keys()) if (name.endsWith('.run')) host.disk.unlink(name);
  const group = await ReplicaGroup.open(host, goldenReplicaOptions('/r'));
  t.true((await sameAsModel(t, group)) > 80);
  await group.close();
});

/** A segment whose first frame a power loss took. */
function beginSegment(host: MemoryHost, sequence: number, firstLsn: number): void {
  const bytes = encodeSegmentHeader({ groupId: GROUP, sequence, firstLsn });
  host.disk.files.set(`/r/segments/${segmentName(sequence)}`, { bytes, length: bytes.length });
}

function segmentNames(host: MemoryHost): string[] {
  return host.disk.list('/r/segments').filter((name) => name.endsWith('.seg'));
}

test('a segment begun and without a frame stands for no records that are lost', async (t) => {
  const host = goldenHost();
  const last = segmentNames(host).at(-1) ?? '';
  const group = await ReplicaGroup.open(host, goldenReplicaOptions('/r'));
  const { headLsn } = group;
  await group.close();
  // The segment before it is gone, too.
  host.disk.unlink(`/r/segments/${last}`);
  beginSegment(host, Number.parseInt(last, 10) + 1, headLsn + 1);
  const again = await ReplicaGroup.open(host, goldenReplicaOptions('/r'));
  t.true(again.headLsn < headLsn);
  t.true((await again.status()).damage.some(({ toLsn }) => toLsn === headLsn));
  await again.close();
});

test('a floor at the head and a segment that is only begun, after a full disk: the replica opens', async (t) => {
  const host = goldenHost();
  const state = await readReplicaState(host, '/r', GROUP);
  if (state === undefined) throw new Error('no state');
  const headLsn = goldenReplicaHistory().lastLsn;
  const atHead = { floorLsn: headLsn, floorIntentLsn: headLsn, oldestNeededLsn: headLsn + 1 };
  await new StateKeeper(host, '/r', state).update(() => atHead);
  for (const name of segmentNames(host)) host.disk.unlink(`/r/segments/${name}`);
  beginSegment(host, 99, headLsn + 1);
  const group = await ReplicaGroup.open(host, goldenReplicaOptions('/r'));
  t.is(group.headLsn, headLsn);
  t.is(group.floorLsn, headLsn);
  await group.close();
});

test('a floor that has lost its segments and its position is damage, named, and not an empty replica', async (t) => {
  const host = goldenHost();
  for (const name of segmentNames(host)) host.disk.unlink(`/r/segments/${name}`);
  host.disk.unlink('/r/position');
  await t.throwsAsync(ReplicaGroup.open(host, goldenReplicaOptions('/r')), { code: 'journal-damaged' });
});
