import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { crc32 } from '@node-rs/crc32';
import test from 'ava';
import fc from 'fast-check';
import { hasCode } from '../../journal/base/errors.ts';
import { BATCH_HEADER_BYTES } from '../../journal/batch-codec.ts';
import { FileReads } from '../../journal/file-reads.ts';
import type { Appended } from '../../journal/journal.ts';
import { Journal, type JournalOptions, type RestoredRecord } from '../../journal/journal.ts';
import { auditJournal } from '../../journal/journal-audit.ts';
import { FILE_HEADER_BYTES, readFileHeader, writeFileHeader } from '../../journal/journal-file-header.ts';
import { listBatches } from '../../journal/journal-list.ts';
import { readShape } from '../../journal/journal-reader.ts';
import { RecordKind } from '../../journal/record.ts';
import { encodeBookmark } from '../../journal/record-bodies.ts';
import type { LogRun } from '../../journal/recovery-scan.ts';
import { judge } from '../../journal/recovery-verdict.ts';
import {
  appendWrites,
  changeAt,
  FIRST_BOOT,
  GROUP_ID,
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

/** A journal of `batches` batches of 10 writes; the first `synced` of them are durable, and a header says so. */
async function writeJournal(
  directory: string,
  batches: number,
  synced: number,
): Promise<{ journal: Journal; appended: Appended[] }> {
  const journal = await Journal.open(testHost(), journalOptions(directory));
  await journal.begin();
  const appended: Appended[] = [];
  for (let index = 0; index < batches; index++) {
    if (index === synced) await journal.sync();
    appended.push(appendWrites(journal, 10));
  }
  return { journal, appended };
}

test('a kill loses nothing that was written, and what was unproven is written again', async (t) => {
  const directory = temporaryDirectory(t);
  const { journal } = await writeJournal(directory, 40, 15);
  const copy = snapshot(t, directory);
  await journal.close();
  const host = testHost();
  const again = await Journal.open(host, journalOptions(copy));
  t.is(again.report.lastLsn, 401);
  t.is(again.report.durableLsn, 151);
  t.false(again.report.cleanStop);
  t.false(again.report.bootChanged);
  t.is(again.report.cut, undefined);
  t.deepEqual(again.report.damage, []);
  t.true(again.report.rewrittenBytes >= 250 * 540);
  t.true(host.disk.syncs > 0);
  const incarnation = await again.begin();
  t.is(incarnation.counter, 2);
  t.deepEqual(readLsns(again), range(1, 402));
  await again.close();
});

test('a torn tail above the watermark is cut after a power loss, also when whole batches stand behind it', async (t) => {
  const directory = temporaryDirectory(t);
  const { journal, appended } = await writeJournal(directory, 12, 4);
  const copy = snapshot(t, directory);
  await journal.close();
  const torn = appended[7];
  changeAt(copy, FILE_BYTES, (torn?.address ?? 0) + 600, (bytes) => bytes.fill(0xee, 0, 512));
  const again = await Journal.open(testHost(SECOND_BOOT), journalOptions(copy));
  t.true(again.report.bootChanged);
  t.is(again.report.lastLsn, 71);
  t.is(again.report.cut?.afterLsn, 71);
  t.true((again.report.cut?.droppedBytes ?? 0) >= 4 * 5400);
  t.deepEqual(again.report.damage, []);
  await again.begin();
  t.deepEqual(readLsns(again), range(1, 72));
  appendWrites(again, 10);
  // what was cut still stands behind: it must not come back, neither after a kill nor after a power loss
  const killed = snapshot(t, copy);
  const lost = snapshot(t, copy);
  await again.close();
  for (const [place, boot] of [
    [killed, SECOND_BOOT],
    [lost, FIRST_BOOT],
  ] as const) {
    const third = await Journal.open(testHost(boot), journalOptions(place));
    t.is(third.report.lastLsn, 82);
    t.deepEqual(third.report.damage, []);
    t.is(third.report.incarnation.counter, 2);
    await third.close();
  }
});

test('what only the header of a file behind a cut proves stays proven when that file is wiped', async (t) => {
  const directory = temporaryDirectory(t);
  const options = { syncIntervalMs: 600_000 };
  const journal = await Journal.open(testHost(), journalOptions(directory, options));
  await journal.begin();
  const appended: Appended[] = [];
  while (journal.endAddress < FILE_BYTES) appended.push(appendWrites(journal, 10));
  const copy = snapshot(t, directory);
  await journal.close();
  // the newest file was begun when record 61 had just become durable, and none of its batches reached the medium
  changeAt(copy, FILE_BYTES, FILE_BYTES, (bytes) => {
    const header = readFileHeader(bytes.subarray(0, FILE_HEADER_BYTES));
    if (typeof header === 'string') throw new Error(header);
    writeFileHeader(bytes, { ...header, durableLsn: 61 });
    bytes.fill(0, FILE_HEADER_BYTES);
  });
  changeAt(copy, FILE_BYTES, appended[8]!.address, (bytes) => bytes.fill(0, 0, 1000));
  changeAt(copy, FILE_BYTES, appended[3]!.address + 200, (bytes) => (bytes[0]! ^= 1));
  for (const start of ['first', 'second', 'third']) {
    const { report, ...again } = await openAndLeave(copy, options);
    t.is(report.durableLsn, 61, start);
    t.is(report.lastLsn, 81, start);
    t.like(report.damage, [{ fromLsn: 32, toLsn: 41 }], start);
    t.false(report.cleanStop, start);
    t.deepEqual(again.lsns, [...range(1, 31), ...range(42, 81)], start);
  }
});

async function openAndLeave(directory: string, options: Partial<JournalOptions>) {
  const journal = await Journal.open(testHost(SECOND_BOOT), journalOptions(directory, options));
  const lsns = readLsns(journal);
  await journal.close();
  return { report: journal.report, lsns };
}

test('damage at or below the watermark is reported and never truncated', async (t) => {
  const directory = temporaryDirectory(t);
  const { journal, appended } = await writeJournal(directory, 30, 25);
  const copy = snapshot(t, directory);
  await journal.close();
  const victim = appended[20];
  changeAt(copy, FILE_BYTES, (victim?.address ?? 0) + 100, (bytes) => {
    bytes[0] = (bytes[0] ?? 0) ^ 1;
  });
  for (const boot of [FIRST_BOOT, SECOND_BOOT]) {
    const place = snapshot(t, copy);
    const again = await Journal.open(testHost(boot), journalOptions(place));
    t.is(again.report.lastLsn, 301);
    t.is(again.report.cut, undefined);
    t.is(again.report.damage.length, 1);
    t.like(again.report.damage[0], { fromLsn: 202, toLsn: 211, address: (victim?.address ?? 0) - 64 });
    await again.begin();
    t.deepEqual(readLsns(again), [...range(1, 201), ...range(212, 302)]);
    const { address, file, offset } = again.report.damage[0]!;
    t.like(auditJournal(testHost(), place).damage[0], { fromLsn: 202, toLsn: 211, address, file, offset });
    const listed = [...listBatches(testHost(), place)].map((one) =>
      'reason' in one ? `break at ${one.address}` : one.lastLsn,
    );
    const gap = listed.indexOf(`break at ${(victim?.address ?? 0) - 64}`);
    t.is(listed[gap - 1], 201);
    t.is(listed[gap + 1], 221, 'the batch behind the damaged one');
    t.is(listed.filter((one) => typeof one === 'string').length, 1);
    await again.close();
  }
});

test('a journal whose first batch a power loss took before it was proven has lost nothing', async (t) => {
  const directory = temporaryDirectory(t);
  const journal = await Journal.open(testHost(), journalOptions(directory));
  await journal.begin();
  const copy = snapshot(t, directory);
  await journal.close();
  changeAt(copy, FILE_BYTES, 4096, (bytes) => bytes.fill(0));
  const again = await Journal.open(testHost(SECOND_BOOT), journalOptions(copy));
  t.is(again.report.lastLsn, 0);
  t.deepEqual(again.report.damage, []);
  await again.close();
});

test('within one boot a hole without a witness is damage too: the page cache loses nothing', async (t) => {
  const directory = temporaryDirectory(t);
  const { journal, appended } = await writeJournal(directory, 12, 4);
  const copy = snapshot(t, directory);
  await journal.close();
  changeAt(copy, FILE_BYTES, appended[7]?.address ?? 0, (bytes) => bytes.fill(0, 0, 64));
  const again = await Journal.open(testHost(FIRST_BOOT), journalOptions(copy));
  t.is(again.report.lastLsn, 121);
  t.like(again.report.damage[0], { fromLsn: 72, toLsn: 81 });
  await again.close();
});

test('proven records that are gone at the end are damage; what follows goes into a file of its own', async (t) => {
  const directory = temporaryDirectory(t);
  const { journal, appended } = await writeJournal(directory, 5, 5);
  await journal.close();
  // the stop mark proves LSN 51; the last two batches are wiped
  changeAt(directory, FILE_BYTES, (appended[3]?.address ?? 0) - 64, (bytes) => bytes.fill(0));
  for (const boot of [FIRST_BOOT, SECOND_BOOT]) {
    const place = snapshot(t, directory);
    const again = await Journal.open(testHost(boot), journalOptions(place));
    t.is(again.report.lastLsn, 51);
    t.false(again.report.cleanStop);
    t.like(again.report.damage[0], { fromLsn: 32, toLsn: 51 });
    await again.begin();
    appendWrites(again, 10);
    await again.sync();
    t.deepEqual(readLsns(again), [...range(1, 31), ...range(52, 62)]);
    await again.close();
    const third = await Journal.open(testHost(boot), journalOptions(place));
    t.is(third.report.lastLsn, 62);
    t.true(third.report.cleanStop);
    await third.close();
  }
});

test('at any point where the medium ends, exactly the whole batches before it survive', async (t) => {
  const directory = temporaryDirectory(t);
  const { journal, appended } = await writeJournal(directory, 35, 3);
  const written = snapshot(t, directory);
  await journal.close();
  const last = appended.at(-1)?.endAddress ?? 0;
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: appended[3]?.address ?? 0, max: last }), async (end) => {
      const copy = snapshot(t, written);
      const fileStart = end - (end % FILE_BYTES);
      changeAt(copy, FILE_BYTES, end, (bytes) => bytes.fill(0));
      for (const file of journalFiles(copy)) {
        const begins = Number.parseInt(file.slice(-20, -4), 16) * FILE_BYTES;
        if (begins > fileStart) writeFileSync(file, Buffer.alloc(FILE_BYTES));
      }
      const whole = appended.filter((batch) => batch.address + 10 * 540 <= end).at(-1)?.lastLsn ?? 0;
      const again = await Journal.open(testHost(SECOND_BOOT), journalOptions(copy));
      // a byte of the last record may be zero anyway, so that cutting it changes nothing
      t.true(again.report.lastLsn >= whole && again.report.lastLsn <= whole + 10, `cut at ${end}`);
      t.deepEqual(again.report.damage, []);
      await again.begin();
      appendWrites(again, 3);
      t.deepEqual(readLsns(again), range(1, again.lastLsn));
      await again.close();
      rmSync(copy, { recursive: true });
    }),
    { numRuns: 40 },
  );
});

