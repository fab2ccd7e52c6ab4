import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { realHost } from '../../journal/host/real-host.ts';
import { Journal } from '../../journal/journal.ts';
import { RecordKind, writeRecordHeader } from '../../journal/record.ts';

test('smoke', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'tidemark-journal-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  const options = {
    directory,
    groupId: 'ab'.repeat(16),
    groupName: 'g',
    fileBytes: 128 * 1024,
    budgetBytes: 4 * 1024 * 1024,
    syncIntervalMs: 25,
  };
  const journal = await Journal.open(realHost(), options);
  await journal.begin();
  const slab = Buffer.alloc(64 * 1024 + 8192);
  const view = new DataView(slab.buffer, slab.byteOffset, slab.byteLength);
  for (let i = 0; i < 100; i++) {
    slab.fill(i, 64);
    writeRecordHeader(view, 64, RecordKind.write, 0, 1, 4096, i * 8, 8, 0);
    writeRecordHeader(view, 64 + 28 + 4096, RecordKind.write, 0, 1, 8192, i * 8, 16, 0);
    const done = journal.appendInPlace(slab, 64, 64 + 56 + 4096 + 8192, 2);
    t.is(done.firstLsn, 2 + 2 * i);
    const into = Buffer.alloc(8192);
    journal.readInto(done.address + 56 + 4096, 8192, into, 0);
    t.true(into.every((byte) => byte === i));
  }
  await journal.sync();
  t.is(journal.marks.lsn('durable'), 201);
  const reader = journal.reader(journal.oldestAddress);
  let lsn = 0;
  while (true) {
    const batch = reader.next(journal.endAddress);
    if (batch === undefined) break;
    for (const record of batch) {
      lsn++;
      t.is(record.lsn, lsn);
    }
    t.is(journal.addressOf(batch.lastLsn), batch.address);
  }
  t.is(lsn, 201);
  await reader.close();
  await journal.close();
  const again = await Journal.open(realHost(), options);
  t.is(again.report.lastLsn, 201);
  t.true(again.report.cleanStop);
  t.is(again.report.cut, undefined);
  t.deepEqual(again.report.damage, []);
  t.is((await again.begin()).counter, 2);
  await again.close();
});
