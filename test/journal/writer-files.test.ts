import fs from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { TidemarkError } from '../../journal/base/errors.ts';
import { FilePool, openForWriting, type WriterFile } from '../../journal/file-pool.ts';
import { FileReads, journalFileName } from '../../journal/file-reads.ts';
import { goneFiles, standIn } from '../../journal/gone-files.ts';
import { closeFile, GroupSync } from '../../journal/group-sync.ts';
import type { Disk } from '../../journal/host/host.ts';
import { LateDisk } from '../doubles/late-disk.ts';
import { SeededRandom } from '../simulation/seeded-random.ts';
import { journalFiles, type TestHost, temporaryDirectory, testHost } from './journal-fixture.ts';

/** However slow the disk is. */
async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((resolve) => setTimeout(resolve, 5));
}

const FILE_BYTES = 128 * 1024;

/** The disk with what it is asked for by name, in order, and with as much room as is said. */
function telling(below: Disk, calls: string[], room: { bytes: number }): Disk {
  const named = (path: unknown): string => String(path).split('/').at(-1) ?? '';
  return new Proxy(below, {
    get(target, name) {
      const value: unknown = Reflect.get(target, name);
      if (typeof value !== 'function') return value;
      return (...args: unknown[]): unknown => {
        if (name === 'freeBytes') return room.bytes;
        if (name === 'rename') calls.push(`rename ${named(args[0])} ${named(args[1])}`);
        else if (['unlink', 'syncDirectory', 'syncDirectoryNow'].includes(String(name))) {
          if (name !== 'unlink' || target.exists(String(args[0]))) calls.push(`${String(name)} ${named(args[0])}`);
        }
        return value.apply(target, args);
      };
    },
  });
}

interface PoolAtHand {
  readonly pool: FilePool;
  readonly directory: string;
  readonly calls: string[];
  readonly room: { bytes: number };
  readonly host: TestHost;
}

function poolOf(t: ExecutionContext, live: number, filesMax: number, found: readonly number[] = []): PoolAtHand {
  const directory = temporaryDirectory(t);
  for (const sequence of found) fs.writeFileSync(join(directory, journalFileName(sequence)), Buffer.alloc(FILE_BYTES));
  const host = testHost();
  const calls: string[] = [];
  const room = { bytes: 100 * FILE_BYTES };
  const told = { ...host, disk: telling(host.disk, calls, room) };
  const options = { directory, groupName: 'g', fileBytes: FILE_BYTES, budgetBytes: filesMax * FILE_BYTES + 5 };
  return { pool: new FilePool(told, options, live, live, found), directory, calls, room, host };
}

async function takeFrom({ pool }: PoolAtHand, reserve = false): Promise<[sequence: number, prepared: boolean]> {
  const { file, prepared } = pool.take(reserve);
  await closeFile(file);
  return [file.sequence, prepared];
}

test('files are made ready ahead: whole, of zeroes, synced, and named before they are taken', async (t) => {
  const at = poolOf(t, 0, 8);
  const { pool, directory, calls, host } = at;
  const synced: string[] = [];
  let written = 0;
  host.disk.fault = (operation, path) => {
    t.regex(path, /prepare\.tmj$/, 'nothing is written under a name of the log');
    if (operation === 'sync') synced.push(path);
    else written++;
    return undefined;
  };
  await pool.spareReady();
  t.true(fs.existsSync(join(directory, journalFileName(0))), 'the first is ready');
  await pool.close();
  const ready = fs.readdirSync(directory);
  t.true(ready.length >= 1 && ready.length <= 2);
  for (const name of ready) t.deepEqual(fs.readFileSync(join(directory, name)), Buffer.alloc(FILE_BYTES), name);
  t.is(synced.length, ready.length);
  t.true(written >= ready.length * 2, 'in pieces of 64 KiB; another may have been begun');
  t.deepEqual(calls.slice(0, 2), [
    `rename prepare.tmj ${journalFileName(0)}`,
    `syncDirectory ${directory.split('/').at(-1)}`,
  ]);
  host.disk.fault = () => undefined;
  calls.length = 0;
  t.deepEqual(await takeFrom(at), [0, true]);
  t.deepEqual(calls, [], 'its name is durable already');
});

