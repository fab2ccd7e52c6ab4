import fs from 'node:fs';
import path from 'node:path';
import { run } from '../../servers/child.ts';
import { historySite } from './history-site.ts';
import { type PartRun, Values } from './part.ts';

const MIB = 1024 ** 2;

async function seconds(work: () => Promise<unknown>): Promise<number> {
  const began = performance.now();
  await work();
  return (performance.now() - began) / 1000;
}

/** `tidemark restore` of a volume in the middle of its history, verified, and `qemu-img convert` of the same content. */
export const restore: PartRun = async ({ directory, quick, repetitions }) => {
  const values = new Values();
  const sizeBytes = (quick ? 512 : 4096) * MIB;
  const { site, middleLsn, overlay } = await historySite(directory, sizeBytes, true);
  const [ours, theirs] = [path.join(directory, 'ours.raw'), path.join(directory, 'theirs.raw')];
  const target = ['--at', String(middleLsn), '--to', ours, '--overwrite', '-o', 'json'];
  try {
    for (let repetition = 0; repetition < repetitions; repetition++) {
      fs.rmSync(ours, { force: true });
      fs.rmSync(theirs, { force: true });
      const restored = await seconds(() => site.replica.command('restore', site.group, ...target));
      // both end with the bytes on the disk
      const convert = ['convert', '-f', 'qcow2', '-O', 'raw', '-t', 'writeback', overlay, theirs];
      const converted = await seconds(() => run('qemu-img', convert));
      values.add('restored and verified', restored);
      values.add('qemu-img convert', converted);
      values.add('qemu-img convert / restore', converted / restored);
    }
    await run('cmp', [ours, theirs]);
  } finally {
    await site.stop();
  }
  return values.all;
};
