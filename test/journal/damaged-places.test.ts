import { readFileSync, writeFileSync } from 'node:fs';
import test from 'ava';
import { BATCH_HEADER_BYTES } from '../../journal/batch-codec.ts';
import { type Appended, Journal } from '../../journal/journal.ts';
import { listBatches } from '../../journal/journal-list.ts';
import type { MendedRecord } from '../../journal/stretch-writer.ts';
import {
  appendWrites,
  changeAt,
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

/** Ten writes each; LSN 1 is the record that begins the run. */
function appendBatches(journal: Journal, count: number): Appended[] {
  return Array.from({ length: count }, () => appendWrites(journal, 10));
}

/** Where the header of the batch stands. */
function startOf(batch: Appended | undefined): number {
  return (batch?.address ?? 0) - BATCH_HEADER_BYTES;
}

function wipe(directory: string, from: number, bytes: number): void {
  changeAt(directory, FILE_BYTES, from, (at) => at.fill(0xee, 0, bytes));
}

/** What can be read, in order, with the bytes copied. */
function recordsOf(journal: Journal): MendedRecord[] {
  const reader = journal.reader(journal.oldestAddress);
  const records: MendedRecord[] = [];
  for (let batch = reader.next(journal.endAddress); batch !== undefined; batch = reader.next(journal.endAddress)) {
    for (const record of batch) {
      records.push({ ...record, payload: Uint8Array.from(record.payload), time: batch.time, epoch: batch.epoch });
    }
  }
  void reader.close();
  return records;
}

test('a batch header that the medium cannot read is damage, at the end of the log too', async (t) => {
  const directory = temporaryDirectory(t);
  const journal = await Journal.open(testHost(), journalOptions(directory));
  await journal.begin();
  const appended = appendBatches(journal, 11);
  const copy = snapshot(t, directory);
  await journal.close();
  for (const [index, lost] of [
    [5, range(52, 61)],
    [10, range(102, 111)],
  ] as const) {
    const place = snapshot(t, copy);
    const host = testHost();
    const from = startOf(appended[index]);
    host.disk.badPlace = { name: '0000.tmj', from, to: from + 16 };
    const again = await Journal.open(host, journalOptions(place));
    t.is(again.report.damage.length, 1, `batch ${index}`);
    t.like(again.report.damage[0], { fromLsn: lost[0], address: from, reason: 'the medium cannot be read here' });
    t.is(again.report.cut, undefined);
    await again.begin();
    t.true(again.endAddress >= FILE_BYTES === (index === 10), 'nothing is written behind what may come back');
    await again.close();
  }
});

test('behind a break the listing goes on with nothing of an earlier run, however high its LSNs', async (t) => {
  const directory = temporaryDirectory(t);
  const first = await Journal.open(testHost(), journalOptions(directory));
  await first.begin();
  const appended = appendBatches(first, 3);
  await first.sync();
  appended.push(...appendBatches(first, 6));
  const copy = snapshot(t, directory);
  await first.close();
  wipe(copy, startOf(appended[3]) + 600, 512);
  const second = await Journal.open(testHost(SECOND_BOOT), journalOptions(copy));
  t.is(second.report.cut?.afterLsn, 31);
  await second.begin();
  const [own] = appendBatches(second, 1);
  const end = second.endAddress;
  const killed = snapshot(t, copy);
  await second.close();
  // whole batches of the first run stand behind, with higher LSNs than anything the second run has written
  t.true(startOf(appended[6]) > end);
  wipe(killed, startOf(own) + 600, 512);
  const listed = [...listBatches(testHost(), killed)].map((one) => ('reason' in one ? 'break' : one.lastLsn));
  t.is(listed.at(-1), 32);
  t.false(listed.includes('break'));
});

test('what is whole between two damaged stretches is neither part of the one nor of the other', async (t) => {
  const directory = temporaryDirectory(t);
  const journal = await Journal.open(testHost(), journalOptions(directory));
  await journal.begin();
  const appended = appendBatches(journal, 9);
  await journal.sync();
  const records = recordsOf(journal);
  t.is(journal.damageAt(startOf(appended[4]), []), undefined, 'all is whole');
  wipe(directory, startOf(appended[2]), 200);
  wipe(directory, startOf(appended[6]), 200);
  t.like(journal.damageAt(startOf(appended[2]), []), {
    fromLsn: 22,
    toLsn: 31,
    address: startOf(appended[2]),
    resumeAddress: startOf(appended[3]),
    incarnation: 1,
    fileHeader: { sequence: 0 },
  });
  t.is(journal.damageAt(startOf(appended[4]), []), undefined, 'between them all is whole');
  const second = journal.damageAt(startOf(appended[6]), []);
  t.like(second, { fromLsn: 62, toLsn: 71, address: startOf(appended[6]), resumeAddress: startOf(appended[7]) });
  t.is(journal.damageAt(startOf(appended[8]), []), undefined, 'behind both');
  if (second === undefined) return t.fail();
  const writer = await journal.mend(second);
  for (const lsn of range(62, 71)) writer.add(records[lsn - 1]!);
  t.is(await writer.finish(), startOf(appended[7]) - startOf(appended[6]));
  await writer.close();
  t.deepEqual(readLsns(journal), [...range(1, 21), ...range(32, 91)]);
  await journal.close();
});

test('damage behind many small batches is found in few reads of the disk', async (t) => {
  const directory = temporaryDirectory(t);
  const host = testHost();
  const journal = await Journal.open(host, journalOptions(directory));
  await journal.begin();
  for (let count = 0; count < 200; count++) {
    appendWrites(journal, 1);
    await journal.sync();
  }
  const address = journal.addressOf(190);
  wipe(directory, address, 100);
  const before = host.disk.reads;
  t.like(journal.damageAt(address, []), { fromLsn: 190, toLsn: 190 });
  const reads = host.disk.reads - before;
  t.true(reads < 30, `${reads}`);
  await journal.close();
});

test('a damaged stretch is of the run of its own file, also where the file behind it was begun by the next run', async (t) => {
  const directory = temporaryDirectory(t);
  const first = await Journal.open(testHost(), journalOptions(directory));
  await first.begin();
  const appended = appendBatches(first, 11);
  await first.close();
  const second = await Journal.open(testHost(SECOND_BOOT), journalOptions(directory));
  await second.begin();
  appendBatches(second, 4);
  await second.sync();
  t.true(second.endAddress > FILE_BYTES, 'the second run has begun a file');
  wipe(directory, startOf(appended[7]), 100);
  const stretch = second.damageAt(startOf(appended[7]), []);
  t.like(stretch, { fromLsn: 72, toLsn: 81, incarnation: 1, fileHeader: { sequence: 0, incarnation: { counter: 1 } } });
  await second.close();
});

test('a stretch mended over the border of a file leaves a whole file header as it is', async (t) => {
  const directory = temporaryDirectory(t);
  const journal = await Journal.open(testHost(), journalOptions(directory));
  await journal.begin();
  const appended: Appended[] = [];
  for (let batch = 0; batch < 30; batch++) {
    appended.push(...appendBatches(journal, 1));
    await journal.sync();
  }
  const records = recordsOf(journal);
  const lsns = readLsns(journal);
  const border = appended.findIndex(({ address }) => address >= FILE_BYTES);
  const headerOf = (): Buffer => readFileSync(journalFiles(directory)[1] ?? '').subarray(0, 4096);
  const before = Buffer.from(headerOf());
  // with the mark behind it, at the end of the file
  wipe(directory, startOf(appended[border - 1]), FILE_BYTES - startOf(appended[border - 1]));
  wipe(directory, FILE_BYTES + 4096, 400);
  const lost = journal.damageAt(startOf(appended[border - 1]), []);
  if (lost === undefined) return t.fail('nothing is damaged');
  t.true(lost.resumeAddress > FILE_BYTES + 4096, 'one stretch over the border');
  const writer = await journal.mend(lost);
  for (const lsn of range(lost.fromLsn, lost.toLsn)) writer.add(records[lsn - 1]!);
  await writer.finish();
  await writer.close();
  t.deepEqual(headerOf(), before);
  t.deepEqual(readLsns(journal), lsns);
  await journal.close();
});

// The simulation with rot in the journal: the disks needed what nobody had looked at, and a start refused without asking.
test('what is needed is looked at, however long ago it was proven durable', async (t) => {
  const directory = temporaryDirectory(t);
  const journal = await Journal.open(testHost(), journalOptions(directory));
  await journal.begin();
  const appended: Appended[] = [];
  for (let index = 0; index < 80; index++) {
    appended.push(appendWrites(journal, 10));
    if (index % 10 === 9) await journal.sync();
  }
  const copy = snapshot(t, directory);
  await journal.close();
  t.true(journalFiles(copy).length > 5);
  const victim = appended[15]!;
  changeAt(copy, FILE_BYTES, victim.address + 100, (bytes) => {
    bytes[0] = bytes[0]! ^ 1;
  });
  const files = (address: number): number => Math.floor(address / FILE_BYTES);
  const behind = appended.find(({ address }) => files(address) > files(victim.address))!;
  for (const [needed, found] of [
    [undefined, 0],
    [{ address: 0, lsn: 1 }, 1],
    [{ address: startOf(victim), lsn: victim.firstLsn }, 1],
    [{ address: startOf(behind), lsn: behind.firstLsn }, 0],
  ] as const) {
    const place = snapshot(t, copy);
    const again = await Journal.open(testHost(), journalOptions(place, { needed }));
    t.is(again.report.damage.length, found, `${needed?.lsn}`);
    if (found === 1) t.like(again.report.damage[0], { fromLsn: victim.firstLsn, toLsn: victim.lastLsn });
    t.is(again.report.lastLsn, 801);
    await again.begin();
    t.is(readLsns(again).length, 792);
    t.is(again.addressOf(500), appended[49]!.address - BATCH_HEADER_BYTES, 'the index is the same');
    await again.close();
  }
});

// The simulation with rot in the journal: the file was taken to begin behind the damage, and a mending of nothing was
// written over what stood there.
test('a file whose first batch is damaged begins where its header says', async (t) => {
  const directory = temporaryDirectory(t);
  const journal = await Journal.open(testHost(), journalOptions(directory));
  await journal.begin();
  const appended = appendBatches(journal, 80);
  await journal.sync();
  const records = recordsOf(journal);
  const copy = snapshot(t, directory);
  await journal.close();
  const sequence = ({ address }: Appended): number => Math.floor(address / FILE_BYTES);
  const victim = appended.find((one) => sequence(one) === 3)!;
  wipe(copy, victim.address + 100, 8);
  const again = await Journal.open(testHost(), journalOptions(copy, { needed: { address: 0, lsn: 1 } }));
  const { firstLsn, lastLsn } = victim;
  t.deepEqual(
    again.report.damage.map((one) => [one.fromLsn, one.toLsn]),
    [[firstLsn, lastLsn]],
  );
  const stretch = again.damageAt(again.report.damage[0]!.address)!;
  t.deepEqual([stretch.fromLsn, stretch.toLsn, stretch.address], [firstLsn, lastLsn, startOf(victim)]);
  const writer = await again.mend(stretch);
  for (const record of records.filter(({ lsn }) => lsn >= firstLsn && lsn <= lastLsn)) writer.add(record);
  await writer.finish();
  await writer.close();
  t.is(again.damageAt(stretch.address), undefined);
  t.deepEqual(recordsOf(again), records);
  await again.close();
});

test('a reader that could not read on reads what was put back meanwhile, from where it stood', async (t) => {
  const directory = temporaryDirectory(t);
  const journal = await Journal.open(testHost(), journalOptions(directory));
  await journal.begin();
  const appended = appendBatches(journal, 6);
  await journal.sync();
  const [file = ''] = journalFiles(directory);
  const whole = readFileSync(file);
  wipe(directory, startOf(appended[2]), 300);
  const reader = journal.reader(0);
  const read: number[] = [];
  const readOn = (): void => {
    for (let batch = reader.next(journal.endAddress); batch !== undefined; ) {
      read.push(batch.lastLsn);
      batch = reader.next(journal.endAddress);
    }
  };
  t.throws(readOn, { code: 'journal-damaged' });
  t.deepEqual(read, [1, 11, 21]);
  t.is(reader.address, startOf(appended[2]));
  t.throws(readOn, { code: 'journal-damaged' });
  writeFileSync(file, whole);
  readOn();
  t.deepEqual(read, [1, 11, 21, 31, 41, 51, 61]);
  reader.seek(startOf(appended[4]));
  readOn();
  t.deepEqual(read.slice(7), [51, 61]);
  await reader.close();
  wipe(directory, startOf(appended[2]), 300);
  const other = journal.reader(0);
  t.throws(() => {
    while (other.next(journal.endAddress) !== undefined);
  });
  t.deepEqual(other.skipDamage(journal.endAddress), { fromLsn: 22, toLsn: 31, resumeAddress: startOf(appended[3]) });
  t.is(other.next(journal.endAddress)?.lastLsn, 41);
  t.is(other.skipDamage(startOf(appended[4])), undefined, 'nothing whole stands below the limit');
  await other.close();
  await journal.close();
});

test('the end of a file and the header of the next are put back in front of a batch that is whole', async (t) => {
  const directory = temporaryDirectory(t);
  const journal = await Journal.open(testHost(), journalOptions(directory));
  await journal.begin();
  const appended = appendBatches(journal, 20);
  await journal.sync();
  const records = recordsOf(journal);
  const lsns = readLsns(journal);
  const border = appended.findIndex(({ address }) => address >= FILE_BYTES);
  const from = startOf(appended[border - 1]);
  wipe(directory, from, FILE_BYTES - from);
  wipe(directory, FILE_BYTES, 4096);
  const lost = journal.damageAt(from, []);
  if (lost === undefined) return t.fail('nothing is damaged');
  t.is(lost.resumeAddress, FILE_BYTES + 4096, 'right behind the header');
  const writer = await journal.mend(lost);
  for (const lsn of range(lost.fromLsn, lost.toLsn)) writer.add(records[lsn - 1]!);
  await writer.finish();
  await writer.close();
  t.deepEqual(readLsns(journal), lsns);
  t.is(journal.damageAt(from, []), undefined);
  await journal.close();
});