test('recovery that is itself killed at any write or sync ends the same the next time', async (t) => {
  const directory = temporaryDirectory(t);
  const { journal, appended } = await writeJournal(directory, 40, 12);
  const copy = snapshot(t, directory);
  await journal.close();
  changeAt(copy, FILE_BYTES, (appended[14]?.address ?? 0) + 600, (bytes) => bytes.fill(0xee, 0, 512));
  let failAt = 0;
  for (; failAt < 200; failAt++) {
    const place = snapshot(t, copy);
    const failing = testHost(SECOND_BOOT);
    let operations = 0;
    failing.disk.fault = () => (operations++ === failAt ? 'EIO' : undefined);
    let failed = false;
    try {
      const broken = await Journal.open(failing, journalOptions(place));
      await broken.close();
    } catch (error) {
      failed = hasCode(error, 'device-failed') || hasCode(error, 'sync-failed');
      t.true(failed);
    }
    const again = await Journal.open(testHost(SECOND_BOOT), journalOptions(place));
    t.is(again.report.lastLsn, 141);
    t.deepEqual(again.report.damage, []);
    await again.begin();
    t.deepEqual(readLsns(again), range(1, 142));
    await again.close();
    rmSync(place, { recursive: true });
    if (!failed) break;
  }
  t.true(failAt > 2 && failAt < 200);
});

