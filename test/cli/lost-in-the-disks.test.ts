import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import test from 'ava';
import type {
  AlarmsReply,
  ReplicaStatusReply,
  SourceStatusReply,
  ViewReply,
} from '../../daemon/control/control-api.ts';
import { NbdClient } from '../../daemon/nbd/client.ts';
import { parseNbdUri } from '../../daemon/nbd/nbd-uri.ts';
import { realHost } from '../../journal/host/real-host.ts';
import { listBatches } from '../../journal/journal-list.ts';
import { attempt } from '../servers/child.ts';
import { Site } from '../servers/site.ts';
import { cliMain } from '../servers/tidemark-process.ts';

/* Records that rot before the disks had them: the guests' own data is lost, and a restore is the way on. */

const DISK_BYTES = 16 * 1024 * 1024;
const BLOCK_BYTES = 4096;

async function until(what: string, holds: () => Promise<boolean>): Promise<void> {
  const end = performance.now() + 90_000;
  while (!(await holds())) {
    if (performance.now() > end) throw new Error(`${what}: not in time`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

async function write(uri: string, model: Buffer, base: number, count: number): Promise<void> {
  const disk = await NbdClient.connect(parseNbdUri(uri));
  for (let number = base; number < base + count; number++) {
    const offset = (number % (DISK_BYTES / BLOCK_BYTES)) * BLOCK_BYTES;
    const block = Buffer.alloc(BLOCK_BYTES, number % 251);
    await disk.write(offset, block);
    block.copy(model, offset);
  }
  await disk.flush();
  await disk.close();
}

async function contentOf(uri: string): Promise<Buffer> {
  const disk = await NbdClient.connect(parseNbdUri(uri));
  const bytes = Buffer.alloc(disk.size);
  for (let offset = 0; offset < disk.size; offset += 1024 * 1024) {
    await disk.read(offset, bytes.subarray(offset, offset + 1024 * 1024));
  }
  await disk.close();
  return bytes;
}

test('records that the disks lack and nobody has: the source says so and serves nothing, and a restore protected as a new group is the way on', async (t) => {
  t.timeout(300_000);
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'tidemark-lost-disk-'));
  const site = new Site(directory, { volumes: [{ name: 'root', sizeBytes: DISK_BYTES }] });
  const journal = path.join(directory, 'source/shop');
  const model = Buffer.alloc(DISK_BYTES);
  const sourceGroup = async (name: string) => {
    const { groups } = JSON.parse(await site.source.command('status', '-o', 'json')) as SourceStatusReply;
    return groups.find((group) => group.name === name);
  };
  const replicaGroup = async (name: string) => {
    const { groups } = JSON.parse(await site.replica.command('status', '-o', 'json')) as ReplicaStatusReply;
    return groups.find((group) => group.name === name);
  };
  const mounted = async (group: string, at: string): Promise<Buffer> => {
    const view = JSON.parse(await site.replica.command('mount', group, '--at', at, '-o', 'json')) as ViewReply;
    const bytes = await contentOf(view.exports[0]?.uri ?? '');
    await site.replica.command('unmount', group, view.name);
    return bytes;
  };
  try {
    await site.start();
    await write(site.exportUri('root'), model, 0, 200);
    const good = await site.bookmark('good');
    await site.waitForReplica(good.lsn);
    await until('all of it is written out', async () => {
      return ((await site.sourceGroup()).head?.checkpointLsn ?? 0) >= good.lsn;
    });
    const kept = Buffer.from(model);
    await site.replica.stop();
    const heldLsn = (await site.sourceGroup()).replicas[0]?.durableLsn ?? 0;
    await write(site.exportUri('root'), model, 300, 100);
    await site.source.kill();
    const lost = heldLsn + 60;
    for (const batch of listBatches(realHost(), journal)) {
      if ('reason' in batch || batch.firstLsn > lost || batch.lastLsn < lost) continue;
      const file = path.join(journal, `journal-${'0'.repeat(16)}.tmj`);
      const bytes = fs.readFileSync(file);
      bytes.writeUInt8(bytes.readUInt8(batch.address + 20) ^ 1, batch.address + 20);
      fs.writeFileSync(file, bytes);
    }
    await site.replica.start();
    await site.source.start();
    await until('it says what is missing', async () =>
      /the disks need records/.test((await sourceGroup('shop'))?.reason ?? ''),
    );
    const alarms = JSON.parse(await site.source.command('alarms', '-o', 'json')) as AlarmsReply;
    t.true(alarms.alarms.some(({ code }) => code === 'journal-damaged'));
    const refused = await site.source.attempt('give-up', 'shop', '--reason', 'Ada: try');
    t.is(refused.code, 4, refused.stderr);
    t.regex(refused.stderr, /the disks need records/);
    await t.throwsAsync(NbdClient.connect(parseNbdUri(site.exportUri('root'))));
    const explained = await attempt(process.execPath, [cliMain(), 'journal', 'damage', journal]);
    t.regex(explained.stdout, /LACK these records/);
    t.regex(explained.stdout, /tidemark restore every volume from LSN \d+/);
    t.log(explained.stdout);

    // the way on, as it is said there
    await site.source.stop();
    const point = /from LSN (\d+)/.exec(explained.stdout)?.[1] ?? '';
    const restored = path.join(directory, 'restored.raw');
    await site.replica.command('restore', 'shop', '--volume', 'root', '--at', point, '--to', restored);
    const disk = fs.readFileSync(restored);
    t.true(Number(point) >= good.lsn);
    t.true(disk.equals(kept), 'everything up to the newest point of the replica');
    const again = (text: string, listen: string): string => {
      const from = text.indexOf('  - name: shop\n');
      const group = text
        .slice(from)
        .replace('name: shop', 'name: shop-2')
        .replace(/(directory: .*)\/shop/, '$1/shop-2')
        .replace(/(backing: ).*/, `$1${restored}`)
        .replace('start: empty', 'start: seed')
        .replace('nbd.sock', 'nbd-2.sock')
        .replace('views.sock', 'views-2.sock')
        .replace(/(listen|connect): 127.*/, `$1: ${listen}`);
      return group;
    };
    const { source, replica } = site;
    await replica.stop();
    const old = fs.readFileSync(replica.configFile, 'utf8');
    fs.writeFileSync(replica.configFile, old + again(old, '127.0.0.1:0'));
    await replica.start();
    const listen = (await replicaGroup('shop-2'))?.listen ?? '';
    await replica.stop();
    fs.writeFileSync(replica.configFile, old + again(old, listen));
    await replica.start();
    const before = fs.readFileSync(source.configFile, 'utf8');
    fs.writeFileSync(source.configFile, before.slice(0, before.indexOf('  - name: shop\n')) + again(before, listen));
    await source.start();
    await until('the new group is seeded', async () => (await sourceGroup('shop-2'))?.state === 'protecting');
    const uri = (await sourceGroup('shop-2'))?.volumes[0]?.uri ?? '';
    const now = Buffer.from(kept);
    await write(uri, now, 600, 20);
    const head = (await sourceGroup('shop-2'))?.head;
    const wanted = (head?.durableLsn ?? 0) + (head?.unsyncedRecords ?? 0);
    await until('the replica follows', async () => ((await replicaGroup('shop-2'))?.head?.lsn ?? 0) >= wanted);
    t.true((await mounted('shop-2', 'latest')).equals(now), 'the new group');
    t.true((await mounted('shop', 'good')).equals(kept), 'the old history under the old name');
  } catch (error) {
    t.log(site.source.child.output.slice(-4000));
    t.log(site.replica.child.output.slice(-4000));
    throw error;
  } finally {
    await site.stop();
    fs.rmSync(directory, { recursive: true, force: true });
  }
});
