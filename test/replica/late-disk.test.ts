import test, { type ExecutionContext } from 'ava';
import type { Host } from '../../journal/host/host.ts';
import { RecordKind } from '../../journal/record.ts';
import { encodeGap } from '../../journal/record-bodies.ts';
import { REPLICA_DEFAULTS, ReplicaGroup, type ReplicaGroupOptions } from '../../replica/replica-group.ts';
import { PositionMark } from '../../replica/store/position-mark.ts';
import { SegmentStore } from '../../replica/store/segment-store.ts';
import { SCRATCH_BLOCK_BYTES } from '../../replica/view/scratch-map.ts';
import { ScratchOverlay } from '../../replica/view/scratch-overlay.ts';
import { LateDisk } from '../doubles/late-disk.ts';
import { MemoryDevice } from '../doubles/memory-device.ts';
import { GROUP, HandSource, History, Model, seal } from './support/history.ts';
import { MemoryDisk, memoryHost, SeededRandom } from './support/memory-host.ts';

/** Small, so that segments are sealed, index runs written and merged, and pages read again all the time. */
const OPTIONS: ReplicaGroupOptions = {
  ...REPLICA_DEFAULTS,
  directory: '/replica',
  groupId: GROUP,
  replica: 'r1',
  segmentBytes: 48 * 1024,
  reserveBytes: 64 * 1024,
  memtableEntries: 128,
  indexCacheBytesMax: 32 * 1024,
  chunkCacheBytesMax: 16 * 1024,
  layoutCacheBytesMax: 16 * 1024,
};
const SEGMENTS = '/replica/segments';

interface LateHost extends Host {
  readonly disk: LateDisk;
  readonly below: MemoryDisk;
}

function lateHost(seed: number, below = new MemoryDisk()): LateHost {
  return { ...memoryHost(seed, below), disk: new LateDisk(below, new SeededRandom(seed)), below };
}

async function sameAsModel(t: ExecutionContext, group: ReplicaGroup, history: History, lsn: number): Promise<void> {
  const model = new Model();
  model.advance(history, lsn);
  const view = group.openView({ lsn, owner: 'test', scratchBytesMax: 0 });
  for (const { volume, device } of view.volumes) {
    const disk = model.disk(volume.id);
    const bytes = Buffer.alloc(disk.length);
    // a restore asks first what is a hole, and reads the rest
    let at = 0;
    for (const extent of await device.extents(0, disk.length)) {
      if (extent.kind === 'data') await device.read(at, bytes.subarray(at, at + extent.length));
      at += extent.length;
    }
    t.is(at, disk.length);
    t.true(bytes.equals(disk), `${volume.name} at LSN ${lsn}`);
  }
  await group.views.close(view.id);
}

for (const [seed, records] of [
  [1, 120],
  [2, 300],
  [3, 500],
] as const) {
  test(`on a disk that ends its calls late and out of order, a replica receives, moves its floor and starts again as ever: seed ${seed}`, async (t) => {
    t.timeout(120_000);
    const history = new History(seed);
    history.addVolumes();
    history.fill(records);
    const host = lateHost(seed);
    let group = await ReplicaGroup.open(host, { ...OPTIONS, policy: { windowMs: 50, bytesMax: 0 } });
    t.deepEqual(host.disk.changing, [], 'opened');
    const source = new HandSource();
    group.start(source);
    for (const frame of seal(history)) {
      source.push(frame);
      if (frame.lastLsn % 3 === 0) await group.idle();
    }
    await group.idle();
    t.is(group.headLsn, history.lastLsn);
    t.deepEqual(
      host.disk.unsyncedFiles.filter((path) => path.startsWith(SEGMENTS) || path === '/replica/position'),
      [],
      'acknowledged',
    );
    for (const lsn of [60, records]) await sameAsModel(t, group, history, lsn);
    await group.retain();
    t.true(group.floorLsn > 0);
    t.deepEqual(host.disk.unsyncedNames(SEGMENTS), [], 'names of segments after a floor move');
    await sameAsModel(t, group, history, Math.max(group.floorLsn, 12));
    await group.close();
    t.deepEqual([host.disk.changing, host.disk.descriptors], [[], []], 'closed');
    const after = lateHost(seed + 100, host.below.copy());
    group = await ReplicaGroup.open(after, OPTIONS);
    t.deepEqual(after.disk.changing, [], 'opened again');
    t.is(group.headLsn, history.lastLsn);
    await sameAsModel(t, group, history, records);
    await sameAsModel(t, group, history, Math.max(group.floorLsn, 12));
    await group.close();
    t.deepEqual([after.disk.changing, after.disk.descriptors], [[], []], 'closed again');
  });
}

