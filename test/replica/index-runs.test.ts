import { crc32c } from '@node-rs/crc32';
import test from 'ava';
import { TidemarkError } from '../../journal/base/errors.ts';
import { RecordFlag, RecordKind } from '../../journal/record.ts';
import { type EntryFields, emptyEntry, placeOf } from '../../replica/index/entry-format.ts';
import { Memtable } from '../../replica/index/memtable.ts';
import { mergeRuns, pickMerge, writeMemtable } from '../../replica/index/merge.ts';
import { PageCache } from '../../replica/index/page-cache.ts';
import { rebuildFromSegments } from '../../replica/index/rebuild.ts';
import { entryOffset, RunFile } from '../../replica/index/run-file.ts';
import {
  checkPage,
  decodeFooter,
  ENTRIES_PER_PAGE,
  encodeFooter,
  FENCES_PER_PAGE,
  PAGE_BYTES,
  type RunFooter,
  sealPage,
} from '../../replica/index/run-format.ts';
import { sortedRun } from '../../replica/index/survey.ts';
import { VersionIndex } from '../../replica/index/version-index.ts';
import { FrameReader } from '../../replica/store/frame-reader.ts';
import { RepairedFrames } from '../../replica/store/repaired-frames.ts';
import { SegmentStore } from '../../replica/store/segment-store.ts';
import { GROUP, History, seal } from './support/history.ts';
import { type MemoryHost, memoryHost, SeededRandom } from './support/memory-host.ts';

const DIRECTORY = '/index';
const GROUP_ENTRIES = ENTRIES_PER_PAGE * FENCES_PER_PAGE;

/** A run of writes of one sector each, LSNs `baseLsn + 1` to `baseLsn + count`, where `sectorOf` says. */
async function runOf(
  host: MemoryHost,
  cache: PageCache,
  baseLsn: number,
  count: number,
  sectorOf: (lsn: number) => number,
): Promise<RunFile> {
  const memtable = new Memtable(baseLsn, Math.max(count, 1));
  for (let lsn = baseLsn + 1; lsn <= baseLsn + count; lsn++) {
    memtable.add(1, sectorOf(lsn), 1, lsn, { segment: lsn, frame: 4096, payload: 0 });
  }
  memtable.lastLsn = baseLsn + count;
  const path = await writeMemtable(host, DIRECTORY, GROUP, memtable, baseLsn + count + 1);
  return RunFile.open(host, path, GROUP, cache);
}

function newCache(): PageCache {
  return new PageCache(1024 * PAGE_BYTES, PAGE_BYTES);
}

async function entriesOf(run: RunFile): Promise<EntryFields[]> {
  const source = sortedRun(run);
  const entries: EntryFields[] = [];
  for (let ordinal = 0; ordinal < source.count; ordinal++) {
    const entry = emptyEntry();
    await source.read(ordinal, entry);
    entries.push(entry);
  }
  return entries;
}

for (const count of [
  1,
  ENTRIES_PER_PAGE - 1,
  ENTRIES_PER_PAGE,
  ENTRIES_PER_PAGE + 1,
  62 * ENTRIES_PER_PAGE,
  63 * ENTRIES_PER_PAGE + 1,
  64 * ENTRIES_PER_PAGE,
  GROUP_ENTRIES,
  GROUP_ENTRIES + 1,
]) {
  test(`a run of ${count} entries is read back whole, and has not a page more than it needs`, async (t) => {
    const host = memoryHost(1);
    const run = await runOf(host, newCache(), 7, count, (lsn) => lsn * 8);
    const pages = Math.ceil(count / ENTRIES_PER_PAGE);
    const groups = Math.ceil(pages / FENCES_PER_PAGE);
    t.like(run.footer, { baseLsn: 7, lastLsn: 7 + count, entries: count, openFromLsn: count + 8, groups });
    t.is(run.footer.classCounts[0], count);
    t.is(run.bytes, (pages + groups + 1 + 1) * PAGE_BYTES);
    t.deepEqual(host.disk.list(DIRECTORY), [run.path.slice(DIRECTORY.length + 1)], 'nothing of the writing is left');
    const wrong: number[] = [];
    for (const [i, { place, cell, lsn, segment, sectors, zero }] of (await entriesOf(run)).entries()) {
      const same = place === placeOf(1, 0) && cell === i + 8 && lsn === i + 8 && segment === lsn;
      if (!same || sectors !== 1 || zero) wrong.push(i);
    }
    t.deepEqual(wrong, []);
    // every border: the first and the last entry of pages and groups, and what is between entries or behind them all
    for (const i of new Set([
      0,
      1,
      ENTRIES_PER_PAGE - 1,
      ENTRIES_PER_PAGE,
      GROUP_ENTRIES - 1,
      GROUP_ENTRIES,
      count - 1,
    ])) {
      if (i >= count) continue;
      t.is(await run.lowerBound(placeOf(1, 0), i + 8, i + 8, 0), i);
      t.is(await run.lowerBound(placeOf(1, 0), i + 8, i + 9, 0), i + 1);
      t.is(await run.lowerBound(placeOf(1, 0), i + 8, 0, i), i);
    }
    t.is(await run.lowerBound(placeOf(0, 7), 1, 1, 0), 0, 'before all');
    t.is(await run.lowerBound(placeOf(1, 1), 0, 0, 0), count, 'behind all');
    t.is(await run.lowerBound(placeOf(1, 0), 8, 0, count), count, 'a hint behind all');
    await run.close();
  });
}