test('who waits for a file goes on with the first that is ready', async (t) => {
  const { pool, directory } = poolOf(t, 0, 8);
  await pool.spareReady();
  t.is(journalFiles(directory).length, 1, 'the second is still being made');
  await pool.spareReady();
  t.is(journalFiles(directory).length, 1, 'one is there');
  await pool.close();
});

test('the files of a reader are closed when it has been closed, however late the disk', async (t) => {
  const directory = temporaryDirectory(t);
  const disk = new LateDisk(testHost().disk, new SeededRandom(7));
  for (const sequence of [1, 2, 3]) fs.writeFileSync(join(directory, journalFileName(sequence)), Buffer.alloc(64, 1));
  const reads = new FileReads(disk, directory);
  for (const sequence of [1, 2, 3]) t.is(reads.size(sequence), 64);
  t.is(disk.descriptors.length, 3);
  await reads.close();
  t.deepEqual(disk.descriptors, []);
});

test('never more than two files are made ready, and none beyond the budget', async (t) => {
  for (const [live, filesMax, expected] of [
    [0, 8, [0, 1]],
    [5, 8, [5, 6]],
    [7, 8, [7]],
    [8, 8, []],
  ] as const) {
    const { pool, directory } = poolOf(t, live, filesMax);
    pool.prepare();
    await pool.spareReady();
    await until(() => journalFiles(directory).length >= expected.length);
    await pool.close();
    t.deepEqual(fs.readdirSync(directory), expected.map(journalFileName), `${live} of ${filesMax}`);
  }
});

test('a file is taken from what is ready, then from what was let go of, then made; its name is durable first', async (t) => {
  const at = poolOf(t, 4, 8, [4, 5]);
  const { pool, directory, calls, room } = at;
  const here = directory.split('/').at(-1);
  t.is(pool.filesLeft, 4);
  calls.length = 0;
  t.deepEqual(await takeFrom(at), [4, true]);
  t.deepEqual(calls.slice(0, 1), [`syncDirectoryNow ${here}`], 'whether it ever was is not known');
  t.deepEqual(await takeFrom(at), [5, true]);
  await pool.close();
  // nothing is made ready any more
  for (const name of fs.readdirSync(directory)) if (name > journalFileName(5)) fs.unlinkSync(join(directory, name));
  const bare = poolOf(t, 2, 4);
  await bare.pool.close();
  bare.calls.length = 0;
  t.deepEqual(await takeFrom(bare), [2, false]);
  t.is(fs.statSync(join(bare.directory, journalFileName(2))).size, FILE_BYTES);
  t.deepEqual(bare.calls, [`syncDirectoryNow ${bare.directory.split('/').at(-1)}`]);
  bare.pool.recycle(0);
  t.is(bare.pool.filesLeft, 2);
  fs.writeFileSync(join(bare.directory, journalFileName(0)), Buffer.alloc(FILE_BYTES, 9));
  bare.calls.length = 0;
  t.deepEqual(await takeFrom(bare), [3, true]);
  t.deepEqual(bare.calls, [
    `rename ${journalFileName(0)} ${journalFileName(3)}`,
    `syncDirectoryNow ${bare.directory.split('/').at(-1)}`,
  ]);
  t.is(fs.readFileSync(join(bare.directory, journalFileName(3)))[0], 9);
  t.deepEqual(await takeFrom(bare), [4, false]);
  t.is(pool.filesLeft, 2);
  room.bytes = 0;
});

