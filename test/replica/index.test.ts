import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { hasCode } from '../../journal/base/errors.ts';
import { realHost } from '../../journal/host/real-host.ts';
import { CLASS_COUNT, cellSectors, classOf, type emptyEntry, placeOf } from '../../replica/index/entry-format.ts';
import type { RebuildIndex } from '../../replica/index/index-gap.ts';
import { Memtable } from '../../replica/index/memtable.ts';
import { sortOrder } from '../../replica/index/radix-sort.ts';
import { SmallCursors } from '../../replica/index/survey.ts';
import { VersionIndex } from '../../replica/index/version-index.ts';
import { LateDisk } from '../doubles/late-disk.ts';
import { memoryHost, SeededRandom } from './support/memory-host.ts';

const GROUP = 'ab'.repeat(16);
/** 4 TiB in sectors: cells of the largest class are crossed. */
const DISK_SECTORS = 2 ** 33;

interface Write {
  volume: number;
  sector: number;
  sectors: number;
  lsn: number;
  payload: number | undefined;
}

/** Extents of every size class, most of them small and near one another, some with a border in the middle. */
function randomWrites(seed: number, count: number): Write[] {
  const random = new SeededRandom(seed);
  const writes: Write[] = [];
  for (let lsn = 1; lsn <= count; lsn += 1) {
    const pick = random.below(20);
    const volume = 1 + random.below(2);
    if (pick === 0) {
      const sectors = 1 + random.below(2 ** (12 + random.below(20)));
      const sector = random.below(3) === 0 ? random.below(4096) : random.below(DISK_SECTORS - sectors);
      writes.push({ volume, sector, sectors, lsn, payload: undefined });
    } else {
      const sectors = 1 + random.below([1, 8, 16, 128, 2048][random.below(5)] ?? 1);
      const hot = random.below(4) > 0 ? 0 : 2 ** 31 - 4096;
      writes.push({ volume, sector: hot + random.below(8192), sectors, lsn, payload: pick === 1 ? undefined : lsn });
    }
  }
  return writes;
}

/** The newest write at or below `atLsn` on one sector, as the index would tell it. */
function expected(writes: readonly Write[], volume: number, sector: number, atLsn: number, floorLsn: number): string {
  for (let i = Math.min(atLsn, writes.length) - 1; i >= floorLsn; i -= 1) {
    const write = writes[i];
    if (write === undefined || write.volume !== volume) continue;
    if (sector >= write.sector && sector < write.sector + write.sectors) {
      return write.payload === undefined ? 'zero' : `${write.payload}+${(sector - write.sector) * 512}`;
    }
  }
  return 'base';
}

function locate(write: Write): { segment: number; frame: number; payload: number } | undefined {
  return write.payload === undefined ? undefined : { segment: write.payload, frame: 4096, payload: 0 };
}

/** Rebuilds a gap from the model, as the segments would. */
function rebuildFrom(writes: readonly Write[], slice = 100): RebuildIndex {
  return async (gap, emit) => {
    for (let base = gap.baseLsn; base < gap.lastLsn; base += slice) {
      const last = Math.min(base + slice, gap.lastLsn);
      const memtable = new Memtable(base, 64);
      for (const write of writes.slice(base, last)) {
        memtable.add(write.volume, write.sector, write.sectors, write.lsn, locate(write));
      }
      memtable.lastLsn = last;
      await emit(memtable, last + 1);
    }
  };
}

function options(floorLsn: number, memtableEntries = 64): Parameters<typeof VersionIndex.open>[1] {
  return { directory: '/index', groupId: GROUP, floorLsn, headLsn: 1e6, cacheBytesMax: 64 * 1024, memtableEntries };
}

async function feed(index: VersionIndex, writes: readonly Write[]): Promise<void> {
  for (const write of writes) {
    if (write.lsn <= index.durableLsn) continue;
    index.add(write.volume, write.sector, write.sectors, write.lsn, locate(write));
    index.advance(write.lsn);
    if (index.memtableFull) await index.rotate(write.lsn + 1);
  }
}

