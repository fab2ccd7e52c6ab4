import { readFileSync } from 'node:fs';
import test, { type ExecutionContext } from 'ava';
import { BATCH_HEADER_BYTES } from '../../journal/batch-codec.ts';
import { Journal } from '../../journal/journal.ts';
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

/** A source's disks need all of it, so that every start looks at all of it. */
const ALL = { needed: { address: 0, lsn: 1 } };

/** Batches of ten, 4 of them synced and then `unsynced` more that know of it; `at`: where the header of each stands. */
async function killed(t: ExecutionContext, unsynced: number): Promise<{ directory: string; at: number[] }> {
  const directory = temporaryDirectory(t);
  const journal = await Journal.open(testHost(), journalOptions(directory));
  await journal.begin();
  const batches = range(1, 4).map(() => appendWrites(journal, 10));
  await journal.sync();
  for (let batch = 0; batch < unsynced; batch++) batches.push(appendWrites(journal, 10));
  const copy = snapshot(t, directory);
  await journal.close();
  return { directory: copy, at: batches.map(({ address }) => address - BATCH_HEADER_BYTES) };
}

/** The last proven batch has rotted, and the one behind it was torn by a power loss; others behind both are whole. */
async function rottedEnd(t: ExecutionContext, unsynced: number): ReturnType<typeof killed> {
  const { directory, at } = await killed(t, unsynced);
  for (const batch of [3, 4]) changeAt(directory, FILE_BYTES, at[batch]! + 600, (bytes) => bytes.fill(0, 0, 512));
  return { directory, at };
}

for (const [where, unsynced] of [
  ['in the same file', 4],
  ['in files behind it too', 30],
] as const) {
  test(`whole batches that were cut are not taken for what stands behind a damaged end: ${where}`, async (t) => {
    const { directory, at } = await rottedEnd(t, unsynced);
    const journal = await Journal.open(testHost(SECOND_BOOT), { ...journalOptions(directory), ...ALL });
    t.is(journal.lastLsn, 41);
    const end = { fromLsn: 32, toLsn: 41, address: at[3]!, resumeAddress: journal.endAddress };
    t.like(journal.damageAt(at[3]!), end);
    await journal.begin();
    appendWrites(journal, 30);
    await journal.sync();
    t.deepEqual(readLsns(journal), [...range(1, 31), ...range(42, 72)]);
    t.like(journal.damageAt(at[3]!), { fromLsn: 32, toLsn: 41 });
    await journal.close();
  });
}

test('a start that is killed, or fails, while it clears what was cut leaves the next one what is proven', async (t) => {
  const { directory, at } = await rottedEnd(t, 30);
  for (let failing = 0; ; failing++) {
    const place = snapshot(t, directory);
    const host = testHost(SECOND_BOOT);
    let calls = 0;
    host.disk.fault = (operation) => (calls++ === failing ? (operation === 'sync' ? 'EIO' : 'short') : undefined);
    const first = await Journal.open(host, { ...journalOptions(place), ...ALL }).catch(() => undefined);
    await first?.close();
    const again = await Journal.open(testHost(SECOND_BOOT), { ...journalOptions(place), ...ALL });
    t.is(again.lastLsn, 41, `call ${failing}`);
    t.like(again.damageAt(at[3]!), { fromLsn: 32, toLsn: 41, resumeAddress: again.endAddress }, `call ${failing}`);
    await again.close();
    if (calls <= failing) return t.true(failing > 20);
  }
});

test('batches that were cut and are there again are cleared by the next start', async (t) => {
  const { directory, at } = await rottedEnd(t, 4);
  const stale = readFileSync(journalFiles(directory)[0]!).subarray(at[5]!);
  const journal = await Journal.open(testHost(SECOND_BOOT), { ...journalOptions(directory), ...ALL });
  await journal.begin();
  appendWrites(journal, 5);
  await journal.sync();
  await journal.close();
  changeAt(directory, FILE_BYTES, at[5]!, (bytes) => bytes.set(stale));
  const again = await Journal.open(testHost(SECOND_BOOT), { ...journalOptions(directory), ...ALL });
  t.like(again.damageAt(at[3]!), { fromLsn: 32, toLsn: 41 });
  t.deepEqual(readLsns(again), [...range(1, 31), ...range(42, 47)]);
  await again.close();
});

for (const [boot, batch] of [
  [FIRST_BOOT, 7],
  [SECOND_BOOT, 7],
  [SECOND_BOOT, 5],
] as const) {
  for (const part of ['header', 'body']) {
    test(`an unproven ${part} that a start could not read does not come back: batch ${batch}, boot ${boot.slice(0, 1)}`, async (t) => {
      const { directory, at } = await killed(t, 4);
      const host = testHost(boot);
      const from = at[batch]! + (part === 'header' ? 0 : 4096);
      host.disk.badPlace = { name: '0000.tmj', from, to: from + 16 };
      const journal = await Journal.open(host, { ...journalOptions(directory), ...ALL });
      const { lastLsn } = journal;
      t.is(lastLsn, batch * 10 + 1);
      await journal.begin();
      appendWrites(journal, 3);
      await journal.sync();
      await journal.close();
      const again = await Journal.open(testHost(boot), { ...journalOptions(directory), ...ALL });
      t.is(again.lastLsn, lastLsn + 4, 'what the run behind it wrote');
      t.true(again.report.cleanStop);
      t.deepEqual(readLsns(again), range(1, lastLsn + 4));
      await again.close();
    });
  }
}
