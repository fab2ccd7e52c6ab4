import test from 'ava';
import { Leases } from '../../replica/base/leases.ts';
import { decideRetention, type RetentionSegment } from '../../replica/base/retention-policy.ts';
import {
  CLASS_COUNT,
  cellAt,
  cellSectors,
  compareEntryToKey,
  ENTRY_BYTES,
  emptyEntry,
  lsnAt,
  placeAt,
  placeOf,
  readEntry,
  writeEntry,
} from '../../replica/index/entry-format.ts';
import { LookupWindow } from '../../replica/index/lookup-window.ts';
import { Memtable } from '../../replica/index/memtable.ts';
import { sortOrder } from '../../replica/index/radix-sort.ts';
import { entryPageAt, fencePageAt, parseRunName, runName } from '../../replica/index/run-format.ts';
import { emptyParts } from '../../replica/index/survey.ts';
import { FeedbackPacer } from '../../replica/receive/feedback-pacer.ts';
import { SpaceWatch } from '../../replica/receive/space-watch.ts';
import { SCRATCH_BLOCK_BYTES, ScratchMap, ScratchState } from '../../replica/view/scratch-map.ts';
import { ScratchOverlay } from '../../replica/view/scratch-overlay.ts';
import { MemoryDevice } from '../doubles/memory-device.ts';
import { memoryHost, SeededRandom } from './support/memory-host.ts';

const PAGE_BLOCKS = 65_536;

test('a scratch map tells the state of every block, over borders of its pages, and counts those with data', (t) => {
  const map = new ScratchMap();
  const { below, data, zero } = ScratchState;
  const model = new Map<number, number>();
  const set = (from: number, to: number, state: 1 | 2): void => {
    map.set(from, to, state);
    for (let block = from; block < to; block++) model.set(block, state);
  };
  const check = (what: string): void => {
    let count = 0;
    for (const state of model.values()) if (state === data) count++;
    t.is(map.dataBlocks, count, what);
    for (const border of [0, PAGE_BLOCKS, 2 * PAGE_BLOCKS, 3 * PAGE_BLOCKS]) {
      for (let block = Math.max(0, border - 12); block < border + 12; block++) {
        if (map.state(block) !== (model.get(block) ?? below)) t.fail(`${what}: block ${block}`);
      }
    }
  };
  check('fresh');
  t.deepEqual(map.stretch(3, 5 * PAGE_BLOCKS), { state: below, blocks: 5 * PAGE_BLOCKS - 3 });
  set(PAGE_BLOCKS - 2, PAGE_BLOCKS + 3, data);
  check('data over a border');
  t.deepEqual(map.stretch(0, 9 * PAGE_BLOCKS), { state: below, blocks: PAGE_BLOCKS - 2 });
  t.deepEqual(map.stretch(PAGE_BLOCKS - 2, 9 * PAGE_BLOCKS), { state: data, blocks: 5 });
  t.deepEqual(map.stretch(PAGE_BLOCKS - 2, PAGE_BLOCKS + 1), { state: data, blocks: 3 });
  t.deepEqual(map.stretch(PAGE_BLOCKS, PAGE_BLOCKS + 1), { state: data, blocks: 1 });
  set(PAGE_BLOCKS, PAGE_BLOCKS + 1, zero);
  check('one zeroed');
  set(PAGE_BLOCKS, PAGE_BLOCKS + 2, data);
  check('and written again');
  set(PAGE_BLOCKS, 2 * PAGE_BLOCKS, zero);
  check('a whole page zeroed');
  t.deepEqual(map.stretch(PAGE_BLOCKS, 9 * PAGE_BLOCKS), { state: zero, blocks: PAGE_BLOCKS });
  set(PAGE_BLOCKS + 5, 2 * PAGE_BLOCKS + 5, zero);
  check('zeroed beyond it');
  t.deepEqual(map.stretch(PAGE_BLOCKS, 9 * PAGE_BLOCKS), { state: zero, blocks: PAGE_BLOCKS + 5 });
  set(2 * PAGE_BLOCKS - 1, 2 * PAGE_BLOCKS, data);
  check('a block of a zeroed page written');
  t.deepEqual(map.stretch(PAGE_BLOCKS + 7, 9 * PAGE_BLOCKS), { state: zero, blocks: PAGE_BLOCKS - 8 });
  set(PAGE_BLOCKS - 1, 3 * PAGE_BLOCKS - 1, zero);
  check('all but a block of the last page');
  set(2 * PAGE_BLOCKS, 3 * PAGE_BLOCKS, data);
  check('a whole page of data');
  set(2 * PAGE_BLOCKS, 3 * PAGE_BLOCKS, zero);
  check('zeroed again');
  set(3 * PAGE_BLOCKS - 4, 3 * PAGE_BLOCKS + 4, zero);
  check('on zeroes');
});