test('runs of many pages merge into one that has every version above the floor, in order', async (t) => {
  const host = memoryHost(2);
  const cache = newCache();
  const random = new SeededRandom(2);
  const sectors = new Map<number, number>();
  const sectorOf = (lsn: number): number => {
    const sector = random.below(1500) * 8;
    sectors.set(lsn, sector);
    return sector;
  };
  // each longer than what is read at one go
  const runs: RunFile[] = [];
  for (const [baseLsn, count] of [
    [0, 1700],
    [1700, 20 * ENTRIES_PER_PAGE],
    [1700 + 20 * ENTRIES_PER_PAGE, 33 * ENTRIES_PER_PAGE + 5],
  ] as const) {
    runs.push(await runOf(host, cache, baseLsn, count, sectorOf));
  }
  const lastLsn = runs.at(-1)?.footer.lastLsn ?? 0;
  for (const floorLsn of [0, 1, 1700, 2500, lastLsn - 1, lastLsn]) {
    const path = await mergeRuns(host, DIRECTORY, GROUP, runs, floorLsn);
    const merged = await RunFile.open(host, path, GROUP, cache);
    t.like(merged.footer, { baseLsn: floorLsn, lastLsn, entries: lastLsn - floorLsn, openFromLsn: lastLsn + 1 });
    const expected = [...sectors]
      .filter(([lsn]) => lsn > floorLsn)
      .toSorted(([a, at], [b, other]) => at - other || a - b)
      .map(([lsn]) => lsn);
    t.deepEqual(
      (await entriesOf(merged)).map(({ lsn }) => lsn),
      expected,
      `above ${floorLsn}`,
    );
    await merged.close();
    host.disk.unlink(path);
  }
  for (const run of runs) await run.close();
});

test('eight neighbours of one size merge, the newest first, and never what is larger than the newest of them', async (t) => {
  const host = memoryHost(3);
  const cache = newCache();
  const runs: RunFile[] = [];
  const add = async (count: number): Promise<void> => {
    runs.push(await runOf(host, cache, runs.at(-1)?.footer.lastLsn ?? 0, count, (lsn) => lsn * 8));
  };
  const picked = (): number[] | undefined => pickMerge(runs, 10)?.map((run) => runs.indexOf(run));
  t.is(picked(), undefined);
  for (let i = 0; i < 7; i++) await add(10);
  t.is(picked(), undefined, 'seven');
  await add(10);
  t.deepEqual(picked(), [0, 1, 2, 3, 4, 5, 6, 7]);
  await add(10);
  t.deepEqual(picked(), [1, 2, 3, 4, 5, 6, 7, 8], 'the newest eight');
  runs.splice(0);
  await add(80);
  for (let i = 0; i < 7; i++) await add(10);
  t.is(picked(), undefined, 'a run of the next size does not count');
  await add(10);
  t.deepEqual(picked(), [1, 2, 3, 4, 5, 6, 7, 8]);
  runs.splice(0);
  for (let i = 0; i < 8; i++) await add(80);
  await add(10);
  t.deepEqual(picked(), [0, 1, 2, 3, 4, 5, 6, 7], 'older ones behind a small one');
  runs.splice(0);
  await add(10);
  for (let i = 0; i < 7; i++) await add(80);
  t.deepEqual(picked(), [0, 1, 2, 3, 4, 5, 6, 7], 'a smaller one before larger ones goes with them');
});

