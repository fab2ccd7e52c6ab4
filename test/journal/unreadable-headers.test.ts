import { copyFileSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { BATCH_HEADER_BYTES } from '../../journal/batch-codec.ts';
import { journalFileName } from '../../journal/file-reads.ts';
import { Journal } from '../../journal/journal.ts';
import { auditJournal } from '../../journal/journal-audit.ts';
import { FILE_HEADER_BYTES } from '../../journal/journal-file-header.ts';
import { listFiles } from '../../journal/journal-list.ts';
import type { MendedRecord } from '../../journal/stretch-writer.ts';
import {
  appendWrites,
  changeAt,
  FIRST_BOOT,
  journalOptions,
  range,
  readLsns,
  SECOND_BOOT,
  snapshot,
  type TestHost,
  temporaryDirectory,
  testHost,
} from './journal-fixture.ts';

const FILE_BYTES = 64 * 1024;
/** A source's disks need all of it, so that every start looks at all of it. */
const ALL = { needed: { address: 0, lsn: 1 } };

/** A host on which bytes of the file with this sequence cannot be read: of its header, when nothing else is said. */
function hostWithout(sequence: number, boot: string = FIRST_BOOT, to: number = FILE_HEADER_BYTES): TestHost {
  const host = testHost(boot);
  host.disk.badPlace = { name: journalFileName(sequence), from: 0, to };
  return host;
}

/** Four files and a part of a fifth, the newest batches not synced, as a kill leaves them. */
async function killed(t: ExecutionContext): Promise<{ directory: string; lastLsn: number; records: MendedRecord[] }> {
  const directory = temporaryDirectory(t);
  const journal = await Journal.open(testHost(), journalOptions(directory, { syncIntervalMs: 600_000 }));
  await journal.begin();
  while (journal.endAddress < 4 * FILE_BYTES) appendWrites(journal, 10);
  await journal.sync();
  for (let batch = 0; batch < 4; batch++) appendWrites(journal, 10);
  const records: MendedRecord[] = [];
  const reader = journal.reader(0);
  for (let batch = reader.next(journal.endAddress); batch !== undefined; batch = reader.next(journal.endAddress)) {
    for (const record of batch) {
      const payload = Uint8Array.from(record.payload);
      records.push({ ...record, payload, time: batch.time, epoch: batch.epoch });
    }
  }
  await reader.close();
  const copy = snapshot(t, directory);
  const { lastLsn } = journal;
  await journal.close();
  return { directory: copy, lastLsn, records };
}

/** Puts back whatever the start found damaged. */
async function mendAll(journal: Journal, records: readonly MendedRecord[]): Promise<void> {
  for (const { address } of journal.report.damage) {
    const stretch = journal.damageAt(address);
    if (stretch === undefined) continue;
    const writer = await journal.mend(stretch);
    for (let lsn = stretch.fromLsn; lsn <= stretch.toLsn; lsn++) writer.add(records[lsn - 1]!);
    await writer.finish();
    await writer.close();
  }
}

for (const sequence of range(0, 4)) {
  for (const boot of [FIRST_BOOT, SECOND_BOOT]) {
    test(`a file header that cannot be read ends no start, and is put back: file ${sequence}, boot ${boot.slice(0, 1)}`, async (t) => {
      const { directory, lastLsn, records } = await killed(t);
      const host = hostWithout(sequence, boot);
      const journal = await Journal.open(host, { ...journalOptions(directory), ...ALL });
      t.is(journal.lastLsn, lastLsn);
      t.is(journal.report.damage.length, 1);
      t.like(journal.report.damage[0], { reason: 'the medium cannot be read here', file: journalFileName(sequence) });
      t.true(journal.report.damage[0]!.toLsn < journal.report.damage[0]!.fromLsn, 'no record is lost');
      t.deepEqual(readLsns(journal), range(1, lastLsn));
      await mendAll(journal, records);
      // what was written anew is read again
      host.disk.badPlace = undefined;
      t.deepEqual(readLsns(journal), range(1, lastLsn));
      await journal.begin();
      appendWrites(journal, 10);
      await journal.close();
      t.deepEqual(auditJournal(testHost(boot), directory).damage, []);
      const again = await Journal.open(testHost(boot), { ...journalOptions(directory), ...ALL });
      t.true(again.report.cleanStop);
      t.deepEqual(again.report.damage, []);
      t.deepEqual(readLsns(again), range(1, lastLsn + 11));
      await again.close();
    });
  }
}

test('records that cannot be read with the header before them are named, kept from being given again, and put back', async (t) => {
  const { directory, lastLsn, records } = await killed(t);
  const host = hostWithout(2, SECOND_BOOT, FILE_HEADER_BYTES + BATCH_HEADER_BYTES);
  const journal = await Journal.open(host, { ...journalOptions(directory), ...ALL });
  t.is(journal.lastLsn, lastLsn);
  t.is(journal.report.damage.length, 1);
  const { fromLsn, toLsn, address } = journal.report.damage[0]!;
  t.deepEqual([address, toLsn - fromLsn], [2 * FILE_BYTES, 9]);
  t.deepEqual(
    readLsns(journal),
    range(1, lastLsn).filter((lsn) => lsn < fromLsn || lsn > toLsn),
  );
  t.is(listFiles(host, directory)[2]?.state, 'damaged');
  await mendAll(journal, records);
  host.disk.badPlace = undefined;
  t.deepEqual(readLsns(journal), range(1, lastLsn));
  await journal.close();
});

test('a file that lies ready and whose header cannot be read is passed over where the log ends with a file', async (t) => {
  const directory = temporaryDirectory(t);
  const journal = await Journal.open(testHost(), journalOptions(directory));
  await journal.begin();
  while (journal.endAddress < FILE_BYTES) appendWrites(journal, 10);
  await journal.sync();
  const copy = snapshot(t, directory);
  const firstInNext = readLsns(journal).length - 9;
  await journal.close();
  // the log ends with the first file; the second was never begun
  const next = join(copy, journalFileName(1));
  writeFileSync(next, Buffer.alloc(readFileSync(next).length));
  const host = hostWithout(1, SECOND_BOOT);
  const again = await Journal.open(host, { ...journalOptions(copy), ...ALL });
  t.is(again.lastLsn, firstInNext - 1);
  t.true(again.endAddress >= 2 * FILE_BYTES);
  await mendAll(again, []);
  host.disk.badPlace = undefined;
  await again.begin();
  appendWrites(again, 10);
  await again.close();
  const last = await Journal.open(testHost(SECOND_BOOT), { ...journalOptions(copy), ...ALL });
  t.deepEqual(readLsns(last), range(1, firstInNext + 10));
  t.deepEqual(last.report.damage, []);
  await last.close();
});

test('a journal of one file without a readable header is damaged when it holds anything, and is begun when it does not', async (t) => {
  const directory = temporaryDirectory(t);
  const journal = await Journal.open(testHost(), journalOptions(directory));
  await journal.begin();
  await journal.close();
  const used = temporaryDirectory(t);
  const unborn = temporaryDirectory(t);
  copyFileSync(join(directory, journalFileName(0)), join(used, journalFileName(0)));
  writeFileSync(join(unborn, journalFileName(0)), Buffer.alloc(FILE_BYTES));
  await t.throwsAsync(Journal.open(hostWithout(0), journalOptions(used)), { code: 'journal-damaged' });
  const bad = hostWithout(0, FIRST_BOOT, FILE_BYTES);
  await t.throwsAsync(Journal.open(bad, journalOptions(unborn)), { code: 'journal-damaged' });
  const host = hostWithout(0);
  const begun = await Journal.open(host, journalOptions(unborn));
  host.disk.badPlace = undefined;
  await begun.begin();
  appendWrites(begun, 10);
  await begun.sync();
  t.deepEqual(readLsns(begun), range(1, 11));
  await begun.close();
});

test('a device that could not read the end for a moment may end a start, but not the log', async (t) => {
  const { directory, lastLsn } = await killed(t);
  for (const from of [FILE_HEADER_BYTES, 0]) {
    for (const boot of [FIRST_BOOT, SECOND_BOOT]) {
      let ended = 0;
      for (let failing = 1; ; failing++) {
        const copy = snapshot(t, directory);
        const host = testHost(boot);
        let failures = 0;
        const to = (): number => (failures++ < failing ? FILE_BYTES : 0);
        host.disk.badPlace = Object.defineProperty({ name: journalFileName(4), from, to: 0 }, 'to', { get: to });
        const opened = await Journal.open(host, { ...journalOptions(copy), ...ALL }).catch((error: unknown) => error);
        if (opened instanceof Journal) {
          await opened.close();
          // it could not be read when it was looked at again, either
          if (opened.lastLsn < lastLsn) break;
        } else {
          t.like(opened, { code: 'device-failed' });
          ended++;
        }
        const again = await Journal.open(testHost(boot), { ...journalOptions(copy), ...ALL });
        t.is(again.lastLsn, lastLsn, `${failing} reads, then none`);
        await again.close();
      }
      t.true(ended > 0);
    }
  }
});

test('a file behind a cut whose header cannot be read is not there any more when it could be', async (t) => {
  const directory = temporaryDirectory(t);
  const journal = await Journal.open(testHost(), journalOptions(directory, { syncIntervalMs: 600_000 }));
  await journal.begin();
  const torn: number[] = [];
  while (journal.endAddress < 4 * FILE_BYTES) torn.push(appendWrites(journal, 10).address);
  const copy = snapshot(t, directory);
  await journal.close();
  changeAt(copy, FILE_BYTES, torn[2]!, (bytes) => bytes.fill(0, 0, 512));
  const host = hostWithout(3, SECOND_BOOT);
  const cut = await Journal.open(host, journalOptions(copy));
  t.is(cut.lastLsn, 21);
  host.disk.badPlace = undefined;
  t.deepEqual(
    listFiles(host, copy)
      .filter(({ state }) => state === 'log')
      .map(({ sequence }) => sequence),
    [0],
  );
  await cut.close();
});
