import { spawnSync } from 'node:child_process';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { Worker } from 'node:worker_threads';
import test from 'ava';
import { ClockWatch } from '../../journal/clock-watch.ts';
import { FilePool } from '../../journal/file-pool.ts';
import { FileReads, journalFileName } from '../../journal/file-reads.ts';
import { Journal } from '../../journal/journal.ts';
import { auditJournal } from '../../journal/journal-audit.ts';
import { listBatches, listFiles } from '../../journal/journal-list.ts';
import { JournalReader } from '../../journal/journal-reader.ts';
import { LocalMarks } from '../../journal/local-marks.ts';
import { PieceAssembler } from '../../journal/piece-assembler.ts';
import { RecordFlag, RecordKind, writePad, writeRecordHeader } from '../../journal/record.ts';
import { decodeClockJump, encodeClockJump } from '../../journal/record-bodies.ts';
import { SharedMarks } from '../../journal/shared-marks.ts';
import {
  appendWrites,
  GROUP_ID,
  journalOptions,
  range,
  readLsns,
  SECOND_BOOT,
  snapshot,
  temporaryDirectory,
  testHost,
} from './journal-fixture.ts';

const FILE_BYTES = 64 * 1024;

test('what is appended is read back, over many files, in order and at its address', async (t) => {
  const directory = temporaryDirectory(t);
  const journal = await Journal.open(testHost(), journalOptions(directory));
  t.is(journal.report.lastLsn, 0);
  await journal.begin();
  const into = Buffer.alloc(512);
  for (let index = 0; index < 200; index++) {
    const done = appendWrites(journal, (index % 20) + 1);
    t.is(done.lastLsn - done.firstLsn, index % 20);
    t.is(journal.addressOf(done.lastLsn), done.address - 64);
    journal.readInto(done.address + 28, 512, into, 0);
    t.true(into.every((byte) => byte === done.firstLsn % 256));
  }
  t.deepEqual(readLsns(journal), range(1, journal.lastLsn));
  t.is(journal.addressOf(journal.lastLsn + 1), journal.endAddress);
  await journal.sync();
  const audit = auditJournal(testHost(), directory);
  t.like(audit, { groupId: GROUP_ID, firstLsn: 1, lastLsn: journal.lastLsn, records: journal.lastLsn, damage: [] });
  t.true(listFiles(testHost(), directory).filter((file) => file.state === 'log').length > 10);
  t.true([...listBatches(testHost(), directory, 1500)].length < audit.batches);
  const reader = JournalReader.open(testHost(), { directory, groupId: GROUP_ID }, journal.addressOf(500));
  const batch = reader.next(journal.endAddress);
  t.true(batch !== undefined && batch.firstLsn <= 500 && batch.lastLsn >= 500);
  await reader.close();
  await journal.close();
  const again = await Journal.open(testHost(), journalOptions(directory));
  t.true(again.report.cleanStop);
  t.is(again.report.rewrittenBytes, 0);
  for (const lsn of [1, 2, 77, 1000, 2101]) {
    const found = again.reader(again.addressOf(lsn));
    const view = found.next(again.endAddress);
    t.true(view !== undefined && view.firstLsn <= lsn && view.lastLsn >= lsn);
    await found.close();
  }
  await again.close();
});

test('one sync serves all who wait, and the next one those who came later', async (t) => {
  const host = testHost();
  const journal = await Journal.open(host, journalOptions(temporaryDirectory(t)));
  await journal.begin();
  const before = host.disk.syncs;
  const first = appendWrites(journal, 1);
  const waiting = [journal.sync()];
  const second = appendWrites(journal, 1);
  for (let waiter = 0; waiter < 50; waiter++) waiting.push(journal.sync());
  await waiting[0];
  t.is(journal.marks.lsn('durable'), first.lastLsn);
  await Promise.all(waiting);
  t.is(journal.marks.lsn('durable'), second.lastLsn);
  const syncs = host.disk.syncs - before;
  t.true(syncs <= 3, `${syncs} syncs`);
  appendWrites(journal, 1);
  journal.syncNow();
  t.is(journal.marks.lsn('durable'), journal.lastLsn);
  await journal.close();
});

