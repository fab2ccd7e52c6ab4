import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { crc32 } from '@node-rs/crc32';
import test, { type ExecutionContext } from 'ava';
import { FileReads } from '../../journal/file-reads.ts';
import { type Appended, Journal } from '../../journal/journal.ts';
import { auditJournal } from '../../journal/journal-audit.ts';
import { listBatches } from '../../journal/journal-list.ts';
import { readShape } from '../../journal/journal-reader.ts';
import {
  appendWrites,
  changeAt,
  FIRST_BOOT,
  journalFiles,
  journalOptions,
  range,
  readLsns,
  SECOND_BOOT,
  snapshot,
  temporaryDirectory,
  testHost,
} from './journal-fixture.ts';

const FILE_BYTES = 64 * 1024;
const BATCH_BYTES = 64 + 10 * 540;

function wipe(directory: string, batch: Appended | undefined, bytes = 300): void {
  changeAt(directory, FILE_BYTES, (batch?.address ?? 0) - 64, (at) => at.fill(0xee, 0, bytes));
}

/** A journal of several runs, each with its batches of ten; all of it durable, ended by a stop. */
async function runsOf(
  t: ExecutionContext,
  batches: readonly number[],
): Promise<{ directory: string; runs: Appended[][] }> {
  const directory = temporaryDirectory(t);
  const runs: Appended[][] = [];
  for (const count of batches) {
    const journal = await Journal.open(testHost(), journalOptions(directory));
    await journal.begin();
    const appended: Appended[] = [];
    for (let batch = 0; batch < count; batch++) appended.push(appendWrites(journal, 10));
    runs.push(appended);
    await journal.sync();
    await journal.close();
  }
  return { directory, runs };
}

test('damage at the end of one run does not hide the runs behind it', async (t) => {
  const { directory, runs } = await runsOf(t, [3, 2, 2]);
  // LSN 1 begins the first run, 32 the second, 53 the third
  wipe(directory, runs[0]?.[2]);
  for (const boot of [FIRST_BOOT, SECOND_BOOT]) {
    const place = snapshot(t, directory);
    const again = await Journal.open(testHost(boot), journalOptions(place));
    t.is(again.report.lastLsn, 73);
    t.is(again.report.incarnation.counter, 3);
    t.like(again.report.damage, [{ fromLsn: 22, toLsn: 31 }]);
    t.is(again.report.cut, undefined);
    t.true(again.report.cleanStop);
    t.is((await again.begin()).counter, 4);
    t.deepEqual(readLsns(again), [...range(1, 21), ...range(32, 74)]);
    t.deepEqual(
      auditJournal(testHost(), place).damage.map(({ fromLsn, toLsn }) => [fromLsn, toLsn]),
      [[22, 31]],
    );
    await again.close();
  }
});

test('a run whose first record is damaged is known by its number, and what comes next has a later one', async (t) => {
  const { directory, runs } = await runsOf(t, [2, 3]);
  const begin = (runs[0]?.[1]?.endAddress ?? 0) + 64;
  changeAt(directory, FILE_BYTES, begin - 64, (at) => at.fill(0xee, 0, 80));
  const again = await Journal.open(testHost(SECOND_BOOT), journalOptions(directory));
  t.like(again.report.damage, [{ fromLsn: 22, toLsn: 22 }]);
  t.deepEqual(again.report.incarnation, { counter: 2, nonce: '0'.repeat(16) });
  t.false(again.report.cleanStop, 'the nonce says nothing of the stop');
  t.is((await again.begin()).counter, 3);
  t.deepEqual(readLsns(again), [...range(1, 21), ...range(23, 53)]);
  await again.close();
});

test('a run of which nothing is left but that it began has its counter for itself', async (t) => {
  const { directory } = await runsOf(t, [2, 0]);
  const listed = [...listBatches(testHost(), directory)].filter((one) => 'header' in one);
  const address = listed.findLast(({ header }) => header.count > 0)!.header.address;
  const stopped = snapshot(t, directory);
  const torn = snapshot(t, directory);
  rmSync(`${torn}/journal.stop`);
  for (const [place, at] of [
    [stopped, address],
    [torn, address + 64 + 30],
  ] as const) {
    for (const boot of [FIRST_BOOT, SECOND_BOOT]) {
      const copy = snapshot(t, place);
      changeAt(copy, FILE_BYTES, at, (bytes) => (bytes[0]! ^= 1));
      const journal = await Journal.open(testHost(boot), journalOptions(copy));
      t.is(journal.report.incarnation.counter, 1);
      t.is((await journal.begin()).counter, 3);
      await journal.close();
    }
  }
});

