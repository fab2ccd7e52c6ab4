import test from 'ava';
import { Memtable } from '../../replica/index/memtable.ts';
import { runName } from '../../replica/index/run-format.ts';
import { VersionIndex, type VersionIndexOptions } from '../../replica/index/version-index.ts';
import { LateDisk } from '../doubles/late-disk.ts';
import { GROUP } from './support/history.ts';
import { MemoryDisk, type MemoryHost, memoryHost, SeededRandom } from './support/memory-host.ts';

const DIRECTORY = '/index';

function options(change: Partial<VersionIndexOptions> = {}): VersionIndexOptions {
  return {
    directory: DIRECTORY,
    groupId: GROUP,
    floorLsn: 0,
    headLsn: 1_000_000,
    cacheBytesMax: 64 * 1024,
    memtableEntries: 10,
    ...change,
  };
}

const location = (lsn: number) => ({ segment: lsn, frame: 4096, payload: 0 });

/** Record `lsn` writes the eight sectors of its own cell, and one sector that all share. */
function add(index: { add: VersionIndex['add'] }, lsn: number): void {
  index.add(1, lsn * 8, 8, lsn, location(lsn));
}

/** As the segments would give it back; notes what was asked for. */
function openIndex(
  host: MemoryHost,
  change: Partial<VersionIndexOptions> = {},
  asked: string[] = [],
): Promise<VersionIndex> {
  return VersionIndex.open(host, options(change), async (gap, emit) => {
    asked.push(`${gap.baseLsn}-${gap.lastLsn} from ${gap.fromLsn}`);
    const memtable = new Memtable(gap.baseLsn, 16);
    for (let lsn = gap.baseLsn + 1; lsn <= gap.lastLsn; lsn++) add(memtable, lsn);
    memtable.lastLsn = gap.lastLsn;
    await emit(memtable, gap.lastLsn + 1);
  });
}

/** Runs that end with these LSNs, each "open from" five before its end. */
async function withRuns(
  host: MemoryHost,
  ends: readonly number[],
  change: Partial<VersionIndexOptions> = {},
): Promise<VersionIndex> {
  const index = await openIndex(host, { memtableEntries: 1000, ...change });
  let lsn = index.durableLsn;
  for (const end of ends) {
    for (lsn += 1; lsn <= end; lsn++) add(index, lsn);
    lsn = end;
    index.advance(end);
    await index.rotate(end - 4);
    await index.settled();
  }
  return index;
}

function names(host: MemoryHost): string[] {
  return host.disk.list(DIRECTORY);
}

/** Which of the records can be found at the newest position. */
async function found(index: VersionIndex, from: number, to: number): Promise<number[]> {
  const lsns: number[] = [];
  for (let lsn = from; lsn <= to; lsn++) {
    const [part] = await index.lookup(1, lsn * 8, 8, to);
    if (part?.kind === 'data' && part.segment === lsn) lsns.push(lsn);
  }
  return lsns;
}

const range = (from: number, to: number): number[] => Array.from({ length: to - from + 1 }, (_, i) => from + i);

test('a memtable becomes a run of its LSNs, once, and feeding goes on behind it', async (t) => {
  const host = memoryHost(1);
  const index = await openIndex(host);
  t.like(index, { durableLsn: 0, feedFromLsn: 0, floorLsn: 0, memtableFull: false });
  await index.rotate(1);
  t.deepEqual(names(host), [], 'nothing was added');
  for (let lsn = 1; lsn <= 9; lsn++) add(index, lsn);
  t.false(index.memtableFull);
  add(index, 10);
  t.true(index.memtableFull);
  t.deepEqual(index.status(), { runs: 0, runBytes: 0, entries: 0, memtableEntries: 10 });
  index.advance(12);
  await index.rotate(7);
  t.is(index.status().memtableEntries, 10, 'being written');
  add(index, 13);
  t.is(index.status().memtableEntries, 11);
  await index.settled();
  t.deepEqual(names(host), [runName(0, 12)]);
  t.deepEqual(index.status(), { runs: 1, runBytes: 4 * 4096, entries: 10, memtableEntries: 1 });
  t.like(index, { durableLsn: 12, feedFromLsn: 7 });
  index.advance(13);
  await index.rotate(14);
  await index.quiet();
  t.deepEqual(names(host), [runName(0, 12), runName(12, 13)]);
  await index.close();
  await index.close();
});

