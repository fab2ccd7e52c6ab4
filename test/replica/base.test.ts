import { crc32c } from '@node-rs/crc32';
import test from 'ava';
import { BaseImage } from '../../replica/base/base-image.ts';
import { readFully, readWhole, replaceFile, writeFully } from '../../replica/store/file-io.ts';
import { FrameDirectory } from '../../replica/store/frame-directory.ts';
import { NO_DISK_FAULTS } from '../doubles/simulated-disk.ts';
import { SimulatedMachine } from '../doubles/simulated-machine.ts';
import { Scheduler } from '../simulation/scheduler.ts';
import { GROUP } from './support/history.ts';
import { type MemoryHost, memoryHost } from './support/memory-host.ts';

const PLACE = { directory: '/base', groupId: GROUP };

async function written(host: MemoryHost): Promise<Buffer> {
  const base = await BaseImage.open(host, PLACE, 1);
  await base.write(3 * 65_536, Buffer.alloc(4096, 7));
  await base.sync();
  await base.close();
  return (await readWhole(host.disk, '/base/1.map'))!;
}

test('the map of a base is refused when it is of another group, and read when it names none', async (t) => {
  const host = memoryHost(1);
  const map = await written(host);
  const other = { ...PLACE, groupId: 'cd'.repeat(16) };
  await t.throwsAsync(BaseImage.open(host, other, 1), {
    code: 'journal-foreign',
    message: /1\.map belongs to group abab/,
  });
  const unnamed = Buffer.concat([map.subarray(0, 16), map.subarray(32)]);
  unnamed.write('TBM1', 0);
  unnamed.writeUInt32LE(crc32c(unnamed.subarray(8)), 4);
  await replaceFile(host.disk, '/base', '1.map', unnamed);
  const base = await BaseImage.open(host, other, 1);
  t.deepEqual(
    [2, 3, 4].map((unit) => base.mayHoldData(unit * 65_536, 4096)),
    [false, true, false],
  );
  await base.write(0, Buffer.alloc(4096, 1));
  await base.sync();
  await base.close();
  await t.throwsAsync(BaseImage.open(host, PLACE, 1), { code: 'journal-foreign', message: /group cdcd/ });
});

test('a base whose map is damaged counts as full of data: slower, never wrong', async (t) => {
  for (const bit of [0, 33, 70, 16 * 8 + 1, 32 * 8 + 3]) {
    const host = memoryHost(1);
    const map = Buffer.from(await written(host));
    const at = Math.floor(bit / 8);
    map[at] = (map[at] ?? 0) ^ (1 << (bit & 7));
    await replaceFile(host.disk, '/base', '1.map', map);
    const base = await BaseImage.open(host, PLACE, 1);
    t.true(base.mayHoldData(0, 4096), `bit ${bit}`);
    const into = Buffer.alloc(4096, 9);
    await base.read(3 * 65_536, into);
    t.true(into.every((byte) => byte === 7));
    await base.read(0, into);
    t.true(into.every((byte) => byte === 0));
    await base.close();
  }
});

test('a base knows which units may hold data, counts them, and forgets those that are zeroed whole', async (t) => {
  const host = memoryHost(1);
  const unit = 65_536;
  const base = await BaseImage.open(host, PLACE, 1);
  t.is(base.dataBytes, 0);
  t.false(base.mayHoldData(0, 100 * unit));
  // over a border, and far beyond what the map covered
  await base.write(2 * unit - 512, Buffer.alloc(1024, 5));
  await base.write(40 * unit, Buffer.alloc(unit, 6));
  t.is(base.dataBytes, 3 * unit);
  t.deepEqual(
    [0, 1, 2, 3, 39, 40, 41].map((at) => base.mayHoldData(at * unit, unit)),
    [false, true, true, false, false, true, false],
  );
  t.true(base.mayHoldData(0, unit + 1));
  t.false(base.mayHoldData(0, unit));
  t.deepEqual(base.stretch(0, 10 * unit), { data: false, bytes: unit });
  t.deepEqual(base.stretch(unit + 100, 10 * unit), { data: true, bytes: 2 * unit - 100 });
  t.deepEqual(base.stretch(unit, 512), { data: true, bytes: 512 });
  // two whole units go, of the third a part stays
  await base.zero(unit, 2 * unit);
  await base.zero(40 * unit, 4096);
  t.is(base.dataBytes, unit);
  const into = Buffer.alloc(unit, 9);
  await base.read(40 * unit, into);
  t.true(into.subarray(0, 4096).every((byte) => byte === 0));
  t.true(into.subarray(4096).every((byte) => byte === 6));
  await base.sync();
  await base.close();
  const again = await BaseImage.open(host, PLACE, 1);
  t.is(again.dataBytes, unit);
  t.deepEqual(
    [1, 2, 40].map((at) => again.mayHoldData(at * unit, unit)),
    [false, false, true],
  );
  await again.close();
});