test('a stop that tells of another end, another run or another start is none of this log', async (t) => {
  const { directory } = await runsOf(t, [2]);
  const clean = await Journal.open(testHost(), journalOptions(snapshot(t, directory)));
  t.true(clean.report.cleanStop);
  t.is(clean.report.rewrittenBytes, 0);
  await clean.close();
  const mark = `${directory}/journal.stop`;
  const bytes = readFileSync(mark);
  const told = async (at: number, add: number): Promise<Journal> => {
    const place = snapshot(t, directory);
    const copy = Buffer.from(bytes);
    copy.writeUInt8((copy.readUInt8(at) + add + 256) % 256, at);
    copy.writeUInt32LE(0, 4);
    copy.writeUInt32LE(crc32(copy), 4);
    writeFileSync(`${place}/journal.stop`, copy);
    return Journal.open(testHost(), journalOptions(place));
  };
  for (const [what, at, add] of [
    ['run', 12, 1],
    ['nonce', 32, 1],
    ['a lower LSN', 40, -1],
    ['end', 48, 8],
  ] as const) {
    const journal = await told(at, add);
    t.false(journal.report.cleanStop, what);
    t.is(journal.report.lastLsn, 21);
    t.deepEqual(journal.report.damage, []);
    await journal.close();
  }
  const more = await told(40, 1);
  t.false(more.report.cleanStop);
  t.is(more.report.lastLsn, 22, 'an LSN that was told is not given again');
  t.like(more.report.damage, [{ fromLsn: 22, toLsn: 22 }]);
  await more.close();
});

test('a stop that the medium cannot read says nothing, and the next clean one can be read', async (t) => {
  const { directory } = await runsOf(t, [3]);
  const host = testHost();
  host.disk.badPlace = { name: 'journal.stop', from: 0, to: 64 };
  const journal = await Journal.open(host, journalOptions(directory));
  t.false(journal.report.cleanStop);
  t.is(journal.lastLsn, 31);
  await journal.begin();
  await journal.close();
  // a new file stands on other sectors
  const again = await Journal.open(testHost(), journalOptions(directory));
  t.true(again.report.cleanStop);
  await again.close();
});

test('what cannot be proven is written again, as many bytes as it has, and nothing else', async (t) => {
  const directory = temporaryDirectory(t);
  const journal = await Journal.open(testHost(), journalOptions(directory));
  await journal.begin();
  const appended: Appended[] = [];
  for (let batch = 0; batch < 16; batch++) {
    if (batch === 9) await journal.sync();
    appended.push(appendWrites(journal, 10));
  }
  const killed = snapshot(t, directory);
  await journal.close();
  const host = testHost();
  const writes = new Map<string, number>();
  host.disk.fault = (operation, path) => {
    const name = path.slice(-8, -4);
    if (operation === 'write' && !path.endsWith('prepare.tmj')) writes.set(name, (writes.get(name) ?? 0) + 1);
    return undefined;
  };
  const again = await Journal.open(host, journalOptions(killed));
  const proven = again.report.durableLsn;
  t.is(proven, 91, 'the batch behind the sync says so');
  const unproven = appended.filter(({ lastLsn }) => lastLsn > proven);
  const marks = 64 * (new Set(appended.map(({ address }) => Math.floor(address / FILE_BYTES))).size - 1);
  t.is(again.report.rewrittenBytes, unproven.length * BATCH_BYTES + marks);
  t.deepEqual(again.report.damage, []);
  await again.begin();
  t.deepEqual(readLsns(again), range(1, 162));
  await again.close();
});