test('a scratch overlay takes what its bound has room for, to the block, and nothing once it is closed', async (t) => {
  const host = memoryHost(1);
  const size = 20 * SCRATCH_BLOCK_BYTES + 512;
  const content = Buffer.from(new SeededRandom(4).bytes(size));
  const overlay = new ScratchOverlay(host, new MemoryDevice(size, { content }), '/scratch/s', 4 * SCRATCH_BLOCK_BYTES);
  t.is(overlay.size, size);
  await overlay.write(512, Buffer.alloc(512, 1));
  t.is(overlay.usedBytes, SCRATCH_BLOCK_BYTES);
  await overlay.write(2 * SCRATCH_BLOCK_BYTES - 512, Buffer.alloc(1024, 2));
  t.is(overlay.usedBytes, 3 * SCRATCH_BLOCK_BYTES);
  const refused = { code: 'no-space' };
  await t.throwsAsync(overlay.write(8 * SCRATCH_BLOCK_BYTES - 512, Buffer.alloc(1024, 3)), refused);
  t.is(overlay.usedBytes, 3 * SCRATCH_BLOCK_BYTES);
  await overlay.write(8 * SCRATCH_BLOCK_BYTES, Buffer.alloc(SCRATCH_BLOCK_BYTES, 4));
  t.is(overlay.usedBytes, 4 * SCRATCH_BLOCK_BYTES, 'exactly');
  await t.throwsAsync(overlay.write(0, Buffer.alloc(512, 3)), refused, 'counted although it is there');
  await overlay.zero(8 * SCRATCH_BLOCK_BYTES, SCRATCH_BLOCK_BYTES);
  t.is(overlay.usedBytes, 3 * SCRATCH_BLOCK_BYTES, 'zeroes give room back');
  content.fill(1, 512, 1024);
  content.fill(2, 2 * SCRATCH_BLOCK_BYTES - 512, 2 * SCRATCH_BLOCK_BYTES + 512);
  content.fill(0, 8 * SCRATCH_BLOCK_BYTES, 9 * SCRATCH_BLOCK_BYTES);
  const same = async (what: string): Promise<void> => {
    for (const [from, length] of [
      [0, size],
      [512, 512],
      [2 * SCRATCH_BLOCK_BYTES - 512, 1024],
      [size - 1024, 1024],
    ] as const) {
      const into = Buffer.alloc(length, 9);
      await overlay.read(from, into);
      t.true(into.equals(content.subarray(from, from + length)), `${what}: ${from} +${length}`);
    }
  };
  await same('written');
  // the end of the disk is in the middle of a block
  await overlay.zero(20 * SCRATCH_BLOCK_BYTES, 512);
  content.fill(0, 20 * SCRATCH_BLOCK_BYTES);
  await same('the end zeroed');
  t.is(overlay.usedBytes, 3 * SCRATCH_BLOCK_BYTES, 'a whole block as far as the disk goes');
  await overlay.zero(3 * SCRATCH_BLOCK_BYTES + 512, 512);
  content.fill(0, 3 * SCRATCH_BLOCK_BYTES + 512, 3 * SCRATCH_BLOCK_BYTES + 1024);
  await same('a part of a block zeroed');
  await overlay.zero(4 * SCRATCH_BLOCK_BYTES + 512, 3 * SCRATCH_BLOCK_BYTES);
  content.fill(0, 4 * SCRATCH_BLOCK_BYTES + 512, 7 * SCRATCH_BLOCK_BYTES + 512);
  await same('whole blocks and both edges zeroed');
  const used = overlay.usedBytes;
  await overlay.zero(5 * SCRATCH_BLOCK_BYTES + 512, 512);
  t.is(overlay.usedBytes, used, 'zeroes in zeroes take no room');
  await same('zeroes in zeroes');
  let told = 0;
  for (const { length } of await overlay.extents(512, size - 1024)) told += length;
  t.is(told, size - 1024);
  await overlay.flush();
  t.deepEqual(host.disk.list('/scratch'), ['s']);
  await overlay.close();
  t.deepEqual(host.disk.list('/scratch'), []);
  await overlay.close();
  const closed = { code: 'shutting-down' };
  await t.throwsAsync(overlay.read(0, Buffer.alloc(512)), closed);
  await t.throwsAsync(overlay.write(0, Buffer.alloc(512)), closed);
  await t.throwsAsync(overlay.zero(0, 512), closed);
});

