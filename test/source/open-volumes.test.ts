import { mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { openVolumes } from '../../daemon/source/open-volumes.ts';

const MIB = 1024 * 1024;
/** More than a file can have. */
const TOO_LARGE = 2 ** 60;

// The file had its name before its size: every later start refused it as a disk that had been resized to 0 bytes.
test('the file of a new disk that was not made to its end is made by the next start; one that exists stays as it is', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'tidemark-volumes-'));
  const at = (name: string, size: number) => ({
    name,
    backing: join(directory, `${name}.raw`),
    size,
    start: 'empty' as const,
  });
  await t.throwsAsync(openVolumes([at('a', TOO_LARGE)]), { code: 'device-failed' });
  const made = await openVolumes([at('a', MIB)]);
  t.is(made[0]?.backing.size, MIB);
  for (const { backing } of made) await backing.close();
  t.deepEqual(readdirSync(directory), ['a.raw']);

  writeFileSync(join(directory, 'b.raw'), Buffer.alloc(512, 7));
  const found = await openVolumes([at('b', MIB)]);
  t.is(found[0]?.backing.size, 512);
  for (const { backing } of found) await backing.close();
  t.is(statSync(join(directory, 'b.raw')).size, 512);
  rmSync(directory, { recursive: true });
});