test('how many files are left is the lesser of the budget and the room; what is full is named', async (t) => {
  const at = poolOf(t, 3, 8);
  const { pool, room } = at;
  await pool.close();
  t.is(pool.filesLeft, 5);
  room.bytes = 3 * FILE_BYTES - 1;
  t.is(pool.filesLeft, 5, 'as it was when it was last looked at');
  pool.measureRoom();
  t.is(pool.filesLeft, 2);
  room.bytes = FILE_BYTES;
  t.true(pool.canTake(false));
  room.bytes = FILE_BYTES - 1;
  t.false(pool.canTake(false));
  t.false(pool.canTake(true));
  t.regex(pool.whyFull, /the file system of .* is full/);
  t.throws(() => pool.take(true), { code: 'journal-full', message: /file system/ });
  room.bytes = 100 * FILE_BYTES;
  for (let count = 0; count < 5; count++) await takeFrom(at);
  t.is(pool.filesLeft, 0);
  t.false(pool.canTake(false));
  t.regex(pool.whyFull, new RegExp(`budget of ${8 * FILE_BYTES + 5} bytes`));
  t.true(pool.canTake(true));
  await takeFrom(at, true);
  t.false(pool.canTake(true), 'one, not two');
  t.is(pool.filesLeft, 0);
  pool.recycle(3);
  pool.recycle(4);
  t.is(pool.filesLeft, 1);
  t.true(pool.canTake(false), 'a file that was let go of');
});

test('a file that lies ready is not taken beyond the budget', async (t) => {
  const at = poolOf(t, 4, 4, [4, 5]);
  const { pool } = at;
  t.is(pool.filesLeft, 0);
  t.false(pool.canTake(false));
  t.throws(() => pool.take(false), { code: 'journal-full', message: /budget/ });
  t.true(pool.canTake(true));
  t.deepEqual(await takeFrom(at, true), [4, true]);
  t.false(pool.canTake(true));
  await pool.close();
});

test('a file that lies ready needs no room of the file system', async (t) => {
  const at = poolOf(t, 4, 8, [4, 5]);
  at.room.bytes = 0;
  at.pool.measureRoom();
  t.is(at.pool.filesLeft, 2);
  t.true(at.pool.canTake(false));
  t.deepEqual(await takeFrom(at), [4, true]);
  t.deepEqual(await takeFrom(at), [5, true]);
  t.is(at.pool.filesLeft, 0);
  t.false(at.pool.canTake(true));
  await at.pool.close();
});

test('files that are gone are those between what is needed and the newest, and stand-ins are durable', async (t) => {
  t.deepEqual(goneFiles([5, 7, 8], { needed: 3, oldest: 7, newest: 8 }), [3, 4, 6]);
  t.deepEqual(goneFiles([7, 8], { needed: 6, oldest: 7, newest: 8 }), [6]);
  t.deepEqual(goneFiles([7, 8], { needed: 7, oldest: 7, newest: 8 }), []);
  t.deepEqual(goneFiles([7, 8], { needed: 9, oldest: 7, newest: 8 }), []);
  t.is(goneFiles([5000], { needed: 5000 - 4096, oldest: 5000, newest: 5000 }).length, 4096);
  t.deepEqual(goneFiles([5000], { needed: 5000 - 4097, oldest: 5000, newest: 5000 }), []);
  const directory = temporaryDirectory(t);
  const disk = new LateDisk(testHost().disk, new SeededRandom(9));
  for (const gone of [[2], [5, 6]]) {
    await standIn({ ...testHost(), disk }, { directory, fileBytes: FILE_BYTES }, gone);
    t.deepEqual([disk.changing, disk.descriptors, disk.unsyncedNames(directory)], [[], [], []]);
  }
  t.deepEqual(fs.readdirSync(directory), [2, 5, 6].map(journalFileName));
  t.deepEqual(fs.readFileSync(join(directory, journalFileName(2))), Buffer.alloc(FILE_BYTES));
  await standIn({ ...testHost(), disk }, { directory: `${directory}/nothing`, fileBytes: FILE_BYTES }, []);
});

test('of files that were let go of as many are kept as half the budget holds, the oldest go first', async (t) => {
  const { pool, directory, calls } = poolOf(t, 6, 6);
  await pool.close();
  for (const sequence of [0, 1, 2, 3]) fs.writeFileSync(join(directory, journalFileName(sequence)), '');
  calls.length = 0;
  for (const sequence of [0, 1, 2, 3]) pool.recycle(sequence);
  t.deepEqual(calls, [`unlink ${journalFileName(0)}`]);
  t.is(pool.filesLeft, 4);
  const small = poolOf(t, 3, 3);
  await small.pool.close();
  small.calls.length = 0;
  for (const sequence of [0, 1, 2]) small.pool.recycle(sequence);
  t.deepEqual(small.calls, [], 'two are kept in any case; the third was not there to be removed');
});

