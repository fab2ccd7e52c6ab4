import fs from 'node:fs';
import path from 'node:path';
import { run } from '../../servers/child.ts';
import { Site } from '../../servers/site.ts';
import { residentMib } from '../process-usage.ts';
import { type PartRun, Values } from './part.ts';

const VOLUME_BYTES = 2 * 1024 ** 3;
const MEASURED_WRITES = 100_000;

async function write(uri: string, count: number): Promise<number> {
  const text = await run('fio', [
    '--name=length',
    '--ioengine=nbd',
    `--uri=${uri}`,
    '--rw=randwrite',
    '--bs=4k',
    '--iodepth=32',
    `--size=${VOLUME_BYTES}`,
    `--io_size=${count * 4096}`,
    '--norandommap',
    '--randrepeat=0',
    '--refill_buffers',
    '--buffer_compress_percentage=50',
    '--output-format=json',
  ]);
  const report = JSON.parse(text.slice(text.indexOf('{'))) as { jobs: { write: { iops: number } }[] };
  return report.jobs[0]?.write.iops ?? 0;
}

/** One group, written to until its history is long: what a write costs then, and the memory of both ends. */
export const length: PartRun = async ({ directory, quick }) => {
  const values = new Values();
  const site = new Site(path.join(directory, 'site'), {
    volumes: [{ name: 'disk0', sizeBytes: VOLUME_BYTES }],
    journalBudget: '4GiB',
    journalFileSize: '64MiB',
  });
  fs.mkdirSync(site.directory);
  const lengths: readonly (readonly [string, number])[] = quick
    ? [
        ['100 thousand', 100_000],
        ['a million', 1_000_000],
      ]
    : [
        ['100 thousand', 100_000],
        ['a million', 1_000_000],
        ['10 million', 10_000_000],
      ];
  try {
    await site.start();
    let written = 0;
    let first = 0;
    for (const [name, records] of lengths) {
      await write(site.exportUri('disk0'), records - written);
      await site.waitForReplica(await site.headLsn(), 600_000);
      const rate = await write(site.exportUri('disk0'), MEASURED_WRITES);
      written = records + MEASURED_WRITES;
      if (first === 0) first = rate;
      else values.add(`writes after ${name}, of those after 100 thousand`, rate / first);
      values.add(`source after ${name}`, residentMib(site.source.pid));
      values.add(`replica after ${name}`, residentMib(site.replica.pid));
    }
  } finally {
    await site.stop();
  }
  return values.all;
};
