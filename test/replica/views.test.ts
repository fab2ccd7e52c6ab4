import test from 'ava';
import { REPLICA_DEFAULTS, ReplicaGroup, type ReplicaGroupOptions } from '../../replica/replica-group.ts';
import { FrameReader } from '../../replica/store/frame-reader.ts';
import { RepairedFrames } from '../../replica/store/repaired-frames.ts';
import { SegmentStore } from '../../replica/store/segment-store.ts';
import { GROUP, HandSource, History, Model, seal } from './support/history.ts';
import { type MemoryHost, memoryHost, SeededRandom } from './support/memory-host.ts';

async function received(
  host: MemoryHost,
  history: History,
  change: Partial<ReplicaGroupOptions> = {},
): Promise<ReplicaGroup> {
  const group = await ReplicaGroup.open(host, {
    ...REPLICA_DEFAULTS,
    directory: '/replica',
    groupId: GROUP,
    replica: 'r1',
    segmentBytes: 64 * 1024,
    reserveBytes: 4096,
    ...change,
  });
  const source = new HandSource();
  group.start(source);
  for (const frame of seal(history)) source.push(frame);
  await group.idle();
  return group;
}

function madeHistory(seed: number, count = 120): History {
  const history = new History(seed);
  history.addVolumes();
  return history.fill(count);
}

test('a point that is not there is refused by what it is, before anything is opened', async (t) => {
  const history = madeHistory(51);
  const group = await received(memoryHost(51), history, { viewsMax: 2 });
  const open = (lsn: number, volumes?: string[]) => () =>
    group.openView({ lsn, owner: 'o', scratchBytesMax: 0, ...(volumes === undefined ? {} : { volumes }) });
  for (const wrong of [-1, 0.5, Number.NaN, 2 ** 53]) t.throws(open(wrong), { code: 'invalid-argument' }, `${wrong}`);
  const { lastLsn } = history;
  const ahead = t.throws(open(lastLsn + 1), { code: 'not-found' });
  t.like(ahead, { details: { lsn: lastLsn + 1, headLsn: lastLsn } });
  t.throws(open(0), { code: 'not-found', message: /no volume at LSN 0/ });
  t.throws(open(lastLsn, ['nothing']), { code: 'not-found' });
  t.deepEqual(group.views.list(), []);
  t.is((await group.status()).leases.length, 0);
  const first = open(lastLsn)();
  const second = open(20, ['data'])();
  t.throws(open(lastLsn), { code: 'precondition-failed', message: /2 views are open, the bound is 2/ });
  t.deepEqual([first.id, second.id], [1, 2]);
  t.deepEqual(
    second.volumes.map(({ volume }) => volume.name),
    ['data'],
  );
  t.deepEqual(
    first.volumes.map(({ volume }) => volume.name),
    ['system', 'data'],
  );
  t.like(group.views.get(1), { lsn: lastLsn, owner: 'o' });
  t.throws(() => group.views.get(3), { code: 'not-found' });
  await t.throwsAsync(group.views.close(3), { code: 'not-found' });
  const { leases } = await group.status();
  t.deepEqual(
    leases.map(({ lsn, kind, owner }) => [lsn, kind, owner]),
    [
      [lastLsn, 'view', 'o (view 1)'],
      [lastLsn, 'view', 'o (view 1)'],
      [20, 'view', 'o (view 2)'],
    ],
  );
  await group.views.close(1);
  t.is((await group.status()).leases.length, 1);
  const third = open(lastLsn)();
  t.is(third.id, 3);
  await group.views.closeAll();
  t.deepEqual([group.views.list().length, (await group.status()).leases.length], [0, 0]);
  await group.close();
});

test('the scratch of a view is made with it and goes with it; one that cannot be made holds nothing', async (t) => {
  const history = madeHistory(52);
  const host = memoryHost(52);
  host.disk.files.set('/replica/scratch/view-9-9', { bytes: Buffer.alloc(5), length: 5 });
  const group = await received(host, history);
  t.deepEqual(host.disk.list('/replica/scratch'), [], 'what an earlier start left');
  const view = group.openView({ lsn: 100, owner: 'o', scratchBytesMax: 65_536, kind: 'restore' });
  t.deepEqual(host.disk.list('/replica/scratch'), ['view-1-1', 'view-1-2']);
  t.is((await group.status()).leases[0]?.kind, 'restore');
  const device = view.volumes[0]!.device;
  t.false(device.readOnly);
  await device.write(0, Buffer.alloc(512, 7));
  const plain = group.openView({ lsn: 100, owner: 'o', scratchBytesMax: 0 });
  const below = Buffer.alloc(512);
  await plain.volumes[0]!.device.read(0, below);
  t.false(below.equals(Buffer.alloc(512, 7)), 'nobody else sees it');
  t.true(plain.volumes[0]!.device.readOnly);
  await t.throwsAsync(plain.volumes[0]!.device.write(0, Buffer.alloc(512)), { code: 'read-only' });
  await t.throwsAsync(plain.volumes[0]!.device.zero(0, 512, true), { code: 'read-only' });
  await plain.volumes[0]!.device.flush();
  t.deepEqual(await plain.volumes[0]!.device.extents(512, 0), []);
  await group.views.close(1);
  t.deepEqual(host.disk.list('/replica/scratch'), []);
  host.disk.files.set('/replica/scratch/view-3-1', { bytes: Buffer.alloc(0), length: 0 });
  t.throws(() => group.openView({ lsn: 100, owner: 'o', scratchBytesMax: 512 }), { code: 'already-exists' });
  t.is((await group.status()).leases.length, 2, 'only those of the plain view');
  await group.close();
});