async function compare(
  index: VersionIndex,
  writes: readonly Write[],
  random: SeededRandom,
  floorLsn: number,
  rounds: number,
): Promise<string[]> {
  const wrong: string[] = [];
  for (let round = 0; round < rounds; round += 1) {
    const volume = 1 + random.below(2);
    const atLsn = floorLsn + random.below(writes.length - floorLsn + 1);
    const near = writes[random.below(writes.length)];
    const sectors = 1 + random.below(random.below(4) === 0 ? 512 : 24);
    const sector = Math.max(0, (near?.sector ?? 0) + random.below(64) - 32);
    let at = sector;
    for (const part of await index.lookup(volume, sector, sectors, atLsn)) {
      if (part.sector !== at) wrong.push(`part begins at ${part.sector}, not at ${at}`);
      for (const probe of new Set([0, part.sectors >>> 1, part.sectors - 1])) {
        const told = part.kind === 'data' ? `${part.segment}+${part.payload + probe * 512}` : part.kind;
        const truth = expected(writes, volume, at + probe, atLsn, floorLsn);
        if (told !== truth) wrong.push(`volume ${volume} sector ${at + probe} at ${atLsn}: ${told}, not ${truth}`);
      }
      at += part.sectors;
    }
    if (at !== sector + sectors) wrong.push(`${at - sector} of ${sectors} sectors answered`);
  }
  return wrong;
}

test('an extent goes to the smallest class that holds it', (t) => {
  t.is(classOf(1), 0);
  t.is(classOf(8), 0);
  t.is(classOf(9), 1);
  t.is(classOf(2048), 2);
  t.is(classOf(2049), 3);
  t.is(classOf(2 ** 31), CLASS_COUNT - 1);
  t.is(classOf(2 ** 32 - 1), CLASS_COUNT - 1);
});

test('the radix sort orders by place and cell and keeps the order of arrival', (t) => {
  const random = new SeededRandom(4);
  const count = 5000;
  const place = Uint32Array.from({ length: count }, () => random.below(3) * 0x1_0000 + random.below(3));
  const cell = Float64Array.from(
    { length: count },
    () => (1 + random.below(7)) * 2 ** 38 + random.below(5) * 65537 - random.below(2),
  );
  const naive = Array.from({ length: count }, (_, i) => i).sort(
    (a, b) => (place[a] ?? 0) - (place[b] ?? 0) || (cell[a] ?? 0) - (cell[b] ?? 0) || a - b,
  );
  t.deepEqual([...sortOrder(place, cell, count)], naive);
});

for (const seed of [1, 2, 3]) {
  test(`random extents: every lookup equals the naive model, in memory, in runs, merged, reopened (seed ${seed})`, async (t) => {
    const host = memoryHost(seed);
    const writes = randomWrites(seed, 3000);
    const random = new SeededRandom(seed + 100);
    const index = await VersionIndex.open(host, options(0), rebuildFrom(writes));
    await feed(index, writes.slice(0, 1500));
    t.deepEqual(await compare(index, writes.slice(0, 1500), random, 0, 150), []);
    await feed(index, writes);
    t.deepEqual(await compare(index, writes, random, 0, 150), []);
    await index.quiet();
    t.true(index.status().runs < 20, `merged down to ${index.status().runs} runs`);
    t.deepEqual(await compare(index, writes, random, 0, 150), []);
    await index.close();

    const reopened = await VersionIndex.open(host, options(0), rebuildFrom(writes));
    t.true(reopened.durableLsn > 0);
    t.deepEqual(reopened.gaps(), []);
    await feed(reopened, writes);
    t.deepEqual(await compare(reopened, writes, random, 0, 150), []);

    await reopened.moveFloor(1234);
    t.deepEqual(await compare(reopened, writes, random, 1234, 150), []);
    await reopened.moveFloor(2900);
    t.deepEqual(await compare(reopened, writes, random, 2900, 100), []);
    await reopened.close();

    const last = await VersionIndex.open(host, options(2900), rebuildFrom(writes));
    t.deepEqual(last.gaps(), []);
    await feed(last, writes);
    t.deepEqual(await compare(last, writes, random, 2900, 100), []);
  });
}

test('lost and damaged runs are built again; a run of another group is refused', async (t) => {
  const host = memoryHost(7);
  const writes = randomWrites(7, 2000);
  const index = await VersionIndex.open(host, options(0), rebuildFrom(writes));
  await feed(index, writes);
  await index.quiet();
  await index.close();
  const runs = host.disk.list('/index');
  t.true(runs.length >= 4);

  // One file lost, one with a damaged footer, one with a bit flipped in an entry page.
  host.disk.unlink(`/index/${runs[0]}`);
  const footer = host.disk.files.get(`/index/${runs[1]}`);
  footer?.bytes.writeUInt8(1, footer.length - 4000);
  const page = host.disk.files.get(`/index/${runs[2]}`);
  page?.bytes.writeUInt8(page.bytes.readUInt8(100) ^ 4, 100);

  const again = await VersionIndex.open(host, options(0), rebuildFrom(writes));
  const gaps = again.gaps();
  t.is(gaps.length, 1);
  for (const gap of gaps) await again.fill(gap);
  t.deepEqual(again.gaps(), []);
  await feed(again, writes);
  t.deepEqual(await compare(again, writes, new SeededRandom(8), 0, 300), []);
  await again.quiet();
  await again.close();
  const foreign = await t.throwsAsync(
    VersionIndex.open(host, { ...options(0), groupId: 'cd'.repeat(16) }, rebuildFrom(writes)),
  );
  t.true(hasCode(foreign, 'journal-foreign'));
});

