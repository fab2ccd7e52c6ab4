import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { BATCH_HEADER_BYTES } from '../../journal/batch-codec.ts';
import { journalFileName } from '../../journal/file-reads.ts';
import { Journal } from '../../journal/journal.ts';
import { auditJournal } from '../../journal/journal-audit.ts';
import { FILE_HEADER_BYTES, readFileHeader } from '../../journal/journal-file-header.ts';
import { RecordKind } from '../../journal/record.ts';
import type { MendedRecord } from '../../journal/stretch-writer.ts';
import { LateDisk } from '../doubles/late-disk.ts';
import { SeededRandom } from '../simulation/seeded-random.ts';
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

/** Every record of a journal as the far side would give it back. */
function recordsOf(journal: Journal): MendedRecord[] {
  const reader = journal.reader(journal.oldestAddress);
  const records: MendedRecord[] = [];
  for (let batch = reader.next(journal.endAddress); batch !== undefined; batch = reader.next(journal.endAddress)) {
    for (const record of batch) {
      const payload = Uint8Array.from(record.payload);
      records.push({ ...record, payload, time: batch.time, epoch: batch.epoch });
    }
  }
  void reader.close();
  return records;
}

/** Mends what is damaged at an address, as far as `stopAfter` records; returns whether there was damage. */
async function mend(
  journal: Journal,
  address: number,
  records: readonly MendedRecord[],
  anchors: { lsn: number; address: number }[] = [],
  stopAfter = Number.POSITIVE_INFINITY,
): Promise<boolean> {
  const stretch = journal.damageAt(address, anchors);
  if (stretch === undefined) return false;
  const writer = await journal.mend(stretch);
  try {
    let count = 0;
    for (let lsn = stretch.fromLsn; lsn <= stretch.toLsn; lsn++) {
      if (count++ === stopAfter) return true;
      writer.add(records[lsn - 1]!);
    }
    await writer.finish();
  } finally {
    await writer.close();
  }
  return true;
}

async function mendAll(journal: Journal, records: readonly MendedRecord[]): Promise<void> {
  for (const { address } of journal.report.damage) await mend(journal, address, records);
}

/** Batches of 1 to 12 records, with other times, control records and, once, another run in between. */
async function writeAtRandom(directory: string, random: SeededRandom): Promise<void> {
  const host = testHost();
  for (const runs of [1, 2]) {
    const journal = await Journal.open(host, journalOptions(directory));
    await journal.begin();
    for (let batch = 0; batch < 60; batch++) {
      appendWrites(journal, 1 + random.below(12));
      if (random.below(3) > 0) host.clock.advance(1 + random.below(20));
      if (random.below(8) === 0) journal.append(RecordKind.heartbeat, { body: new Uint8Array(random.below(40)) });
      if (random.below(4) === 0) await journal.sync();
    }
    await journal.sync();
    if (runs === 1) await journal.close();
    else {
      host.clock.advance(100);
      await journal.close();
    }
  }
}

for (const seed of range(1, 4)) {
  test(`whatever was lost of a journal is put back in its place, at a start: seed ${seed}`, async (t) => {
    const random = new SeededRandom(seed);
    const directory = temporaryDirectory(t);
    await writeAtRandom(directory, random);
    const whole = await Journal.open(testHost(), journalOptions(snapshot(t, directory)));
    const records = recordsOf(whole);
    const { lastLsn, endAddress } = whole;
    const durable = readLsns(whole);
    await whole.close();
    for (let round = 0; round < 4; round++) {
      const copy = snapshot(t, directory);
      for (let damage = 0; damage <= random.below(3); damage++) {
        const address = random.below(Math.floor(endAddress / 8)) * 8;
        const bytes = [1, 512, 4096, 20_000, FILE_BYTES][random.below(5)] ?? 1;
        changeAt(copy, FILE_BYTES, address, (from) => {
          if (bytes === 1) from[0] = (from[0] ?? 0) ^ (1 << random.below(8));
          else from.subarray(0, Math.min(bytes, from.length)).fill(0);
        });
      }
      const boot = random.below(2) === 0 ? FIRST_BOOT : SECOND_BOOT;
      const journal = await Journal.open(testHost(boot), journalOptions(copy));
      await mendAll(journal, records);
      // what lies before the place where recovery begins to look is found by who reads it
      let mends = 0;
      for (let at = firstDamage(journal); at !== undefined; at = firstDamage(journal)) {
        t.true(await mend(journal, at, records), `seed ${seed} round ${round} at ${at}`);
        if (++mends > 100) return t.fail(`seed ${seed} round ${round}: nothing mends what is at ${at}`);
      }
      t.is(journal.lastLsn, lastLsn);
      t.deepEqual(readLsns(journal), durable);
      await journal.begin();
      appendWrites(journal, 3);
      await journal.close();
      const again = await Journal.open(testHost(boot), journalOptions(copy));
      t.deepEqual(again.report.damage, []);
      t.deepEqual(readLsns(again), [...durable, ...range(lastLsn + 1, lastLsn + 4)]);
      const times = recordsOf(again).slice(0, lastLsn);
      t.deepEqual(
        times.map(({ time }) => time),
        records.map(({ time }) => time),
      );
      await again.close();
      t.deepEqual(auditJournal(testHost(), copy).damage, []);
    }
  });
}