test('what cannot be made ready leaves nothing behind and is tried again when something changes', async (t) => {
  const { pool, directory, host, calls } = poolOf(t, 1, 3);
  for (const fault of ['short', 'ENOSPC', 'EIO'] as const) {
    host.disk.fault = (operation) => (operation === 'write' ? fault : undefined);
    await pool.spareReady();
    t.deepEqual(fs.readdirSync(directory), [], fault);
  }
  host.disk.fault = (operation) => (operation === 'sync' ? 'EIO' : undefined);
  await pool.spareReady();
  t.deepEqual(fs.readdirSync(directory), [], 'what is not synced is no file for the log');
  t.false(calls.some((call) => call.startsWith('rename')));
  host.disk.fault = () => undefined;
  await pool.spareReady();
  t.true(fs.existsSync(join(directory, journalFileName(1))));
  await pool.close();
});

test('a pool that is closed waits for what it was making, on a late disk too', async (t) => {
  const directory = temporaryDirectory(t);
  const host = testHost();
  const disk = new LateDisk(host.disk, new SeededRandom(3));
  const options = { directory, groupName: 'g', fileBytes: 16 * FILE_BYTES, budgetBytes: 64 * FILE_BYTES };
  const pool = new FilePool({ ...host, disk }, options, 0, 0, []);
  pool.prepare();
  t.not(disk.changing.length, 0);
  await pool.close();
  t.deepEqual([disk.changing, disk.descriptors], [[], []]);
  t.deepEqual(fs.readdirSync(directory), [], 'half a file is none');
  pool.prepare();
  t.deepEqual(disk.changing, [], 'nothing is begun any more');
});

interface Told {
  readonly lsn: number;
  readonly durationMs: number;
  readonly waiters: number;
}

/** Files on a late disk below which every sync takes seven milliseconds and is noted. */
function syncsOf(t: ExecutionContext): {
  syncs: GroupSync;
  disk: LateDisk;
  host: TestHost;
  files: WriterFile[];
  told: Told[];
  synced: string[];
  at: { lsn: number };
  failures: TidemarkError[];
} {
  const directory = temporaryDirectory(t);
  const host = testHost();
  const disk = new LateDisk(host.disk, new SeededRandom(5));
  const synced: string[] = [];
  host.disk.fault = (operation, path) => {
    if (operation !== 'sync') return undefined;
    host.clock.monotonic += 7;
    synced.push(path.slice(-1));
    return undefined;
  };
  const files = [0, 1, 2].map((sequence) => {
    const path = join(directory, String(sequence));
    fs.writeFileSync(path, 'x');
    return openForWriting({ ...host, disk }, path, sequence);
  });
  const told: Told[] = [];
  const at = { lsn: 10 };
  const failures: TidemarkError[] = [];
  const syncs = new GroupSync(host.clock, {
    written: () => ({ address: at.lsn * 100, lsn: at.lsn }),
    durable: ({ address, lsn }, durationMs, waiters) => {
      t.is(address, lsn * 100);
      told.push({ lsn, durationMs, waiters });
    },
    failed: (error) => {
      failures.push(error);
      return new TidemarkError('journal-poisoned', error.message);
    },
  });
  return { syncs, disk, host, files, told, synced, at, failures };
}

test('a sync covers what was written before it began, whoever comes later waits for the next', async (t) => {
  const { syncs, files, told, synced, at } = syncsOf(t);
  const [first, second, third] = files as [WriterFile, WriterFile, WriterFile];
  syncs.touched(first);
  syncs.touched(second);
  t.false(syncs.running);
  const order: string[] = [];
  const one = syncs.sync().then(() => order.push('one'));
  t.true(syncs.running);
  at.lsn = 20;
  syncs.touched(third);
  const others = [2, 3].map((n) => syncs.sync().then(() => order.push(`waiter ${n}`)));
  await one;
  t.deepEqual(told, [{ lsn: 10, durationMs: 14, waiters: 1 }]);
  t.deepEqual(synced, ['0', '1']);
  t.true(syncs.running, 'the next has begun');
  await Promise.all(others);
  t.deepEqual(told.slice(1), [{ lsn: 20, durationMs: 7, waiters: 2 }]);
  t.deepEqual(synced, ['0', '1', '2']);
  t.deepEqual(order, ['one', 'waiter 2', 'waiter 3']);
  t.false(syncs.running);
  await syncs.sync();
  t.deepEqual(synced, ['0', '1', '2'], 'nothing was written since');
  await syncs.close();
  for (const file of files) await closeFile(file);
});