test('recycled files show old batches that no reader and no recovery believes', async (t) => {
  const directory = temporaryDirectory(t);
  const host = testHost();
  const journal = await Journal.open(host, journalOptions(directory, { budgetBytes: 4 * FILE_BYTES }));
  await journal.begin();
  for (let index = 0; index < 120; index++) {
    const done = appendWrites(journal, 10);
    await journal.sync();
    journal.recycleBelow(done.address);
  }
  t.true(journalFiles(directory).length <= 4);
  const first = journal.oldestLsn;
  t.true(first > 900);
  t.deepEqual(readLsns(journal), range(first, journal.lastLsn));
  t.throws(() => journal.addressOf(5), { code: 'trimmed' });
  t.throws(() => journal.reader(0), { code: 'trimmed' });
  const killed = snapshot(t, directory);
  await journal.close();
  for (const boot of [FIRST_BOOT, SECOND_BOOT]) {
    const place = snapshot(t, killed);
    const again = await Journal.open(testHost(boot), journalOptions(place, { budgetBytes: 4 * FILE_BYTES }));
    t.is(again.report.lastLsn, 1201);
    t.deepEqual(again.report.damage, []);
    t.is(again.report.cut, undefined);
    await again.close();
  }
});

test('a whole batch that does not continue the one before it is not believed, whatever it says of itself', async (t) => {
  const directory = temporaryDirectory(t);
  const base = await Journal.open(testHost(), journalOptions(directory));
  await base.begin();
  appendWrites(base, 5);
  await base.sync();
  const copies = [snapshot(t, directory), snapshot(t, directory)];
  await base.close();
  // Two starts from one state: the same counters, LSNs and addresses from here on, told apart by the chain alone.
  const ends: { journal: Journal; last: Appended }[] = [];
  for (const copy of copies) {
    const journal = await Journal.open(testHost(), journalOptions(copy));
    await journal.begin();
    appendWrites(journal, 5);
    ends.push({ journal, last: appendWrites(journal, 5) });
    await journal.sync();
  }
  const [one, other] = ends as [(typeof ends)[0], (typeof ends)[0]];
  t.is(one.last.address, other.last.address);
  t.is(one.last.firstLsn, other.last.firstLsn);
  const foreign = snapshot(t, copies[1]!);
  const bytes = readFileSync(journalFiles(foreign)[0]!);
  changeAt(copies[0]!, FILE_BYTES, one.last.address - 64, (at) => {
    bytes.copy(at, 0, other.last.address - 64, other.last.endAddress);
  });
  const reader = one.journal.reader(0);
  let readTo = 0;
  const readOn = (): void => {
    for (let batch = reader.next(one.journal.endAddress); batch !== undefined; ) {
      readTo = batch.lastLsn;
      batch = reader.next(one.journal.endAddress);
    }
  };
  t.throws(readOn, { message: /the chain is broken/ });
  t.is(readTo, one.last.firstLsn - 1);
  await reader.close();
  await one.journal.close();
  await other.journal.close();
});