test('a merge that meets a damaged run builds it again and then merges', async (t) => {
  const host = memoryHost(4);
  const options = {
    directory: DIRECTORY,
    groupId: GROUP,
    floorLsn: 0,
    headLsn: 1000,
    cacheBytesMax: 8 * PAGE_BYTES,
    memtableEntries: 10,
  };
  const location = (lsn: number) => ({ segment: lsn, frame: 4096, payload: 0 });
  const rebuilt: number[] = [];
  const index = await VersionIndex.open(host, options, async (gap, emit) => {
    // in two runs, as a rebuild with less memory does
    for (const [baseLsn, lastLsn] of [
      [gap.baseLsn, gap.baseLsn + 4],
      [gap.baseLsn + 4, gap.lastLsn],
    ] as const) {
      rebuilt.push(lastLsn);
      const memtable = new Memtable(baseLsn, 10);
      for (let lsn = baseLsn + 1; lsn <= lastLsn; lsn++) memtable.add(1, lsn * 8, 8, lsn, location(lsn));
      memtable.lastLsn = lastLsn;
      await emit(memtable, lastLsn + 1);
    }
  });
  for (let lsn = 1; lsn <= 80; lsn++) {
    index.add(1, lsn * 8, 8, lsn, location(lsn));
    index.advance(lsn);
    if (lsn === 75) {
      const path = `${DIRECTORY}/${host.disk.list(DIRECTORY)[2]}`;
      const { bytes } = host.disk.files.get(path)!;
      bytes.writeUInt8(bytes.readUInt8(100) ^ 4, 100);
    }
    if (index.memtableFull) await index.rotate(lsn + 1);
  }
  await index.quiet();
  t.deepEqual(rebuilt, [24, 30]);
  t.is(index.mergeFailure, '');
  const { runs, entries } = index.status();
  t.true(runs <= 2, `${runs} runs`);
  t.is(entries, 80);
  t.is(host.disk.list(DIRECTORY).length, runs, 'what was merged is gone');
  const wrong: number[] = [];
  for (let lsn = 1; lsn <= 80; lsn++) {
    const [part] = await index.lookup(1, lsn * 8, 8, 80);
    if (part?.kind !== 'data' || part.segment !== lsn) wrong.push(lsn);
  }
  t.deepEqual(wrong, []);
  await index.close();
});

// Simulation seed 520407: nobody waits for a merge, so that the error ended the process.
test('a damaged run that a merge cannot build again, on a full disk, is built by the next who needs it', async (t) => {
  const host = memoryHost(5);
  const options = {
    directory: DIRECTORY,
    groupId: GROUP,
    floorLsn: 0,
    headLsn: 1000,
    cacheBytesMax: 8 * PAGE_BYTES,
    memtableEntries: 10,
  };
  const location = (lsn: number) => ({ segment: lsn, frame: 4096, payload: 0 });
  let full = true;
  const index = await VersionIndex.open(host, options, async (gap, emit) => {
    if (full) throw new TidemarkError('no-space', 'the disk is full');
    const memtable = new Memtable(gap.baseLsn, 10);
    for (let lsn = gap.baseLsn + 1; lsn <= gap.lastLsn; lsn++) memtable.add(1, lsn * 8, 8, lsn, location(lsn));
    memtable.lastLsn = gap.lastLsn;
    await emit(memtable, gap.lastLsn + 1);
  });
  for (let lsn = 1; lsn <= 80; lsn++) {
    index.add(1, lsn * 8, 8, lsn, location(lsn));
    index.advance(lsn);
    if (lsn === 75) {
      const { bytes } = host.disk.files.get(`${DIRECTORY}/${host.disk.list(DIRECTORY)[2]}`)!;
      bytes.writeUInt8(bytes.readUInt8(100) ^ 4, 100);
    }
    if (index.memtableFull) await index.rotate(lsn + 1);
  }
  await index.quiet();
  t.is(index.mergeFailure, 'the disk is full');
  const refused = await Promise.allSettled([25, 26, 75].map((lsn) => index.lookup(1, lsn * 8, 8, 80)));
  t.deepEqual(
    refused.map(({ status }) => status),
    ['rejected', 'rejected', 'fulfilled'],
  );
  full = false;
  for (const lsn of [25, 75]) t.like((await index.lookup(1, lsn * 8, 8, 80))[0], { kind: 'data', segment: lsn });
  await index.close();
});