test('files behind a cut lose their headers, and are used again', async (t) => {
  const directory = temporaryDirectory(t);
  const journal = await Journal.open(testHost(), journalOptions(directory));
  await journal.begin();
  await journal.sync();
  const appended: Appended[] = [];
  for (let batch = 0; batch < 40; batch++) appended.push(appendWrites(journal, 10));
  const killed = snapshot(t, directory);
  await journal.close();
  const begun = Math.floor((appended.at(-1)?.address ?? 0) / FILE_BYTES) + 1;
  t.true(begun >= 4);
  wipe(killed, appended[4]);
  const again = await Journal.open(testHost(SECOND_BOOT), journalOptions(killed));
  t.is(again.report.cut?.afterLsn, 41);
  t.is(again.report.cut?.droppedBytes, 35 * BATCH_BYTES + (begun - 1) * 64);
  for (const [i, file] of journalFiles(killed).slice(0, begun).entries()) {
    t.is(
      readFileSync(file)
        .subarray(0, 4096)
        .every((byte) => byte === 0),
      i > 0,
      file,
    );
  }
  await again.begin();
  for (let batch = 0; batch < 25; batch++) appendWrites(again, 10);
  t.deepEqual(readLsns(again), range(1, again.lastLsn));
  t.deepEqual(
    [...listBatches(testHost(), killed)].filter((one) => 'reason' in one),
    [],
  );
  await again.close();
  const third = await Journal.open(testHost(SECOND_BOOT), journalOptions(killed));
  t.true(third.report.cleanStop);
  t.deepEqual(third.report.damage, []);
  await third.close();
});

test('an old file behind a gap in the names is none of the log', async (t) => {
  const { directory } = await runsOf(t, [30]);
  const files = journalFiles(directory);
  t.true(files.length >= 4);
  rmSync(files[1] ?? '');
  const again = await Journal.open(testHost(), journalOptions(directory));
  t.is(again.oldestAddress, 2 * FILE_BYTES);
  t.is(again.report.lastLsn, 301);
  t.deepEqual(again.report.damage, []);
  await again.begin();
  t.deepEqual(readLsns(again), range(again.oldestLsn, again.lastLsn));
  await again.close();
});

test('what comes after a damaged end goes into a file that no damaged record reaches into', async (t) => {
  const { directory, runs } = await runsOf(t, [40]);
  const batches = runs[0] ?? [];
  const fileOf = (batch: Appended | undefined): number => Math.floor((batch?.address ?? 0) / FILE_BYTES);
  const newest = fileOf(batches.at(-1));
  const ofNewest = batches.filter((batch) => fileOf(batch) === newest);
  t.true(newest >= 2 && ofNewest.length >= 3);
  const wipeHeader = (place: string): void =>
    changeAt(place, FILE_BYTES, newest * FILE_BYTES, (at) => at.fill(0xee, 0, 300));
  for (const [what, damage, kept] of [
    [
      'the header of the last file and its last batch',
      (place: string) => {
        wipeHeader(place);
        wipe(place, ofNewest.at(-1));
      },
      ofNewest.at(-2)?.lastLsn ?? 0,
    ],
    [
      'all batches of the last file',
      (place: string) => {
        for (const batch of ofNewest) wipe(place, batch);
      },
      (ofNewest[0]?.firstLsn ?? 0) - 1,
    ],
    [
      'all of the last file',
      (place: string) => {
        wipeHeader(place);
        for (const batch of ofNewest) wipe(place, batch);
      },
      (ofNewest[0]?.firstLsn ?? 0) - 1,
    ],
  ] as const) {
    for (const boot of [FIRST_BOOT, SECOND_BOOT]) {
      const place = snapshot(t, directory);
      damage(place);
      const again = await Journal.open(testHost(boot), journalOptions(place));
      t.is(again.report.lastLsn, 401, what);
      t.is(again.report.damage.at(-1)?.toLsn, 401, what);
      await again.begin();
      t.is(again.addressOf(402), (newest + 1) * FILE_BYTES + 4096, what);
      appendWrites(again, 10);
      const expected = [...range(1, kept), ...range(402, 412)];
      t.deepEqual(readLsns(again), expected, what);
      await again.close();
      const third = await Journal.open(testHost(boot), journalOptions(place));
      t.is(third.report.lastLsn, 412, what);
      t.deepEqual(readLsns(third), expected, what);
      await third.close();
    }
  }
});

