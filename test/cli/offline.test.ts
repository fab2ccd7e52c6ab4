import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { explainDamage } from '../../cli/commands/journal-damage.ts';
import { replay } from '../../cli/commands/journal-replay.ts';
import { writeCheckpoint } from '../../daemon/volume/checkpoint.ts';
import { writeStateFile } from '../../daemon/volume/state-file.ts';
import { VolumeRegistry } from '../../daemon/volume/volume-registry.ts';
import { realHost } from '../../journal/host/real-host.ts';
import { Journal } from '../../journal/journal.ts';
import { RecordKind } from '../../journal/record.ts';
import { run } from '../servers/child.ts';
import { cliMain } from '../servers/tidemark-process.ts';

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

test('what is lost in a damaged journal is told with who holds it, what the disks have, and the way on', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'tidemark-damage-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  const host = realHost();
  const fileBytes = 1024 * 1024;
  const options = { directory, groupId: 'cd'.repeat(16), groupName: 'shop', fileBytes, budgetBytes: 4 * fileBytes };
  const journal = await Journal.open(host, { ...options, syncIntervalMs: 25 });
  await journal.begin();
  for (let index = 0; index < 40; index++) {
    const body = new Uint8Array(4096).fill(index + 1);
    journal.append(RecordKind.write, { volume: 1, sector: index * 8, sectors: 8, body });
    await journal.sync();
  }
  const victim = journal.addressOf(20);
  const { lastLsn } = journal;
  await journal.close();
  const registry = VolumeRegistry.load(host, options);
  registry.add('root', 4 * fileBytes, undefined);
  await registry.save();
  t.deepEqual(explainDamage(directory).damage, []);

  const path = join(directory, `journal-${'0'.repeat(16)}.tmj`);
  const bytes = readFileSync(path);
  bytes.writeUInt8(bytes.readUInt8(victim + 2000) ^ 4, victim + 2000);
  writeFileSync(path, bytes);
  const explained = async (writtenOutLsn: number, acknowledgedLsn: number) => {
    const reached = { address: journal.oldestAddress, lsn: writtenOutLsn };
    await writeCheckpoint(host, options, { checkpoint: reached, applied: reached });
    await writeStateFile(host, options, 'replicas.state', {
      replicas: [{ name: 'site-b', acknowledgedLsn, lostFromLsn: 0 }],
    });
    const report = explainDamage(directory);
    t.like(report, { volumes: ['root'], writtenOutLsn, replicas: [{ name: 'site-b', acknowledgedLsn }] });
    t.is(report.damage.length, 1);
    return report.damage[0]!;
  };
  const held = await explained(30, lastLsn);
  t.like(held, { fromLsn: 20, toLsn: 20, writtenOut: true, heldBy: ['site-b'] });
  t.true(held.afterTime !== null && held.beforeTime !== null);
  t.regex(held.wayOn[0] ?? '', /start the source while site-b/);
  const whole = await explained(30, 19);
  t.like(whole, { writtenOut: true, heldBy: [] });
  t.regex(whole.wayOn.join(' '), /disks are whole .* no point behind LSN 19 .*give-up .*seeded anew/);
  const lacking = await explained(10, 12);
  t.like(lacking, { writtenOut: false, heldBy: [] });
  t.regex(lacking.wayOn.join(' '), /must not be used .*restore every volume from LSN 12/);
  const shown = await run(process.execPath, [cliMain(), 'journal', 'damage', directory]);
  t.regex(shown, /LACK these records/);
  const json = JSON.parse(await run(process.execPath, [cliMain(), 'journal', 'damage', directory, '-o', 'json']));
  t.deepEqual(json, explainDamage(directory));
});
