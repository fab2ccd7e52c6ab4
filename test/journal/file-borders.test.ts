import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import fs from 'node:fs';
import test, { type ExecutionContext } from 'ava';
import { type Appended, Journal } from '../../journal/journal.ts';
import { auditJournal } from '../../journal/journal-audit.ts';
import { listBatches, listFiles } from '../../journal/journal-list.ts';
import { RECORD_HEADER_BYTES, RecordKind, writePad, writeRecordHeader } from '../../journal/record.ts';
import { LateDisk } from '../doubles/late-disk.ts';
import { SeededRandom } from '../simulation/seeded-random.ts';
import {
  appendWrites,
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
const slab = Buffer.alloc(128 * 1024);
const view = new DataView(slab.buffer, slab.byteOffset, slab.byteLength);

/** One write of 512 bytes and a pad behind it, so that the batch has exactly `total` bytes with its header. */
function appendOf(journal: Journal, total: number): Appended {
  const end = total;
  writeRecordHeader(view, 64, RecordKind.write, 0, 1, 512, 0, 1, 0);
  slab.fill((journal.lastLsn + 1) % 256, 92, 604);
  if (end > 604) writePad(view, 604, end - 604);
  return journal.appendInPlace(slab, 64, end, 1);
}

/** Fills the present file up to `left` bytes before its end. */
function fillTo(journal: Journal, left: number): Appended {
  const offset = journal.endAddress % FILE_BYTES;
  return appendOf(journal, FILE_BYTES - left - offset);
}

async function begun(t: ExecutionContext, budgetFiles = 64): Promise<{ journal: Journal; directory: string }> {
  const directory = temporaryDirectory(t);
  const options = journalOptions(directory, { budgetBytes: budgetFiles * FILE_BYTES });
  const journal = await Journal.open(testHost(), options);
  await journal.begin();
  return { journal, directory };
}

for (const left of [0, 8, 56, 64, 72, 120, 128, 136, 640]) {
  test(`a file that is filled up to ${left} bytes before its end is left for the next one, and read on`, async (t) => {
    const { journal, directory } = await begun(t);
    appendOf(journal, 700);
    const last = fillTo(journal, left);
    t.is(journal.endAddress, FILE_BYTES - left);
    const next = appendOf(journal, 1000);
    t.is(next.address, FILE_BYTES + 4096 + 64);
    fillTo(journal, left);
    appendOf(journal, 1000);
    t.is(Math.floor(journal.endAddress / FILE_BYTES), 2);
    t.deepEqual(readLsns(journal), range(1, 6));
    t.is(journal.addressOf(last.lastLsn), last.address - 64);
    t.is(journal.addressOf(next.lastLsn), next.address - 64);
    t.is(journal.addressOf(6), 2 * FILE_BYTES + 4096);
    t.is(journal.damageAt(last.address - 64), undefined);
    const killed = snapshot(t, directory);
    await journal.sync();
    const synced = snapshot(t, directory);
    await journal.close();
    for (const [place, boot] of [
      [killed, FIRST_BOOT],
      [synced, SECOND_BOOT],
      [directory, SECOND_BOOT],
    ] as const) {
      t.deepEqual(auditJournal(testHost(), place).damage, []);
      const again = await Journal.open(testHost(boot), journalOptions(place));
      t.is(again.report.lastLsn, 6);
      t.deepEqual(again.report.damage, []);
      t.is(again.report.cut, undefined);
      await again.begin();
      t.deepEqual(readLsns(again), range(1, 7));
      await again.close();
    }
  });
}

test('a journal that ends exactly with its file goes on in the next one after a start', async (t) => {
  const { journal, directory } = await begun(t);
  fillTo(journal, 0);
  await journal.sync();
  const killed = snapshot(t, directory);
  await journal.close();
  for (const place of [killed, directory]) {
    const again = await Journal.open(testHost(), journalOptions(place));
    t.is(again.endAddress, FILE_BYTES);
    t.is(again.report.lastLsn, 2);
    t.is(again.usedBytes, FILE_BYTES);
    await again.begin();
    t.is(again.addressOf(3), FILE_BYTES + 4096);
    t.deepEqual(readLsns(again), range(1, 3));
    await again.close();
  }
});

test('the budget is kept to the byte: its last file has a reserve, which control records may use', async (t) => {
  const { journal } = await begun(t, 3);
  const RESERVE = FILE_BYTES / 8;
  const free = (files: number): number =>
    FILE_BYTES - (journal.endAddress % FILE_BYTES) - RESERVE + files * (FILE_BYTES - 4096);
  t.is(journal.freeBytes, free(2));
  fillTo(journal, 64);
  t.is(journal.freeBytes, free(2), 'what is left of the file is less than the reserve');
  appendOf(journal, 700);
  t.is(journal.freeBytes, free(1));
  fillTo(journal, 64);
  appendOf(journal, 700);
  t.is(journal.freeBytes, free(0));
  t.is(journal.usedBytes, journal.endAddress);
  const offset = journal.endAddress % FILE_BYTES;
  t.throws(() => appendOf(journal, FILE_BYTES - RESERVE - offset + 8), { code: 'journal-full' });
  t.notThrows(() => appendOf(journal, FILE_BYTES - RESERVE - offset));
  t.is(journal.freeBytes, 0);
  t.throws(() => appendOf(journal, 604), { code: 'journal-full' });
  t.notThrows(() => journal.append(RecordKind.gap, { body: new Uint8Array(RESERVE - 64 - RECORD_HEADER_BYTES) }));
  t.is(journal.endAddress, 3 * FILE_BYTES);
  t.notThrows(() => journal.append(RecordKind.gap), 'one file over the budget');
  t.is(journal.poisonedBy, undefined);
  await journal.sync();
  journal.recycleBelow(FILE_BYTES - 1);
  t.is(journal.oldestAddress, 0, 'the first file ends behind that');
  journal.recycleBelow(FILE_BYTES);
  t.is(journal.oldestAddress, FILE_BYTES);
  t.is(journal.oldestLsn, 3);
  t.throws(() => journal.addressOf(2), { code: 'trimmed' });
  t.throws(() => journal.reader(FILE_BYTES - 1), { code: 'trimmed' });
  t.throws(() => journal.readInto(FILE_BYTES - 512, 512, Buffer.alloc(512), 0), { code: 'trimmed' });
  for (const from of [FILE_BYTES, FILE_BYTES + 4096, journal.endAddress - 512]) {
    t.notThrows(() => journal.readInto(from, 512, Buffer.alloc(512), 0));
  }
  t.notThrows(() => journal.reader(FILE_BYTES));
  t.is(journal.usedBytes, journal.endAddress - FILE_BYTES);
  journal.recycleBelow(9 * FILE_BYTES);
  t.is(journal.oldestAddress, 3 * FILE_BYTES, 'never the file in use');
  await journal.close();
});

test('of large files 64 KiB are kept for control records, and no more', async (t) => {
  const fileBytes = 1024 * 1024;
  const options = journalOptions(temporaryDirectory(t), { fileBytes, budgetBytes: 3 * fileBytes });
  const journal = await Journal.open(testHost(), options);
  await journal.begin();
  t.is(journal.freeBytes, fileBytes - journal.endAddress - 65_536 + 2 * (fileBytes - 4096));
  await journal.close();
});

test('what is not durable is not let go of', async (t) => {
  const { journal } = await begun(t);
  await journal.sync();
  fillTo(journal, 0);
  appendOf(journal, 700);
  journal.recycleBelow(2 * FILE_BYTES);
  t.is(journal.oldestAddress, 0);
  await journal.sync();
  journal.recycleBelow(2 * FILE_BYTES);
  t.is(journal.oldestAddress, FILE_BYTES);
  await journal.close();
});

test('an idle journal syncs and proves what it holds at the times it says, once', async (t) => {
  const directory = temporaryDirectory(t);
  const host = testHost();
  const journal = await Journal.open(host, journalOptions(directory));
  await journal.begin();
  const batches = (): number => [...listBatches(host, directory)].length;
  const settled = async (): Promise<void> => {
    // the sync that a timer began is joined
    if (journal.syncing) await journal.sync();
    await new Promise(setImmediate);
  };
  host.clock.advance(1000);
  await settled();
  host.clock.advance(1000);
  await settled();
  const idle = batches();
  const done = appendWrites(journal, 3);
  host.clock.advance(24);
  t.false(journal.syncing, 'not before its time');
  t.true(journal.marks.lsn('durable') < done.lastLsn);
  host.clock.advance(1);
  t.true(journal.syncing);
  await settled();
  t.is(journal.marks.lsn('durable'), done.lastLsn);
  t.is(batches(), idle + 1);
  host.clock.advance(49);
  t.is(batches(), idle + 1, 'no watermark yet');
  host.clock.advance(1);
  t.is(batches(), idle + 2);
  for (let round = 0; round < 5; round++) {
    host.clock.advance(1000);
    await settled();
  }
  t.is(batches(), idle + 2, 'a watermark makes none necessary itself');
  await journal.close();
  host.clock.advance(1000);
  t.is(batches(), idle + 2);
});

test('a watermark is not written where the file has no room behind it', async (t) => {
  for (const [left, written] of [
    [64, false],
    [120, false],
    [128, true],
  ] as const) {
    const directory = temporaryDirectory(t);
    const host = testHost();
    const journal = await Journal.open(host, journalOptions(directory));
    await journal.begin();
    fillTo(journal, left);
    await journal.sync();
    host.clock.advance(50);
    t.is(journal.endAddress, FILE_BYTES - left + (written ? 64 : 0), `${left} bytes left`);
    await journal.close();
    const again = await Journal.open(testHost(SECOND_BOOT), journalOptions(directory));
    t.true(again.report.cleanStop);
    t.is(again.report.lastLsn, 2);
    await again.close();
  }
});

test('a journal that is closed has ended all it had under way, also when it was poisoned meanwhile', async (t) => {
  const directory = temporaryDirectory(t);
  const host = testHost();
  const disk = new LateDisk(host.disk, new SeededRandom(11));
  const journal = await Journal.open({ ...host, disk }, journalOptions(directory));
  await journal.begin();
  fillTo(journal, 0);
  const under = journal.sync();
  t.true(disk.changing.some((call) => call.startsWith('sync ')));
  appendOf(journal, 700);
  host.disk.fault = (operation, path) => (operation === 'write' && path.endsWith('0001.tmj') ? 'EIO' : undefined);
  t.throws(() => appendOf(journal, 700), { code: 'journal-poisoned' });
  host.disk.fault = () => undefined;
  await journal.close();
  t.deepEqual([disk.changing, disk.descriptors], [[], []]);
  await under;
  t.is(journal.close(), journal.close());
  const again = await Journal.open({ ...host, disk }, journalOptions(directory));
  t.is(again.report.lastLsn, 3);
  await again.close();
  t.deepEqual([disk.changing, disk.descriptors], [[], []], 'one that was never begun');
});

test('the sync of a file that was left is waited for when a poisoned journal is closed', async (t) => {
  const directory = temporaryDirectory(t);
  const host = testHost();
  const disk = new LateDisk(host.disk, new SeededRandom(12));
  const options = journalOptions(directory, { budgetBytes: 3 * FILE_BYTES });
  const journal = await Journal.open({ ...host, disk }, options);
  await journal.begin();
  fillTo(journal, 0);
  // both spares are there: nothing else is under way, and nothing else has to be waited for
  for (let turns = 0; turns < 4000; turns++) {
    if (journalFiles(directory).length === 3 && disk.changing.length === 0) break;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  t.deepEqual([journalFiles(directory).length, disk.changing], [3, []]);
  const under = journal.sync();
  appendOf(journal, 700);
  host.disk.fault = (operation, path) => (operation === 'write' && path.endsWith('0001.tmj') ? 'EIO' : undefined);
  t.throws(() => appendOf(journal, 700), { code: 'journal-poisoned' });
  host.disk.fault = () => undefined;
  t.true(disk.changing.some((call) => call.startsWith('sync ')));
  await journal.close();
  t.deepEqual([disk.changing, disk.descriptors], [[], []]);
  await under;
});

test('records that come back from the far side may use the reserve', async (t) => {
  const { journal, directory } = await begun(t, 3);
  for (let file = 0; file < 2; file++) {
    fillTo(journal, 64);
    appendOf(journal, 700);
  }
  appendOf(journal, FILE_BYTES - FILE_BYTES / 8 - (journal.endAddress % FILE_BYTES));
  t.is(journal.freeBytes, 0);
  const { lastLsn } = journal;
  await journal.close();
  const again = await Journal.open(testHost(), journalOptions(directory, { budgetBytes: 3 * FILE_BYTES }));
  t.is(again.freeBytes, 0);
  const time = 1_900_000_000_000_000;
  const place = { kind: RecordKind.write, flags: 0, volume: 1, sector: 0, sectors: 1, requestId: 0, time };
  const payload = new Uint8Array(512).fill((lastLsn + 1) % 256);
  again.restoreRecords([{ ...place, lsn: lastLsn + 1, payload }]);
  t.is(again.lastLsn, lastLsn + 1);
  await again.begin({ highestLsn: lastLsn + 1 });
  t.deepEqual(readLsns(again), range(1, lastLsn + 2));
  await again.close();
});

test('a journal of nothing says so', async (t) => {
  const directory = temporaryDirectory(t);
  const journal = await Journal.open(testHost(), journalOptions(directory));
  t.like(journal, { lastLsn: 0, oldestLsn: 1, oldestAddress: 0, endAddress: 0, usedBytes: 0, epoch: 1 });
  t.is(journal.freeBytes, 64 * (FILE_BYTES - 4096));
  t.is(journal.incarnation, undefined);
  t.like(journal.report, { lastLsn: 0, durableLsn: 0, cleanStop: false, bootChanged: false, rewrittenBytes: 0 });
  t.is(journal.addressOf(1), 0);
  t.is(journal.damageAt(0), undefined);
  await journal.close();
});

test('a watermark that cannot be written poisons: who comes next is told', async (t) => {
  const directory = temporaryDirectory(t);
  const host = testHost();
  const journal = await Journal.open(host, journalOptions(directory));
  await journal.begin();
  const done = appendWrites(journal, 3);
  await journal.sync();
  host.disk.fault = (operation, path) => (operation === 'write' && path.endsWith('0000.tmj') ? 'EIO' : undefined);
  t.notThrows(() => host.clock.advance(50));
  host.disk.fault = () => undefined;
  t.is(journal.poisonedBy, 'device-failed');
  t.is(journal.endAddress, done.endAddress);
  await t.throwsAsync(journal.sync(), { code: 'journal-poisoned' });
  t.throws(() => appendWrites(journal, 1), { code: 'journal-poisoned' });
  host.clock.advance(1000);
  await journal.close();
  const again = await Journal.open(testHost(), journalOptions(directory));
  t.is(again.report.lastLsn, done.lastLsn);
  t.false(again.report.cleanStop);
  await again.close();
});

test('what a journal does is told with its figures', async (t) => {
  const told: Record<string, unknown>[] = [];
  const channels = ['append', 'sync', 'roll', 'recovered'].map((name) => `tidemark:journal:${name}`);
  const listeners = channels.map((name) => {
    const listen = (payload: unknown): void => {
      if ((payload as { group: string }).group === 'figures')
        told.push({ name: name.slice(17), ...(payload as object) });
    };
    subscribe(name, listen);
    return () => unsubscribe(name, listen);
  });
  t.teardown(() => {
    for (const stop of listeners) stop();
  });
  const directory = temporaryDirectory(t);
  const host = testHost();
  const options = journalOptions(directory, { groupName: 'figures' });
  const journal = await Journal.open(host, options);
  await journal.begin();
  t.false(
    told.some(({ name }) => name === 'recovered'),
    'nothing was there',
  );
  told.length = 0;
  appendWrites(journal, 3);
  t.deepEqual(told, [{ name: 'append', group: 'figures', records: 3, bytes: 3 * 540 }]);
  told.length = 0;
  host.disk.fault = (operation, path) => {
    // not that of a file that is being made ready
    if (operation === 'sync' && !path.endsWith('prepare.tmj')) host.clock.monotonic += 7;
    return undefined;
  };
  const waiting = [journal.sync()];
  appendWrites(journal, 1);
  waiting.push(journal.sync(), journal.sync());
  await Promise.all(waiting);
  t.deepEqual(
    told.filter(({ name }) => name === 'sync'),
    [
      { name: 'sync', group: 'figures', durationMs: 7, durableLsn: 4, waiters: 1 },
      { name: 'sync', group: 'figures', durationMs: 7, durableLsn: 5, waiters: 2 },
    ],
  );
  told.length = 0;
  appendWrites(journal, 1);
  journal.syncNow();
  t.like(told.at(-1), { name: 'sync', durationMs: 7, durableLsn: 6, waiters: 1 });
  told.length = 0;
  journal.syncNow();
  await journal.sync();
  t.deepEqual(told, [], 'all was durable');
  host.disk.fault = () => undefined;
  fillTo(journal, 0);
  appendOf(journal, 700);
  t.like(
    told.find(({ name }) => name === 'roll'),
    { sequence: 1 },
  );
  const killed = snapshot(t, directory);
  await journal.close();
  const cut = snapshot(t, killed);
  const file = journalFiles(cut)[1] ?? '';
  const bytes = fs.readFileSync(file);
  bytes.fill(0xee, 4096 + 100, 4096 + 200);
  fs.writeFileSync(file, bytes);
  for (const [place, boot, expected] of [
    [killed, FIRST_BOOT, { lastLsn: 8, cutAfterLsn: 0, droppedBytes: 0, damagedRanges: 0, bootChanged: false }],
    [cut, SECOND_BOOT, { lastLsn: 7, cutAfterLsn: 7, droppedBytes: 700, damagedRanges: 0, bootChanged: true }],
  ] as const) {
    told.length = 0;
    const again = await Journal.open(testHost(boot), { ...options, directory: place });
    const report = told.find(({ name }) => name === 'recovered');
    t.like(report, { durableLsn: 6, cleanStop: false, durationMs: 0, ...expected });
    t.is(report?.['rewrittenBytes'], again.report.rewrittenBytes);
    await again.close();
  }
});

test('a journal is audited and listed with what it holds', async (t) => {
  const { journal, directory } = await begun(t);
  appendWrites(journal, 3);
  fillTo(journal, 64);
  appendOf(journal, 700);
  await journal.sync();
  const batches = [...listBatches(testHost(), directory)].map((one) => ('reason' in one ? 0 : one.header.bodyBytes));
  t.is(batches.length, 5, 'begin, writes, filling, the mark at the end, one more');
  t.deepEqual(auditJournal(testHost(), directory), {
    groupId: 'ab'.repeat(16),
    firstLsn: 1,
    lastLsn: 6,
    durableLsn: 1,
    files: 2,
    batches: 5,
    records: 6,
    bytes: batches.reduce((sum, bytes) => sum + bytes, 0),
    damage: [],
  });
  t.deepEqual(
    [...listBatches(testHost(), directory, 6)].map((one) => ('reason' in one ? 0 : one.lastLsn)),
    [6],
  );
  const files = listFiles(testHost(), directory);
  t.deepEqual(
    files.slice(0, 2).map(({ state, bytes, sequence }) => [state, bytes, sequence]),
    [
      ['log', FILE_BYTES, 0],
      ['log', FILE_BYTES, 1],
    ],
  );
  const [, second] = journalFiles(directory);
  const bytes = fs.readFileSync(second ?? '');
  bytes[20]! ^= 1;
  fs.writeFileSync(second ?? '', bytes);
  t.like(listFiles(testHost(), directory)[1], { state: 'damaged', reason: 'the file header crc is wrong' });
  const { damage, files: begunFiles, firstLsn } = auditJournal(testHost(), directory);
  t.is(begunFiles, 2);
  t.is(firstLsn, 1);
  t.like(damage, [{ fromLsn: 6, toLsn: 5, address: FILE_BYTES, resumeAddress: FILE_BYTES + 4096, offset: 0 }]);
  await journal.close();
});