test('runs behind what the index may believe are gone for good when it is open: no power loss brings them back', async (t) => {
  const host = memoryHost(11);
  const writes = randomWrites(11, 600);
  const index = await VersionIndex.open(host, options(0), rebuildFrom(writes));
  await feed(index, writes);
  await index.quiet();
  await index.close();
  const before = host.disk.list('/index');
  const calls: string[] = [];
  const disk = new Proxy(host.disk, {
    get(target, name) {
      const value: unknown = Reflect.get(target, name);
      if (typeof value !== 'function') return value;
      return (...args: unknown[]): unknown => {
        if (name === 'unlink' || name === 'syncDirectory') calls.push(`${name} ${String(args[0])}`);
        return value.apply(target, args);
      };
    },
  });
  const again = await VersionIndex.open({ ...host, disk }, { ...options(0), unindexedFrom: 1 }, rebuildFrom(writes));
  t.deepEqual(calls, [...before.map((name) => `unlink /index/${name}`), 'syncDirectory /index']);
  await again.close();
});

test('directories in place of runs are damaged runs: put aside, and built again', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'tidemark-index-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  const writes = randomWrites(11, 1000);
  const there = { ...options(0), directory };
  const index = await VersionIndex.open(realHost(), there, rebuildFrom(writes));
  await feed(index, writes);
  await index.quiet();
  await index.close();
  const runs = readdirSync(directory).filter((name) => name.endsWith('.run'));
  const [first = '', last = ''] = [runs[0], runs.at(-1)];
  t.not(first, last);
  for (const run of [first, last]) {
    rmSync(join(directory, run));
    mkdirSync(join(directory, run));
  }
  writeFileSync(join(directory, first, 'somebody-put-this-here'), 'x');
  const again = await VersionIndex.open(realHost(), there, rebuildFrom(writes));
  for (const gap of again.gaps()) await again.fill(gap);
  t.deepEqual(again.gaps(), []);
  await feed(again, writes);
  t.deepEqual(await compare(again, writes, new SeededRandom(12), 0, 200), []);
  await again.quiet();
  await again.close();
  t.true(existsSync(join(directory, `${first}.put-aside`, 'somebody-put-this-here')));
});

test('a survey of the whole disk tells what lookups tell, and steps over what is empty', async (t) => {
  const host = memoryHost(9);
  const writes = randomWrites(9, 600);
  const index = await VersionIndex.open(host, options(0), rebuildFrom(writes));
  await feed(index, writes);
  let parts = 0;
  let at = 0;
  const wrong: string[] = [];
  for await (const part of index.survey(1, 0, DISK_SECTORS, 500)) {
    if (part.sector !== at) wrong.push(`part begins at ${part.sector}, not at ${at}`);
    at += part.sectors;
    parts += 1;
    const told = part.kind === 'data' ? `${part.segment}+${part.payload}` : part.kind;
    const truth = expected(writes, 1, part.sector, 500, 0);
    if (told !== truth) wrong.push(`sector ${part.sector}: ${told}, not ${truth}`);
  }
  t.deepEqual(wrong, []);
  t.is(at, DISK_SECTORS);
  t.true(parts < 20_000, `${parts} parts`);
});

test('a survey that waits for every page, on a late disk, tells what the history tells', async (t) => {
  const memory = memoryHost(19);
  const writes = randomWrites(19, 3000);
  const fed = await VersionIndex.open(memory, options(0, 512), rebuildFrom(writes));
  await feed(fed, writes);
  await fed.quiet();
  await fed.close();
  const random = new SeededRandom(19);
  const host = { ...memory, disk: new LateDisk(memory.disk, random) };
  const index = await VersionIndex.open(host, { ...options(0, 512), cacheBytesMax: 32 * 1024 }, rebuildFrom(writes));
  const { durableLsn } = index;
  const wrong: string[] = [];
  for (let round = 0; round < 60; round++) {
    const volume = 1 + random.below(2);
    const start = (random.below(2) === 0 ? 0 : 2 ** 31 - 4096) + random.below(6144);
    let at = start;
    for await (const part of index.survey(volume, start, 2048, durableLsn)) {
      const told = part.kind === 'data' ? `${part.segment}+${part.payload}` : part.kind;
      const truth = expected(writes, volume, part.sector, durableLsn, 0);
      if (part.sector !== at || told !== truth) wrong.push(`sector ${part.sector}: ${told}, not ${truth}`);
      at += part.sectors;
    }
    if (at !== start + 2048) wrong.push(`ends at ${at}`);
  }
  t.deepEqual(wrong, []);
  await index.close();
  t.deepEqual([host.disk.changing, host.disk.descriptors], [[], []]);
});