/** A store that holds a history, and what is needed to build an index of it. */
async function storeOf(host: MemoryHost, history: History): Promise<{ store: SegmentStore; frames: FrameReader }> {
  const options = { directory: '/segments', groupId: GROUP, segmentBytes: 48 * 1024, durableLsn: 0 };
  const store = await SegmentStore.open(host, options);
  for (const frame of seal(history)) {
    if (store.wantsSeal) await store.seal(frame.firstLsn);
    const { bytes, firstLsn, lastLsn } = frame;
    await store.append(bytes, { firstLsn, lastLsn, firstTime: 1, lastTime: 1, records: lastLsn - firstLsn + 1 });
  }
  await store.sync();
  const repaired = new RepairedFrames(host, '/segments');
  return { store, frames: new FrameReader(store, repaired, { chunkBytesMax: 65_536, layoutBytesMax: 65_536 }) };
}

/** The oldest piece whose request is open at `lsn`, else the LSN behind it. */
function openFrom(history: History, lsn: number): number {
  const open = new Map<number, number>();
  for (const [i, { flags, requestId }] of history.records.slice(0, lsn).entries()) {
    if ((flags & RecordFlag.piece) === 0) continue;
    if ((flags & RecordFlag.closes) !== 0) open.delete(requestId);
    else if (!open.has(requestId)) open.set(requestId, i + 1);
  }
  return Math.min(lsn + 1, ...open.values());
}

test('an index built again from the segments: one memtable at a time, each waited for, covering the gap exactly', async (t) => {
  const history = new History(5);
  history.addVolumes();
  history.fill(300);
  const { store, frames } = await storeOf(memoryHost(5), history);
  const changes = history.records.filter(({ kind }) =>
    ([RecordKind.write, RecordKind.trim, RecordKind.zero, RecordKind.seed] as number[]).includes(kind),
  ).length;
  t.true(changes > 200);
  const rebuild = rebuildFromSegments(store, frames, 40, (_frame, error) => Promise.reject(error));
  for (const [baseLsn, lastLsn] of [
    [0, 300],
    [50, 300],
    [0, 120],
    [99, 201],
    [299, 300],
  ] as const) {
    const emitted: { from: number; to: number; lsns: Set<number> }[] = [];
    let writing = 0;
    let most = 0;
    await rebuild({ baseLsn, lastLsn, fromLsn: openFrom(history, baseLsn) }, async (memtable, openFromLsn) => {
      most = Math.max(most, ++writing);
      for (let turn = 0; turn < 5; turn++) await new Promise(setImmediate);
      writing--;
      t.is(openFromLsn, Math.min(openFrom(history, memtable.lastLsn), memtable.lastLsn + 1));
      const entry = emptyEntry();
      const lsns = new Set<number>();
      for (const i of memtable.sorted()) {
        memtable.read(i, entry);
        lsns.add(entry.lsn);
      }
      emitted.push({ from: memtable.baseLsn, to: memtable.lastLsn, lsns });
    });
    t.is(most, 1, 'never two in memory');
    t.is(writing, 0);
    t.is(emitted[0]?.from, baseLsn);
    t.is(emitted.at(-1)?.to, lastLsn);
    for (const [i, { from, to, lsns }] of emitted.entries()) {
      t.is(from, emitted[i - 1]?.to ?? baseLsn);
      t.true([...lsns].every((lsn) => lsn > from && lsn <= to));
    }
    const found = new Set(emitted.flatMap(({ lsns }) => [...lsns]));
    const whole = history.records.flatMap(({ kind, flags }, i) => {
      const changed = ([RecordKind.write, RecordKind.trim, RecordKind.zero, RecordKind.seed] as number[]).includes(
        kind,
      );
      const effective = (flags & RecordFlag.piece) === 0 || (flags & RecordFlag.closes) !== 0;
      return changed && effective && i + 1 > baseLsn && i + 1 <= lastLsn ? [i + 1] : [];
    });
    t.deepEqual(
      [...found].toSorted((a, b) => a - b),
      whole,
      `${baseLsn} to ${lastLsn}`,
    );
  }
  const failure = new Error('the disk is full');
  let calls = 0;
  const failing = rebuild({ baseLsn: 0, lastLsn: 300, fromLsn: 0 }, async () => {
    calls++;
    await new Promise(setImmediate);
    throw failure;
  });
  await t.throwsAsync(failing, { is: failure });
  t.is(calls, 1, 'nothing is built behind what could not be written');
  await store.close();
});