test('what nobody syncs is synced in the background, and an idle journal proves it with one watermark', async (t) => {
  const directory = temporaryDirectory(t);
  const host = testHost();
  const journal = await Journal.open(host, journalOptions(directory));
  await journal.begin();
  const done = appendWrites(journal, 5);
  for (let turn = 0; turn < 40; turn++) {
    host.clock.advance(25);
    await journal.sync();
  }
  t.is(journal.marks.lsn('durable'), done.lastLsn);
  t.is(journal.marks.address('durable'), journal.endAddress);
  // begin, writes, one watermark: it must not cause another
  t.is([...listBatches(host, directory)].length, 3);
  const copy = snapshot(t, directory);
  await journal.close();
  const again = await Journal.open(testHost(SECOND_BOOT), journalOptions(copy));
  t.is(again.report.durableLsn, done.lastLsn);
  t.is(again.report.rewrittenBytes, 64);
  await again.close();
});

for (const [name, fault, reason] of [
  ['short write', 'short', 'short-write'],
  ['ENOSPC', 'ENOSPC', 'no-space'],
  ['EIO', 'EIO', 'device-failed'],
] as const) {
  test(`a failed write (${name}) poisons; opening again recovers`, async (t) => {
    const directory = temporaryDirectory(t);
    const host = testHost();
    const journal = await Journal.open(host, journalOptions(directory));
    await journal.begin();
    const good = appendWrites(journal, 3);
    host.disk.fault = (operation, path) => (operation === 'write' && path.includes('journal-') ? fault : undefined);
    const error = t.throws(() => appendWrites(journal, 3), { code: 'journal-poisoned' });
    t.like(error, { details: { reason } });
    host.disk.fault = () => undefined;
    t.throws(() => appendWrites(journal, 3), { code: 'journal-poisoned' });
    await t.throwsAsync(journal.sync(), { code: 'journal-poisoned' });
    t.is(journal.poisonedBy, reason);
    await journal.close();
    const again = await Journal.open(host, journalOptions(directory));
    t.is(again.report.lastLsn, good.lastLsn);
    t.false(again.report.cleanStop);
    t.deepEqual(again.report.damage, []);
    await again.begin();
    t.deepEqual(readLsns(again), range(1, good.lastLsn + 1));
    await again.close();
  });
}

test('a failed sync poisons every waiter, and everything unproven is written again afterwards', async (t) => {
  const directory = temporaryDirectory(t);
  const host = testHost();
  const journal = await Journal.open(host, journalOptions(directory));
  await journal.begin();
  appendWrites(journal, 3);
  host.disk.fault = (operation) => (operation === 'sync' ? 'EIO' : undefined);
  const waiting = [journal.sync(), journal.sync()];
  for (const waiter of waiting) await t.throwsAsync(waiter, { code: 'journal-poisoned' });
  t.is(journal.poisonedBy, 'sync-failed');
  t.is(journal.marks.lsn('durable'), 1);
  t.throws(() => journal.syncNow(), { code: 'journal-poisoned' });
  host.disk.fault = () => undefined;
  await journal.close();
  const again = await Journal.open(host, journalOptions(directory));
  t.is(again.report.lastLsn, 4);
  t.true(again.report.rewrittenBytes > 3 * 540);
  await again.close();
});

