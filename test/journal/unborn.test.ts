import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { journalFileName } from '../../journal/file-reads.ts';
import { Journal } from '../../journal/journal.ts';
import { FILE_HEADER_BYTES } from '../../journal/journal-file-header.ts';
import { appendWrites, journalOptions, SECOND_BOOT, temporaryDirectory, testHost } from './journal-fixture.ts';

const FIRST = journalFileName(0);

/** The first file of a journal that was not synced behind its header: that, and the batch of its incarnation. */
async function firstWrites(t: ExecutionContext): Promise<Buffer> {
  const directory = temporaryDirectory(t);
  const host = testHost();
  const journal = await Journal.open(host, journalOptions(directory));
  let syncs = 0;
  host.disk.fault = (operation, path) => {
    if (operation === 'sync' && path.endsWith(FIRST)) syncs++;
    return syncs > 1 ? 'EIO' : undefined;
  };
  await t.throwsAsync(journal.begin(), { code: 'journal-poisoned' });
  host.disk.fault = () => undefined;
  await journal.close();
  return readFileSync(join(directory, FIRST));
}

function directoryWith(t: ExecutionContext, bytes: Buffer, name = FIRST): string {
  const directory = temporaryDirectory(t);
  writeFileSync(join(directory, name), bytes);
  return directory;
}

// Simulation seed 500683: no start would ever have come up again.
test('a journal whose very first write failed in its middle is begun anew', async (t) => {
  const whole = await firstWrites(t);
  const batchLost = Buffer.from(whole).fill(0, FILE_HEADER_BYTES);
  const left = {
    'the header is there in part': Buffer.from(batchLost).fill(0, 111),
    'of the header there are three bytes': Buffer.from(batchLost).fill(0, 3),
    'nothing is left': Buffer.alloc(whole.length),
  };
  for (const [what, bytes] of Object.entries(left)) {
    const directory = directoryWith(t, bytes);
    let journal = await Journal.open(testHost(SECOND_BOOT), journalOptions(directory));
    t.is(journal.report.lastLsn, 0, what);
    t.is((await journal.begin()).counter, 1, what);
    appendWrites(journal, 3);
    await journal.close();
    journal = await Journal.open(testHost(SECOND_BOOT), journalOptions(directory));
    t.is(journal.report.lastLsn, 4, what);
    await journal.close();
  }
});

test('a journal without a readable header that may have told something is damaged, and left as it is', async (t) => {
  const whole = await firstWrites(t);
  const headerLost = Buffer.from(whole).fill(0, 0, FILE_HEADER_BYTES);
  const used = temporaryDirectory(t);
  const journal = await Journal.open(testHost(), journalOptions(used));
  await journal.begin();
  const inFirstPage = Buffer.from(readFileSync(join(used, FIRST)));
  appendWrites(journal, 1);
  await journal.sync();
  const withWrites = Buffer.from(readFileSync(join(used, FIRST)));
  appendWrites(journal, 30);
  const withMany = Buffer.from(readFileSync(join(used, FIRST)));
  await journal.close();
  t.true(inFirstPage.subarray(2 * FILE_HEADER_BYTES).every((byte) => byte === 0));
  const left = {
    'a write stands behind the first batch': withWrites.fill(0, 0, FILE_HEADER_BYTES),
    'more than the first page is used': Buffer.from(withMany).fill(0, 0, FILE_HEADER_BYTES),
    'more than the first page is used, and that is gone': Buffer.from(withMany).fill(0, 0, 2 * FILE_HEADER_BYTES),
    'the first batch is there, and a header that rotted': Buffer.from(whole).fill(0x55, 20, 24),
    'the header there is in part is of another group': Buffer.from(whole).fill(7, 16, 20).fill(0, 111),
    'what there is in part is no header': Buffer.from('rubbish'),
    'the first batch is there, and no header': headerLost,
  };
  for (const [what, bytes] of Object.entries(left)) {
    const directory = directoryWith(t, bytes);
    await t.throwsAsync(
      Journal.open(testHost(SECOND_BOOT), journalOptions(directory)),
      { code: 'journal-damaged' },
      what,
    );
    t.true(readFileSync(join(directory, FIRST)).equals(bytes), what);
  }
  // a later file begins behind records
  const directory = directoryWith(t, Buffer.from(whole).fill(0, 111));
  renameSync(join(directory, FIRST), join(directory, journalFileName(3)));
  await t.throwsAsync(Journal.open(testHost(SECOND_BOOT), journalOptions(directory)), { code: 'journal-damaged' });
});