test('a run whose length, fences or footer contradict each other is not opened', async (t) => {
  const host = memoryHost(8);
  const run = await runOf(host, newCache(), 0, 3 * ENTRIES_PER_PAGE, (lsn) => lsn * 8);
  await run.close();
  const { bytes: stored, length } = host.disk.files.get(run.path)!;
  const bytes = Buffer.from(stored.subarray(0, length));
  const footerAt = length - PAGE_BYTES;
  const footer = decodeFooter(Buffer.from(bytes.subarray(footerAt)), 'it');
  const open = (content: Buffer): Promise<RunFile> => {
    host.disk.files.set('/index/it', { bytes: content, length: content.length });
    return RunFile.open(host, '/index/it', GROUP, newCache());
  };
  const damaged = { code: 'journal-damaged' };
  const told = (change: Partial<RunFooter>, content = bytes): Buffer =>
    Buffer.concat([content.subarray(0, content.length - PAGE_BYTES), encodeFooter({ ...footer, ...change })]);
  t.deepEqual((await open(told({}))).footer, footer);
  for (const [what, content] of [
    ['a page more', told({}, Buffer.concat([Buffer.alloc(PAGE_BYTES), bytes]))],
    ['a page less', told({}, bytes.subarray(PAGE_BYTES))],
    ['entries of one page more', told({ entries: footer.entries + 1 })],
    ['entries of one page less', told({ entries: footer.entries - ENTRIES_PER_PAGE })],
    ['another number of groups', told({ groups: 2 })],
    ['no groups', told({ groups: 0 })],
    ['other fences', told({ topCrc: (footer.topCrc ^ 1) >>> 0 })],
    ['a part of a page', bytes.subarray(1)],
    ['less than a page', bytes.subarray(footerAt + 1)],
    ['nothing', Buffer.alloc(0)],
  ] as const) {
    await t.throwsAsync(open(Buffer.from(content)), damaged, what);
  }
  t.is((await open(told({ entries: footer.entries - 1 }))).footer.entries, footer.entries - 1, 'the page is as long');
  await t.throwsAsync(open(told({ groupId: 'cd'.repeat(16) })), { code: 'journal-foreign' });
  const newer = Buffer.from(bytes);
  newer.writeUInt16LE(2, footerAt + 4);
  newer.writeUInt32LE(0, footerAt + 8);
  newer.writeUInt32LE(crc32c(newer.subarray(footerAt)), footerAt + 8);
  await t.throwsAsync(open(newer), { code: 'format-too-new' });
  for (let bit = 0; bit < 140 * 8; bit += 11) {
    const rotten = Buffer.from(bytes);
    rotten[footerAt + (bit >> 3)]! ^= 1 << (bit & 7);
    await t.throwsAsync(open(rotten), damaged, `bit ${bit}`);
  }
  const cut = Buffer.from(bytes);
  cut[footerAt - 2 * PAGE_BYTES + 4] = 255;
  const fences = await open(cut);
  await t.throwsAsync(fences.lowerBound(placeOf(1, 0), 200, 0, 0), damaged, 'a page of fences that is damaged');
});

test('a page is checked without being changed', (t) => {
  const page = Buffer.alloc(PAGE_BYTES, 7);
  sealPage(page);
  const before = Buffer.from(page);
  t.notThrows(() => checkPage(page, 'it'));
  t.deepEqual(page, before);
  t.notThrows(() => checkPage(page, 'it'), 'twice');
  page[PAGE_BYTES - 1]! ^= 1;
  t.throws(() => checkPage(page, 'it'), { code: 'journal-damaged', message: /^it: / });
});

test('an entry stands where its ordinal says, page by page', (t) => {
  t.is(entryOffset(0), 8);
  t.is(entryOffset(1), 48);
  t.is(entryOffset(ENTRIES_PER_PAGE - 1), 8 + 40 * 101);
  t.is(entryOffset(ENTRIES_PER_PAGE), 8);
});
