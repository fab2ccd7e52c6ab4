import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { replay } from '../../cli/commands/journal-replay.ts';
import { VolumeRegistry } from '../../daemon/volume/volume-registry.ts';
import { realHost } from '../../journal/host/real-host.ts';
import { Journal } from '../../journal/journal.ts';

test('a dry run of a replay refuses the volume that the replay would refuse', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'tidemark-offline-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  const fileBytes = 1024 * 1024;
  const options = { directory, groupId: 'ab'.repeat(16), groupName: 'shop', fileBytes, budgetBytes: 4 * fileBytes };
  const journal = await Journal.open(realHost(), { ...options, syncIntervalMs: 25 });
  await journal.begin();
  await journal.close();
  const registry = VolumeRegistry.load(realHost(), options);
  registry.add('root', 4096, undefined);
  await registry.save();
  const disk = join(directory, 'no-disk-yet');
  for (const dryRun of [true, false]) {
    await t.throwsAsync(replay(directory, 'toor', disk, dryRun), { code: 'not-found', message: /toor|no-disk-yet/ });
  }
  t.like(await replay(directory, 'root', disk, true), { dryRun: true, volume: 'root', writtenBytes: null });
});