test('a declared gap on a late disk: the segment before it is sealed before anything is appended behind it', async (t) => {
  const history = new History(17);
  history.addVolumes();
  history.fill(60);
  const at = history.lastLsn;
  for (let lost = 0; lost < 2; lost++) history.push(RecordKind.heartbeat, { payload: new Uint8Array([0xc0]) });
  history.push(RecordKind.gap, { payload: encodeGap({ fromLsn: at + 1, toLsn: at + 2, reason: 'out of room' }) });
  history.fill(at + 40);
  const host = lateHost(17);
  const options = { ...OPTIONS, segmentBytes: 1024 * 1024 };
  const group = await ReplicaGroup.open(host, options);
  const source = new HandSource();
  group.start(source);
  for (const frame of seal(history, { toLsn: at })) source.push(frame);
  for (const frame of seal(history, { fromLsn: at + 3 })) source.push(frame);
  await group.idle();
  t.is(group.headLsn, history.lastLsn);
  await group.close();
  const store = await SegmentStore.open(host, {
    directory: SEGMENTS,
    groupId: GROUP,
    segmentBytes: options.segmentBytes,
    durableLsn: history.lastLsn,
  });
  t.deepEqual(
    store.segments.map(({ firstLsn, lastLsn }) => [firstLsn, lastLsn]),
    [
      [1, at],
      [at + 3, history.lastLsn],
    ],
  );
  t.deepEqual(store.damage, []);
  await store.close();
});

test('a scratch overlay on a late disk is the disk below with what was written to it', async (t) => {
  const random = new SeededRandom(9);
  const size = 40 * SCRATCH_BLOCK_BYTES + 1536;
  const expected = Buffer.from(random.bytes(size));
  const host = lateHost(9);
  const overlay = new ScratchOverlay(host, new MemoryDevice(size, { content: expected }), '/scratch', size * 2);
  await overlay.zero(2 * SCRATCH_BLOCK_BYTES, 3 * SCRATCH_BLOCK_BYTES);
  expected.fill(0, 2 * SCRATCH_BLOCK_BYTES, 5 * SCRATCH_BLOCK_BYTES);
  t.is(overlay.usedBytes, 0, 'whole blocks of zeroes take no room');
  await overlay.write(10 * SCRATCH_BLOCK_BYTES, new Uint8Array(SCRATCH_BLOCK_BYTES).fill(7));
  expected.fill(7, 10 * SCRATCH_BLOCK_BYTES, 11 * SCRATCH_BLOCK_BYTES);
  const kinds = (extents: readonly { length: number; kind: string }[]): string[] =>
    extents.map(({ length, kind }) => `${length / SCRATCH_BLOCK_BYTES} ${kind}`);
  t.deepEqual(kinds(await overlay.extents(SCRATCH_BLOCK_BYTES, 10 * SCRATCH_BLOCK_BYTES)), [
    '1 data',
    '3 hole',
    '5 data',
    '1 data',
  ]);
  for (let change = 0; change < 80; change++) {
    const sectors = 1 + random.below(20);
    const offset = random.below(size / 512 - sectors + 1) * 512;
    const bytes = random.below(2) === 0 ? random.bytes(sectors * 512) : undefined;
    await (bytes === undefined ? overlay.zero(offset, sectors * 512) : overlay.write(offset, bytes));
    t.deepEqual(host.disk.changing, []);
    if (bytes === undefined) expected.fill(0, offset, offset + sectors * 512);
    else expected.set(bytes, offset);
    const now = Buffer.alloc(size);
    await overlay.read(0, now);
    t.true(now.equals(expected), `change ${change}`);
  }
  await overlay.close();
  t.deepEqual([host.disk.descriptors, host.below.list('/')], [[], []]);
});

test('a segment that is gone although the floor never passed it is an error for who reads, not an endless search', async (t) => {
  const history = new History(31);
  history.addVolumes();
  history.fill(500);
  const host = lateHost(31);
  const group = await ReplicaGroup.open(host, OPTIONS);
  const source = new HandSource();
  group.start(source);
  for (const frame of seal(history)) source.push(frame);
  await group.idle();
  for (const name of host.disk.list(SEGMENTS).slice(0, -2)) host.disk.unlink(`${SEGMENTS}/${name}`);
  const view = group.openView({ lsn: history.lastLsn, owner: 'test', scratchBytesMax: 0 });
  const device = view.volumes[1]?.device;
  await t.throwsAsync(async () => device?.read(0, Buffer.alloc(device.size)), { code: 'journal-damaged' });
  await group.close();
});

test('a mark that was never written is whole when it is open, however late the disk', async (t) => {
  const host = lateHost(3);
  const mark = await PositionMark.open(host, '/replica', GROUP);
  t.deepEqual([host.disk.changing, host.disk.unsyncedNames('/replica'), host.disk.unsyncedFiles], [[], [], []]);
  await mark.close();
  const again = await PositionMark.open(lateHost(4, host.below.copy()), '/replica', GROUP);
  t.is(again.initial, undefined);
  await again.close();
});
