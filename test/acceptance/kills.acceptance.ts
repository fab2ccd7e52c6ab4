import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import test from 'ava';
import { checkGuestImage, Guest, makeGuestDisk } from '../servers/guest.ts';
import { KafkaBroker } from '../servers/kafka-broker.ts';
import { Site } from '../servers/site.ts';
import { copyPoint } from './points.ts';

const DISK_BYTES = 128 * 1024 ** 2;
const KILLS = 20;

/** 20 kill -9 of the source and 20 of the replica under a live guest: nothing acknowledged is lost, nothing is noticed. */
for (const stream of ['direct', 'kafka'] as const) {
  test.serial(`kill -9 of source and replica under a live guest, ${stream}`, async (t) => {
    t.timeout(20 * 60_000);
    const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'tidemark-kills-'));
    const broker = stream === 'kafka' ? await KafkaBroker.start() : undefined;
    const site = new Site(directory, {
      volumes: [{ name: 'root', sizeBytes: DISK_BYTES, seed: true }],
      ...(broker === undefined ? {} : { kafka: { brokers: [broker.address], topic: 'tidemark.shop' } }),
    });
    await makeGuestDisk(site.backing('root'), DISK_BYTES);
    let guest: Guest | undefined;
    try {
      await site.start();
      guest = Guest.start({ directory, reconnectDelay: 120, disk: site.exportUri('root') });
      await guest.waitForDurable(20, 120_000);
      for (let count = 0; count < KILLS; count++) {
        for (const victim of [site.source, site.replica]) {
          await guest.waitForDurable(guest.lastDurable() + 1 + Math.floor(Math.random() * 40), 90_000);
          await victim.kill();
          await victim.start();
        }
      }
      await guest.waitForDurable(guest.lastDurable() + 20, 90_000);
      const durable = guest.lastDurable();
      t.notRegex(guest.serial(), /I\/O error|WORKLOAD-ERROR|EXT4-fs error/);
      const bookmark = await site.bookmark('after-the-kills');
      await site.waitForReplica(bookmark.lsn, 60_000);
      const { file } = await copyPoint(site, 'after-the-kills', 'root');
      const verdict = await checkGuestImage(file, directory, durable);
      t.regex(verdict, /PASS/, verdict);
      t.log(`${KILLS} kills of each; ${verdict.trim()}`);
    } finally {
      await guest?.kill();
      await site.stop();
      await broker?.stop();
      fs.rmSync(directory, { recursive: true, force: true });
    }
  });
}
