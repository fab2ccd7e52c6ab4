import fs from 'node:fs';
import path from 'node:path';
import { NbdClient } from '../../../daemon/nbd/client.ts';
import { parseNbdUri } from '../../../daemon/nbd/nbd-uri.ts';
import { TidemarkError } from '../../../journal/base/errors.ts';
import { Child, run } from '../../servers/child.ts';
import { Site } from '../../servers/site.ts';
import { cliMain } from '../../servers/tidemark-process.ts';
import { waitForSocket } from '../servers.ts';
import { type PartRun, Values } from './part.ts';

const GIB = 1024 ** 3;
const SERVED_MS = 120_000;

async function firstWrite(uri: string): Promise<void> {
  const end = performance.now() + SERVED_MS;
  for (;;) {
    try {
      const disk = await NbdClient.connect(parseNbdUri(uri));
      await disk.write(0, Buffer.alloc(4096, 7));
      await disk.close();
      return;
    } catch (error) {
      if (!(error instanceof TidemarkError) || performance.now() > end) throw error;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}

/**
 * The backing takes half a minute for every write, so that what the guest writes stays in the journal; the source is
 * killed, started again, and timed from its start to the first write that it answers.
 */
export const recovery: PartRun = async ({ directory, quick, repetitions }) => {
  const values = new Values();
  const bytes = quick ? GIB / 2 : 4 * GIB;
  for (let repetition = 0; repetition < repetitions; repetition++) {
    const place = path.join(directory, String(repetition));
    fs.mkdirSync(path.join(place, 'site'), { recursive: true });
    const [file, socket] = [path.join(place, 'slow.raw'), path.join(place, 'slow.sock')];
    fs.closeSync(fs.openSync(file, 'w'));
    fs.truncateSync(file, 4 * GIB);
    const slow = new Child('nbdkit', 'nbdkit', ['-f', '-U', socket, '--filter=delay', 'file', file, 'wdelay=30']);
    await waitForSocket(socket, slow);
    const site = new Site(path.join(place, 'site'), {
      volumes: [{ name: 'disk0', sizeBytes: 4 * GIB, backing: `nbd+unix:///?socket=${socket}` }],
      journalBudget: '8GiB',
      journalFileSize: '64MiB',
    });
    let again: Child | undefined;
    try {
      await site.start();
      await run('fio', [
        '--name=fill',
        '--ioengine=nbd',
        `--uri=${site.exportUri('disk0')}`,
        '--rw=randwrite',
        '--bs=64k',
        '--iodepth=16',
        '--size=4g',
        `--io_size=${bytes}`,
        '--norandommap',
        '--randrepeat=0',
        '--end_fsync=1',
        '--refill_buffers',
        '--buffer_compress_percentage=50',
      ]);
      await site.source.kill();
      // it was sparse: what it takes on the disk was written out
      values.add('in the journal only', (bytes - fs.statSync(file).blocks * 512) / GIB);
      const began = performance.now();
      again = new Child('source', process.execPath, [cliMain(), 'source', '--config', site.source.configFile]);
      await firstWrite(site.exportUri('disk0'));
      values.add('from the start to the first write answered', (performance.now() - began) / 1000);
    } finally {
      await again?.stop('SIGKILL');
      await site.source.kill();
      await site.stop();
      await slow.stop('SIGKILL');
      fs.rmSync(place, { recursive: true, force: true });
    }
  }
  return values.all;
};