test('what is painted over a window: on every sector the newest wins, in whatever order they come', (t) => {
  const random = new SeededRandom(9);
  for (let round = 0; round < 60; round++) {
    const sector = random.below(3) === 0 ? 0 : 2 ** 40 + random.below(100);
    const sectors = 1 + random.below(40);
    const entries = Array.from({ length: random.below(9) }, (_, i) => ({
      sector: Math.max(0, sector + random.below(sectors + 20) - 10),
      sectors: 1 + random.below(20),
      lsn: 10 + i,
      zero: random.below(3) === 0,
    }));
    const window = new LookupWindow(sector, sectors);
    const painted: typeof entries = [];
    const winner = (at: number): (typeof entries)[number] | undefined =>
      painted.filter((one) => at >= one.sector && at < one.sector + one.sectors).toSorted((a, b) => b.lsn - a.lsn)[0];
    const places = Array.from({ length: sectors }, (_, i) => sector + i);
    const order = entries.toSorted(() => random.below(3) - 1);
    for (const entry of order) {
      painted.push(entry);
      window.paint(entry.sector, entry.sectors, entry.lsn, entry.zero, entry.lsn, 4096, 512);
      t.is(
        window.complete,
        places.every((at) => winner(at) !== undefined),
      );
    }
    for (const lsn of [1, 10, 13, 99]) {
      const from = sector + random.below(sectors);
      const length = 1 + random.below(sectors + 5);
      const inside = places.filter((at) => at >= from && at < from + length);
      t.is(
        window.settled(from, length, lsn),
        inside.every((at) => (winner(at)?.lsn ?? 0) >= lsn),
      );
    }
    let at = sector;
    for (const part of window.parts()) {
      t.is(part.sector, at);
      for (; at < part.sector + part.sectors; at++) {
        const top = winner(at);
        if (top === undefined || top.zero) t.is(part.kind, top === undefined ? 'base' : 'zero');
        else {
          const payload = 512 + (part.sector - top.sector) * 512;
          t.like(part, { kind: 'data', segment: top.lsn, frame: 4096, payload });
        }
      }
    }
    t.is(at, sector + sectors);
  }
  const joined = new LookupWindow(0, 10);
  joined.paint(0, 3, 1, true, 0, 0, 0);
  joined.paint(3, 3, 2, true, 0, 0, 0);
  t.deepEqual(joined.parts(), [
    { kind: 'zero', sector: 0, sectors: 6 },
    { kind: 'base', sector: 6, sectors: 4 },
  ]);
});

test('an entry of the index is read as written, and sorts by place, cell and LSN', (t) => {
  const view = new DataView(new ArrayBuffer(3 * ENTRY_BYTES));
  const entry = {
    place: placeOf(65_535, CLASS_COUNT - 1),
    cell: 2 ** 40 + 3,
    lsn: 2 ** 50 + 1,
    start: 0xffff_fffe,
    sectors: 0xffff_ffff,
    zero: true,
    segment: 0xffff_fffd,
    frame: 0xffff_fffc,
    payload: 0xffff_fffb,
  };
  for (const zero of [true, false]) {
    writeEntry(view, ENTRY_BYTES, { ...entry, zero });
    const into = emptyEntry();
    readEntry(view, ENTRY_BYTES, into);
    t.deepEqual(into, { ...entry, zero });
  }
  t.deepEqual([placeAt(view, 40), cellAt(view, 40), lsnAt(view, 40)], [entry.place, entry.cell, entry.lsn]);
  t.true(new Uint8Array(view.buffer, 0, 40).every((byte) => byte === 0) && view.getUint8(80) === 0);
  const order = (place: number, cell: number, lsn: number): number =>
    Math.sign(compareEntryToKey(view, ENTRY_BYTES, place, cell, lsn));
  const { place, cell, lsn } = entry;
  t.is(order(place, cell, lsn), 0);
  t.deepEqual([order(place + 1, 0, 0), order(place - 1, 2 ** 42, 2 ** 52)], [-1, 1]);
  t.deepEqual([order(place, cell + 1, 0), order(place, cell - 1, 2 ** 52)], [-1, 1]);
  t.deepEqual([order(place, cell, lsn + 1), order(place, cell, lsn - 1)], [-1, 1]);
  t.deepEqual([0, 1, 2, 7].map(cellSectors), [8, 128, 2048, 8 * 16 ** 7]);
  t.throws(() => cellSectors(8), { name: 'AssertionError' });
  t.is(runName(0xab, 2 ** 52), '000000000000ab-10000000000000.run');
  t.deepEqual(parseRunName(runName(5, 2 ** 52)), { baseLsn: 5, lastLsn: 2 ** 52 });
  for (const name of ['x.run', `${runName(1, 2)}.tmp`, `a${runName(1, 2)}`, runName(1, 2).toUpperCase()]) {
    t.is(parseRunName(name), undefined, name);
  }
  t.deepEqual([0, 169, 170, 339, 340].map(entryPageAt), [0, 169, 171, 340, 342]);
  t.deepEqual(
    [fencePageAt(0, 1), fencePageAt(0, 170), fencePageAt(0, 171), fencePageAt(1, 171), fencePageAt(1, 340)],
    [1, 170, 170, 172, 341],
  );
});