test('only runs between the floor and the head are opened; the longest of those that begin at one place', async (t) => {
  const host = memoryHost(2);
  await (await withRuns(host, [10, 20, 30, 40])).close();
  t.deepEqual(names(host), [runName(0, 10), runName(10, 20), runName(20, 30), runName(30, 40)]);
  const opened = async (change: Partial<VersionIndexOptions>): Promise<[string[], number, string[]]> => {
    const copy = memoryHost(3, host.disk.copy());
    copy.disk.files.set(`${DIRECTORY}/left.tmp`, { bytes: Buffer.alloc(3), length: 3 });
    copy.disk.files.set(`${DIRECTORY}/notes`, { bytes: Buffer.alloc(3), length: 3 });
    const index = await openIndex(copy, change);
    const gaps = index.gaps().map(({ baseLsn, lastLsn, fromLsn }) => `${baseLsn}-${lastLsn} from ${fromLsn}`);
    const { durableLsn } = index;
    await index.close();
    return [
      names(copy)
        .filter((name) => name !== 'notes')
        .map((name) => name.slice(15, -4)),
      durableLsn,
      gaps,
    ];
  };
  const short = (...ends: number[]): string[] => ends.map((end) => runName(0, end).slice(15, -4));
  t.deepEqual(await opened({}), [short(10, 20, 30, 40), 40, []]);
  t.deepEqual(await opened({ headLsn: 40 }), [short(10, 20, 30, 40), 40, []]);
  t.deepEqual(await opened({ headLsn: 39 }), [short(10, 20, 30), 30, []]);
  t.deepEqual(await opened({ unindexedFrom: 31 }), [short(10, 20, 30), 30, []]);
  t.deepEqual(await opened({ unindexedFrom: 30 }), [short(10, 20), 20, []]);
  t.deepEqual(await opened({ floorLsn: 9 }), [short(10, 20, 30, 40), 40, []]);
  t.deepEqual(await opened({ floorLsn: 10 }), [short(20, 30, 40), 40, []]);
  t.deepEqual(await opened({ floorLsn: 40 }), [[], 40, []]);
  host.disk.unlink(`${DIRECTORY}/${runName(10, 20)}`);
  t.deepEqual(await opened({}), [short(10, 30, 40), 40, ['10-20 from 6']]);
  host.disk.unlink(`${DIRECTORY}/${runName(20, 30)}`);
  t.deepEqual(await opened({}), [short(10, 40), 40, ['10-30 from 6']]);
  host.disk.unlink(`${DIRECTORY}/${runName(0, 10)}`);
  t.deepEqual(await opened({ floorLsn: 5 }), [short(40), 40, ['5-30 from 0']]);
});

test('a merge that was killed before its parts went is opened instead of them', async (t) => {
  const host = memoryHost(4);
  const index = await withRuns(
    host,
    range(1, 7).map((i) => i * 10),
    { memtableEntries: 10 },
  );
  const parts = host.disk.copy();
  await index.close();
  const merging = await withRuns(host, [80], { memtableEntries: 10 });
  await merging.quiet();
  t.deepEqual(names(host), [runName(0, 80)]);
  t.is(merging.status().entries, 80);
  t.deepEqual(await found(merging, 1, 80), range(1, 80));
  await merging.close();
  for (const [path, content] of parts.files) host.disk.files.set(path, content);
  t.is(names(host).length, 8);
  const again = await openIndex(host);
  t.deepEqual(names(host), [runName(0, 80)]);
  t.deepEqual(again.gaps(), []);
  t.deepEqual(await found(again, 1, 80), range(1, 80));
  await again.close();
});

test('merges go on as long as there are eight of one size', async (t) => {
  const host = memoryHost(5);
  const index = await openIndex(host);
  for (let lsn = 1; lsn <= 640; lsn++) {
    add(index, lsn);
    index.advance(lsn);
    if (index.memtableFull) await index.rotate(lsn + 1);
  }
  await index.quiet();
  t.deepEqual(names(host), [runName(0, 640)]);
  t.is(index.mergeFailure, '');
  t.deepEqual(await found(index, 600, 640), range(600, 640));
  await index.close();
});