test('a file that ends before what is asked for, and a disk that takes a part, are errors', async (t) => {
  const host = memoryHost(1);
  const file = host.disk.open('/some', 'create');
  await writeFully(file, Buffer.alloc(512, 1), 0);
  const into = Buffer.alloc(512);
  await readFully(file, into, 0);
  t.true(into.every((byte) => byte === 1));
  await t.throwsAsync(readFully(file, into, 1), { code: 'journal-damaged', message: /ends at 512, before 513/ });
  host.disk.capacity = 600;
  await t.throwsAsync(writeFully(file, Buffer.alloc(512), 512), { code: 'no-space' });
  await file.close();
});

test('a directory of frames covers a stretch only when each LSN of it stands in one frame', (t) => {
  const made = (...frames: [number, number][]): FrameDirectory => {
    const directory = new FrameDirectory();
    for (const [firstLsn, lastLsn] of frames) {
      const times = { firstTime: firstLsn, lastTime: lastLsn };
      directory.push({
        firstLsn,
        lastLsn,
        offset: firstLsn * 100,
        bytes: 100,
        records: lastLsn - firstLsn + 1,
        ...times,
      });
    }
    return directory;
  };
  const whole = made([5, 9], [10, 10], [11, 20]);
  t.true(whole.covers(5, 20));
  for (const [from, to] of [
    [4, 20],
    [6, 20],
    [5, 19],
    [5, 21],
  ] as const)
    t.false(whole.covers(from, to), `${from} ${to}`);
  t.false(made([5, 9], [11, 20]).covers(5, 20), 'a hole');
  t.false(made([5, 9], [9, 20]).covers(5, 20), 'an overlap');
  t.false(made([5, 9], [10, 9], [10, 20]).covers(5, 20), 'a frame of nothing');
  t.deepEqual(
    [5, 9, 10, 11, 20, 21].map((lsn) => whole.atLsn(lsn)),
    [0, 0, 1, 2, 2, 3],
  );
  t.deepEqual(
    [1, 9, 10, 11, 21].map((time) => whole.atTime(time)),
    [0, 0, 1, 2, 3],
  );
});

// Simulation seed 540139 (P1): a kill in the first move of the floor, a move in the next run, and a power loss later.
test('a base that a start found is named durably before a floor relies on it', async (t) => {
  for (let seed = 1; seed <= 20; seed++) {
    const scheduler = new Scheduler(seed);
    const machine = new SimulatedMachine('replica', scheduler, NO_DISK_FAULTS, 1 << 24);
    const inTime = async <T>(promise: Promise<T>): Promise<T> => {
      let settled = false;
      void promise.finally(() => {
        settled = true;
      });
      await scheduler.runUntil(() => settled, 10_000_000);
      return promise;
    };
    const data = Buffer.alloc(4096, 7);
    const { disk } = machine.start().host;
    disk.makeDirectory(PLACE.directory);
    await inTime(disk.syncDirectory('/'));
    // as far as the first run came: the image is synced, its name is not
    const image = disk.open(`${PLACE.directory}/1.img`, 'create');
    await inTime(image.write(data, 0, data.length, 0));
    await inTime(image.dataSync());
    machine.kill();
    const base = await inTime(BaseImage.open(machine.start().host, PLACE, 1));
    await inTime(base.write(0, data));
    await inTime(base.sync());
    machine.losePower();
    const after = await inTime(BaseImage.open(machine.start().host, PLACE, 1));
    const found = Buffer.alloc(data.length);
    await inTime(after.read(0, found));
    t.true(found.equals(data), `seed ${seed}`);
  }
});
