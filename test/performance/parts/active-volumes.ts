import fs from 'node:fs';
import path from 'node:path';
import { run } from '../../servers/child.ts';
import { Site } from '../../servers/site.ts';
import { type PartRun, Values } from './part.ts';

const VOLUMES = 16;
const VOLUME_BYTES = 256 * 1024 ** 2;

/** All volumes of one group written to at once, a client each, 4 KiB random writes at QD8. */
export const activeVolumes: PartRun = async ({ directory, quick, repetitions }) => {
  const values = new Values();
  const names = Array.from({ length: VOLUMES }, (_, index) => `disk${index}`);
  const site = new Site(path.join(directory, 'site'), {
    volumes: names.map((name) => ({ name, sizeBytes: VOLUME_BYTES })),
    journalBudget: '4GiB',
    journalFileSize: '64MiB',
  });
  fs.mkdirSync(site.directory);
  const common = ['--ioengine=nbd', '--rw=randwrite', '--bs=4k', '--iodepth=8', '--norandommap', '--randrepeat=0'];
  const jobs = names.flatMap((name) => [`--name=${name}`, `--uri=${site.exportUri(name)}`]);
  try {
    await site.start();
    for (let repetition = 0; repetition < repetitions; repetition++) {
      const text = await run('fio', [
        '--output-format=json',
        '--time_based',
        `--runtime=${quick ? 4 : 10}`,
        `--size=${VOLUME_BYTES}`,
        '--refill_buffers',
        '--buffer_compress_percentage=50',
        ...common,
        ...jobs,
      ]);
      const report = JSON.parse(text.slice(text.indexOf('{'))) as { jobs: { write: { iops: number } }[] };
      const rates = report.jobs.map((job) => job.write.iops);
      const sum = rates.reduce((total, rate) => total + rate, 0);
      values.add('all together', sum);
      values.add('slowest / mean', (Math.min(...rates) * rates.length) / sum);
    }
  } finally {
    await site.stop();
  }
  return values.all;
};