test('a batch of an older incarnation ends the log, however well it fits', async (t) => {
  const directory = temporaryDirectory(t);
  const first = await Journal.open(testHost(), journalOptions(directory));
  await first.begin();
  await first.close();
  const journal = await Journal.open(testHost(), journalOptions(directory));
  t.is((await journal.begin()).counter, 2);
  const last = appendWrites(journal, 5);
  await journal.sync();
  const reads = new FileReads(testHost().disk, directory);
  const { salt } = readShape(testHost().disk, directory, reads);
  await reads.close();
  changeAt(directory, FILE_BYTES, last.address - BATCH_HEADER_BYTES, (header) => {
    header.writeUInt32LE(1, 40);
    header.writeUInt32LE(0, 4);
    header.writeUInt32LE(crc32(header.subarray(0, BATCH_HEADER_BYTES), salt), 4);
  });
  const reader = journal.reader(0);
  t.throws(
    () => {
      while (reader.next(journal.endAddress) !== undefined);
    },
    { message: /incarnation 1 is older/ },
  );
  await reader.close();
  await journal.close();
});

test('records that the far side holds are put back before anything new is numbered', async (t) => {
  const directory = temporaryDirectory(t);
  const { journal } = await writeJournal(directory, 3, 3);
  await journal.close();
  const again = await Journal.open(testHost(SECOND_BOOT), journalOptions(directory));
  const error = await t.throwsAsync(again.begin({ highestLsn: 33 }), { code: 'needs-resync' });
  t.like(error, { details: { headLsn: 31, farLsn: 33 } });
  const record: Omit<RestoredRecord, 'lsn'> = {
    kind: RecordKind.write,
    flags: 0,
    volume: 1,
    sector: 0,
    sectors: 1,
    requestId: 0,
    time: 1_800_000_000_000_001,
    payload: new Uint8Array(512),
  };
  again.restoreRecords([
    { ...record, lsn: 32, payload: new Uint8Array(512).fill(32) },
    { ...record, lsn: 33, payload: new Uint8Array(512).fill(33) },
  ]);
  t.is((await again.begin({ highestLsn: 33 })).counter, 2);
  t.is(again.lastLsn, 34);
  t.deepEqual(readLsns(again), range(1, 34));
  await again.close();
});