test('a view that is closed lets its last reads end, gives its lease back then, and takes no more', async (t) => {
  const history = madeHistory(53);
  const host = memoryHost(53);
  const group = await received(host, history, { chunkCacheBytesMax: 1, layoutCacheBytesMax: 1 });
  const view = group.openView({ lsn: history.lastLsn, owner: 'o', scratchBytesMax: 0, volumes: ['system'] });
  const { device } = view.volumes[0]!;
  const bytes = Buffer.alloc(device.size);
  let ended = 0;
  const reads = [device.read(0, bytes), device.extents(0, device.size)].map((read) => read.then(() => ended++));
  const closing = group.views.close(view.id);
  await t.throwsAsync(device.read(0, bytes), { code: 'shutting-down' });
  await t.throwsAsync(device.extents(0, 512), { code: 'shutting-down' });
  t.is((await group.status()).leases.length, 1, 'still in use');
  await closing;
  t.is(ended, 2);
  await Promise.all(reads);
  const model = new Model();
  model.advance(history, history.lastLsn);
  t.true(bytes.equals(model.disk(1)));
  t.is((await group.status()).leases.length, 0);
  await group.close();
});

test('reads of any length and place give the bytes of their point, in windows or out of one', async (t) => {
  const history = madeHistory(54, 300);
  const group = await received(memoryHost(54), history, { memtableEntries: 64 });
  const { index } = await group.status();
  t.true(index.runs > 0 && index.memtableEntries < 3 * 64, 'what is in memory is bounded');
  const random = new SeededRandom(54);
  const model = new Model();
  for (const lsn of [60, 150, 300]) {
    model.advance(history, lsn);
    const view = group.openView({ lsn, owner: 't', scratchBytesMax: 0 });
    for (const { volume, device } of view.volumes) {
      const sectors = volume.size / 512;
      for (const [sector, count] of [
        [0, sectors],
        [0, 512],
        [0, 513],
        [511, 2],
        [1, 1024],
        [sectors - 1, 1],
        ...Array.from({ length: 10 }, () => {
          const at = random.below(sectors);
          return [at, 1 + random.below(sectors - at)] as const;
        }),
      ] as const) {
        const bytes = Buffer.alloc(count * 512, 0xee);
        await device.read(sector * 512, bytes);
        const expected = model.disk(volume.id).subarray(sector * 512, (sector + count) * 512);
        if (!bytes.equals(expected)) t.fail(`${volume.name} at ${lsn}: ${sector} +${count}`);
        let at = 0;
        let last = '';
        for (const { length, kind } of await device.extents(sector * 512, count * 512)) {
          t.not(kind, last, 'neighbours of one kind are one');
          last = kind;
          if (kind === 'hole' && expected.subarray(at, at + length).some((byte) => byte !== 0))
            t.fail('data in a hole');
          at += length;
        }
        t.is(at, count * 512);
      }
    }
    await group.views.close(view.id);
  }
  await group.close();
});

