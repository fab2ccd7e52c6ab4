import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import test from 'ava';
import type { AlarmsReply, PointsReply, ReplicaStatusReply } from '../../daemon/control/control-api.ts';
import { NbdClient } from '../../daemon/nbd/client.ts';
import { parseNbdUri } from '../../daemon/nbd/nbd-uri.ts';
import { attempt } from '../servers/child.ts';
import { Site } from '../servers/site.ts';
import { cliMain, TidemarkProcess } from '../servers/tidemark-process.ts';

/* Bits that turn in the files of running daemons, as an operator meets them: named, alarmed, put back, and over. */

const DISK_BYTES = 16 * 1024 * 1024;
const BLOCK_BYTES = 4096;

async function until(what: string, holds: () => Promise<boolean>): Promise<void> {
  const end = performance.now() + 90_000;
  while (!(await holds())) {
    if (performance.now() > end) throw new Error(`${what}: not in time`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** Blocks of bytes that do not shrink; the model has what was acknowledged and flushed. */
async function write(uri: string, model: Buffer, from: number, count: number): Promise<void> {
  const disk = await NbdClient.connect(parseNbdUri(uri));
  for (let number = from; number < from + count; number++) {
    const offset = ((number * 7919) % (DISK_BYTES / BLOCK_BYTES)) * BLOCK_BYTES;
    const block = Buffer.alloc(BLOCK_BYTES);
    for (let at = 0; at < BLOCK_BYTES; at++) block[at] = Math.imul(at + 1, (number * 2_654_435_761) | 1) >>> 17;
    await disk.write(offset, block);
    block.copy(model, offset);
  }
  await disk.flush();
  await disk.close();
}

/** How a disk compares with the model: `equal`, `wrong`, or the error of the read. */
async function compare(uri: string, model: Buffer): Promise<string> {
  const disk = await NbdClient.connect(parseNbdUri(uri));
  try {
    const bytes = Buffer.alloc(disk.size);
    for (let offset = 0; offset < disk.size; offset += 1024 * 1024) {
      await disk.read(offset, bytes.subarray(offset, offset + 1024 * 1024));
    }
    return bytes.equals(model) ? 'equal' : 'wrong';
  } catch (error) {
    return (error as { code?: string }).code ?? String(error);
  } finally {
    await disk.close();
  }
}

function flipBit(file: string, at: number): void {
  const descriptor = fs.openSync(file, 'r+');
  const byte = Buffer.alloc(1);
  fs.readSync(descriptor, byte, 0, 1, at);
  byte.writeUInt8(byte.readUInt8(0) ^ 0x10);
  fs.writeSync(descriptor, byte, 0, 1, at);
  fs.closeSync(descriptor);
}

async function alarms(daemon: TidemarkProcess): Promise<string[]> {
  const reply = JSON.parse(await daemon.command('alarms', '-o', 'json')) as AlarmsReply;
  return reply.alarms.map(({ code }) => code);
}

test('a bit that turns in a journal or in history under running daemons is named, alarmed, put back, and over', async (t) => {
  t.timeout(300_000);
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'tidemark-damage-'));
  const site = new Site(directory, { volumes: [{ name: 'root', sizeBytes: DISK_BYTES }] });
  const late = new TidemarkProcess('replica', path.join(directory, 'late.yaml'), path.join(directory, 'late/c/c.sock'));
  try {
    await site.start();
    // a second replica is registered that comes only later: it makes the source read its journal again
    const lateConfig = (listen: string): string =>
      fs
        .readFileSync(site.replica.configFile, 'utf8')
        .replaceAll(path.join(directory, 'replica'), path.join(directory, 'late'))
        .replace('late/control/control.sock', 'late/c/c.sock')
        .replace('name: site-b', 'name: site-c')
        .replace(/listen: .*/, `listen: ${listen}`);
    fs.writeFileSync(late.configFile, lateConfig('127.0.0.1:0'));
    await late.start();
    const lateGroup = async () =>
      (JSON.parse(await late.command('status', '-o', 'json')) as ReplicaStatusReply).groups[0];
    const listen = (await lateGroup())?.listen ?? '';
    await late.stop();
    fs.writeFileSync(late.configFile, lateConfig(listen));
    await site.source.stop();
    const config = fs
      .readFileSync(site.source.configFile, 'utf8')
      .replace(
        /( +)- name: site-b\n +connect: .*\n/,
        (one) => one + one.replace('site-b', 'site-c').replace(/connect: .*/, `connect: ${listen}`),
      )
      .replace(/\n {4}replicas:\n {6}- name: site-b\n/, (one) => `${one}      - name: site-c\n`);
    fs.writeFileSync(site.source.configFile, config);
    await site.source.start();
    await until('the exports open', async () => (await site.sourceStatus()).daemon.ready);

    const model = Buffer.alloc(DISK_BYTES);
    await write(site.exportUri('root'), model, 0, 300);
    const good = await site.bookmark('good');
    const goodModel = Buffer.from(model);
    await site.waitForReplica(await site.headLsn());
    const segment = path.join(directory, 'replica/shop/segments/000000000001.seg');
    const goodEnd = fs.statSync(segment).size;
    await write(site.exportUri('root'), model, 300, 300);
    const head = await site.headLsn();
    await site.waitForReplica(head);
    await until('all of it is written out', async () => {
      const group = await site.sourceGroup();
      return (group.head?.checkpointLsn ?? 0) >= head;
    });

    // the source, while it runs
    const journal = path.join(directory, 'source/shop');
    flipBit(path.join(journal, `journal-${'0'.repeat(16)}.tmj`), 600_000);
    const audit = () => attempt(process.execPath, [cliMain(), 'journal', 'audit', journal]);
    t.is((await audit()).code, 1);
    await site.replica.stop();
    await late.start();
    await until('the alarm stands at the source', async () => (await alarms(site.source)).includes('journal-damaged'));
    await site.replica.start();
    await until('the late replica has everything', async () => ((await lateGroup())?.head?.lsn ?? 0) >= head);
    await until('the journal reads well', async () => (await audit()).code === 0);
    await until('no alarm stands', async () => !(await alarms(site.source)).includes('journal-damaged'));
    const view = JSON.parse(await late.command('mount', 'shop', '--at', 'latest', '-o', 'json')) as {
      exports: { uri: string }[];
    };
    t.is(await compare(view.exports[0]!.uri, model), 'equal');
    t.is(await compare(site.exportUri('root'), model), 'equal');

    // the replica, while nobody can give anything back, and then while the source runs
    await site.source.stop();
    flipBit(segment, Math.floor((goodEnd + fs.statSync(segment).size) / 2));
    const latest = await site.mount('latest');
    t.is(await compare(latest.uri('root'), model), 'device-failed');
    await site.unmount(latest);
    await until('the alarm stands', async () => (await alarms(site.replica)).includes('history-damaged'));
    const points = JSON.parse(await site.replica.command('points', 'shop', '-o', 'json')) as PointsReply;
    t.true(points.events.some(({ kind }) => kind === 'damaged'));
    const elsewhere = await site.mount(String(good.lsn));
    t.is(await compare(elsewhere.uri('root'), goodModel), 'equal');
    await site.source.start();
    await until('the damage is put back', async () => !(await alarms(site.replica)).includes('history-damaged'));
    const again = await site.mount(String(head));
    t.is(await compare(again.uri('root'), model), 'equal');
  } catch (error) {
    t.log(site.source.child.output.slice(-4000));
    t.log(site.replica.child.output.slice(-4000));
    throw error;
  } finally {
    await late.stopIfRunning();
    await site.stop();
    fs.rmSync(directory, { recursive: true, force: true });
  }
});
