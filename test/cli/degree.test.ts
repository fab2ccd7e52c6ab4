import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { stripVTControlCharacters } from 'node:util';
import test from 'ava';
import type { ActionReply, AlarmsReply, PointsReply } from '../../daemon/control/control-api.ts';
import { NbdClient } from '../../daemon/nbd/client.ts';
import { parseNbdUri } from '../../daemon/nbd/nbd-uri.ts';
import { Site } from '../servers/site.ts';

/* A group whose flushes wait for the replica, as an operator sees it: in sync, without the replica, and changed. */

const BLOCK_BYTES = 4096;

async function until(what: string, holds: () => Promise<boolean>): Promise<void> {
  const end = performance.now() + 90_000;
  while (!(await holds())) {
    if (performance.now() > end) throw new Error(`${what}: not in time`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

test('ack replica: a flush is at the replica, a replica that dies is alarmed and named, and an operator changes it while it runs', async (t) => {
  t.timeout(300_000);
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'tidemark-degree-'));
  const sourceExtra = '    ack: replica\n    onStall: degrade\n    stallAfter: 2s\n    heartbeat: 200ms\n';
  const site = new Site(directory, { volumes: [{ name: 'root', sizeBytes: 16 * 1024 * 1024 }], sourceExtra });
  const degree = async () => (await site.sourceGroup()).degree;
  const alarms = async () =>
    (JSON.parse(await site.source.command('alarms', '-o', 'json')) as AlarmsReply).alarms.map(({ code }) => code);
  try {
    await site.start();
    await until('the promise holds', async () => (await degree())?.holds === true);
    const disk = await NbdClient.connect(parseNbdUri(site.exportUri('root')));
    for (let count = 0; count < 20; count++) {
      await disk.write(count * BLOCK_BYTES, Buffer.alloc(BLOCK_BYTES, count + 1));
      await disk.flush();
    }
    const head = (await site.replicaGroup()).head?.lsn ?? 0;
    const view = await site.mount('latest');
    const there = await NbdClient.connect(parseNbdUri(view.uri('root')));
    const last = Buffer.alloc(BLOCK_BYTES);
    await there.read(19 * BLOCK_BYTES, last);
    await there.close();
    t.true(last.equals(Buffer.alloc(BLOCK_BYTES, 20)), 'without waiting for anything');
    await until('the replica knows it', async () => (await site.replicaGroup()).rpoClaim?.rpo === 'zero');
    t.regex(stripVTControlCharacters(await site.replica.command('status')), /RPO 0 \(replica at flush\), sure for/);
    const shown = stripVTControlCharacters(await site.source.command('status'));
    t.regex(shown, /ack replica at flush \(durable at every required replica\), degrade after 2 s: in-sync/);

    await site.replica.kill();
    const began = performance.now();
    await disk.write(0, Buffer.alloc(BLOCK_BYTES, 0x77));
    const plainMs = performance.now() - began;
    await disk.flush();
    const flushedMs = performance.now() - began;
    t.true(plainMs < flushedMs);
    t.true(flushedMs > 1_000, `the replica was waited for: ${flushedMs} ms`);
    await until('the alarm stands', async () => (await alarms()).includes('degraded'));
    const broken = await degree();
    t.like(broken, { state: 'degraded', holds: false });
    t.true((broken?.brokenFromLsn ?? 0) > head - 1);
    t.regex(stripVTControlCharacters(await site.source.command('status')), /not kept since LSN \d+: nothing has moved/);

    await site.replica.start();
    t.is((await site.replicaGroup()).rpoClaim?.rpo, 'unknown', 'until it hears that it holds everything');
    await until('the promise holds again', async () => (await degree())?.holds === true);
    await until('the alarm is over', async () => !(await alarms()).includes('degraded'));
    t.is((await degree())?.brokenStretches.at(-1)?.fromLsn, broken?.brokenFromLsn ?? -1);
    const points = JSON.parse(await site.replica.command('points', 'shop', '-o', 'json')) as PointsReply;
    const told = points.events.filter(({ kind }) => kind === 'degree').map(({ text }) => text);
    t.true(
      told.some((text) => text.includes(`was not kept from LSN ${broken?.brokenFromLsn} to`)),
      told.join('; '),
    );

    const wanted = ['degree', 'shop', '--ack', 'local', '-o', 'json'];
    const plan = JSON.parse(await site.source.command(...wanted, '--dry-run')) as ActionReply;
    t.true(plan.dryRun && plan.steps.length > 1);
    t.is((await degree())?.policy.ack, 'replica');
    await site.source.command(...wanted);
    await until('nothing is waited for', async () => (await degree())?.policy.ack === 'local');
    t.like(await degree(), { state: 'off', holds: null });
    t.is((await degree())?.configured.ack, 'replica');
    await site.source.command('degree', 'shop', '--reset', '--on-stall', 'block');
    await until('back', async () => (await degree())?.policy.ack === 'replica');
    t.is((await degree())?.policy.onStall, 'block');
    await site.source.command('degree', 'shop', '--ack', 'applied');
    await until('it says why', async () => /site-b has no standby image/.test((await degree())?.reason ?? ''));
    await disk.close();
  } finally {
    await site.stop();
    fs.rmSync(directory, { recursive: true, force: true });
  }
});

test('ack applied: a flush is in the raw files at the replica, which outlive a kill and are exactly the disk once nothing is written', async (t) => {
  t.timeout(300_000);
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'tidemark-applied-'));
  const size = 16 * 1024 * 1024;
  const site = new Site(directory, {
    volumes: [{ name: 'root', sizeBytes: size }],
    sourceExtra: '    ack: applied\n    stallAfter: 20s\n    heartbeat: 200ms\n',
    replicaExtra: '    apply: sync\n',
  });
  const image = path.join(directory, 'replica/shop/standby/root.raw');
  const model = Buffer.alloc(size);
  const standby = async () => (await site.replicaGroup()).standby;
  try {
    await site.start();
    await until('the promise holds', async () => (await site.sourceGroup()).degree?.holds === true);
    const disk = await NbdClient.connect(parseNbdUri(site.exportUri('root')));
    const write = async (count: number): Promise<void> => {
      const offset = (count % 97) * BLOCK_BYTES;
      const block = Buffer.alloc(BLOCK_BYTES, count + 1);
      await disk.write(offset, block);
      block.copy(model, offset);
      await disk.flush();
    };
    for (let count = 0; count < 60; count++) {
      await write(count);
      if (count % 10 === 0) t.true(fs.readFileSync(image).equals(model), `flush ${count}`);
    }
    await site.replica.kill();
    t.true(fs.readFileSync(image).equals(model), 'after a kill');
    await site.replica.start();
    for (let count = 60; count < 120; count++) await write(count);
    t.true(fs.readFileSync(image).equals(model));
    await until('the stamp is exact', async () => (await standby())?.state === 'settled');
    const stamp = JSON.parse(
      fs.readFileSync(path.join(directory, 'replica/shop/standby/standby.json'), 'utf8').split('\n')[0] ?? '',
    ) as { state: string; lsn: number };
    t.is(stamp.state, 'settled');
    t.true(stamp.lsn > 120);
    const shown = stripVTControlCharacters(await site.replica.command('status'));
    t.regex(shown, /standby image \(sync\) in .*: settled up to LSN \d+/);
    await disk.close();
    await site.source.stop();
    await site.replica.stop();
    t.true(fs.readFileSync(image).equals(model));
  } finally {
    await site.stop();
    fs.rmSync(directory, { recursive: true, force: true });
  }
});