test('pieces of frames are read where they stand, checked, and told of when they are damaged', async (t) => {
  const history = madeHistory(56, 80);
  const host = memoryHost(56);
  const options = { directory: '/segments', groupId: GROUP, segmentBytes: 1 << 20, durableLsn: 0 };
  const store = await SegmentStore.open(host, options);
  const frames = seal(history, { recordsPerFrame: () => 20 });
  for (const { bytes, firstLsn, lastLsn, recordCount } of frames) {
    await store.append(bytes, { firstLsn, lastLsn, firstTime: 1, lastTime: 2, records: recordCount });
  }
  const repaired = new RepairedFrames(host, '/segments');
  const told: [number, number][] = [];
  const readers = [1, 1 << 20].map((bytes) => {
    const reader = new FrameReader(store, repaired, { chunkBytesMax: bytes, layoutBytesMax: bytes });
    reader.onDamage = (segment, offset) => told.push([segment, offset]);
    return reader;
  });
  const refs = await Promise.all(frames.map(({ firstLsn }) => store.find(firstLsn)));
  for (const reader of readers) {
    for (const ref of refs) {
      const layout = await reader.layout(ref);
      t.deepEqual([layout.firstLsn, layout.lastLsn], [ref.firstLsn, ref.lastLsn]);
      for (let i = 0; i < layout.recordCount; i++) {
        const { payloadOffset, payloadBytes, lsn } = layout.record(i);
        const into = new Uint8Array(payloadBytes);
        await reader.read(ref.segment, ref.offset, payloadOffset, into);
        t.true(Buffer.from(into).equals(history.records[lsn - 1]!.payload), `LSN ${lsn}`);
      }
      const { payloadPlainBytes } = layout.header;
      await reader.read(ref.segment, ref.offset, payloadPlainBytes, new Uint8Array(0));
      await reader.read(ref.segment, ref.offset, payloadPlainBytes - 1, new Uint8Array(1));
      const beyond = reader.read(ref.segment, ref.offset, payloadPlainBytes - 1, new Uint8Array(2));
      await t.throwsAsync(beyond, { code: 'journal-damaged', message: /the index names payload byte/ });
      t.is((await reader.whole(ref)).lastLsn, ref.lastLsn);
    }
  }
  t.deepEqual(told, []);
  // a part of a frame is asked for behind what is held: the frame may begin before, not behind
  const [, second] = refs;
  await t.notThrowsAsync(readers[0]!.layout({ ...second!, firstLsn: second!.firstLsn + 5 }));
  await t.throwsAsync(readers[0]!.layout({ ...second!, firstLsn: second!.firstLsn - 1 }), { code: 'frame-damaged' });
  await t.throwsAsync(readers[0]!.layout({ ...second!, lastLsn: second!.lastLsn + 1 }), { code: 'frame-damaged' });
  await t.throwsAsync(readers[0]!.whole({ ...second!, firstLsn: second!.firstLsn - 1 }), { code: 'frame-damaged' });
  await t.throwsAsync(readers[0]!.whole({ ...second!, lastLsn: second!.lastLsn - 1 }), { code: 'frame-damaged' });
  t.is(told.length, 4);
  told.length = 0;
  const path = '/segments/000000000001.seg';
  const { bytes } = host.disk.files.get(path)!;
  const [, , third] = refs;
  bytes[third!.offset + third!.bytes - 3]! ^= 8;
  const [small, large] = readers as [FrameReader, FrameReader];
  await t.notThrowsAsync(small.layout(third!), 'the record list is whole');
  await t.throwsAsync(small.whole(third!), { code: 'frame-damaged' });
  t.deepEqual(told, [[third!.segment, third!.offset]]);
  const { payloadPlainBytes } = (await small.layout(third!)).header;
  await t.throwsAsync(small.read(third!.segment, third!.offset, payloadPlainBytes - 1, new Uint8Array(1)), {
    code: 'frame-damaged',
  });
  t.is(told.length, 2);
  await t.notThrowsAsync(large.read(third!.segment, third!.offset, payloadPlainBytes - 1, new Uint8Array(1)), 'kept');
  // another frame with the same records stands in for it from now on, for both
  const stand = seal(history, { recordsPerFrame: () => 20 })[2]!;
  await small.replace(third!.segment, third!.offset, stand.bytes);
  t.is(repaired.size(third!.segment, third!.offset), stand.bytes.length);
  for (const reader of readers) {
    t.is((await reader.whole(third!)).lastLsn, third!.lastLsn);
    await t.notThrowsAsync(reader.read(third!.segment, third!.offset, payloadPlainBytes - 1, new Uint8Array(1)));
  }
  t.true(await repaired.covers(third!));
  t.false(await repaired.covers(second!));
  const again = new RepairedFrames(host, '/segments');
  t.is(again.size(third!.segment, third!.offset), stand.bytes.length, 'found again at a start');
  t.false(await again.covers({ ...third!, records: 19 }), 'of other records: not any more');
  t.is(again.size(third!.segment, third!.offset), undefined);
  await repaired.keepOnly(new Set([third!.segment]));
  t.is(repaired.size(third!.segment, third!.offset), stand.bytes.length);
  // a floor that moves takes it from under a reader: as with a segment, who reads looks again, in the base
  const reading = [
    small.whole(third!),
    large.read(third!.segment, third!.offset, 0, new Uint8Array(payloadPlainBytes)),
  ];
  const fresh = new FrameReader(store, repaired, { chunkBytesMax: 4096, layoutBytesMax: 4096 });
  reading.push(fresh.read(third!.segment, third!.offset, 0, new Uint8Array(8)));
  const outcomes = Promise.allSettled(reading);
  await repaired.keepOnly(new Set([third!.segment + 1]));
  for (const outcome of await outcomes) {
    if (outcome.status === 'rejected') t.is(outcome.reason.code, 'trimmed');
  }
  t.true((await outcomes).some(({ status }) => status === 'rejected'));
  t.is(repaired.size(third!.segment, third!.offset), undefined);
  t.deepEqual(host.disk.list('/segments/repaired'), []);
  await store.close();
});