test('entries are sorted by place and cell in every digit, and stay in order of arrival', (t) => {
  t.deepEqual([...sortOrder(new Uint32Array(0), new Float64Array(0), 0)], []);
  t.deepEqual([...sortOrder(Uint32Array.of(5), Float64Array.of(5), 1)], [0]);
  const keys: [number, number][] = [];
  for (const place of [0, 1, 0xffff, 0x1_0000, 0x7_ffff]) {
    for (const cell of [0, 1, 0xffff, 0x1_0000, 0xffff_ffff, 0x1_0000_0000, 0x1_0000_ffff, 2 ** 40, 2 ** 41 - 1]) {
      keys.push([place, cell], [place, cell]);
    }
  }
  const random = new SeededRandom(6);
  for (let round = 0; round < 6; round++) {
    const shuffled = keys.toSorted(() => random.below(3) - 1);
    const place = Uint32Array.from(shuffled, ([first]) => first);
    const cell = Float64Array.from(shuffled, ([, second]) => second);
    const expected = shuffled
      .map((_, i) => i)
      .toSorted((a, b) => place[a]! - place[b]! || cell[a]! - cell[b]! || a - b);
    t.deepEqual([...sortOrder(place, cell, shuffled.length)], expected);
    t.deepEqual(
      [...sortOrder(place, cell, 7)],
      expected.filter((i) => i < 7),
      'only those that are there',
    );
  }
});

