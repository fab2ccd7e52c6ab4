import fs from 'node:fs';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import test from 'ava';
import { TidemarkError } from '../../journal/base/errors.ts';
import { delay } from '../../journal/host/host.ts';
import { blockZeroOut, lockExclusive, readCached, seekData, seekHole } from '../../journal/host/native.ts';
import { RealClock } from '../../journal/host/real-clock.ts';
import { RealDisk } from '../../journal/host/real-disk.ts';
import { realHost } from '../../journal/host/real-host.ts';
import { RealRandom } from '../../journal/host/real-random.ts';
import { fromSystemError } from '../../journal/host/system-error.ts';
import { temporaryDirectory, testHost } from './journal-fixture.ts';

/** Tells which directories it synced. */
class TellingDisk extends RealDisk {
  readonly synced: string[] = [];

  override syncDirectoryNow(path: string): void {
    this.synced.push(path);
    super.syncDirectoryNow(path);
  }
}

/** Of this process, that are open on the file. */
function descriptorsOf(path: string): number {
  return fs.readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return fs.readlinkSync(`/proc/self/fd/${fd}`) === path;
    } catch {
      return false;
    }
  }).length;
}

test('an error of the system says what it means for the program, and what it was', (t) => {
  const system = (code: string): Error => Object.assign(new Error('x'), { code });
  for (const [errno, code] of [
    ['ENOENT', 'not-found'],
    ['EEXIST', 'already-exists'],
    ['ENOSPC', 'no-space'],
    ['EDQUOT', 'no-space'],
    ['EFBIG', 'no-space'],
    ['EROFS', 'read-only'],
    ['EACCES', 'precondition-failed'],
    ['EPERM', 'precondition-failed'],
    ['ENODEV', 'device-gone'],
    ['ENXIO', 'device-gone'],
    ['EIO', 'device-failed'],
  ] as const) {
    t.like(fromSystemError(system(errno), 'it'), { code, message: `it: ${errno}`, details: { errno } });
  }
  t.is(fromSystemError(system('EIO'), 'it', 'sync-failed').code, 'sync-failed');
  t.is(fromSystemError('text', 'it').message, 'it: unknown');
  t.is(fromSystemError(Object.assign(new Error('x'), { code: 5 }), 'it').message, 'it: unknown');
  const ours = new TidemarkError('trimmed', 'ours');
  t.is(fromSystemError(ours, 'it'), ours);
});

test('directories are made one below the other, each name durable before the next', (t) => {
  const root = temporaryDirectory(t);
  const disk = new TellingDisk();
  disk.makeDirectory(join(root, 'a/b/c'));
  t.deepEqual(disk.synced, [root, join(root, 'a'), join(root, 'a/b')]);
  t.true(fs.statSync(join(root, 'a/b/c')).isDirectory());
  t.is(fs.statSync(join(root, 'a')).mode & 0o777, 0o750 & ~process.umask());
  disk.makeDirectory(join(root, 'a/b/c'));
  t.is(disk.synced.length, 3, 'nothing was missing');
  disk.makeDirectory(join(root, 'a/b/d'));
  t.deepEqual(disk.synced.slice(3), [join(root, 'a/b')]);
  fs.writeFileSync(join(root, 'file'), '');
  t.throws(() => disk.makeDirectory(join(root, 'file')), { code: 'invalid-argument' });
  t.throws(() => disk.makeDirectory(join(root, 'file/below')), { instanceOf: TidemarkError });
});

test('the disk lists in order, takes away what may be gone, and says what it cannot do', async (t) => {
  const root = temporaryDirectory(t);
  const disk = new RealDisk();
  for (const name of ['b', 'a', 'c']) fs.writeFileSync(join(root, name), name);
  t.deepEqual(disk.list(root), ['a', 'b', 'c']);
  t.deepEqual(disk.list(join(root, 'nothing')), []);
  t.throws(() => disk.list(join(root, 'a')), { instanceOf: TidemarkError });
  t.true(disk.exists(join(root, 'a')));
  disk.unlink(join(root, 'a'));
  disk.unlink(join(root, 'a'));
  t.false(disk.exists(join(root, 'a')));
  t.throws(() => disk.unlink(root), { instanceOf: TidemarkError });
  disk.rename(join(root, 'b'), join(root, 'd'));
  t.deepEqual(disk.list(root), ['c', 'd']);
  t.throws(() => disk.rename(join(root, 'b'), join(root, 'e')), { code: 'not-found' });
  t.throws(() => disk.open(join(root, 'b'), 'read'), { code: 'not-found' });
  t.throws(() => disk.open(join(root, 'b'), 'write'), { code: 'not-found' });
  t.throws(() => disk.open(join(root, 'c'), 'create'), { code: 'already-exists' });
  const made = disk.open(join(root, 'e'), 'create');
  t.is(fs.statSync(made.path).mode & 0o777, 0o640 & ~process.umask());
  await made.close();
  await disk.syncDirectory(root);
  disk.syncDirectoryNow(root);
  await t.throwsAsync(disk.syncDirectory(join(root, 'nothing')), { code: 'not-found' });
  t.throws(() => disk.syncDirectoryNow(join(root, 'nothing')), { code: 'not-found' });
  const { bavail, bsize } = fs.statfsSync(root);
  const share = disk.freeBytes(root) / (bavail * bsize);
  t.true(share > 0.5 && share < 2);
});

