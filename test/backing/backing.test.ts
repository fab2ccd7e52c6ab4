import { execFileSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { FileBacking } from '../../daemon/backing/file-backing.ts';
import { findLock } from '../../daemon/backing/file-use.ts';
import type { NbdBacking } from '../../daemon/backing/nbd-backing.ts';
import { openBacking } from '../../daemon/backing/open-backing.ts';
import { writeRun } from '../../daemon/backing/write-run.ts';
import { hasCode } from '../../journal/base/errors.ts';
import { blockDeviceContract } from '../contract/block-device-contract.ts';
import { Child } from '../servers/child.ts';
import { waitForSocket } from '../servers/wait-for-socket.ts';
import { testUnless } from '../setup/test-unless.ts';
import { GroupBench, HandClient, MIB, ModelDisk, randomRequest, randomSource } from '../volume/support/group-bench.ts';

const SIZE = 4 * MIB;

function workplace(): { directory: string; disk: (bytes: number) => string } {
  const directory = mkdtempSync(join(tmpdir(), 'backing-test-'));
  return {
    directory,
    disk: (bytes) => {
      const path = join(directory, 'disk.raw');
      writeFileSync(path, '');
      truncateSync(path, bytes);
      return path;
    },
  };
}

/** A real upstream server over a raw file. */
class Upstream {
  readonly path: string;
  readonly socket: string;
  #server: Child | undefined;

  constructor(directory: string, path: string) {
    this.path = path;
    this.socket = join(directory, 'upstream.sock');
  }

  get uri(): string {
    return `nbd+unix:///?socket=${this.socket}`;
  }

  async start(): Promise<void> {
    rmSync(this.socket, { force: true });
    const args = ['-f', 'raw', '-t', '-e', '4', '--discard=unmap', '-k', this.socket, this.path];
    this.#server = new Child('qemu-nbd', 'qemu-nbd', args);
    await waitForSocket(this.socket, this.#server);
  }

  async kill(): Promise<void> {
    await this.#server?.stop('SIGKILL');
  }
}

blockDeviceContract(test, 'file backing', {
  empty: async (size) => {
    const { directory, disk } = workplace();
    const device = FileBacking.open(disk(size));
    return { device, dispose: async () => rmSync(directory, { recursive: true }) };
  },
  readOnly: async (size) => {
    const { directory, disk } = workplace();
    const device = FileBacking.open(disk(size), { readOnly: true });
    return { device, dispose: async () => rmSync(directory, { recursive: true }) };
  },
});

blockDeviceContract(test, 'qemu-nbd as backing', {
  histories: 6,
  empty: async (size) => {
    const { directory, disk } = workplace();
    const upstream = new Upstream(directory, disk(size));
    await upstream.start();
    const device = await openBacking(upstream.uri);
    return {
      device,
      dispose: async () => {
        await upstream.kill();
        rmSync(directory, { recursive: true });
      },
    };
  },
});

test('a file is held by one: a second backing and a file that QEMU holds are refused', async (t) => {
  const { directory, disk } = workplace();
  const path = disk(SIZE);
  const first = FileBacking.open(path);
  t.throws(() => FileBacking.open(path), { code: 'target-in-use' });
  await first.close();
  const upstream = new Upstream(directory, path);
  await upstream.start();
  t.throws(() => FileBacking.open(path), { code: 'target-in-use', message: /QEMU's image lock/ });
  await upstream.kill();
  await FileBacking.open(path).close();
  t.throws(() => FileBacking.open(directory), { code: 'invalid-argument' });
  t.throws(() => FileBacking.open(join(directory, 'missing')), { code: 'not-found' });
  truncateSync(path, SIZE + 100);
  t.throws(() => FileBacking.open(path), { code: 'invalid-argument' });
  rmSync(directory, { recursive: true });
});

test('who holds a file is read from the kernel table; our own lock and other ranges are nobody', (t) => {
  const table = [
    '1: FLOCK  ADVISORY  WRITE 77 fe:01:12 0 EOF',
    '2: OFDLCK ADVISORY  READ -1 fe:01:34 100 101',
    '3: POSIX  ADVISORY  WRITE 5 fe:01:56 0 99',
    '',
  ].join('\n');
  t.is(findLock(table, 'fe:01:12', 77), undefined);
  t.regex(findLock(table, 'fe:01:12', 1) ?? '', /process 77/);
  t.regex(findLock(table, 'fe:01:34', 1) ?? '', /image lock/);
  t.is(findLock(table, 'fe:01:56', 1), undefined);
  t.is(findLock(table, 'fe:01:3', 1), undefined);
});

test('a trim gives the space of a file back, zeroes that must stay allocated do not', async (t) => {
  const { directory, disk } = workplace();
  const path = disk(SIZE);
  const backing = FileBacking.open(path);
  await backing.write(0, Buffer.alloc(SIZE, 1));
  await backing.flush();
  const full = statSync(path).blocks;
  await backing.zero(0, MIB, false);
  await backing.flush();
  t.is(statSync(path).blocks, full);
  await backing.zero(MIB, 2 * MIB, true);
  t.true(statSync(path).blocks <= full - (2 * MIB) / 512 + 16);
  const kinds = (await backing.extents(0, SIZE)).map(({ kind, length }) => `${kind} ${length}`);
  t.deepEqual(kinds, [`data ${MIB}`, `hole ${2 * MIB}`, `data ${MIB}`]);
  await backing.close();
  await t.throwsAsync(backing.read(0, Buffer.alloc(512)), { code: 'shutting-down' });
  rmSync(directory, { recursive: true });
});

test('a terabyte of holes is trimmed at once', async (t) => {
  const { directory, disk } = workplace();
  const backing = FileBacking.open(disk(2 ** 40));
  await backing.write(2 ** 39, Buffer.alloc(4096, 1));
  await backing.zero(0, 2 ** 40, true);
  const found = Buffer.alloc(4096, 1);
  await backing.read(2 ** 39, found);
  t.true(found.equals(Buffer.alloc(4096)));
  await backing.close();
  rmSync(directory, { recursive: true });
});

test('what was just written is read at once; beyond the end and after close nothing is', async (t) => {
  const { directory, disk } = workplace();
  const path = disk(SIZE);
  const backing = FileBacking.open(path);
  const into = new Uint8Array(8192);
  await backing.write(4096, new Uint8Array(8192).fill(7));
  const isCached = backing.readNow(4096, into);
  if (isCached) t.true(into.every((byte) => byte === 7));
  truncateSync(path, 8192);
  t.false(backing.readNow(4096, into), 'half of it is gone');
  await backing.close();
  t.false(backing.readNow(0, into));
  rmSync(directory, { recursive: true });
});

test('a write in a run that fails is told by its errno, and the runs behind it are not', async (t) => {
  const memory = new SharedArrayBuffer(8192);
  const full = openSync('/dev/full', 'r+');
  const failing = writeRun(full, memory, Float64Array.of(0, 0, 4096, 8192, 0, 4096));
  const { directory, disk } = workplace();
  const path = disk(SIZE);
  const file = openSync(path, 'r+');
  new Uint8Array(memory).fill(3);
  const good = writeRun(file, memory, Float64Array.of(512, 0, 4096));
  const error = await t.throwsAsync(failing);
  t.is((error as NodeJS.ErrnoException).code, 'ENOSPC');
  await good;
  t.true(
    readFileSync(path)
      .subarray(512, 4608)
      .every((byte) => byte === 3),
  );
  closeSync(full);
  closeSync(file);
  const backing = FileBacking.open(path, { readOnly: true });
  t.true(hasCode(await t.throwsAsync(backing.writeMany(memory, Float64Array.of(0, 0, 512))), 'read-only'));
  await backing.close();
  rmSync(directory, { recursive: true });
});

test('a file cut short behind our back fails the read, it does not make up bytes', async (t) => {
  const { directory, disk } = workplace();
  const path = disk(SIZE);
  const backing = FileBacking.open(path);
  truncateSync(path, MIB);
  await t.throwsAsync(backing.read(MIB - 512, Buffer.alloc(1024)), { code: 'device-failed' });
  await backing.close();
  rmSync(directory, { recursive: true });
});

const loop = loopDevice();
testUnless(loop === undefined ? 'no loop device can be made' : undefined)(
  'a block device is opened exclusively, sized and zeroed in the kernel',
  async (t) => {
    const device = loop!;
    const backing = FileBacking.open(device.path);
    t.is(backing.size, SIZE);
    t.throws(() => FileBacking.open(device.path), { code: 'target-in-use' });
    await backing.write(4096, Buffer.alloc(8192, 7));
    await backing.zero(8192, 4096, true);
    const found = Buffer.alloc(SIZE);
    await backing.read(0, found);
    const expected = Buffer.alloc(SIZE);
    expected.fill(7, 4096, 8192);
    t.true(found.equals(expected));
    await backing.flush();
    await backing.close();
    device.remove();
  },
);

test('an upstream server killed under a group and started again: the guest sees no error, nothing is lost', async (t) => {
  const bench = new GroupBench();
  const upstream = new Upstream(bench.directory, bench.disk('up.raw', SIZE));
  await upstream.start();
  const group = await bench.open(
    bench.options([{ name: 'a', backing: await openBacking(upstream.uri) }], { flushAgeMs: 1, flushBytes: 256 * 1024 }),
  );
  const client = new HandClient(group.exports('local')[0]!);
  const model = new ModelDisk(SIZE);
  const random = randomSource(21);
  for (let round = 1; round <= 150; round++) {
    const requests = Array.from({ length: 8 }, () => randomRequest(random, SIZE));
    for (const request of requests) model.apply(request);
    for (const answer of await client.all(requests)) t.is(answer, 'ok');
    bench.marks.advanceAddress('shipped', bench.marks.address('durable'));
    if (round % 50 === 25) await upstream.kill();
    if (round % 50 === 35) {
      const reading = client.read(0, SIZE);
      await upstream.start();
      t.true((await reading).equals(model.bytes), 'a read waits for the server and is right');
    }
  }
  await drained();
  t.true(readFileSync(upstream.path).equals(model.bytes));
  client.client.detach();
  await group.detach('a');
  await group.close();
  await upstream.kill();
  bench.remove();

  /** A drain that meets the failure just before it is told so, and is asked for again. */
  async function drained(): Promise<void> {
    for (;;) {
      try {
        await group.drain();
        return;
      } catch (error) {
        if (!hasCode(error, 'device-gone')) throw error;
      }
    }
  }
});

test('after a lost connection a flush says once that writes may be gone, and reads fail when nobody waits', async (t) => {
  const { directory, disk } = workplace();
  const upstream = new Upstream(directory, disk(SIZE));
  await upstream.start();
  const backing = (await openBacking(upstream.uri, { waitMs: 20_000 })) as NbdBacking;
  const impatient = await openBacking(upstream.uri, { waitMs: 0, readOnly: true });
  await backing.write(0, Buffer.alloc(4096, 1));
  await upstream.kill();
  await t.throwsAsync(impatient.read(0, Buffer.alloc(512)), { code: 'device-gone' });
  await upstream.start();
  const found = Buffer.alloc(4096);
  await backing.read(0, found);
  await t.throwsAsync(backing.flush(), { code: 'device-gone' });
  await backing.write(0, Buffer.alloc(4096, 2));
  await backing.flush();
  // nothing was unflushed this time: the loss of the connection concerns nobody
  await upstream.kill();
  await upstream.start();
  await backing.read(0, found);
  await backing.flush();
  t.true(found.equals(Buffer.alloc(4096, 2)));
  await t.throwsAsync(impatient.write(0, Buffer.alloc(512)), { code: 'read-only' });
  // another disk under the same name is not taken for the first
  await upstream.kill();
  truncateSync(upstream.path, 2 * SIZE);
  await upstream.start();
  await t.throwsAsync(backing.read(0, found), { code: 'backing-changed' });
  await backing.close();
  await impatient.close();
  await upstream.kill();
  rmSync(directory, { recursive: true });
});

function loopDevice(): { path: string; remove: () => void } | undefined {
  const { directory, disk } = workplace();
  try {
    const path = execFileSync('losetup', ['-f', '--show', disk(SIZE)], { stdio: ['ignore', 'pipe', 'ignore'] });
    const device = path.toString().trim();
    // a container may make the device without letting anybody open it
    closeSync(openSync(device, 'r'));
    return {
      path: device,
      remove: () => {
        execFileSync('losetup', ['-d', device]);
        rmSync(directory, { recursive: true });
      },
    };
  } catch {
    rmSync(directory, { recursive: true });
    return undefined;
  }
}
