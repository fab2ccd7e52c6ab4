import test from 'ava';
import { Journal } from '../../journal/journal.ts';
import { RecordKind } from '../../journal/record.ts';
import {
  appendWrites,
  changeAt,
  journalOptions,
  range,
  readLsns,
  SECOND_BOOT,
  snapshot,
  temporaryDirectory,
  testHost,
} from './journal-fixture.ts';

const FILE_BYTES = 64 * 1024;

/** What planted bugs showed that no other test looks at. */

test('what makes a start unlike another is random, never made of its LSN', async (t) => {
  const nonces = new Set<string>();
  for (let index = 0; index < 8; index++) {
    const journal = await Journal.open(testHost(), journalOptions(temporaryDirectory(t)));
    const { nonce } = await journal.begin();
    t.regex(nonce, /^[0-9a-f]{16}$/);
    nonces.add(nonce);
    await journal.close();
  }
  t.is(nonces.size, 8, 'journals with the same history have nonces of their own');
});

test('a file header that is written in part poisons: nothing is answered behind it', async (t) => {
  const host = testHost();
  const journal = await Journal.open(host, journalOptions(temporaryDirectory(t)));
  await journal.begin();
  const begun = new Set<string>();
  let cut = false;
  host.disk.fault = (operation, path) => {
    if (operation !== 'write' || !path.includes('journal-') || begun.has(path)) return undefined;
    begun.add(path);
    // the first is the file in use: its header stands already
    cut = begun.size > 1;
    return cut ? 'short' : undefined;
  };
  const error = t.throws(() => {
    while (!cut) appendWrites(journal, 10);
  });
  t.like(error, { code: 'journal-poisoned', details: { reason: 'short-write' } });
  host.disk.fault = () => undefined;
  await journal.close();
});

// Simulation seed 2106 of 2026-11-21: killed behind a sync that began before the mark, then a power loss.
test('recovery writes the mark at the end of a file again, although every record before it is proven', async (t) => {
  const directory = temporaryDirectory(t);
  const journal = await Journal.open(testHost(), journalOptions(directory));
  await journal.begin();
  const fileOf = (address: number): number => Math.floor(address / FILE_BYTES);
  let last = appendWrites(journal, 10);
  const first = fileOf(last.address);
  for (; fileOf(last.address) === first; last = appendWrites(journal, 10)) await journal.sync();
  // the batch in the second file says that all of the first is durable; its mark was written after that sync
  const killed = snapshot(t, directory);
  await journal.close();
  const host = testHost();
  const written = new Set<string>();
  host.disk.fault = (operation, path) => {
    if (operation === 'write' && /journal-[0-9a-f]+\.tmj$/.test(path)) written.add(path.slice(-5 - 4, -4));
    return undefined;
  };
  const again = await Journal.open(host, journalOptions(killed));
  t.is(again.report.lastLsn, last.lastLsn);
  t.deepEqual(
    [...written].sort(),
    [first, first + 1].map((sequence) => sequence.toString(16).padStart(5, '0')),
  );
  await again.close();
});

test('a file behind a cut is not taken for the log again, though its LSNs were given anew and the stop was clean', async (t) => {
  const directory = temporaryDirectory(t);
  const journal = await Journal.open(testHost(), journalOptions(directory));
  await journal.begin();
  await journal.sync();
  const torn = appendWrites(journal, 10);
  const fileOf = (address: number): number => Math.floor(address / FILE_BYTES);
  let last = torn;
  while (fileOf(last.address) === fileOf(torn.address)) last = appendWrites(journal, 10);
  const copy = snapshot(t, directory);
  await journal.close();
  changeAt(copy, FILE_BYTES, torn.address, (bytes) => bytes.fill(0xee, 0, 512));
  const again = await Journal.open(testHost(SECOND_BOOT), journalOptions(copy));
  t.is(again.report.cut?.afterLsn, torn.firstLsn - 1);
  await again.begin();
  // small records: they pass the LSN at which the second file began, and stay in the first
  while (again.lastLsn < last.lastLsn) again.append(RecordKind.trim, { volume: 1, sector: 8, sectors: 8 });
  t.is(fileOf(again.endAddress), fileOf(torn.address));
  const { lastLsn } = again;
  await again.close();
  const third = await Journal.open(testHost(SECOND_BOOT), journalOptions(copy));
  t.deepEqual(third.report.damage, []);
  t.is(third.report.lastLsn, lastLsn);
  t.is(third.report.incarnation.counter, 2);
  t.deepEqual(readLsns(third), range(1, lastLsn));
  await third.close();
});

test('what recovery writes again it syncs, in every file, before anybody is answered', async (t) => {
  const directory = temporaryDirectory(t);
  const journal = await Journal.open(testHost(), journalOptions(directory));
  await journal.begin();
  const first = appendWrites(journal, 10);
  let last = first;
  while (Math.floor(last.address / FILE_BYTES) === Math.floor(first.address / FILE_BYTES)) {
    last = appendWrites(journal, 10);
  }
  const killed = snapshot(t, directory);
  await journal.close();
  const host = testHost();
  const dirty = new Set<string>();
  let written = 0;
  host.disk.fault = (operation, path) => {
    if (!path.endsWith('.tmj') || path.endsWith('prepare.tmj')) return undefined;
    if (operation === 'write') written += dirty.add(path).size;
    else dirty.delete(path);
    return undefined;
  };
  const again = await Journal.open(host, journalOptions(killed));
  t.is(again.report.lastLsn, last.lastLsn);
  t.true(written > 0);
  t.deepEqual([...dirty], [], 'written again and not synced');
  await again.close();
});
