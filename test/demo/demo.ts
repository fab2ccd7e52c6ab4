import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { styleText } from 'node:util';
import { NbdClient } from '../../daemon/nbd/client.ts';
import { parseNbdUri } from '../../daemon/nbd/nbd-uri.ts';
import { Site } from '../servers/site.ts';
import { damagedOrders, haveAccident, ORDER_BYTES, order, takeOrders } from './story.ts';

/*
 * `make demo`: the whole of the product in a minute, on this machine, without root, QEMU or Kafka: a source and a
 * replica run as two processes with a direct stream between them, and everything an operator would type is typed.
 */

const ORDERS = 10_000;
const LATE_ORDERS = 400;
const DISK_BYTES = 256 * 1024 ** 2;

const started = performance.now();

function heading(text: string): void {
  console.log(`\n${styleText('bold', text)}`);
}

function say(text: string): void {
  console.log(`  ${text}`);
}

/** Shows the command and what it prints, as a person at a terminal would see it. */
async function type(run: () => Promise<string>, shown: string): Promise<string> {
  console.log(styleText('cyan', `  $ tidemark ${shown}`));
  const output = await run();
  for (const line of output.trimEnd().split('\n')) console.log(styleText('dim', `  ${line}`));
  return output;
}

const firstLine = (text: Buffer): string => text.toString().split('\n')[0] ?? '';
const seconds = (ms: number): string => `${(ms / 1000).toFixed(2)} s`;

const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'tidemark-demo-'));
const site = new Site(directory, { volumes: [{ name: 'orders', sizeBytes: DISK_BYTES }] });
try {
  heading('1. Two daemons: the source sits beside the hypervisor, the replica is somewhere else');
  await site.start();
  say(`a 256 MiB disk is protected and served at ${site.exportUri('orders').replace(directory, '.')}`);

  heading('2. A shop takes orders; every write is on its way to the replica as soon as it is safe here');
  const disk = await NbdClient.connect(parseNbdUri(site.exportUri('orders')));
  const writing = performance.now();
  await takeOrders(disk, 0, ORDERS);
  say(
    `${ORDERS.toLocaleString('en')} orders written and flushed in ${seconds(performance.now() - writing)}, like this one:`,
  );
  say(styleText('green', firstLine(order(7))));
  await type(
    () => site.source.command('bookmark', site.group, 'before-upgrade'),
    `bookmark ${site.group} before-upgrade`,
  );

  heading('3. Orders keep coming, and then something goes wrong');
  await takeOrders(disk, ORDERS, LATE_ORDERS);
  const beforeAccident = await site.headLsn();
  say(`${LATE_ORDERS} more orders; the last good write is journal offset ${beforeAccident}`);
  await haveAccident(disk, ORDERS + LATE_ORDERS);
  const first = Buffer.alloc(ORDER_BYTES);
  await disk.read(0, first);
  say(styleText('red', first.subarray(0, 68).toString()));
  say(
    `${(await damagedOrders(disk, ORDERS + LATE_ORDERS)).toLocaleString('en')} of ${(ORDERS + LATE_ORDERS).toLocaleString('en')} orders are gone on the live disk`,
  );
  await disk.close();

  heading('4. What the replica knows');
  const waiting = performance.now();
  await site.waitForReplica(await site.headLsn());
  const recoveryPointMs = performance.now() - waiting;
  await type(() => site.replica.command('points', site.group, '--every', '1s'), `points ${site.group} --every 1s`);
  await type(() => site.source.command('status'), 'status');

  heading('5. The moment before the accident, as a disk, at once');
  const mounting = performance.now();
  const mounted = await site.mount(String(beforeAccident));
  const view = await NbdClient.connect(parseNbdUri(mounted.uri('orders')));
  await view.read(0, first);
  const mountMs = performance.now() - mounting;
  say(
    `journal offset ${beforeAccident} mounted in ${seconds(mountMs)}: ${mounted.uri('orders').replace(directory, '.')}`,
  );
  say(styleText('green', firstLine(first)));
  const damaged = await damagedOrders(view, ORDERS + LATE_ORDERS);
  say(`${damaged} of ${(ORDERS + LATE_ORDERS).toLocaleString('en')} orders are damaged in it`);
  await view.close();
  await site.unmount(mounted);

  heading('6. Restore it, and check every byte');
  const target = path.join(directory, 'restored.raw');
  const restoring = performance.now();
  const at = String(beforeAccident);
  await type(
    () => site.replica.command('restore', site.group, '--volume', 'orders', '--at', at, '--to', target),
    `restore ${site.group} --volume orders --at ${at} --to restored.raw`,
  );
  const restoreMs = performance.now() - restoring;
  const wrong = await wrongOrders(target, ORDERS + LATE_ORDERS);
  if (wrong > 0 || damaged > 0) throw new Error(`${wrong} orders differ in the restored disk, ${damaged} in the view`);
  say(styleText('green', `all ${(ORDERS + LATE_ORDERS).toLocaleString('en')} orders are back, compared byte for byte`));

  heading('Recovery');
  say(`RPO  ${seconds(recoveryPointMs)}: the replica held the newest write that long after it was asked for`);
  say(
    `RTO  ${seconds(mountMs)} to a usable disk (mount), ${seconds(restoreMs)} to a verified copy (restore of 256 MiB)`,
  );
} finally {
  await site.stop();
  fs.rmSync(directory, { recursive: true, force: true });
}
say(`everything stopped and removed; the whole demo took ${seconds(performance.now() - started)}`);

/** Compares the restored image with what was written, from the file itself. */
async function wrongOrders(file: string, count: number): Promise<number> {
  const handle = await fs.promises.open(file, 'r');
  try {
    const read = async (offset: number, into: Uint8Array): Promise<void> => {
      await handle.read(into, 0, into.length, offset);
    };
    return await damagedOrders({ read }, count);
  } finally {
    await handle.close();
  }
}