test('a directory is synced when the call that syncs it has ended', async (t) => {
  const root = temporaryDirectory(t);
  const { open } = fs.promises;
  t.teardown(() => {
    fs.promises.open = open;
  });
  let synced = false;
  fs.promises.open = async (path, ...rest) => {
    const handle = await open(path, ...rest);
    if (path !== root) return handle;
    const sync = handle.sync.bind(handle);
    handle.sync = async () => {
      for (let turns = 0; turns < 5; turns++) await turn();
      await sync();
      synced = true;
    };
    return handle;
  };
  await new RealDisk().syncDirectory(root);
  t.true(synced);
  t.is(descriptorsOf(root), 0);
});

test('a directory lock that is let go of twice closes nothing that came after it', async (t) => {
  const root = temporaryDirectory(t);
  const disk = new RealDisk();
  const lock = disk.lockDirectory(root);
  t.throws(() => disk.lockDirectory(root), { code: 'journal-locked' });
  lock.release();
  const file = disk.open(join(root, 'after'), 'create');
  lock.release();
  t.is(file.size(), 0, 'its descriptor may have the number that the lock had');
  await file.close();
  disk.lockDirectory(root).release();
  t.is(lockExclusive(999_999), 'unsupported');
});

test('a file reads and writes what is asked for, where it is asked for', async (t) => {
  const root = temporaryDirectory(t);
  const disk = new RealDisk();
  const file = disk.open(join(root, 'file'), 'create');
  const from = Uint8Array.from({ length: 100 }, (_, i) => i);
  t.is(file.writeSync(from, 10, 50, 1000), 50);
  t.is(await file.write(from, 60, 40, 1050), 40);
  t.is(file.size(), 1090);
  for (const read of [
    (into: Uint8Array, offset: number, length: number, position: number) =>
      Promise.resolve(file.readSync(into, offset, length, position)),
    (into: Uint8Array, offset: number, length: number, position: number) => file.read(into, offset, length, position),
  ]) {
    const into = new Uint8Array(120).fill(0xee);
    t.is(await read(into, 5, 90, 1000), 90);
    t.deepEqual(into.subarray(5, 95), from.subarray(10));
    t.deepEqual([...new Set([...into.subarray(0, 5), ...into.subarray(95)])], [0xee]);
    t.is(await read(into, 0, 100, 1080), 10, 'short at the end');
    t.is(await read(into, 0, 100, 2000), 0);
  }
  file.truncate(1005);
  t.is(file.size(), 1005);
  await file.dataSync();
  file.dataSyncSync();
  const again = disk.open(file.path, 'read');
  t.throws(() => again.writeSync(from, 0, 1, 0), { instanceOf: TidemarkError });
  await t.throwsAsync(again.write(from, 0, 1, 0), { instanceOf: TidemarkError });
  t.throws(() => again.truncate(0), { instanceOf: TidemarkError });
  await again.close();
  await file.close();
});

test('a file is closed behind every call that is under way, once, and takes no other', async (t) => {
  const root = temporaryDirectory(t);
  const file = new RealDisk().open(join(root, 'file'), 'create');
  t.is(descriptorsOf(file.path), 1);
  const ended: string[] = [];
  const bytes = new Uint8Array(1024 * 1024).fill(7);
  const calls = [0, 1, 2].map((at) =>
    file.write(bytes, 0, bytes.length, at * bytes.length).then(() => ended.push('write')),
  );
  calls.push(file.dataSync().then(() => ended.push('sync')));
  const closing = file.close();
  t.is(file.close(), closing);
  t.throws(() => file.writeSync(bytes, 0, 1, 0), { name: 'AssertionError' });
  t.throws(() => file.size(), { name: 'AssertionError' });
  t.throws(() => file.dataSyncSync(), { name: 'AssertionError' });
  await closing;
  t.is(ended.length, 4);
  await Promise.all(calls);
  t.is(descriptorsOf(file.path), 0);
  t.is(fs.statSync(file.path).size, 3 * bytes.length);
});

test('what a device refuses is told as what it is: no room, a failed sync, a failed device', async (t) => {
  const disk = new RealDisk();
  const full = disk.open('/dev/full', 'write');
  t.throws(() => full.writeSync(new Uint8Array(1), 0, 1, 0), { code: 'no-space' });
  await t.throwsAsync(full.write(new Uint8Array(1), 0, 1, 0), { code: 'no-space' });
  t.throws(() => full.dataSyncSync(), { code: 'sync-failed' });
  const failed = await t.throwsAsync(full.dataSync(), { code: 'sync-failed' });
  t.like(failed, { details: { errno: 'EINVAL' } });
  await full.close();
  const directory = disk.open(temporaryDirectory(t), 'read');
  t.throws(() => directory.readSync(new Uint8Array(1), 0, 1, 0), { code: 'device-failed' });
  await t.throwsAsync(directory.read(new Uint8Array(1), 0, 1, 0), { code: 'device-failed' });
  await directory.close();
});