test('a memtable grows beyond its room, finds what it holds and cuts extents at the borders of cells', (t) => {
  const memtable = new Memtable(10, 2);
  const random = new SeededRandom(8);
  const model = new Map<number, { lsn: number; payload: number }>();
  const written: { lsn: number; sector: number; sectors: number; data: boolean }[] = [];
  for (let lsn = 11; lsn <= 300; lsn++) {
    const sector = random.below(400);
    const sectors = 1 + random.below(random.below(5) === 0 ? 200 : 12);
    const location = random.below(4) === 0 ? undefined : { segment: lsn, frame: 4096, payload: 1024 };
    memtable.add(1, sector, sectors, lsn, location);
    written.push({ lsn, sector, sectors, data: location !== undefined });
    for (let i = 0; i < sectors; i++)
      model.set(sector + i, { lsn, payload: location === undefined ? -1 : 1024 + i * 512 });
  }
  memtable.lastLsn = 300;
  const paint = (volume: number, atLsn: number, floorLsn: number): LookupWindow => {
    const window = new LookupWindow(0, 500);
    memtable.paint(window, volume, atLsn, floorLsn);
    return window;
  };
  const wrong: number[] = [];
  for (const part of paint(1, 300, 10).parts()) {
    for (let i = 0; i < part.sectors; i++) {
      const top = model.get(part.sector + i);
      const told = part.kind === 'data' ? part.payload + i * 512 : part.kind === 'zero' ? -1 : undefined;
      if (told !== top?.payload || (part.kind === 'data' && part.segment !== top?.lsn)) wrong.push(part.sector + i);
    }
  }
  t.deepEqual(wrong, []);
  for (let round = 0; round < 200; round++) {
    const window = new LookupWindow(random.below(500), 1 + random.below(60));
    const atLsn = 11 + random.below(290);
    memtable.paint(window, 1, atLsn, 10);
    const top = written.findLast(
      ({ lsn, sector, sectors }) => lsn <= atLsn && window.sector >= sector && window.sector < sector + sectors,
    );
    const [part] = window.parts();
    t.is(part?.kind, top === undefined ? 'base' : top.data ? 'data' : 'zero');
    if (part?.kind === 'data') t.is(part.segment, top!.lsn);
  }
  const base = [{ kind: 'base', sector: 0, sectors: 500 }];
  t.deepEqual(paint(2, 300, 10).parts(), base as never, 'another volume');
  t.deepEqual(paint(1, 10, 0).parts(), base as never, 'before all');
  t.deepEqual(paint(1, 300, 300).parts(), base as never, 'all of it in the base');
  t.true(
    paint(1, 300, 299)
      .parts()
      .some(({ kind }) => kind !== 'base'),
  );
  t.true(
    paint(1, 11, 10)
      .parts()
      .some(({ kind }) => kind !== 'base'),
  );
  let counted = 0;
  for (let sizeClass = 0; sizeClass < CLASS_COUNT; sizeClass++) counted += memtable.classCount(sizeClass);
  t.is(counted, memtable.count);
  const cut = new Memtable(0, 4);
  cut.add(1, 6, 5, 1, { segment: 1, frame: 2, payload: 100 });
  const entry = emptyEntry();
  const entries = [...cut.sorted()].map((i) => {
    cut.read(i, entry);
    return [entry.cell, entry.start, entry.sectors, entry.payload];
  });
  t.deepEqual(entries, [
    [0, 6, 2, 100],
    [1, 0, 3, 100 + 2 * 512],
  ]);
  t.deepEqual([cut.compareToCell(0, placeOf(1, 0), 0), cut.compareToCell(0, placeOf(1, 0), 1)].map(Math.sign), [0, -1]);
  t.true(cut.compareToCell(0, placeOf(0, 7), 9) > 0);
});

test('what no small entry touches is base and zeroes, in order and without holes', (t) => {
  t.deepEqual([...emptyParts(5, 10, [])], [{ kind: 'base', sector: 5, sectors: 5 }]);
  t.deepEqual([...emptyParts(5, 10, [[5, 10]])], [{ kind: 'zero', sector: 5, sectors: 5 }]);
  t.deepEqual(
    [
      ...emptyParts(0, 20, [
        [3, 5],
        [5, 7],
        [19, 20],
      ]),
    ].map(({ kind, sector, sectors }) => [kind, sector, sectors]),
    [
      ['base', 0, 3],
      ['zero', 3, 2],
      ['zero', 5, 2],
      ['base', 7, 12],
      ['zero', 19, 1],
    ],
  );
});

test('feedback goes at once when the state changed, else after its time or its bytes, whichever is first', (t) => {
  const { clock } = memoryHost(1);
  let sent = 0;
  const pacer = new FeedbackPacer(clock, 250, 1000, () => sent++);
  pacer.after(1, false);
  t.is(sent, 1, 'nothing was ever told');
  pacer.after(999, false);
  t.is(sent, 1);
  pacer.after(1, false);
  t.is(sent, 2, 'so many bytes');
  pacer.after(999, false);
  t.is(sent, 2, 'counted from there on');
  clock.advance(249);
  t.is(sent, 2);
  clock.advance(1);
  t.is(sent, 3, 'its time');
  clock.advance(1000);
  t.is(sent, 3, 'once');
  pacer.after(5, false);
  t.is(sent, 4, 'its time had passed');
  clock.advance(100);
  pacer.after(5, false);
  pacer.now();
  t.is(sent, 5);
  clock.advance(200);
  t.is(sent, 5, 'what was told is not told again');
  clock.advance(49);
  pacer.after(5, false);
  t.is(sent, 5);
  pacer.after(5, false);
  clock.advance(1);
  t.is(sent, 6, 'one timer');
  pacer.after(5, false);
  pacer.close();
  clock.advance(1000);
  pacer.after(5000, false);
  pacer.now();
  t.is(sent, 6, 'closed');
});