test('a blocking sync covers what a sync under way has not ended with', async (t) => {
  const { syncs, files, told, synced, disk } = syncsOf(t);
  const [first, second, third] = files as [WriterFile, WriterFile, WriterFile];
  syncs.touched(first);
  const under = syncs.sync();
  syncs.touched(second);
  syncs.now();
  t.deepEqual(synced, ['0', '1']);
  t.deepEqual(told, [{ lsn: 10, durationMs: 14, waiters: 1 }]);
  await under;
  t.is(synced.length, 3);
  syncs.now();
  t.is(synced.length, 3, 'all is synced');
  syncs.touched(third);
  syncs.retire(third);
  t.is(disk.descriptors.length, 6);
  syncs.now();
  // synced and no longer written to: closed, in its own time
  await until(() => disk.descriptors.length <= 4);
  t.is(disk.descriptors.length, 4);
  await syncs.close();
  for (const file of [first, second]) await closeFile(file);
});

test('a file that is left is closed once it is synced, and not while a later write to it is not', async (t) => {
  const { syncs, files, disk, synced } = syncsOf(t);
  const [first, second, third] = files as [WriterFile, WriterFile, WriterFile];
  syncs.touched(first);
  syncs.retire(first);
  t.is(disk.descriptors.length, 6, 'not before its sync');
  const under = syncs.sync();
  syncs.touched(first);
  await under;
  t.is(disk.descriptors.length, 6, 'it was written to meanwhile');
  await syncs.sync();
  await until(() => disk.descriptors.length <= 4);
  t.is(disk.descriptors.length, 4);
  t.deepEqual(synced, ['0', '0']);
  syncs.touched(second);
  syncs.retire(third);
  const last = syncs.sync();
  await syncs.close();
  t.false(syncs.running);
  t.deepEqual(
    disk.descriptors.map((path) => path.slice(-1)),
    ['1', '1'],
    'what is in use is its own to close',
  );
  await last;
  await closeFile(second);
  t.deepEqual(disk.descriptors, []);
});

test('a failed sync is told to all who wait, and what it covered is not taken for synced', async (t) => {
  const { syncs, files, host, told, failures } = syncsOf(t);
  const [first, second] = files as [WriterFile, WriterFile, WriterFile];
  const poisoned = { code: 'journal-poisoned' };
  host.disk.fault = (operation) => (operation === 'sync' ? 'EIO' : undefined);
  syncs.touched(first);
  const waiting = [syncs.sync(), syncs.sync()];
  for (const waiter of waiting) await t.throwsAsync(waiter, poisoned);
  t.is(failures.length, 1);
  t.is(failures[0]?.code, 'sync-failed');
  t.deepEqual(told, []);
  t.false(syncs.running);
  const again: string[] = [];
  host.disk.fault = (operation, path) => {
    if (operation === 'sync') again.push(path.slice(-1));
    return undefined;
  };
  syncs.touched(second);
  syncs.now();
  t.deepEqual(again.toSorted(), ['0', '1']);
  host.disk.fault = (operation) => (operation === 'sync' ? 'EIO' : undefined);
  syncs.touched(second);
  t.throws(() => syncs.now(), poisoned);
  t.is(failures.length, 2);
  host.disk.fault = (_operation, path) => {
    again.push(path.slice(-1));
    return undefined;
  };
  again.length = 0;
  syncs.now();
  t.deepEqual(again, ['1'], 'it is still not synced');
  await syncs.close();
  for (const file of files) await closeFile(file);
});
