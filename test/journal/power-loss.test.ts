import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import fc from 'fast-check';
import { Journal } from '../../journal/journal.ts';
import { auditJournal } from '../../journal/journal-audit.ts';
import { NO_DISK_FAULTS } from '../doubles/simulated-disk.ts';
import { SimulatedMachine } from '../doubles/simulated-machine.ts';
import { Scheduler } from '../simulation/scheduler.ts';
import { appendWrites, journalOptions, range, readLsns, temporaryDirectory, testHost } from './journal-fixture.ts';

/*
 * A machine that loses power again and again. After each crash every 512-byte sector of every file holds either what
 * was last synced or what was written since, by chance: torn batches, batches that arrived out of order, stale batches
 * of recycled files behind a cut. Whatever was synced must be there, what is left must be a prefix, and nothing that was
 * cut may ever come back.
 */

const SECTOR = 512;

type Medium = Map<string, Buffer>;

function readMedium(directory: string): Medium {
  const medium: Medium = new Map();
  for (const name of readdirSync(directory)) medium.set(name, readFileSync(join(directory, name)));
  return medium;
}

/** What a power loss leaves: names as they are (they are synced before use), sectors old or new. */
function crash(synced: Medium, written: Medium, keepsNew: () => boolean): Medium {
  const gone = [...synced.keys()].filter((name) => !written.has(name));
  const left: Medium = new Map();
  for (const [name, now] of written) {
    const before = synced.get(name) ?? synced.get(gone.pop() ?? '') ?? Buffer.alloc(now.length);
    const bytes = Buffer.from(now);
    for (let at = 0; at < bytes.length; at += SECTOR) {
      const sector = bytes.subarray(at, at + SECTOR);
      const old = before.subarray(at, at + SECTOR);
      if (old.length === sector.length && !old.equals(sector) && !keepsNew()) old.copy(bytes, at);
    }
    left.set(name, bytes);
  }
  return left;
}

const generations = fc.array(
  fc.record({
    /** 0: sync, 1: sync and recycle, else a batch of so many writes. */
    steps: fc.array(fc.integer({ min: 0, max: 24 }), { minLength: 1, maxLength: 60 }),
    keep: fc.constantFrom(0, 0.1, 0.5, 0.9, 1),
  }),
  { minLength: 1, maxLength: 5 },
);

test('after any series of power losses what was synced is there, as a prefix, and nothing cut comes back', async (t) => {
  await fc.assert(
    fc.asyncProperty(generations, fc.integer(), async (lives, seed) => {
      let random = seed >>> 0;
      const chance = (): number => {
        random = (Math.imul(random, 1_664_525) + 1_013_904_223) >>> 0;
        return random / 2 ** 32;
      };
      const base = temporaryDirectory(t);
      let medium: Medium = new Map();
      let syncedLsn = 0;
      for (const [life, { steps, keep }] of lives.entries()) {
        const directory = join(base, String(life));
        mkdirSync(directory);
        for (const [name, bytes] of medium) writeFileSync(join(directory, name), bytes);
        const host = testHost(`boot-${life}`);
        const journal = await Journal.open(host, journalOptions(directory, { budgetBytes: 5 * 64 * 1024 }));
        t.deepEqual(journal.report.damage, []);
        t.true(journal.report.lastLsn >= syncedLsn, `${journal.report.lastLsn} kept, ${syncedLsn} synced`);
        t.is(journal.report.incarnation.counter, life);
        await journal.begin();
        syncedLsn = journal.lastLsn;
        let synced = readMedium(directory);
        for (const step of steps) {
          if (step > 1) {
            if (journal.freeBytes > 32 * 1024) appendWrites(journal, step);
            continue;
          }
          await journal.sync();
          syncedLsn = journal.lastLsn;
          synced = readMedium(directory);
          if (step === 1) journal.recycleBelow(journal.endAddress);
        }
        t.deepEqual(readLsns(journal), range(journal.oldestLsn, journal.lastLsn));
        const written = readMedium(directory);
        medium = crash(synced, written, () => chance() < keep);
        await journal.close();
        rmSync(directory, { recursive: true });
      }
      const last = join(base, 'last');
      mkdirSync(last);
      for (const [name, bytes] of medium) writeFileSync(join(last, name), bytes);
      const journal = await Journal.open(testHost('boot-last'), journalOptions(last, { budgetBytes: 5 * 64 * 1024 }));
      t.true(journal.report.lastLsn >= syncedLsn);
      t.deepEqual(journal.report.damage, []);
      await journal.begin();
      t.deepEqual(readLsns(journal), range(journal.oldestLsn, journal.lastLsn));
      await journal.close();
      t.deepEqual(auditJournal(testHost(), last).damage, []);
    }),
    { numRuns: 60, endOnFailure: true },
  );
});

/** A machine whose time passes only while something is waited for. */
class Machine {
  readonly #scheduler: Scheduler;
  readonly machine: SimulatedMachine;

  constructor(seed: number) {
    this.#scheduler = new Scheduler(seed);
    this.machine = new SimulatedMachine('source', this.#scheduler, NO_DISK_FAULTS, 1 << 24);
  }

  /** Of a process started now. */
  open(): Promise<Journal> {
    return this.inTime(Journal.open(this.machine.start().host, journalOptions('/source/journal')));
  }

  async inTime<T>(promise: Promise<T>): Promise<T> {
    let settled = false;
    const settle = (): void => {
      settled = true;
    };
    promise.then(settle, settle);
    await this.pass(() => settled);
    return promise;
  }

  pass(until: () => boolean): Promise<boolean> {
    return this.#scheduler.runUntil(until, 10_000_000);
  }
}

test('power that goes before the first sync of a journal has ended leaves one that opens', async (t) => {
  for (let seed = 1; seed <= 60; seed++) {
    const place = new Machine(seed);
    const born = await place.open();
    void born.begin();
    await place.pass(() => born.lastLsn > 0);
    t.is(born.marks.lsn('durable'), 0);
    place.machine.losePower();
    const journal = await place.open();
    t.true(journal.report.lastLsn <= 1, `seed ${seed}`);
    await place.inTime(journal.begin());
    appendWrites(journal, 3);
    await place.inTime(journal.sync());
    const { lastLsn } = journal;
    place.machine.losePower();
    t.is((await place.open()).report.lastLsn, lastLsn, `seed ${seed}`);
  }
});

test('a first file whose header could not be synced has it written again by the next start', async (t) => {
  for (let seed = 1; seed <= 20; seed++) {
    const place = new Machine(seed);
    const born = await place.open();
    // files are prepared meanwhile
    await place.pass(() => false);
    place.machine.disk.faults = { ...NO_DISK_FAULTS, syncFails: 1 };
    await t.throwsAsync(place.inTime(born.begin()), { code: 'journal-poisoned' });
    place.machine.disk.faults = NO_DISK_FAULTS;
    place.machine.kill();
    const journal = await place.open();
    await place.inTime(journal.begin());
    appendWrites(journal, 3);
    await place.inTime(journal.sync());
    const { lastLsn } = journal;
    place.machine.losePower();
    t.is((await place.open()).report.lastLsn, lastLsn, `seed ${seed}`);
  }
});