test('a survey finds the first entry of a page that has to be read first', async (t) => {
  const late = {
    count: 1,
    has: (sizeClass: number) => sizeClass === 0,
    find: () => Promise.resolve(0),
    read: async (_ordinal: number, into: ReturnType<typeof emptyEntry>): Promise<void> => {
      await new Promise(setImmediate);
      Object.assign(into, { place: placeOf(1, 0), cell: 3 });
    },
    paint: () => undefined,
  };
  t.is(await new SmallCursors([late], 1).next(0, 1000), 3 * cellSectors(0));
});

test('who looks up while runs are written and merged, on a late disk, keeps the files that are looked at', async (t) => {
  const memory = memoryHost(23);
  const writes = randomWrites(23, 1500);
  const host = { ...memory, disk: new LateDisk(memory.disk, new SeededRandom(23)) };
  const index = await VersionIndex.open(host, { ...options(0), cacheBytesMax: 32 * 1024 }, rebuildFrom(writes));
  let fed = 100;
  await feed(index, writes.slice(0, fed));
  const random = new SeededRandom(24);
  const wrong: string[] = [];
  const look = async (): Promise<void> => {
    while (fed < writes.length) {
      wrong.push(...(await compare(index, writes.slice(0, fed), random, 0, 1)));
      // what is in memory is answered without a turn of the event loop
      await new Promise(setImmediate);
    }
  };
  const looking = Promise.all([look(), look(), look()]);
  while (fed < writes.length) {
    await feed(index, writes.slice(fed, fed + 20));
    fed += 20;
    await new Promise(setImmediate);
  }
  await looking;
  t.deepEqual(wrong, []);
  await index.quiet();
  await index.close();
  t.deepEqual([host.disk.changing, host.disk.descriptors], [[], []]);
});

test('zeroing the whole disk is a handful of entries', async (t) => {
  const host = memoryHost(10);
  const index = await VersionIndex.open(host, options(0), rebuildFrom([]));
  index.add(1, 5, 2 ** 32 - 1, 1, undefined);
  index.add(1, 5 + 2 ** 32 - 1, 2 ** 32 - 1, 2, undefined);
  index.advance(2);
  t.true(index.status().memtableEntries <= 6);
  t.deepEqual(await index.lookup(1, 2 ** 33 - 8, 8, 2), [{ kind: 'zero', sector: 2 ** 33 - 8, sectors: 8 - 0 }]);
  t.deepEqual(await index.lookup(1, 0, 8, 2), [
    { kind: 'base', sector: 0, sectors: 5 },
    { kind: 'zero', sector: 5, sectors: 3 },
  ]);
});

test('a survey of one sector before a large trim and one of it tells of both', async (t) => {
  const index = await VersionIndex.open(memoryHost(12), options(0), rebuildFrom([]));
  const unit = cellSectors(CLASS_COUNT - 1);
  index.add(1, unit, unit, 1, undefined);
  index.advance(1);
  const parts: [string, number][] = [];
  for await (const { kind, sectors } of index.survey(1, unit - 1, 2, 1)) parts.push([kind, sectors]);
  t.deepEqual(parts, [
    ['base', 1],
    ['zero', 1],
  ]);
});

test('places 2 TiB, 32 TiB and 512 TiB apart are other places, in memory and in runs', async (t) => {
  const host = memoryHost(11);
  const index = await VersionIndex.open(host, options(0), rebuildFrom([]));
  const places = [0, 2 ** 32, 2 ** 36, 2 ** 40].map((far) => far + 5);
  for (const [i, sector] of places.entries()) {
    index.add(1, sector, 3, i + 1, { segment: i + 1, frame: 4096, payload: 0 });
    index.advance(i + 1);
  }
  for (const where of ['memory', 'runs']) {
    if (where === 'runs') {
      await index.rotate(places.length + 1);
      await index.settled();
      t.is(index.status().memtableEntries, 0);
    }
    for (const [i, sector] of places.entries()) {
      const found = await index.lookup(1, sector - 1, 4, places.length);
      t.like(found[1], { kind: 'data', sector, sectors: 3, segment: i + 1 }, where);
    }
  }
  await index.close();
});
