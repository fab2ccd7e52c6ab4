import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import test from 'ava';
import { run } from '../servers/child.ts';
import { checkGuestImage, Guest, makeGuestDisk } from '../servers/guest.ts';
import { KafkaBroker } from '../servers/kafka-broker.ts';
import { Site } from '../servers/site.ts';
import { checkerDigests, copyPoint, digestOfPoint, drawPositions } from './points.ts';

const DISK_BYTES = 128 * 1024 ** 2;
const BOOKMARKS = 20;
const QUIET_POINTS = 20;
const RANDOM_POINTS = 200;
/** The replica may be this far behind the source's head when a bookmark is asked for. */
const REPLICA_DELAY_MS = 5_000;

/*
 * A real guest (Debian kernel, ext4, write-fsync-print) on the NBD export, real Kafka in between. Three oracles that
 * share no code with the product: the records the guest printed as durable, QEMU's own write log, and a replay of the
 * replica's segments written from FORMAT.md.
 */
test('every point of a live guest is the disk it was', async (t) => {
  t.timeout(20 * 60_000);
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'tidemark-points-'));
  const broker = await KafkaBroker.start();
  const site = new Site(directory, {
    volumes: [{ name: 'root', sizeBytes: DISK_BYTES, seed: true }],
    kafka: { brokers: [broker.address], topic: 'tidemark.shop' },
  });
  await makeGuestDisk(site.backing('root'), DISK_BYTES);
  const before = path.join(directory, 'before.raw');
  await run('cp', ['--sparse=always', site.backing('root'), before]);
  const log = path.join(directory, 'writes.log');
  fs.writeFileSync(log, '');
  fs.truncateSync(log, 4 * 1024 ** 3);
  let guest: Guest | undefined;
  try {
    await site.start();
    // Before the first copy is whole there is no point to mount.
    const floor = await site.headLsn();
    const socket = site.exportUri('root').split('socket=')[1] as string;
    guest = Guest.start({
      directory,
      reconnectDelay: 60,
      disk:
        `driver=blklogwrites,node-name=disk0,log-sector-size=512,log.driver=file,log.filename=${log},` +
        `file.driver=nbd,file.server.type=unix,file.server.path=${socket},file.export=root,file.reconnect-delay=60`,
    });
    await guest.waitForDurable(50, 120_000);

    const delays: number[] = [];
    for (let count = 1; count <= BOOKMARKS; count++) {
      await guest.waitForDurable(guest.lastDurable() + 1 + Math.floor(Math.random() * 60), 60_000);
      const durable = guest.lastDurable();
      const asked = performance.now();
      const bookmark = await site.bookmark(`moment-${count}`);
      await site.waitForReplica(bookmark.lsn, REPLICA_DELAY_MS);
      delays.push(performance.now() - asked);
      const { file } = await copyPoint(site, `moment-${count}`, 'root');
      const verdict = await checkGuestImage(file, directory, durable);
      t.regex(verdict, /PASS/, verdict);
      fs.rmSync(file);
    }
    t.log(
      `${BOOKMARKS} bookmarks: every record durable before is there, fsck clean; at the replica after at most ${Math.max(...delays).toFixed(0)} ms`,
    );

    const monitor = await guest.monitor();
    const quiet: { lsn: number; entries: number }[] = [];
    for (let count = 0; count < QUIET_POINTS; count++) {
      await guest.waitForDurable(guest.lastDurable() + 5 + Math.floor(Math.random() * 20), 60_000);
      await monitor.execute('stop');
      const lsn = await site.headLsn();
      const entries = Number(
        await run('python3', ['-B', path.join(import.meta.dirname, 'log_writes_replay.py'), log, '--length']),
      );
      quiet.push({ lsn, entries });
      await monitor.execute('cont');
    }
    monitor.close();
    await guest.kill();
    await site.waitForReplica(await site.headLsn());
    const fromLog = await checkerDigests('log_writes_replay.py', [
      log,
      before,
      ...quiet.map((point) => String(point.entries)),
    ]);
    for (const point of quiet) {
      t.is(
        await digestOfPoint(site, String(point.lsn), 'root'),
        fromLog.get(point.entries) ?? 'none',
        `LSN ${point.lsn} against QEMU's write log`,
      );
    }
    t.log(`${quiet.length} quiet moments: the view equals the disk rebuilt from QEMU's write log`);

    const group = await site.replicaGroup();
    const lsns = drawPositions(floor, group.head?.lsn ?? 1, RANDOM_POINTS);
    const segments = path.join(directory, 'replica/shop/segments');
    const volume = String(group.volumes[0]?.id);
    const replayed = await checkerDigests('independent_replay.py', [
      segments,
      volume,
      String(DISK_BYTES),
      ...lsns.map(String),
    ]);
    for (const lsn of lsns)
      t.is(await digestOfPoint(site, String(lsn), 'root'), replayed.get(lsn) ?? 'none', `LSN ${lsn}`);
    t.log(`${lsns.length} random LSNs in ${floor}..${group.head?.lsn}: views equal the independent replay`);
  } finally {
    await guest?.kill();
    await site.stop();
    await broker.stop();
    fs.rmSync(directory, { recursive: true, force: true });
  }
});