test('a file whose header was cleared behind a cut is synced before anybody is answered', async (t) => {
  const directory = temporaryDirectory(t);
  const journal = await Journal.open(testHost(), journalOptions(directory));
  await journal.begin();
  await journal.sync();
  const appended: Appended[] = [];
  for (let batch = 0; batch < 30; batch++) appended.push(appendWrites(journal, 10));
  const killed = snapshot(t, directory);
  await journal.close();
  wipe(killed, appended[2]);
  const host = testHost(SECOND_BOOT);
  const dirty = new Set<string>();
  const cleared: string[] = [];
  host.disk.fault = (operation, path) => {
    const name = path.split('/').at(-1) ?? '';
    if (!name.startsWith('journal-')) return undefined;
    if (operation === 'sync') dirty.delete(name);
    else {
      cleared.push(name);
      dirty.add(name);
    }
    return undefined;
  };
  const again = await Journal.open(host, journalOptions(killed));
  t.true(new Set(cleared).size >= 3);
  t.deepEqual([...dirty], []);
  await again.close();
});

test('a header that could not be cleared whole is an error of the start, which the next one mends', async (t) => {
  const directory = temporaryDirectory(t);
  const journal = await Journal.open(testHost(), journalOptions(directory));
  await journal.begin();
  await journal.sync();
  const appended: Appended[] = [];
  for (let batch = 0; batch < 30; batch++) appended.push(appendWrites(journal, 10));
  const killed = snapshot(t, directory);
  await journal.close();
  wipe(killed, appended[2]);
  const host = testHost(SECOND_BOOT);
  host.disk.fault = (operation, path) => (operation === 'write' && path.endsWith('0002.tmj') ? 'short' : undefined);
  await t.throwsAsync(Journal.open(host, journalOptions(killed)), { code: 'short-write' });
  host.disk.fault = () => undefined;
  const again = await Journal.open(host, journalOptions(killed));
  t.is(again.report.lastLsn, 21);
  await again.begin();
  t.deepEqual(readLsns(again), range(1, 22));
  await again.close();
});

test('a batch whose time is before that of the one before it does not continue it', async (t) => {
  const directory = temporaryDirectory(t);
  const journal = await Journal.open(testHost(), journalOptions(directory));
  await journal.begin();
  appendWrites(journal, 5);
  const last = appendWrites(journal, 5);
  await journal.sync();
  const reads = new FileReads(testHost().disk, directory);
  const { salt } = readShape(testHost().disk, directory, reads);
  await reads.close();
  const readWith = async (time: number): Promise<number> => {
    changeAt(directory, FILE_BYTES, last.address - 64, (header) => {
      header.writeBigUInt64LE(BigInt(time), 32);
      header.writeUInt32LE(0, 4);
      header.writeUInt32LE(crc32(header.subarray(0, 64), salt), 4);
    });
    const reader = journal.reader(0);
    let read = 0;
    try {
      for (let batch = reader.next(journal.endAddress); batch !== undefined; ) {
        read = batch.lastLsn;
        batch = reader.next(journal.endAddress);
      }
    } finally {
      await reader.close();
    }
    return read;
  };
  t.is(await readWith(last.time), 11, 'the same time');
  await t.throwsAsync(readWith(last.time - 1), { message: /the time goes back/ });
  await journal.close();
});

test('records behind damage are found in a journal that was opened with it', async (t) => {
  const { directory, runs } = await runsOf(t, [45]);
  const batches = runs[0] ?? [];
  const fileOf = (batch: Appended | undefined): number => Math.floor((batch?.address ?? 0) / FILE_BYTES);
  rmSync(`${directory}/journal.stop`);
  for (const [what, victim] of [
    ['in the middle of a file', batches.findIndex((batch) => fileOf(batch) === 1) + 3],
    ['the first batch of a file', batches.findIndex((batch) => fileOf(batch) === 1)],
  ] as const) {
    const place = snapshot(t, directory);
    wipe(place, batches[victim]);
    // so that it is looked at from the first file on
    for (const [sequence, file] of journalFiles(place).entries()) {
      if (sequence === 0 || sequence > fileOf(batches.at(-1))) continue;
      const bytes = readFileSync(file);
      bytes.writeBigUInt64LE(0n, 56);
      bytes.writeUInt32LE(0, 4);
      bytes.writeUInt32LE(crc32(bytes.subarray(0, 256)), 4);
      writeFileSync(file, bytes);
    }
    const again = await Journal.open(testHost(), journalOptions(place));
    t.is(again.report.lastLsn, 451, what);
    t.is(again.report.damage[0]?.fromLsn, batches[victim]?.firstLsn, what);
    for (const batch of batches.filter((one) => fileOf(one) !== 1)) {
      t.is(again.addressOf(batch.lastLsn), batch.address - 64, what);
    }
    await again.close();
  }
});
