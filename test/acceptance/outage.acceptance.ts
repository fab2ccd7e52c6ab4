import { randomFillSync } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import test from 'ava';
import { NbdClient } from '../../daemon/nbd/client.ts';
import { parseNbdUri } from '../../daemon/nbd/nbd-uri.ts';
import { Site } from '../servers/site.ts';
import { checkerDigests, digestOfPoint, drawPositions } from './points.ts';

const MIB = 1024 ** 2;
const DISK_BYTES = 256 * MIB;
const OUTAGE_MS = Number(process.env['TIDEMARK_OUTAGE_SECONDS'] ?? 300) * 1000;
const BYTES_PER_SECOND = 20 * MIB;
const WRITE_BYTES = 64 * 1024;

/** Writes random places at a steady rate for so long; returns how long each write took, ms. */
async function writeSteadily(disk: NbdClient, durationMs: number): Promise<number[]> {
  const took: number[] = [];
  const block = Buffer.alloc(WRITE_BYTES);
  const began = performance.now();
  for (let written = 0; performance.now() - began < durationMs; written += WRITE_BYTES) {
    const due = began + (written / BYTES_PER_SECOND) * 1000;
    if (due > performance.now()) await new Promise((resolve) => setTimeout(resolve, due - performance.now()));
    randomFillSync(block, 0, WRITE_BYTES / 2);
    const sent = performance.now();
    await disk.write(Math.floor(Math.random() * (DISK_BYTES / WRITE_BYTES)) * WRITE_BYTES, block);
    took.push(performance.now() - sent);
    if (took.length % 64 === 0) await disk.flush();
  }
  return took;
}

function percentile(values: readonly number[], share: number): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length * share)] ?? 0;
}

test('the stream away for five minutes at 20 MiB/s: the guest does not notice, and no history is missing', async (t) => {
  t.timeout(30 * 60_000);
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'tidemark-outage-'));
  const site = new Site(directory, { volumes: [{ name: 'root', sizeBytes: DISK_BYTES }], journalBudget: '10GiB' });
  try {
    await site.start();
    const disk = await NbdClient.connect(parseNbdUri(site.exportUri('root')));
    const before = await writeSteadily(disk, 20_000);
    await site.replica.kill();
    const first = await site.headLsn();
    const during = await writeSteadily(disk, OUTAGE_MS);
    await disk.flush();
    const last = await site.headLsn();
    const status = await site.sourceGroup();
    t.is(status.state, 'behind', status.reason);
    t.true((status.backlog.records ?? 0) > 0);
    await site.replica.start();
    const back = performance.now();
    await site.waitForReplica(last, 10 * 60_000);
    t.log(
      `outage of ${OUTAGE_MS / 1000} s, LSN ${first}..${last}, caught up in ${((performance.now() - back) / 1000).toFixed(1)} s`,
    );
    for (const [name, took] of [
      ['before', before],
      ['during', during],
    ] as const) {
      t.log(
        `writes ${name}: p50 ${percentile(took, 0.5).toFixed(2)}, p99 ${percentile(took, 0.99).toFixed(2)}, worst ${percentile(took, 1 - 1e-9).toFixed(1)} ms`,
      );
    }
    t.true(percentile(during, 0.99) < 1000, 'writes went on during the outage');
    await disk.close();
    const lsns = [first, ...drawPositions(first + 1, last - 1, 50), last];
    const volume = String((await site.replicaGroup()).volumes[0]?.id);
    const segments = path.join(directory, 'replica/shop/segments');
    const replayed = await checkerDigests('independent_replay.py', [
      segments,
      volume,
      String(DISK_BYTES),
      ...lsns.map(String),
    ]);
    for (const lsn of lsns)
      t.is(await digestOfPoint(site, String(lsn), 'root'), replayed.get(lsn) ?? 'none', `LSN ${lsn}`);
    t.log(`both ends and ${lsns.length - 2} random LSNs of the outage mount and match the independent replay`);
  } finally {
    await site.stop();
    fs.rmSync(directory, { recursive: true, force: true });
  }
});