test('a floor that moves takes whole runs along, and what is mostly below it is written again', async (t) => {
  const host = memoryHost(6);
  const index = await withRuns(host, [10, 20, 40]);
  await index.moveFloor(10);
  t.deepEqual(names(host), [runName(10, 20), runName(20, 40)]);
  t.is(index.floorLsn, 10);
  await index.moveFloor(15);
  t.deepEqual(names(host), [runName(10, 20), runName(20, 40)], 'half of it');
  t.deepEqual(await found(index, 11, 40), range(16, 40));
  await index.moveFloor(16);
  t.deepEqual(names(host), [runName(16, 20), runName(20, 40)], 'more than half');
  t.is(index.status().entries, 24);
  t.deepEqual(await found(index, 11, 40), range(17, 40));
  await index.moveFloor(40);
  t.deepEqual(names(host), []);
  t.deepEqual(index.gaps(), []);
  t.like(index, { durableLsn: 40, floorLsn: 40 });
  t.deepEqual(index.status(), { runs: 0, runBytes: 0, entries: 0, memtableEntries: 0 });
  await index.close();
});

test('a run that cannot be written is tried again, and nothing is lost meanwhile', async (t) => {
  const host = memoryHost(7);
  const index = await openIndex(host);
  for (let lsn = 1; lsn <= 10; lsn++) add(index, lsn);
  index.advance(10);
  host.disk.capacity = host.disk.used() + 100;
  await index.rotate(11);
  await t.throwsAsync(index.settled(), { code: 'no-space' });
  t.deepEqual(names(host), [], 'nothing of it is left');
  t.is(index.durableLsn, 0);
  t.deepEqual(await found(index, 1, 10), range(1, 10));
  for (let lsn = 11; lsn <= 20; lsn++) add(index, lsn);
  index.advance(20);
  await t.throwsAsync(index.rotate(21), { code: 'no-space' });
  t.deepEqual(await found(index, 1, 20), range(1, 20));
  host.disk.capacity = Number.MAX_SAFE_INTEGER;
  await index.rotate(21);
  await index.settled();
  t.deepEqual(names(host), [runName(0, 10), runName(10, 20)]);
  t.is(index.feedFromLsn, 21);
  t.deepEqual(await found(index, 1, 20), range(1, 20));
  await index.close();
});

test('a merge that finds no room says why, leaves all as it was and is tried with the next run', async (t) => {
  const host = memoryHost(8);
  const index = await withRuns(
    host,
    range(1, 7).map((i) => i * 10),
    { memtableEntries: 10 },
  );
  for (let lsn = 71; lsn <= 80; lsn++) add(index, lsn);
  index.advance(80);
  host.disk.capacity = host.disk.used() + 5 * 4096;
  await index.rotate(81);
  await index.quiet();
  t.is(index.status().runs, 8);
  t.regex(index.mergeFailure, /the disk is full/);
  t.deepEqual(
    names(host).filter((name) => name.endsWith('.tmp')),
    [],
  );
  t.deepEqual(await found(index, 1, 80), range(1, 80));
  host.disk.capacity = Number.MAX_SAFE_INTEGER;
  for (let lsn = 81; lsn <= 90; lsn++) add(index, lsn);
  index.advance(90);
  await index.rotate(91);
  await index.quiet();
  t.is(index.mergeFailure, '');
  t.true(index.status().runs <= 2);
  t.deepEqual(await found(index, 1, 90), range(1, 90));
  await index.close();
});

test('a run that turns out damaged is built again from what it stands for, for whoever looks', async (t) => {
  const host = memoryHost(9);
  const asked: string[] = [];
  await (await withRuns(host, [10, 20, 30])).close();
  const spoil = (name: string): void => {
    host.disk.files.get(`${DIRECTORY}/${name}`)!.bytes[100]! ^= 4;
  };
  spoil(runName(10, 20));
  const index = await openIndex(host, { floorLsn: 3 }, asked);
  const all = await Promise.all([found(index, 4, 30), found(index, 4, 30), found(index, 4, 30)]);
  for (const one of all) t.deepEqual(one, range(4, 30));
  t.deepEqual(asked, ['10-20 from 6'], 'once, from where its pieces begin');
  t.deepEqual(names(host), [runName(0, 10), runName(10, 20), runName(20, 30)]);
  await index.close();
  spoil(runName(0, 10));
  asked.length = 0;
  const later = await openIndex(host, { floorLsn: 5 }, asked);
  t.deepEqual(await found(later, 6, 30), range(6, 30));
  t.deepEqual(asked, ['5-10 from 0']);
  t.deepEqual(names(host), [runName(5, 10), runName(10, 20), runName(20, 30)]);
  await later.close();
});