test('a foreign, newer or other-sized journal is refused and left as it is', async (t) => {
  const directory = temporaryDirectory(t);
  const { journal } = await writeJournal(directory, 3, 3);
  await journal.close();
  const file = journalFiles(directory)[0] ?? '';
  const before = readFileSync(file);
  await t.throwsAsync(Journal.open(testHost(), journalOptions(directory, { groupId: 'cd'.repeat(16) })), {
    code: 'journal-foreign',
  });
  const killed = snapshot(t, directory);
  rmSync(join(killed, 'journal.stop'));
  await t.throwsAsync(Journal.open(testHost(), journalOptions(killed, { groupId: 'cd'.repeat(16) })), {
    code: 'journal-foreign',
  });
  await t.throwsAsync(Journal.open(testHost(), journalOptions(directory, { fileBytes: 2 * FILE_BYTES })), {
    code: 'precondition-failed',
  });
  t.deepEqual(readFileSync(file), before);
  const newer = Buffer.from(before);
  newer.writeUInt16LE(2, 8);
  newer.writeUInt32LE(0, 4);
  newer.writeUInt32LE(crc32(newer.subarray(0, 256)), 4);
  writeFileSync(file, newer);
  await t.throwsAsync(Journal.open(testHost(), journalOptions(directory)), { code: 'format-too-new' });
  t.deepEqual(readFileSync(file), newer);
  // no readable header at all is not an empty journal
  newer.fill(0x55, 0, 4096);
  writeFileSync(file, newer);
  rmSync(join(directory, 'journal.stop'));
  await t.throwsAsync(Journal.open(testHost(), journalOptions(directory)), { code: 'journal-damaged' });
  t.deepEqual(readFileSync(file), newer);
});

test('a place that the medium cannot read is damage, not a tail, and does not keep the journal from opening', async (t) => {
  const directory = temporaryDirectory(t);
  const { journal, appended } = await writeJournal(directory, 11, 2);
  const copy = snapshot(t, directory);
  await journal.close();
  for (const [batch, lost] of [
    [5, range(52, 61)],
    [10, range(102, 111)],
  ] as const) {
    const place = snapshot(t, copy);
    const host = testHost();
    const from = (appended[batch]?.address ?? 0) + 1000;
    host.disk.badPlace = { name: '0000.tmj', from, to: from + 512 };
    const again = await Journal.open(host, journalOptions(place));
    t.is(again.report.damage.length, 1);
    t.is(again.report.damage[0]?.fromLsn, lost[0]);
    t.is(again.report.lastLsn, batch === 10 ? 101 : 111);
    await again.begin();
    const kept = range(1, again.lastLsn).filter((lsn) => batch === 10 || !lost.includes(lsn));
    t.deepEqual(readLsns(again), kept);
    await again.close();
  }
});

test('rubbish in a directory is an error or an empty journal, never a crash', async (t) => {
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 9000 }), async (rubbish) => {
      const directory = join(temporaryDirectory(t), 'journal');
      mkdirSync(directory);
      writeFileSync(join(directory, 'journal-0000000000000000.tmj'), rubbish);
      writeFileSync(join(directory, 'journal.stop'), rubbish.subarray(0, 64));
      try {
        const journal = await Journal.open(testHost(), journalOptions(directory));
        await journal.begin();
        // a journal's first write may have failed in its middle
        t.true(rubbish.every((byte, at) => byte === 0 || byte === 'TMJ1'.charCodeAt(at)));
        await journal.close();
      } catch (error) {
        t.true(hasCode(error, 'journal-damaged') || hasCode(error, 'format-too-new'), String(error));
      }
    }),
    { numRuns: 30 },
  );
});

test('a position is durable before it can be told', async (t) => {
  const directory = temporaryDirectory(t);
  const journal = await Journal.open(testHost(), journalOptions(directory));
  await journal.begin();
  t.is(journal.marks.lsn('durable'), journal.lastLsn, 'the incarnation, before anybody is told of it');
  const body = encodeBookmark({ name: 'before the upgrade', kind: 'crash' });
  const bookmark = journal.append(RecordKind.bookmark, { body });
  t.true(journal.marks.lsn('durable') < bookmark.lastLsn);
  await journal.sync();
  t.is(journal.marks.lsn('durable'), bookmark.lastLsn);
  const copy = snapshot(t, directory);
  await journal.close();
  const again = await Journal.open(testHost(SECOND_BOOT), journalOptions(copy));
  t.is(again.report.lastLsn, bookmark.lastLsn);
  t.is(again.report.incarnation.counter, 1);
  t.is(GROUP_ID.length, 32);
  await again.close();
});

