import { crc32c } from '@node-rs/crc32';
import test from 'ava';
import { BaseImage } from '../../replica/base/base-image.ts';
import { readWhole, replaceFile } from '../../replica/store/file-io.ts';
import { GROUP } from './support/history.ts';
import { type MemoryHost, memoryHost } from './support/memory-host.ts';

const PLACE = { directory: '/base', groupId: GROUP };

async function written(host: MemoryHost): Promise<Buffer> {
  const base = await BaseImage.open(host, PLACE, 1);
  await base.write(3 * 65_536, Buffer.alloc(4096, 7));
  await base.sync();
  await base.close();
  return (await readWhole(host.disk, '/base/1.map'))!;
}

test('the map of a base is refused when it is of another group, and read when it names none', async (t) => {
  const host = memoryHost(1);
  const map = await written(host);
  const other = { ...PLACE, groupId: 'cd'.repeat(16) };
  await t.throwsAsync(BaseImage.open(host, other, 1), {
    code: 'journal-foreign',
    message: /1\.map belongs to group abab/,
  });
  const unnamed = Buffer.concat([map.subarray(0, 16), map.subarray(32)]);
  unnamed.write('TBM1', 0);
  unnamed.writeUInt32LE(crc32c(unnamed.subarray(8)), 4);
  await replaceFile(host.disk, '/base', '1.map', unnamed);
  const base = await BaseImage.open(host, other, 1);
  t.deepEqual(
    [2, 3, 4].map((unit) => base.mayHoldData(unit * 65_536, 4096)),
    [false, true, false],
  );
  await base.write(0, Buffer.alloc(4096, 1));
  await base.sync();
  await base.close();
  await t.throwsAsync(BaseImage.open(host, PLACE, 1), { code: 'journal-foreign', message: /group cdcd/ });
});
