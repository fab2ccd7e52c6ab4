import test from 'ava';
import { FrameView } from '../../journal/frame-view.ts';
import { BaseImage } from '../../replica/base/base-image.ts';
import { segmentName } from '../../replica/store/segment-format.ts';
import type { FrameRef } from '../../replica/store/segment-info.ts';
import { SegmentStore } from '../../replica/store/segment-store.ts';
import { LateDisk } from '../doubles/late-disk.ts';
import { GROUP, History, seal } from './support/history.ts';
import { MemoryDisk, memoryHost, SeededRandom } from './support/memory-host.ts';

const UNIT = 64 * 1024;
const PLACE = { directory: '/base', groupId: GROUP };

for (const [seed, punches] of [
  [1, true],
  [2, false],
  [3, true],
] as const) {
  test(`a base is the disk that was written to it, over starts, on a late disk ${punches ? 'with' : 'without'} holes (seed ${seed})`, async (t) => {
    const random = new SeededRandom(seed);
    const size = 9 * UNIT + 1536;
    const model = Buffer.alloc(size);
    const zeroes = Buffer.alloc(size);
    const below = new MemoryDisk();
    const disk = new LateDisk(below, new SeededRandom(seed));
    const host = {
      ...memoryHost(seed, below),
      disk: new Proxy(disk, {
        get(target, name) {
          const value: unknown = Reflect.get(target, name);
          if (name !== 'open') return typeof value === 'function' ? value.bind(target) : value;
          return (...args: Parameters<LateDisk['open']>) => {
            const file = target.open(...args);
            if (!punches) file.punchHole = () => false;
            return file;
          };
        },
      }),
    };
    let base = await BaseImage.open(host, PLACE, 7);
    t.deepEqual(BaseImage.list(host, PLACE.directory), []);
    for (let step = 0; step < 36; step++) {
      const sectors = 1 + random.below([2, 40, 300, size / 512][random.below(4)] ?? 1);
      const offset = random.below(Math.max(1, size / 512 - sectors + 1)) * 512;
      const length = Math.min(sectors * 512, size - offset);
      // border to border now and then
      const [from, bytes] = random.below(4) === 0 ? [random.below(8) * UNIT, UNIT] : [offset, length];
      if (random.below(3) > 0) {
        const content = Buffer.alloc(Math.min(bytes, 78 * 512), random.bytes(37));
        await base.write(from, content);
        model.set(content, from);
      } else {
        await base.zero(from, bytes);
        model.fill(0, from, from + bytes);
      }
      t.deepEqual(disk.changing, [], 'waited for');
      const now = Buffer.alloc(size, 9);
      await base.read(0, now);
      if (!now.equals(model)) t.fail(`step ${step}`);
      let data = 0;
      for (let at = 0; at < size; ) {
        const stretch = base.stretch(at, size - at);
        t.true(stretch.bytes > 0 && at + stretch.bytes <= size);
        t.is(base.mayHoldData(at, stretch.bytes), stretch.data);
        if (stretch.data) data += Math.ceil(stretch.bytes / UNIT) * UNIT;
        else if (!model.subarray(at, at + stretch.bytes).equals(zeroes.subarray(0, stretch.bytes)))
          t.fail(`data is called zeroes at ${at}`);
        at += stretch.bytes;
      }
      t.is(base.dataBytes, data);
      if (step % 12 !== 11) continue;
      await base.sync();
      t.deepEqual([disk.unsyncedFiles, disk.unsyncedNames('/base').filter((path) => !path.endsWith('.img'))], [[], []]);
      await base.close();
      t.deepEqual(disk.descriptors, []);
      base = await BaseImage.open(host, PLACE, 7);
      t.is(base.dataBytes, data, 'the map is kept');
    }
    const before = below.files.get('/base/7.map');
    await base.sync();
    t.is(below.files.get('/base/7.map')?.bytes, before?.bytes, 'a map that has not changed is not written');
    await base.zero(0, size);
    const now = Buffer.alloc(size, 9);
    await base.read(0, now);
    t.true(now.equals(zeroes));
    await base.close();
    t.deepEqual(BaseImage.list(host, PLACE.directory), [7]);
  });
}

const SEGMENTS = '/segments';