function firstDamage(journal: Journal): number | undefined {
  const reader = journal.reader(journal.oldestAddress);
  try {
    while (reader.next(journal.endAddress) !== undefined);
    return undefined;
  } catch {
    return reader.address;
  } finally {
    void reader.close();
  }
}

test('a repair that is killed after any record is taken up where it stopped', async (t) => {
  const random = new SeededRandom(77);
  const directory = temporaryDirectory(t);
  await writeAtRandom(directory, random);
  const whole = await Journal.open(testHost(), journalOptions(snapshot(t, directory)));
  const records = recordsOf(whole);
  const lsns = readLsns(whole);
  await whole.close();
  const from = FILE_BYTES + 20_000;
  changeAt(directory, FILE_BYTES, from, (bytes) => bytes.fill(0, 0, 30_000));
  for (const stopAfter of [0, 1, 2, 5, 11, 23, 40]) {
    const copy = snapshot(t, directory);
    const killed = await Journal.open(testHost(), journalOptions(copy));
    const at = firstDamage(killed) ?? 0;
    await mend(killed, at, records, [], stopAfter);
    const after = snapshot(t, copy);
    await killed.close();
    const again = await Journal.open(testHost(), journalOptions(after));
    const rest = firstDamage(again);
    t.true(rest !== undefined && rest >= at);
    await mend(again, rest ?? 0, records);
    t.deepEqual(readLsns(again), lsns);
    await again.close();
  }
});

test('a repair is synced, in every file, before it counts as done', async (t) => {
  const directory = temporaryDirectory(t);
  await writeAtRandom(directory, new SeededRandom(5));
  const whole = await Journal.open(testHost(), journalOptions(snapshot(t, directory)));
  const records = recordsOf(whole);
  await whole.close();
  changeAt(directory, FILE_BYTES, FILE_BYTES + 30_000, (bytes) => bytes.fill(0));
  changeAt(directory, FILE_BYTES, 2 * FILE_BYTES, (bytes) => bytes.fill(0, 0, 20_000));
  const host = testHost();
  const journal = await Journal.open(host, journalOptions(directory));
  const written = new Set<string>();
  const dirty = new Set<string>();
  host.disk.fault = (operation, path) => {
    if (operation === 'sync') dirty.delete(path);
    else for (const files of [written, dirty]) files.add(path);
    return undefined;
  };
  for (let at = firstDamage(journal); at !== undefined; at = firstDamage(journal)) {
    t.true(await mend(journal, at, records));
    t.deepEqual([...dirty], [], 'mended and not synced');
  }
  t.is(written.size, 3, 'two files, and the note that they are mended');
  await journal.close();
});

