import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { keepRawResult } from '../reliability/raw-result.ts';
import { checkGuestImage, Guest, makeGuestDisk } from '../servers/guest.ts';
import { KafkaBroker } from '../servers/kafka-broker.ts';
import { Site } from '../servers/site.ts';
import { copyPoint } from './points.ts';

const DISK_BYTES = 128 * 1024 ** 2;
/** Of the source, and as many of the replica. */
const KILLS = Number(process.env['TIDEMARK_KILLS'] ?? 20);
const TROUBLE = /.*(?:I\/O error|WORKLOAD-ERROR|EXT4-fs error).*/g;

interface KillCounts {
  readonly sourceKills: number;
  readonly replicaKills: number;
  /** Records the guest had printed as durable. */
  readonly durable: number;
}

async function killUnderGuest(
  t: ExecutionContext,
  site: Site,
  directory: string,
  violations: string[],
): Promise<KillCounts> {
  await site.start();
  const guest = Guest.start({ directory, reconnectDelay: 120, disk: site.exportUri('root') });
  const kills = { source: 0, replica: 0 };
  try {
    await guest.waitForDurable(20, 120_000);
    for (let count = 0; count < KILLS; count++) {
      for (const victim of [site.source, site.replica]) {
        await guest.waitForDurable(guest.lastDurable() + 1 + Math.floor(Math.random() * 40), 90_000);
        await victim.kill();
        kills[victim.role]++;
        await victim.start();
      }
      // an assertion restarts the clock of the test
      t.deepEqual(guest.serial().match(TROUBLE), null);
    }
    await guest.waitForDurable(guest.lastDurable() + 20, 90_000);
    const durable = guest.lastDurable();
    const bookmark = await site.bookmark('after-the-kills');
    await site.waitForReplica(bookmark.lsn, 60_000);
    const { file } = await copyPoint(site, 'after-the-kills', 'root');
    const verdict = await checkGuestImage(file, directory, durable);
    if (!/PASS/.test(verdict)) violations.push(verdict.trim());
    t.log(`${kills.source} kills of the source, ${kills.replica} of the replica; ${verdict.trim()}`);
    return { sourceKills: kills.source, replicaKills: kills.replica, durable };
  } catch (error) {
    violations.push(`after ${kills.source} + ${kills.replica} kills: ${String(error)}`);
    return { sourceKills: kills.source, replicaKills: kills.replica, durable: guest.lastDurable() };
  } finally {
    violations.push(...(guest.serial().match(TROUBLE) ?? []));
    await guest.kill();
  }
}

/** Nothing acknowledged is lost, nothing is noticed. 20 kills of each side, or TIDEMARK_KILLS. */
for (const stream of ['direct', 'kafka'] as const) {
  test.serial(`kill -9 of source and replica under a live guest, ${stream}`, async (t) => {
    t.timeout(20 * 60_000 * Math.max(1, KILLS / 20));
    const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'tidemark-kills-'));
    const broker = stream === 'kafka' ? await KafkaBroker.start() : undefined;
    const site = new Site(directory, {
      volumes: [{ name: 'root', sizeBytes: DISK_BYTES, seed: true }],
      ...(broker === undefined ? {} : { kafka: { brokers: [broker.address], topic: 'tidemark.shop' } }),
    });
    const violations: string[] = [];
    const began = performance.now();
    try {
      await makeGuestDisk(site.backing('root'), DISK_BYTES);
      const counts = await killUnderGuest(t, site, directory, violations);
      const seconds = (performance.now() - began) / 1000;
      keepRawResult('guest-kills', { name: stream, seconds, counts: { ...counts }, violations });
      t.deepEqual(violations, []);
    } finally {
      await site.stop();
      await broker?.stop();
      fs.rmSync(directory, { recursive: true, force: true });
    }
  });
}