for (const seed of [1, 2, 3]) {
  test(`a store finds every record, by LSN and by time, in every segment, over starts and removals (seed ${seed})`, async (t) => {
    const history = new History(seed);
    history.addVolumes();
    history.fill(260);
    const random = new SeededRandom(seed);
    const disk = new MemoryDisk();
    const options = { directory: SEGMENTS, groupId: GROUP, segmentBytes: 24 * 1024, durableLsn: 0 };
    let store = await SegmentStore.open(memoryHost(seed, disk), options);
    const frames = seal(history);
    const held: { firstLsn: number; lastLsn: number; firstTime: number; lastTime: number; bytes: Uint8Array }[] = [];
    let opened = 0;
    const check = async (): Promise<void> => {
      const oldest = held[0]?.firstLsn ?? 0;
      const newest = held.at(-1)?.lastLsn ?? 0;
      t.is(store.lastLsn, newest);
      t.is(store.oldestLsn, oldest);
      t.is(
        store.bytes,
        store.segments.reduce((sum, { bytes }) => sum + bytes, 0),
      );
      for (let round = 0; round < 12; round++) {
        const lsn = oldest + random.below(newest - oldest + 1);
        const frame = held.find(({ lastLsn }) => lastLsn >= lsn)!;
        const found = await store.find(lsn);
        t.like(found, { firstLsn: frame.firstLsn, lastLsn: frame.lastLsn, bytes: frame.bytes.length });
        const bytes = new Uint8Array(found.bytes);
        await store.read(found.segment, found.offset, bytes);
        t.true(Buffer.from(bytes).equals(frame.bytes));
        const time = frame.lastTime - random.below(2) * 500;
        t.is((await store.findTime(time))?.lastLsn, held.find((one) => one.lastTime >= time)?.lastLsn);
        const [from, to] = [lsn, lsn + random.below(60)];
        const range: FrameRef[] = [];
        for await (const one of store.frames(from, to)) range.push(one);
        t.deepEqual(
          range.map(({ lastLsn }) => lastLsn),
          held.filter((one) => one.lastLsn >= from && one.firstLsn <= to).map(({ lastLsn }) => lastLsn),
          `${from} to ${to}`,
        );
      }
      await t.throwsAsync(store.find(newest + 1), { code: 'not-found' });
      if (oldest > 1) await t.throwsAsync(store.find(oldest - 1), { code: 'trimmed' });
      t.is(await store.findTime((held.at(-1)?.lastTime ?? 0) + 1), undefined);
    };
    await t.throwsAsync(store.find(1), { code: 'not-found' });
    for (const { bytes, firstLsn, lastLsn } of frames) {
      const view = FrameView.open(bytes);
      const { firstTime, lastTime } = view;
      const newest = `${SEGMENTS}/${segmentName(store.segments.at(-1)?.sequence ?? 0)}`;
      const long = (disk.files.get(newest)?.length ?? 0) >= options.segmentBytes;
      t.is(store.wantsSeal, long && store.segments.at(-1)?.sealed === false);
      if (store.wantsSeal) {
        await store.seal(firstLsn - 1);
        t.false(store.wantsSeal);
        t.like(store.segments.at(-1), { sealed: true, openFromLsn: firstLsn - 1, lastLsn: firstLsn - 1 });
      }
      const at = await store.append(bytes, { firstLsn, lastLsn, firstTime, lastTime, records: view.recordCount });
      const segment = store.segments.at(-1);
      t.deepEqual([at.segment, at.offset + bytes.length], [segment!.sequence, segment!.bytes]);
      held.push({ firstLsn, lastLsn, firstTime, lastTime, bytes });
      if (random.below(5) === 0) await check();
      if (random.below(8) === 0) {
        await store.sync();
        const all = store.segments;
        await store.close();
        opened++;
        const durableLsn = random.below(2) === 0 ? lastLsn : 0;
        store = await SegmentStore.open(memoryHost(seed, disk), { ...options, durableLsn });
        t.deepEqual(
          store.segments.map((one) => [one.sequence, one.firstLsn, one.lastLsn, one.firstTime, one.lastTime]),
          all.map((one) => [one.sequence, one.firstLsn, one.lastLsn, one.firstTime, one.lastTime]),
        );
        t.deepEqual([store.damage, store.holes], [[], []]);
        await check();
      }
    }
    t.true(opened > 0 && store.segments.length > 3);
    const [, second, third] = store.segments;
    await store.removeBelow(second!.lastLsn);
    t.is(store.oldestLsn, second!.firstLsn, 'only what lies below as a whole');
    await store.removeBelow(second!.lastLsn + 1);
    t.is(store.oldestLsn, third!.firstLsn);
    held.splice(
      0,
      held.findIndex(({ firstLsn }) => firstLsn === third!.firstLsn),
    );
    await check();
    await t.throwsAsync(store.read(second!.sequence, 0, new Uint8Array(8)), { code: 'trimmed' });
    await store.removeBelow(9999);
    t.is(store.segments.length, 1, 'never the one that is written');
    await store.close();
  });
}

test('a frame that the disk does not take whole is taken back, and the next one stands in its place', async (t) => {
  const history = new History(9);
  history.addVolumes();
  history.fill(60);
  const [first, second] = seal(history, { recordsPerFrame: () => 30 });
  const disk = new MemoryDisk();
  const options = { directory: SEGMENTS, groupId: GROUP, segmentBytes: 1 << 20, durableLsn: 0 };
  const store = await SegmentStore.open(memoryHost(1, disk), options);
  const append = async (frame: typeof first, bytes = frame!.bytes): Promise<unknown> => {
    const { firstLsn, lastLsn } = frame!;
    return store.append(bytes, { firstLsn, lastLsn, firstTime: 1, lastTime: 2, records: 30 });
  };
  disk.capacity = disk.used() + 100;
  await t.throwsAsync(append(first), { code: 'no-space' });
  t.deepEqual(disk.list(SEGMENTS), [], 'a segment that could not be begun is none');
  disk.capacity = disk.used() + 4096 + 100;
  await t.throwsAsync(append(first), { code: 'no-space' });
  t.is(disk.files.get(`${SEGMENTS}/000000000001.seg`)?.length, 4096);
  // a segment whose first frame never came to be begins anew, elsewhere
  await store.seal(1);
  t.deepEqual(disk.list(SEGMENTS), []);
  t.is(store.segments.length, 0);
  disk.capacity = Number.MAX_SAFE_INTEGER;
  await append(first);
  const end = store.bytes;
  disk.capacity = disk.used() + 100;
  await t.throwsAsync(append(second), { code: 'no-space' });
  t.is(disk.files.get(`${SEGMENTS}/000000000001.seg`)?.length, end);
  await t.throwsAsync(store.seal(31), { code: 'no-space' });
  t.is(disk.files.get(`${SEGMENTS}/000000000001.seg`)?.length, end);
  t.is(store.segments.at(-1)?.sealed, false);
  disk.capacity = Number.MAX_SAFE_INTEGER;
  await append(second);
  await store.seal(61);
  await store.sync();
  await store.close();
  const again = await SegmentStore.open(memoryHost(1, disk), { ...options, durableLsn: 60 });
  t.is(again.lastLsn, 60);
  t.deepEqual([again.damage, again.holes], [[], []]);
  await again.close();
});