test('a repair whose sync failed, or that was killed, is written again by the next start, though watermarks behind it call it durable', async (t) => {
  const original = temporaryDirectory(t);
  await writeAtRandom(original, new SeededRandom(5));
  const whole = await Journal.open(testHost(), journalOptions(snapshot(t, original)));
  const records = recordsOf(whole);
  const lsns = readLsns(whole);
  await whole.close();
  const untouched = await Journal.open(testHost(), journalOptions(snapshot(t, original)));
  const usual = untouched.report.rewrittenBytes;
  await untouched.close();
  changeAt(original, FILE_BYTES, FILE_BYTES + 20_000, (bytes) => bytes.fill(0, 0, 30_000));
  for (const how of ['its sync failed', 'killed']) {
    const directory = snapshot(t, original);
    const host = testHost();
    const journal = await Journal.open(host, journalOptions(directory));
    const stretch = journal.damageAt(firstDamage(journal) ?? 0, [])!;
    const writer = await journal.mend(stretch);
    for (let lsn = stretch.fromLsn; lsn <= stretch.toLsn; lsn++) writer.add(records[lsn - 1]!);
    let left = directory;
    if (how === 'killed') left = snapshot(t, directory);
    host.disk.fault = (operation) => (operation === 'sync' ? 'EIO' : undefined);
    await t.throwsAsync(writer.finish(), { code: 'sync-failed' });
    await writer.close();
    host.disk.fault = () => undefined;
    await journal.close();
    const mended = stretch.resumeAddress - stretch.address;
    // a disk that takes less than it is given ends the start by name, and does not keep it going round
    const mendedFile = journalFileName(Math.floor(stretch.address / FILE_BYTES));
    const full = testHost();
    full.disk.fault = (operation, path) => (operation === 'write' && path.endsWith(mendedFile) ? 'short' : undefined);
    await t.throwsAsync(Journal.open(full, journalOptions(snapshot(t, left))), { code: 'no-space' });
    const again = await Journal.open(host, journalOptions(left));
    t.is(again.report.rewrittenBytes, usual + mended, how);
    if (how !== 'killed') t.deepEqual(readLsns(again), lsns);
    await again.close();
    const settled = await Journal.open(testHost(), journalOptions(left));
    t.is(settled.report.rewrittenBytes, usual, 'once is enough');
    await settled.close();
  }
});

test('a noted place with sectors that cannot be read: the start goes on, what can be read is written again, the rest stays damaged and noted', async (t) => {
  const original = temporaryDirectory(t);
  await writeAtRandom(original, new SeededRandom(5));
  const whole = await Journal.open(testHost(), journalOptions(snapshot(t, original)));
  const records = recordsOf(whole);
  const lsns = readLsns(whole);
  const usual = whole.report.rewrittenBytes;
  await whole.close();
  changeAt(original, FILE_BYTES, FILE_BYTES + 20_000, (bytes) => bytes.fill(0, 0, 30_000));
  const directory = snapshot(t, original);
  const host = testHost();
  const journal = await Journal.open(host, journalOptions(directory));
  const stretch = journal.damageAt(firstDamage(journal) ?? 0, [])!;
  const writer = await journal.mend(stretch);
  for (let lsn = stretch.fromLsn; lsn <= stretch.toLsn; lsn++) writer.add(records[lsn - 1]!);
  host.disk.fault = (operation) => (operation === 'sync' ? 'EIO' : undefined);
  await t.throwsAsync(writer.finish(), { code: 'sync-failed' });
  await writer.close();
  host.disk.fault = () => undefined;
  await journal.close();
  const mended = stretch.resumeAddress - stretch.address;
  const unreadable = testHost();
  const note = { name: 'journal.mending', from: 0, to: 48 };
  // one sector in the middle; the page it lies in and the two borders of the place; all of it; the note itself
  const name = journalFileName(1);
  const [from, to] = [stretch.address - FILE_BYTES, stretch.resumeAddress - FILE_BYTES];
  t.true(from > 0 && to < FILE_BYTES && to - from > 24_000, 'the place lies in one file');
  for (const [bad, passedOver] of [
    [{ name, from: 28_672 + 512, to: 28_672 + 1024 }, 4096],
    [{ name, from: 28_672 + 4000, to: 28_672 + 4200 }, 8192],
    [{ name, from: from + 100, to: from + 101 }, 4096 - (from % 4096)],
    [{ name, from: to - 1, to }, to % 4096],
    [{ name, from, to }, mended],
    [note, mended],
  ] as const) {
    const copy = snapshot(t, directory);
    unreadable.disk.badPlace = bad;
    for (const start of ['first', 'second']) {
      const what = `bytes ${bad.from} to ${bad.to} of ${bad.name}, ${start} start`;
      const again = await Journal.open(unreadable, journalOptions(copy));
      t.is(again.report.rewrittenBytes, usual + (start === 'first' ? mended - passedOver : 0), what);
      t.is(again.lastLsn, lsns.at(-1) ?? 0, what);
      if (bad !== note) {
        const at = firstDamage(again) ?? -1;
        t.true(at >= stretch.address && at < FILE_BYTES + bad.to, `${what}: ${at}`);
        t.true((again.damageAt(at, [])?.fromLsn ?? 0) >= stretch.fromLsn, what);
      }
      await again.close();
    }
    unreadable.disk.badPlace = undefined;
    const readable = await Journal.open(unreadable, journalOptions(copy));
    t.is(readable.report.rewrittenBytes, usual + passedOver, `${bad.from}: it stayed noted`);
    t.deepEqual(readLsns(readable), lsns);
    await readable.close();
    const settled = await Journal.open(unreadable, journalOptions(copy));
    t.is(settled.report.rewrittenBytes, usual);
    await settled.close();
  }
});