test('a survey that meets damaged runs builds them again, and tells every part once', async (t) => {
  const host = memoryHost(19);
  const asked: string[] = [];
  await (await withRuns(host, [10, 20, 30])).close();
  // the second only in a page that is met when parts were told
  for (const name of [runName(0, 10), runName(20, 30)]) {
    host.disk.files.get(`${DIRECTORY}/${name}`)!.bytes[100]! ^= 4;
  }
  const index = await openIndex(host, {}, asked);
  let next = 0;
  const lsns: number[] = [];
  for await (const part of index.survey(1, 0, 8 * 40, 30)) {
    t.is(part.sector, next);
    next += part.sectors;
    if (part.kind === 'data') lsns.push(part.segment);
  }
  t.is(next, 8 * 40);
  t.deepEqual(lsns, range(1, 30));
  t.deepEqual(asked.toSorted(), ['0-10 from 0', '20-30 from 16']);
  await index.close();
});

test('gaps are filled in their place, in whatever order', async (t) => {
  const host = memoryHost(10);
  await (await withRuns(host, [10, 20, 30, 40, 50])).close();
  for (const name of [runName(10, 20), runName(30, 40)]) host.disk.unlink(`${DIRECTORY}/${name}`);
  const index = await openIndex(host);
  const gaps = index.gaps();
  t.deepEqual(gaps, [
    { baseLsn: 10, lastLsn: 20, fromLsn: 6 },
    { baseLsn: 30, lastLsn: 40, fromLsn: 26 },
  ]);
  for (const gap of gaps.toReversed()) await index.fill(gap);
  t.deepEqual(index.gaps(), []);
  t.is(index.status().runs, 5);
  t.deepEqual(await found(index, 1, 50), range(1, 50));
  t.deepEqual(await index.lookup(1, 15 * 8, 8, 14), [{ kind: 'base', sector: 120, sectors: 8 }]);
  await index.close();
});

test('a run that could not be written, and one that could not be merged, leave nothing open', async (t) => {
  const below = new MemoryDisk();
  const disk = new LateDisk(below, new SeededRandom(3));
  const host = { ...memoryHost(12, below), disk };
  const index = await VersionIndex.open(host, options(), () => Promise.reject(new Error('nothing is lost')));
  for (let lsn = 1; lsn <= 10; lsn++) add(index, lsn);
  index.advance(10);
  below.capacity = below.used() + 100;
  await index.rotate(11);
  await t.throwsAsync(index.settled(), { code: 'no-space' });
  t.deepEqual([disk.descriptors, below.list(DIRECTORY)], [[], []]);
  below.capacity = Number.MAX_SAFE_INTEGER;
  await index.settled();
  t.is(disk.descriptors.length, 1);
  await index.close();
  t.deepEqual(disk.descriptors, []);
});

test('an index that is closed has ended what it wrote and let go of its files', async (t) => {
  const below = new MemoryDisk();
  const disk = new LateDisk(below, new SeededRandom(2));
  const host = { ...memoryHost(11, below), disk };
  const index = await VersionIndex.open(host, options(), () => Promise.reject(new Error('nothing is lost')));
  t.deepEqual(disk.changing, [], 'opened');
  for (let lsn = 1; lsn <= 80; lsn++) {
    add(index, lsn);
    index.advance(lsn);
    if (index.memtableFull) await index.rotate(lsn + 1);
  }
  t.not(disk.changing.length, 0, 'the last run is being written');
  await index.close();
  t.deepEqual([disk.changing, disk.descriptors, disk.unsyncedFiles], [[], [], []]);
  t.deepEqual(
    disk.unsyncedNames(DIRECTORY).filter((path) => below.exists(path) && path.endsWith('.run')),
    [],
  );
});
