import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import test from 'ava';
import type { AlarmsReply, GiveUpReply, PointsReply } from '../../daemon/control/control-api.ts';
import { NbdClient } from '../../daemon/nbd/client.ts';
import { parseNbdUri } from '../../daemon/nbd/nbd-uri.ts';
import { realHost } from '../../journal/host/real-host.ts';
import { listBatches } from '../../journal/journal-list.ts';
import { RecordKind } from '../../journal/record.ts';
import { Site } from '../servers/site.ts';

/* Records that rot in the journal before any replica had them, as an operator meets them: he gives them up. */

const DISK_BYTES = 16 * 1024 * 1024;
const BLOCK_BYTES = 4096;
const FILE_BYTES = 16 * 1024 * 1024;
const VOLUMES = ['root', 'data'] as const;
type Models = Record<(typeof VOLUMES)[number], Buffer>;

async function until(what: string, holds: () => Promise<boolean>): Promise<void> {
  const end = performance.now() + 90_000;
  while (!(await holds())) {
    if (performance.now() > end) throw new Error(`${what}: not in time`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** Blocks of bytes that do not shrink, in order, `base` apart from those of other calls. */
async function write(uri: string, model: Buffer, base: number, count: number): Promise<void> {
  const disk = await NbdClient.connect(parseNbdUri(uri));
  for (let number = base; number < base + count; number++) {
    const offset = (number % (DISK_BYTES / BLOCK_BYTES)) * BLOCK_BYTES;
    const block = Buffer.alloc(BLOCK_BYTES);
    for (let at = 0; at < BLOCK_BYTES; at++) block[at] = Math.imul(at + 1, (number * 2_654_435_761) | 1) >>> 17;
    await disk.write(offset, block);
    block.copy(model, offset);
  }
  await disk.flush();
  await disk.close();
}

async function trim(uri: string, model: Buffer, offset: number, length: number): Promise<void> {
  const disk = await NbdClient.connect(parseNbdUri(uri));
  await disk.trim(offset, length);
  await disk.flush();
  await disk.close();
  model.fill(0, offset, offset + length);
}

async function isEqual(uri: string, model: Buffer): Promise<boolean> {
  const disk = await NbdClient.connect(parseNbdUri(uri));
  try {
    const bytes = Buffer.alloc(disk.size);
    for (let offset = 0; offset < disk.size; offset += 1024 * 1024) {
      await disk.read(offset, bytes.subarray(offset, offset + 1024 * 1024));
    }
    return bytes.equals(model);
  } finally {
    await disk.close();
  }
}

/** Turns a bit in the header of the batch that holds this record, so that all of its records are lost. */
function rot(directory: string, lsn: number): void {
  for (const batch of listBatches(realHost(), directory)) {
    if ('reason' in batch || batch.lastLsn < lsn || batch.firstLsn > lsn) continue;
    const sequence = Math.floor(batch.address / FILE_BYTES);
    const file = path.join(directory, `journal-${sequence.toString(16).padStart(16, '0')}.tmj`);
    const descriptor = fs.openSync(file, 'r+');
    const byte = Buffer.alloc(1);
    const at = (batch.address % FILE_BYTES) + 20;
    fs.readSync(descriptor, byte, 0, 1, at);
    byte.writeUInt8(byte.readUInt8(0) ^ 0x10);
    fs.writeSync(descriptor, byte, 0, 1, at);
    fs.closeSync(descriptor);
    return;
  }
  throw new Error(`record ${lsn} is not in the journal`);
}

/** LSNs of the records of a kind behind `afterLsn`. */
function lsnsOf(directory: string, kind: RecordKind, afterLsn: number): number[] {
  const found: number[] = [];
  for (const batch of listBatches(realHost(), directory)) {
    if ('reason' in batch) continue;
    for (const record of batch) if (record.kind === kind && record.lsn > afterLsn) found.push(record.lsn);
  }
  return found;
}

const copyOf = ({ root, data }: Models): Models => ({ root: Buffer.from(root), data: Buffer.from(data) });

test('records that rotted before anybody had them: given up by an operator, a gap is on the timeline, and history is whole again behind a new seed', async (t) => {
  t.timeout(300_000);
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'tidemark-give-up-'));
  const site = new Site(directory, { volumes: VOLUMES.map((name) => ({ name, sizeBytes: DISK_BYTES })) });
  const journal = path.join(directory, 'source/shop');
  const models: Models = { root: Buffer.alloc(DISK_BYTES), data: Buffer.alloc(DISK_BYTES) };
  const equalAt = async (at: string, expected: Models): Promise<boolean> => {
    const view = await site.mount(at);
    const equal = await Promise.all(VOLUMES.map((name) => isEqual(view.uri(name), expected[name])));
    await site.unmount(view);
    return equal.every(Boolean);
  };
  const giveUp = (...more: string[]) =>
    site.source.attempt('give-up', 'shop', '--reason', 'Ada: nobody has them', '-o', 'json', ...more);
  const alarms = async () =>
    (JSON.parse(await site.source.command('alarms', '-o', 'json')) as AlarmsReply).alarms.map(({ code }) => code);
  try {
    await site.start();
    const nothing = await giveUp('--dry-run');
    t.is(nothing.code, 4, nothing.stderr);
    t.regex(nothing.stderr, /nothing to give up/);

    await write(site.exportUri('root'), models.root, 0, 300);
    await write(site.exportUri('data'), models.data, 1000, 300);
    const good = await site.bookmark('good');
    const goodModels = copyOf(models);
    await site.waitForReplica(good.lsn);
    await site.replica.stop();

    // what the replica has is overwritten and trimmed in records that nobody but this journal holds
    await write(site.exportUri('root'), models.root, 8192, 100);
    await trim(site.exportUri('root'), models.root, 150 * BLOCK_BYTES, 100 * BLOCK_BYTES);
    await write(site.exportUri('data'), models.data, 1050, 50);
    const head = await site.headLsn();
    await until('all of it is written out', async () => {
      const group = await site.sourceGroup();
      return (group.head?.checkpointLsn ?? 0) >= head;
    });
    const [trimmed = 0] = lsnsOf(journal, RecordKind.trim, good.lsn);
    t.true(trimmed > good.lsn);
    rot(journal, trimmed);
    rot(journal, trimmed - 20);
    rot(journal, trimmed + 30);
    await site.replica.start();
    await until('the alarm stands', async () => (await alarms()).includes('journal-damaged'));
    await site.replica.stop();
    const away = await giveUp();
    t.is(away.code, 1, away.stderr);
    t.regex(away.stderr, /replica site-b may hold the records and is not connected/);
    await site.replica.start();
    await until('the replica is back', async () => (await site.sourceGroup()).replicas[0]?.durableLsn !== null);

    const held = (await site.replicaGroup()).head?.lsn ?? 0;
    t.true(held >= good.lsn && held < trimmed);
    let plan: GiveUpReply | undefined;
    await until('everybody can be asked', async () => {
      const planned = await giveUp('--dry-run');
      if (planned.code === 0) plan = JSON.parse(planned.stdout) as GiveUpReply;
      return plan !== undefined;
    });
    t.true(plan?.dryRun);
    t.is(plan?.lost.length, 3);
    t.true(plan?.lost.some(({ fromLsn, toLsn }) => fromLsn <= trimmed && toLsn >= trimmed));
    t.deepEqual(
      plan?.lost[0]?.answers.map(({ name }) => name),
      ['replica site-b'],
    );
    t.deepEqual(plan?.volumes, [...VOLUMES]);
    const first = Math.min(...(plan?.lost ?? []).map(({ fromLsn }) => fromLsn));
    await site.source.stop();
    await site.source.start();
    await until('the exports open', async () => (await site.sourceStatus()).daemon.ready);
    await until('a dry run changed nothing', async () => (await alarms()).includes('journal-damaged'));

    await until('it is given up', async () => (await giveUp()).code === 0);
    t.true((await alarms()).includes('journal-damaged'), 'until it is carried out');
    await site.source.stop();
    await site.source.start();
    await until('the volumes are seeded and the exports open', async () => (await site.sourceStatus()).daemon.ready);
    t.true((await site.sourceGroup()).notes.some((note) => /were given up.*Ada: nobody has them/.test(note)));
    const [seeded = 0] = lsnsOf(journal, RecordKind.seedEnd, good.lsn).slice(-1);
    await site.waitForReplica(seeded);
    t.false((await alarms()).includes('journal-damaged'));
    for (const name of VOLUMES) t.true(await isEqual(site.exportUri(name), models[name]), `the source's ${name}`);
    const seededModels = copyOf(models);

    await write(site.exportUri('root'), models.root, 12_000, 50);
    await trim(site.exportUri('data'), models.data, 1010 * BLOCK_BYTES, 20 * BLOCK_BYTES);
    await site.waitForReplica(await site.headLsn());

    t.true(await equalAt('good', goodModels), 'before the gap');
    for (const at of [first, first + 1, trimmed, trimmed + 40, seeded - 1]) {
      const refused = await site.replica.attempt('mount', 'shop', '--at', String(at));
      t.is(refused.code, 4, `${at}: ${refused.stderr}`);
      t.regex(refused.stderr, /is not consistent.*(gap|seeding)/);
    }
    t.true(
      await equalAt(String(first - 1), await modelAt(journal, first - 1, goodModels, good.lsn)),
      'the last before',
    );
    t.true(await equalAt(String(seeded), seededModels), 'where the seed ended');
    t.true(await equalAt('latest', models), 'now');
    const points = JSON.parse(await site.replica.command('points', 'shop', '-o', 'json')) as PointsReply;
    const gaps = points.events.filter(({ kind }) => kind === 'gap');
    t.true(
      gaps.some(({ text }) => text.includes('Ada: nobody has them')),
      JSON.stringify(gaps),
    );
    t.is((await site.sourceGroup()).state, 'protecting');

    // over a restart of either side
    await site.source.kill();
    await site.replica.kill();
    await site.replica.start();
    await site.source.start();
    await until('the exports open', async () => (await site.sourceStatus()).daemon.ready);
    await write(site.exportUri('data'), models.data, 3000, 10);
    await site.waitForReplica(await site.headLsn());
    t.true(await equalAt('latest', models), 'after restarts');
    t.true(await equalAt('good', goodModels), 'before the gap, after restarts');
  } catch (error) {
    t.log(site.source.child.output.slice(-6000));
    t.log(site.replica.child.output.slice(-4000));
    throw error;
  } finally {
    await site.stop();
    fs.rmSync(directory, { recursive: true, force: true });
  }
});

/** The models as the journal's own writes between two records make them. */
async function modelAt(directory: string, lsn: number, from: Models, afterLsn: number): Promise<Models> {
  const models = copyOf(from);
  for (const batch of listBatches(realHost(), directory)) {
    if ('reason' in batch) continue;
    for (const record of batch) {
      if (record.lsn <= afterLsn || record.lsn > lsn || record.kind !== RecordKind.write) continue;
      const model = models[VOLUMES[record.volume - 1] ?? 'root'];
      model.set(record.payload, record.sector * 512);
    }
  }
  return models;
}
