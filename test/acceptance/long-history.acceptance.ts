import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import test from 'ava';
import { NbdClient } from '../../daemon/nbd/client.ts';
import { parseNbdUri } from '../../daemon/nbd/nbd-uri.ts';
import { residentMib } from '../performance/process-usage.ts';
import { run } from '../servers/child.ts';
import { Site } from '../servers/site.ts';
import { drawPositions } from './points.ts';

const GIB = 1024 ** 3;
const WRITES = Number(process.env['TIDEMARK_HISTORY_WRITES'] ?? 2_000_000);

test('a view in a journal of 2 million 4 KiB writes: first byte, full read, memory', async (t) => {
  t.timeout(30 * 60_000);
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'tidemark-history-'));
  const site = new Site(directory, {
    volumes: [{ name: 'root', sizeBytes: 2 * GIB }],
    journalBudget: '4GiB',
    journalFileSize: '64MiB',
  });
  try {
    await site.start();
    const began = performance.now();
    await run('fio', [
      '--name=history',
      '--ioengine=nbd',
      `--uri=${site.exportUri('root')}`,
      '--rw=randwrite',
      '--bs=4k',
      '--size=2g',
      `--io_size=${WRITES * 4096}`,
      '--iodepth=32',
      '--norandommap',
      '--randrepeat=0',
      '--refill_buffers',
      '--buffer_compress_percentage=50',
    ]);
    const head = await site.headLsn();
    t.log(`${WRITES} writes in ${((performance.now() - began) / 1000).toFixed(1)} s, head ${head}`);
    await site.waitForReplica(head, 10 * 60_000);
    t.log(
      `replica holds them after ${((performance.now() - began) / 1000).toFixed(1)} s; RSS ${residentMib(site.replica.pid).toFixed(0)} MiB`,
    );
    const group = await site.replicaGroup();
    for (const [index, lsn] of drawPositions(group.floor?.lsn ?? 1, head, 3).entries()) {
      const mounting = performance.now();
      const view = await site.mount(String(lsn));
      const mounted = performance.now();
      const disk = await NbdClient.connect(parseNbdUri(view.uri('root')));
      const block = Buffer.alloc(4096);
      await disk.read(Math.floor(Math.random() * 524_288) * 4096, block);
      const firstByte = performance.now();
      t.log(
        `LSN ${lsn}: mount command ${(mounted - mounting).toFixed(0)} ms, then the first 4 KiB ${(firstByte - mounted).toFixed(1)} ms`,
      );
      if (index === 1) {
        const target = path.join(directory, 'full.raw');
        await run('nbdcopy', [view.uri('root'), target]);
        fs.rmSync(target);
        const seconds = ((performance.now() - firstByte) / 1000).toFixed(1);
        t.log(`all of it (2 GiB) read in ${seconds} s, replica RSS ${residentMib(site.replica.pid).toFixed(0)} MiB`);
      }
      await disk.close();
      await site.unmount(view);
    }
    t.true(residentMib(site.replica.pid) < 1024);
  } finally {
    await site.stop();
    fs.rmSync(directory, { recursive: true, force: true });
  }
});