/** The files of `before` with any sectors of `after` in their place. */
function mixOfSectors(t: ExecutionContext, before: string, after: string, random: SeededRandom): string {
  const mixed = snapshot(t, before);
  for (const path of journalFiles(mixed)) {
    const bytes = readFileSync(path);
    const other = readFileSync(join(after, basename(path)));
    for (let at = 0; at < bytes.length; at += 512) {
      if (random.below(2) === 0) other.copy(bytes, at, at, at + 512);
    }
    writeFileSync(path, bytes);
  }
  return mixed;
}

test('whatever a power loss leaves of a repair, sector by sector, is mended by the next', async (t) => {
  const random = new SeededRandom(20750308);
  const original = temporaryDirectory(t);
  const host = testHost();
  const writer = await Journal.open(host, journalOptions(original));
  await writer.begin();
  for (let batch = 0; batch < 250; batch++) {
    appendWrites(writer, 1);
    host.clock.advance(1);
    if (batch % 3 === 0) await writer.sync();
  }
  await writer.close();
  const whole = await Journal.open(testHost(), journalOptions(snapshot(t, original)));
  const records = recordsOf(whole);
  const lsns = readLsns(whole);
  const addresses = lsns.map((lsn) => whole.addressOf(lsn));
  await whole.close();
  let between = 0;
  for (let round = 0; round < 20; round++) {
    const damaged = snapshot(t, original);
    // a byte of each body: headers stand, so that what stood there can be whole again beside what was put back
    const border = addresses.findIndex((address) => address > FILE_BYTES);
    for (const address of addresses.slice(border - (round % 8), border + 12)) {
      changeAt(damaged, FILE_BYTES, address, (bytes) => {
        bytes[BATCH_HEADER_BYTES + 300] = (bytes[BATCH_HEADER_BYTES + 300] ?? 0) ^ 0x10;
      });
    }
    const mended = snapshot(t, damaged);
    const first = await Journal.open(testHost(), journalOptions(mended));
    for (let at = firstDamage(first); at !== undefined; at = firstDamage(first)) await mend(first, at, records);
    await first.close();
    const left = mixOfSectors(t, damaged, mended, random);
    const again = await Journal.open(testHost(SECOND_BOOT), journalOptions(left));
    let mends = 0;
    for (let at = firstDamage(again); at !== undefined; at = firstDamage(again)) {
      const stretch = again.damageAt(at);
      if (stretch?.address === stretch?.resumeAddress) between++;
      if (!(await mend(again, at, records)) || ++mends > 100)
        return t.fail(`round ${round}: nothing mends what is at ${at}`);
    }
    t.deepEqual(readLsns(again), lsns);
    await again.close();
    t.deepEqual(auditJournal(testHost(), left).damage, []);
  }
  t.true(between > 0, 'batches of both that do not know each other');
});

