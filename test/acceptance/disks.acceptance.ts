import { randomFillSync } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import test from 'ava';
import { NbdClient } from '../../daemon/nbd/client.ts';
import { parseNbdUri } from '../../daemon/nbd/nbd-uri.ts';
import { run } from '../servers/child.ts';
import { Site } from '../servers/site.ts';
import { copyPoint, digestOfFile, drawPositions } from './points.ts';

const GIB = 1024 ** 3;
const MIB = 1024 ** 2;

function temporaryDirectory(name: string): string {
  return fs.mkdtempSync(path.join(os.tmpdir(), `tidemark-${name}-`));
}

/** A file of this size, half of it random bytes, a quarter holes. */
function makeImage(file: string, bytes: number): void {
  const descriptor = fs.openSync(file, 'w');
  const block = Buffer.alloc(MIB, 'tidemark ');
  for (let offset = 0; offset < bytes; offset += MIB) {
    const kind = (offset / MIB) % 4;
    if (kind === 3) continue;
    if (kind < 2) randomFillSync(block);
    else block.fill('tidemark ');
    fs.writeSync(descriptor, block, 0, MIB, offset);
  }
  fs.ftruncateSync(descriptor, bytes);
  fs.closeSync(descriptor);
}

test.serial('fio --verify on four connections, nbdcopy and qemu-img round trips of 1 GiB', async (t) => {
  t.timeout(15 * 60_000);
  const directory = temporaryDirectory('disks');
  const site = new Site(directory, { volumes: [{ name: 'root', sizeBytes: GIB }], journalBudget: '6GiB' });
  try {
    await site.start();
    const uri = site.exportUri('root');
    for (const size of ['4k', '64k', '1m', '32m']) {
      const output = await run('fio', [
        '--name=verify',
        '--ioengine=nbd',
        `--uri=${uri}`,
        '--rw=randwrite',
        `--bs=${size}`,
        '--size=64m',
        '--numjobs=4',
        '--offset_increment=256m',
        '--iodepth=8',
        '--verify=crc32c',
        '--verify_state_save=0',
        '--verify_fatal=1',
        '--do_verify=1',
        '--group_reporting',
      ]);
      t.regex(output, /err= 0/, output);
      t.log(`fio verify=crc32c, bs ${size}, 4 connections: ok`);
    }
    const image = path.join(directory, 'image.raw');
    const back = path.join(directory, 'back.raw');
    makeImage(image, GIB);
    await run('nbdcopy', ['--connections=4', image, uri]);
    await run('nbdcopy', ['--connections=4', uri, back]);
    t.is(digestOfFile(back), digestOfFile(image), 'nbdcopy');
    makeImage(image, GIB);
    await run('qemu-img', ['convert', '-n', '-f', 'raw', '-O', 'raw', image, uri]);
    await run('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', image, uri]);
    const bookmark = await site.bookmark('copied');
    await site.waitForReplica(bookmark.lsn, 120_000);
    const { file } = await copyPoint(site, 'copied', 'root');
    t.is(digestOfFile(file), digestOfFile(image), 'the replica');
  } finally {
    await site.stop();
    fs.rmSync(directory, { recursive: true, force: true });
  }
});

test.serial('two volumes of a group: every view is a consistent cut of both', async (t) => {
  t.timeout(10 * 60_000);
  const directory = temporaryDirectory('cut');
  const site = new Site(directory, {
    volumes: [
      { name: 'log', sizeBytes: 64 * MIB },
      { name: 'data', sizeBytes: 64 * MIB },
    ],
  });
  try {
    await site.start();
    const log = await NbdClient.connect(parseNbdUri(site.exportUri('log')));
    const data = await NbdClient.connect(parseNbdUri(site.exportUri('data')));
    const block = Buffer.alloc(4096);
    // Step n is written to the log first and to the data only when the log has answered.
    const first = (await site.headLsn()) + 2;
    for (let step = 1; step <= 4000; step++) {
      block.fill(0);
      block.writeUInt32LE(step, 0);
      await log.write((step % 1000) * 4096, block);
      await data.write((step % 700) * 4096, block);
    }
    await log.flush();
    await log.close();
    await data.close();
    const last = await site.headLsn();
    await site.waitForReplica(last);
    const newest = (file: string): number => {
      const content = fs.readFileSync(file);
      let highest = 0;
      for (let offset = 0; offset < content.length; offset += 4096)
        highest = Math.max(highest, content.readUInt32LE(offset));
      fs.rmSync(file);
      return highest;
    };
    for (const lsn of drawPositions(first, last, 60)) {
      const logged = newest((await copyPoint(site, String(lsn), 'log')).file);
      const applied = newest((await copyPoint(site, String(lsn), 'data')).file);
      t.true(logged === applied || logged === applied + 1, `LSN ${lsn}: log stands at ${logged}, data at ${applied}`);
    }
  } finally {
    await site.stop();
    fs.rmSync(directory, { recursive: true, force: true });
  }
});