test('holes of a file are told as holes, what was written as data, and together they are the range', async (t) => {
  const root = temporaryDirectory(t);
  const file = new RealDisk().open(join(root, 'file'), 'create');
  const MiB = 1024 * 1024;
  file.truncate(8 * MiB);
  const block = new Uint8Array(64 * 1024).fill(1);
  for (const at of [MiB, 5 * MiB]) file.writeSync(block, 0, block.length, at);
  const told = (position: number, length: number): [string, number, number][] => {
    let at = position;
    return (file.extents?.(position, length) ?? []).map(({ kind, length: bytes }) => {
      const from = at;
      at += bytes;
      return [kind, from, at];
    });
  };
  for (const [from, length] of [
    [0, 8 * MiB],
    [MiB, block.length],
    [MiB + 512, 4 * MiB],
    [2 * MiB, MiB],
    [5 * MiB + block.length - 512, 3 * MiB - block.length + 512],
  ] as const) {
    const extents = told(from, length);
    t.is(extents[0]?.[1], from);
    t.is(extents.at(-1)?.[2], from + length, 'to the end and no further');
    for (const [i, [kind, start, end]] of extents.entries()) {
      t.true(end > start);
      t.not(kind, extents[i + 1]?.[0], 'neighbours are of two kinds');
      if (kind !== 'hole') continue;
      const bytes = Buffer.alloc(end - start);
      file.readSync(bytes, 0, bytes.length, start);
      t.true(
        bytes.every((byte) => byte === 0),
        `${start} to ${end} is called a hole`,
      );
    }
    const data = extents.reduce((sum, [kind, start, end]) => sum + (kind === 'data' ? end - start : 0), 0);
    t.true(data <= 4 * block.length, `${data} bytes of data in ${length}`);
  }
  t.deepEqual(
    told(2 * MiB, MiB).map(([kind]) => kind),
    ['hole'],
  );
  t.true(file.punchHole(MiB, block.length));
  t.is(file.size(), 8 * MiB);
  const bytes = Buffer.alloc(block.length);
  t.is(file.readSync(bytes, 0, bytes.length, MiB), bytes.length);
  t.true(bytes.every((byte) => byte === 0));
  t.deepEqual(
    told(0, 5 * MiB).map(([kind]) => kind),
    ['hole'],
  );
  await file.close();
  t.is(seekData(999_999, 0), undefined);
  t.is(seekHole(999_999, 0), undefined);
});

test('what is in the page cache is read without waiting, what is beyond the end is not', (t) => {
  const path = join(temporaryDirectory(t), 'file');
  const content = Buffer.from(Array.from({ length: 20_000 }, (_, i) => i % 251));
  fs.writeFileSync(path, content);
  const fd = fs.openSync(path, 'r+');
  t.teardown(() => fs.closeSync(fd));
  t.is(seekData(fd, 30_000), 'none');
  t.is(seekData(fd, 0), 0, 'data from the first byte on');
  t.is(seekHole(fd, 0), 20_000, 'up to the end');
  const into = Buffer.alloc(8192);
  const answer = readCached(fd, 4096, into);
  t.true(answer === 'cached' || answer === 'unsupported');
  if (answer === 'cached') t.deepEqual(into, content.subarray(4096, 4096 + 8192));
  t.not(readCached(fd, 16_384, into), 'cached', 'the end is in the middle');
  t.not(readCached(fd, 20_000, into), 'cached');
  t.not(readCached(999_999, 0, into), 'cached');
  t.false(blockZeroOut(fd, 0, 4096), 'no block device');
});

test('the clocks of the machine tell the time in their units, and a timer that is cancelled does not run', async (t) => {
  const clock = new RealClock();
  const before = Date.now();
  const wall = clock.wallMicros();
  t.true(wall >= before * 1000 && wall <= (Date.now() + 1) * 1000);
  const began = clock.monotonicMs();
  const calls: string[] = [];
  const keepAlive = setInterval(() => undefined, 1000);
  clock.after(1, () => calls.push('cancelled')).cancel();
  await new Promise<void>((resolve) => {
    clock.after(5, () => {
      calls.push('run');
      resolve();
    });
  });
  clearInterval(keepAlive);
  t.deepEqual(calls, ['run']);
  const passed = clock.monotonicMs() - began;
  t.true(passed >= 3 && passed < 600_000, `${passed} ms`);

  const random = new RealRandom();
  t.is(random.bytes(17).length, 17);
  t.notDeepEqual([...random.bytes(16)], [...random.bytes(16)]);
  for (let i = 0; i < 50; i++) t.true(random.below(3) < 3);
  t.is(random.below(1), 0);
  t.regex(realHost().bootId, /^[0-9a-f-]{36}$/);
});

test('a delay ends when the clock says so', async (t) => {
  const { clock } = testHost();
  let over = false;
  void delay(clock, 20).then(() => {
    over = true;
  });
  clock.advance(19);
  await turn();
  t.false(over);
  clock.advance(1);
  await turn();
  t.true(over);
});