test('a full disk keeps nobody from putting records back in their place', async (t) => {
  const directory = temporaryDirectory(t);
  await writeAtRandom(directory, new SeededRandom(5));
  const whole = await Journal.open(testHost(), journalOptions(snapshot(t, directory)));
  const records = recordsOf(whole);
  const lsns = readLsns(whole);
  await whole.close();
  changeAt(directory, FILE_BYTES, FILE_BYTES + 20_000, (bytes) => bytes.fill(0, 0, 30_000));
  const host = testHost();
  const journal = await Journal.open(host, journalOptions(directory));
  const address = firstDamage(journal) ?? 0;
  host.disk.fault = (operation, path) => (operation === 'write' && path.includes('mending') ? 'ENOSPC' : undefined);
  t.true(await mend(journal, address, records));
  host.disk.fault = () => undefined;
  t.deepEqual(readLsns(journal), lsns);
  await journal.close();
});

test('what points into a damaged stretch points at the same record afterwards, also in a running journal', async (t) => {
  const host = testHost();
  const directory = temporaryDirectory(t);
  const journal = await Journal.open(host, journalOptions(directory));
  await journal.begin();
  const appended = range(1, 30).map(() => appendWrites(journal, 5));
  await journal.sync();
  const records = recordsOf(journal);
  const lsns = readLsns(journal);
  const anchors = [12, 13, 20].map((at) => ({ lsn: appended[at]!.firstLsn, address: appended[at]!.address - 64 }));
  const at = appended[10]!.address - 64;
  for (const { address } of appended.slice(10, 23)) {
    changeAt(directory, FILE_BYTES, address - 64, (bytes) => bytes.fill(0xee, 0, 64 + 2700));
  }
  t.is(firstDamage(journal), at);
  // the mark at the end of the file is whole, and parts the damage in two
  for (let next: number | undefined = at; next !== undefined; next = firstDamage(journal)) {
    t.true(await mend(journal, next, records, anchors));
  }
  t.deepEqual(readLsns(journal), lsns);
  for (const anchor of anchors) {
    const reader = journal.reader(anchor.address);
    t.is(reader.next(journal.endAddress)?.firstLsn, anchor.lsn);
    await reader.close();
  }
  t.false(await mend(journal, at, records, anchors));
  appendWrites(journal, 2);
  await journal.close();
  t.deepEqual(auditJournal(host, directory).damage, []);
});

test('a journal that is open and a stretch that is mended are on disk by their names, however late the disk', async (t) => {
  const random = new SeededRandom(5);
  const directory = temporaryDirectory(t);
  await writeAtRandom(directory, random);
  const whole = await Journal.open(testHost(), journalOptions(snapshot(t, directory)));
  const records = recordsOf(whole);
  await whole.close();
  changeAt(directory, FILE_BYTES, 20_000, (bytes) => bytes.fill(0, 0, 9000));
  const disk = new LateDisk(testHost().disk, random);
  const journal = await Journal.open({ ...testHost(), disk }, journalOptions(directory));
  t.false(disk.changing.includes(`syncDirectory ${directory}`), 'opened');
  const stretch = journal.damageAt(firstDamage(journal) ?? 0, []);
  if (stretch === undefined) return t.fail('nothing is damaged');
  const writer = await journal.mend(stretch);
  for (let lsn = stretch.fromLsn; lsn <= stretch.toLsn; lsn++) writer.add(records[lsn - 1]!);
  await writer.finish();
  t.deepEqual(
    disk.changing.filter((call) => !call.includes('preparing')),
    [],
  );
  await writer.close();
  await journal.close();
});

test('at the beginning of the oldest file no time is known but that of its header: what is mended there does not go back', async (t) => {
  const directory = temporaryDirectory(t);
  const host = testHost();
  const journal = await Journal.open(host, journalOptions(directory));
  await journal.begin();
  while (journal.endAddress < 2 * FILE_BYTES) {
    appendWrites(journal, 4);
    host.clock.advance(5);
    await journal.sync();
  }
  await journal.close();
  rmSync(join(directory, journalFileName(0)));
  const begin = FILE_BYTES + FILE_HEADER_BYTES;
  const header = readFileHeader(readFileSync(join(directory, journalFileName(1))).subarray(0, FILE_HEADER_BYTES));
  if (typeof header === 'string') return t.fail(header);
  t.true(header.time > 0);
  changeAt(directory, FILE_BYTES, begin, (bytes) => bytes.fill(0, 0, 100));
  const again = await Journal.open(testHost(), journalOptions(directory));
  t.is(again.oldestAddress, FILE_BYTES);
  t.is(again.damageAt(begin)?.time, header.time);
  await again.close();
});