test('torn tail or damage: what is kept, cut and reported, for every order of proof and break', (t) => {
  const fileBytes = FILE_BYTES;
  const run = (firstLsn: number, nextLsn: number, from: number, end: number, more: Partial<LogRun> = {}): LogRun => ({
    from,
    end,
    firstLsn,
    nextLsn,
    chain: 0,
    incarnation: { counter: 1, nonce: '0'.repeat(16) },
    bootId: FIRST_BOOT,
    epoch: 1,
    time: 1,
    durableLsn: 0,
    bytes: end - from,
    notes: [],
    endReason: 'broken',
    ...more,
  });
  const first = run(1, 11, 0, 1000);
  const second = run(13, 21, FILE_BYTES + 1200, FILE_BYTES + 2000, { bytes: 800 });
  const lost = {
    fromLsn: 11,
    toLsn: 12,
    address: 1000,
    resumeAddress: FILE_BYTES + 1200,
    offset: 1000,
    reason: 'broken',
  };
  const verdict = (runs: LogRun[], witnessed: number, boot: string, tornBytes = 0): ReturnType<typeof judge> =>
    judge({ runs, tornBytes }, witnessed, boot, fileBytes);

  // one stretch that ends cleanly, or torn
  t.like(verdict([first], 5, SECOND_BOOT), { lastLsn: 10, provenLsn: 5, endDamaged: false, bootChanged: true });
  t.is(verdict([first], 5, SECOND_BOOT).cut, undefined);
  t.deepEqual(verdict([first], 5, FIRST_BOOT, 64).cut, { afterLsn: 10, droppedBytes: 64, reason: 'broken' });
  t.false(verdict([first], 5, FIRST_BOOT).bootChanged);
  t.false(verdict([{ ...first, bootId: '' }], 5, FIRST_BOOT).bootChanged, 'no boot is known');
  // proven up to the very end, and one further: gone
  t.false(verdict([first], 10, SECOND_BOOT).endDamaged);
  const gone = verdict([first], 11, SECOND_BOOT);
  t.like(gone, { lastLsn: 11, endDamaged: true });
  t.like(gone.damage[0], { fromLsn: 11, toLsn: 11, address: 1000, resumeAddress: 1000 });
  t.like(verdict([first], 15, SECOND_BOOT).damage[0], { fromLsn: 11, toLsn: 15 });
  t.true(verdict([{ ...first, endReason: 'the medium cannot be read here' }], 5, FIRST_BOOT).endDamaged);

  // a hole after a new boot: behind it nothing is kept unless all up to its end is proven
  for (const witnessed of [0, 10, 11]) {
    const cut = verdict([first, second], witnessed, SECOND_BOOT);
    t.is(cut.kept.length, 1, `${witnessed} proven`);
    t.is(cut.cut?.droppedBytes, 800);
    t.is(cut.damage.length, witnessed === 11 ? 1 : 0);
  }
  for (const witnessed of [12, 13, 20]) {
    const kept = verdict([first, second], witnessed, SECOND_BOOT);
    t.is(kept.kept.length, 2, `${witnessed} proven`);
    t.is(kept.cut, undefined);
    t.like(kept.damage, [lost]);
    t.is(kept.lastLsn, 20);
  }
  t.is(verdict([first, second], 12, SECOND_BOOT, 10).cut?.afterLsn, 20);
  // a watermark in a later stretch proves as well
  t.is(verdict([first, { ...second, durableLsn: 12 }], 0, SECOND_BOOT).kept.length, 2);
  // within one boot a hole is damage even without a witness
  t.like(verdict([first, second], 0, FIRST_BOOT), {
    kept: { length: 2 },
    provenLsn: 0,
    lastLsn: 20,
    bootChanged: false,
  });
  t.like(verdict([first, second], 0, FIRST_BOOT).damage, [{ ...lost, file: 'journal-0000000000000000.tmj' }]);
  const later = run(13, 21, 2 * FILE_BYTES, 2 * FILE_BYTES + 500);
  t.like(verdict([later], 30, SECOND_BOOT).damage[0], { file: 'journal-0000000000000002.tmj', offset: 500, toLsn: 30 });
});