test('a spent budget refuses batches, keeps room for a gap record, and goes on after recycling', async (t) => {
  const directory = temporaryDirectory(t);
  const options = journalOptions(directory, { budgetBytes: 3 * FILE_BYTES });
  const journal = await Journal.open(testHost(), options);
  await journal.begin();
  let appended = 0;
  const error = t.throws(
    () => {
      for (; appended < 1000; appended++) appendWrites(journal, 10);
    },
    { code: 'journal-full' },
  );
  t.like(error, { details: { budgetBytes: 3 * FILE_BYTES } });
  t.true(appended > 25 && appended < 36);
  t.is(journal.poisonedBy, undefined);
  t.true(journal.freeBytes < 10 * 540 + 64);
  t.notThrows(() => journal.append(RecordKind.gap));
  await journal.sync();
  journal.recycleBelow(journal.addressOf(journal.lastLsn));
  t.true(journal.freeBytes > FILE_BYTES);
  t.notThrows(() => appendWrites(journal, 10));
  t.true(journal.usedBytes < 2 * FILE_BYTES);
  await journal.close();
});

test('a journal without room names what is full: its budget, or the file system', async (t) => {
  const told: string[] = [];
  const listen = (payload: unknown): void => {
    told.push((payload as { reason: string }).reason);
  };
  subscribe('tidemark:journal:full', listen);
  t.teardown(() => unsubscribe('tidemark:journal:full', listen));
  const host = testHost();
  const full = new Proxy(host.disk, {
    get(target, name) {
      if (name === 'freeBytes') return () => 0;
      const value: unknown = Reflect.get(target, name);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
  for (const [disk, files, reason] of [
    [host.disk, 3, /used its budget of 196608 bytes/],
    [full, 30, /the file system of .* is full/],
  ] as const) {
    const options = journalOptions(temporaryDirectory(t), { budgetBytes: files * FILE_BYTES });
    // The first file is there before the others have filled the file system.
    const first = await Journal.open(host, options);
    await first.begin();
    await first.close();
    const journal = await Journal.open({ ...host, disk }, options);
    const fill = (): void => {
      for (let appended = 0; appended < 1000; appended++) appendWrites(journal, 10);
    };
    await journal.begin();
    t.throws(fill, { code: 'journal-full', message: reason });
    t.regex(told.at(-1) ?? '', reason);
    await journal.close();
  }
});

test('requests in pieces take effect whole, at the closing record, and not at all without one', (t) => {
  const assembler = new PieceAssembler<string>();
  const write = { kind: RecordKind.write, volume: 1, sectors: 8 };
  const { piece, closes } = RecordFlag;
  t.deepEqual(assembler.feed({ ...write, flags: piece, sector: 0, requestId: 7, lsn: 10 }, 'a'), []);
  t.deepEqual(assembler.feed({ ...write, flags: piece, sector: 64, requestId: 8, lsn: 11 }, 'x'), []);
  // another write passes the open ones
  t.is(assembler.feed({ ...write, flags: 0, sector: 900, requestId: 0, lsn: 12 }, 'w')[0]?.lsn, 12);
  t.is(assembler.oldestOpen(), 10);
  const effects = assembler.feed({ ...write, flags: piece | closes, sector: 8, requestId: 7, lsn: 13 }, 'b');
  t.deepEqual(
    effects.map(({ sector, lsn, source }) => [sector, lsn, source]),
    [
      [0, 13, 'a'],
      [8, 13, 'b'],
    ],
  );
  t.is(assembler.oldestOpen(), 11);
  assembler.feed(
    { kind: RecordKind.incarnation, flags: 0, volume: 0, sector: 0, sectors: 0, requestId: 0, lsn: 14 },
    '',
  );
  t.is(assembler.oldestOpen(), undefined);
  t.is(assembler.feed({ ...write, flags: piece | closes, sector: 72, requestId: 8, lsn: 15 }, 'y').length, 1);
});

test('pads have no LSN; a clock that steps leaves a record and time never goes back', async (t) => {
  const directory = temporaryDirectory(t);
  const host = testHost();
  const journal = await Journal.open(host, journalOptions(directory));
  await journal.begin();
  const slab = Buffer.alloc(8192);
  const view = new DataView(slab.buffer, slab.byteOffset, slab.byteLength);
  writePad(view, 64, 100);
  writeRecordHeader(view, 164, RecordKind.trim, 0, 1, 0, 0, 1 << 30, 0);
  writePad(view, 192, 28);
  const trim = journal.appendInPlace(slab, 64, 220, 1);
  t.is(trim.firstLsn, 2);
  host.clock.wall -= 3_600_000_000;
  const later = appendWrites(journal, 1);
  t.is(later.firstLsn, 4);
  t.true(later.time >= trim.time);
  const kinds: number[] = [];
  for (const batch of listBatches(host, directory)) {
    if ('reason' in batch) continue;
    for (const record of batch) kinds.push(record.kind);
  }
  t.deepEqual(kinds, [RecordKind.incarnation, RecordKind.trim, RecordKind.clockJump, RecordKind.write]);
  t.true(encodeClockJump({ fromMicros: 1, toMicros: 2 }).length > 0);
  await journal.close();
});

test('a wall clock set forward, back, and back over a restart: each step told once, time never goes back', async (t) => {
  const directory = temporaryDirectory(t);
  const host = testHost();
  const hour = 3_600_000_000;
  let journal = await Journal.open(host, journalOptions(directory));
  await journal.begin();
  const before = appendWrites(journal, 1);
  host.clock.wall += hour;
  const forward = appendWrites(journal, 1);
  t.is(forward.time - before.time, hour);
  host.clock.wall -= 2 * hour;
  const back = appendWrites(journal, 1);
  t.is(back.time, forward.time);
  appendWrites(journal, 3);
  // a slow clock, and one that is slewed, are no steps
  host.clock.monotonic += 60_000;
  host.clock.wall += 60_000_000 - 900_000;
  appendWrites(journal, 1);
  await journal.close();
  host.clock.wall -= hour;
  journal = await Journal.open(host, journalOptions(directory));
  await journal.begin();
  t.true(appendWrites(journal, 1).time >= forward.time);
  const jumps: number[] = [];
  for (const batch of listBatches(host, directory)) {
    if ('reason' in batch) continue;
    for (const record of batch) {
      if (record.kind !== RecordKind.clockJump) continue;
      const { fromMicros, toMicros } = decodeClockJump(record.payload);
      jumps.push(toMicros - fromMicros);
    }
  }
  t.deepEqual(jumps, [hour, -2 * hour]);
  await journal.close();
});

test('a network file system is refused: a lock there proves nothing', async (t) => {
  const directory = temporaryDirectory(t);
  const real = fs.statfsSync;
  t.teardown(() => {
    fs.statfsSync = real;
    syncBuiltinESMExports();
  });
  for (const type of [0x6969, 0xff53_4d42, 0xff53_4d42 | 0, 0x0bd0_0bd0]) {
    // other tests of this file lock directories meanwhile
    const asked = (path: string) => (path === directory ? Object.assign(real(path), { type }) : real(path));
    fs.statfsSync = asked as typeof fs.statfsSync;
    syncBuiltinESMExports();
    await t.throwsAsync(Journal.open(testHost(), journalOptions(directory)), { code: 'network-file-system' });
  }
});

test('a second process and a second journal in this one are refused by the kernel lock', async (t) => {
  const directory = temporaryDirectory(t);
  const journal = await Journal.open(testHost(), journalOptions(directory));
  await t.throwsAsync(Journal.open(testHost(), journalOptions(directory)), { code: 'journal-locked' });
  const script = `
    import { RealDisk } from '${new URL('../../journal/host/real-disk.ts', import.meta.url).href}';
    try { new RealDisk().lockDirectory(process.argv[1]).release(); console.log('taken'); } catch (error) { console.log(error.code); }`;
  const ask = (): string =>
    spawnSync(process.execPath, ['--input-type=module', '-e', script, directory], { encoding: 'utf8' }).stdout.trim();
  t.is(ask(), 'journal-locked');
  await journal.close();
  t.is(ask(), 'taken');
});

test('marks in shared memory wake the other thread and are never seen early', async (t) => {
  const marks = new SharedMarks();
  const worker = new Worker(
    `const { parentPort, workerData } = require('node:worker_threads');
     import(workerData.module).then(({ SharedMarks }) => {
       const marks = new SharedMarks(workerData.buffer);
       const keepAlive = setInterval(() => {}, 1000);
       marks.onMove(() => {
         if (marks.lsn('durable') < 2 ** 40) return;
         clearInterval(keepAlive);
         marks.advanceLsn('checkpoint', marks.lsn('durable'));
       });
       parentPort.postMessage('ready');
     });`,
    {
      eval: true,
      workerData: { buffer: marks.buffer, module: new URL('../../journal/shared-marks.ts', import.meta.url).href },
    },
  );
  t.teardown(() => worker.terminate());
  await new Promise((resolve) => worker.once('message', resolve));
  const moved = new Promise<void>((resolve) => {
    const stop = marks.onMove(() => {
      if (marks.lsn('checkpoint') === 0) return;
      stop();
      resolve();
    });
  });
  marks.advanceAddress('written', 2 ** 52);
  for (const lsn of [1, 2, 2 ** 40]) marks.advanceLsn('durable', lsn);
  await moved;
  t.is(marks.lsn('checkpoint'), 2 ** 40);
  t.is(marks.address('written'), 2 ** 52);
  t.throws(() => marks.advanceLsn('durable', 5), { name: 'AssertionError' });
});

test('files that lie about are used again: the next ones by name, the others in order, those of another size not', async (t) => {
  const directory = temporaryDirectory(t);
  const host = testHost();
  const path = (sequence: number): string => `${directory}/${journalFileName(sequence)}`;
  const make = (sequence: number, bytes: number): void =>
    fs.writeFileSync(path(sequence), Buffer.alloc(bytes, sequence));
  for (const sequence of [2, 3, 7, 8]) make(sequence, FILE_BYTES);
  make(9, FILE_BYTES / 2);
  fs.writeFileSync(`${directory}/prepare.tmj`, 'half of a file');
  const options = { directory, groupName: 'g', fileBytes: FILE_BYTES, budgetBytes: 6 * FILE_BYTES };
  // two files hold the log, 7 comes next and 8 behind it
  const pool = new FilePool(host, options, 2, 7, [2, 3, 7, 8, 9]);
  t.false(fs.existsSync(path(9)), 'a file of another size');
  t.false(fs.existsSync(`${directory}/prepare.tmj`), 'what was being prepared');
  t.is(pool.filesLeft, 4);
  const taken: number[] = [];
  for (let count = 0; count < 4; count++) {
    const { file, prepared } = pool.take(false);
    t.true(prepared);
    taken.push(file.sequence);
    t.is(fs.readFileSync(path(file.sequence))[0], [7, 8, 2, 3][count], 'the oldest first');
    await Promise.all([file.file.close(), file.blockingSync.close()]);
  }
  t.deepEqual(taken, [7, 8, 9, 10]);
  t.is(pool.filesLeft, 0);
  t.false(pool.canTake(false));
  t.throws(() => pool.take(false), { code: 'journal-full', message: /budget/ });
  t.true(pool.canTake(true), 'one for the reserve');
  await pool.close();
});

test('the files of a reader: the one used longest ago is closed, and what was dropped is opened anew', async (t) => {
  const directory = temporaryDirectory(t);
  const path = (sequence: number): string => `${directory}/${journalFileName(sequence)}`;
  for (const sequence of [1, 2, 3]) fs.writeFileSync(path(sequence), Buffer.alloc(64, sequence));
  const { disk } = testHost();
  const reads = new FileReads(disk, directory, 2);
  const first = (sequence: number): number => {
    const into = new Uint8Array(64);
    t.is(reads.read(sequence, 0, into, 0, 64), 64);
    return into[0] as number;
  };
  const replace = (sequence: number, byte: number): void => {
    fs.writeFileSync(`${directory}/new`, Buffer.alloc(64, byte));
    fs.renameSync(`${directory}/new`, path(sequence));
  };
  t.deepEqual([first(1), first(2), first(1)], [1, 2, 1]);
  replace(1, 11);
  replace(2, 12);
  t.is(first(3), 3);
  t.is(first(1), 1, 'used last before: still open');
  t.is(first(2), 12, 'used longest ago: was closed');
  reads.drop(1);
  t.is(first(1), 11);
  reads.drop(1);
  fs.unlinkSync(path(1));
  t.is(reads.header(1), 'missing');
  t.throws(() => reads.size(1), { code: 'trimmed' });
  await reads.close();
});

test('a clock that drifts up to a second between two looks has not jumped, one beyond it has', (t) => {
  const { clock } = testHost();
  const watch = new ClockWatch(clock, 0);
  const step = (micros: number): ReturnType<ClockWatch['jump']> => {
    clock.advance(100);
    clock.wall += micros;
    return watch.jump();
  };
  t.is(step(1_000_000), undefined);
  t.is(step(-1_000_000), undefined);
  t.is(step(0), undefined);
  const expected = clock.wall + 100_000;
  t.deepEqual(step(1_000_001), { fromMicros: expected, toMicros: expected + 1_000_001 });
  t.is(step(0), undefined, 'told once');
  t.truthy(step(-1_000_001));
  const later = watch.now() + 5_000_000;
  watch.raise(later);
  t.is(watch.now(), later, 'never back');
  watch.raise(later - 1);
  t.is(watch.now(), later);
});

test('marks in one thread: many moves of one turn are told once, each listener for itself, and none goes back', async (t) => {
  const marks = new LocalMarks();
  let told = 0;
  const listener = (): void => {
    told++;
  };
  const stop = marks.onMove(listener);
  marks.onMove(listener);
  marks.advanceAddress('written', 512);
  marks.advanceLsn('written', 3);
  marks.advanceLsn('durable', 2);
  t.is(told, 0, 'not before the turn ends');
  await Promise.resolve();
  t.is(told, 2);
  marks.advanceLsn('durable', 2);
  marks.advanceAddress('written', 512);
  await Promise.resolve();
  t.is(told, 2, 'nothing moved');
  stop();
  marks.advanceLsn('durable', 3);
  await Promise.resolve();
  t.is(told, 3);
  t.throws(() => marks.advanceLsn('durable', 2), { name: 'AssertionError' });
  t.throws(() => marks.advanceAddress('written', 511), { name: 'AssertionError' });
  t.deepEqual([marks.lsn('durable'), marks.address('written')], [3, 512]);
});

test('a reader that stands where files were taken back says trimmed, not damaged', async (t) => {
  const directory = temporaryDirectory(t);
  const journal = await Journal.open(testHost(), journalOptions(directory));
  await journal.begin();
  const reader = journal.reader(journal.oldestAddress);
  for (let count = 0; count < 30; count++) appendWrites(journal, 10);
  await journal.sync();
  for (const name of fs.readdirSync(directory).filter((one) => /^journal-0{15}[01]\.tmj$/.test(one))) {
    fs.unlinkSync(`${directory}/${name}`);
  }
  t.throws(() => reader.next(journal.endAddress), { code: 'trimmed' });
  await reader.close();
  const damaged = JournalReader.open(testHost(), { directory, groupId: GROUP_ID }, 2 * FILE_BYTES + 1024);
  t.throws(() => damaged.next(journal.endAddress), { code: 'journal-damaged' });
  await damaged.close();
  await journal.close();
});