test('the reserve is none of the room for frames', (t) => {
  const host = memoryHost(1);
  const watch = new SpaceWatch(host, 'g', '/', 1000, () => 0);
  host.disk.capacity = 1500;
  t.is(watch.freeBytes, 500);
  host.disk.capacity = 1000;
  t.is(watch.freeBytes, 0);
  host.disk.capacity = 10;
  t.is(watch.freeBytes, 0);
  watch.check();
  t.is(watch.level, 0, 'nothing is used');
  let used = 0;
  const levels = new SpaceWatch(host, 'g', '/', 0, () => used);
  for (const [percent, level] of [
    [49, 0],
    [50, 50],
    [79, 50],
    [80, 80],
    [94, 80],
    [95, 95],
    [100, 95],
  ] as const) {
    used = percent * 100;
    host.disk.capacity = host.disk.used() + 10_000 - used;
    levels.check();
    t.is(levels.level, level, `${percent} per cent`);
  }
});

test('what holds the floor is the lowest that is held', (t) => {
  const leases = new Leases();
  t.is(leases.lowestLsn, Number.MAX_SAFE_INTEGER);
  const releases = [50, 30, 40].map((lsn) => leases.take(lsn, 'view', `at ${lsn}`));
  t.is(leases.lowestLsn, 30);
  t.is(new Set(leases.list().map(({ id }) => id)).size, 3);
  t.like(leases.list()[1], { lsn: 30, kind: 'view', owner: 'at 30' });
  releases[1]?.();
  releases[1]?.();
  t.is(leases.lowestLsn, 40);
});

test('history goes by whole segments: older than the window, or over the bytes, and never behind one that stays', (t) => {
  const segment = (sequence: number, lastTime: number, sealed = true): RetentionSegment => ({
    sequence,
    firstLsn: sequence * 10 - 9,
    lastLsn: sequence * 10,
    lastTime,
    bytes: 100,
    sealed,
  });
  const segments = [segment(1, 1000), segment(2, 2000), segment(3, 3000), segment(4, 4000, false)];
  const decide = (windowMs: number, bytesMax = 0, now = 5000, leases: number[] = []) =>
    decideRetention(
      segments,
      leases.map((lsn, id) => ({ id, lsn, kind: 'view' as const, owner: 'o' })),
      { windowMs, bytesMax },
      0,
      now,
    );
  t.is(decide(5).floorLsn, 0);
  t.is(decide(4).floorLsn, 0, 'exactly the window is kept');
  t.is(decide(4, 0, 5001).floorLsn, 10);
  t.is(decide(3).floorLsn, 10);
  t.is(decide(2).floorLsn, 20);
  t.is(decide(0).floorLsn, 30, 'never the one that is written');
  t.deepEqual(
    decide(3, 0, 5001).segments.map(({ keep }) => keep),
    [false, false, true, true],
  );
  t.is(decide(5, 400).floorLsn, 0);
  t.is(decide(5, 399).floorLsn, 10);
  t.is(decide(5, 300).floorLsn, 10);
  t.is(decide(5, 299).floorLsn, 20);
  t.is(decide(5, 1).floorLsn, 30);
  t.is(decide(0, 0, 5000, [10]).floorLsn, 10, 'a view at the end of a segment does not need it');
  t.is(decide(0, 0, 5000, [9]).floorLsn, 0);
  t.is(decide(0, 0, 5000, [25, 19]).floorLsn, 10);
  const reasons = decide(0, 0, 5000, [15]).segments.map(({ reason }) => reason);
  t.deepEqual(reasons, [
    'older than the window',
    'view: o at LSN 15',
    'behind a kept segment',
    'behind a kept segment',
  ]);
  t.is(decide(5, 399).segments[0]?.reason, 'over the bound in bytes');
  t.is(decide(5).segments[0]?.reason, 'inside the window');
  t.is(decide(0).segments[3]?.reason, 'being written');
  const unvouched = [{ lsn: 15, micros: 2500 }];
  const jumped = decideRetention(segments, [], { windowMs: 2, bytesMax: 0 }, 0, 5000, unvouched);
  t.is(jumped.floorLsn, 0, 'time that no clock vouches for ages nothing');
  const before = decideRetention(segments, [], { windowMs: 2, bytesMax: 0 }, 0, 5000, [{ lsn: 5, micros: 2500 }]);
  t.is(before.floorLsn, 20, 'a step before a segment is no matter of its age');
  t.is(decideRetention(segments, [], { windowMs: 2, bytesMax: 0 }, 0, 5000, [{ lsn: 10, micros: 2500 }]).floorLsn, 20);
  t.is(decideRetention([], [], { windowMs: 2, bytesMax: 0 }, 7, 5000).floorLsn, 7);
});
