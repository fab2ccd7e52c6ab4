import { randomFillSync } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { NbdClient } from '../../../daemon/nbd/client.ts';
import { parseNbdUri } from '../../../daemon/nbd/nbd-uri.ts';
import { Child, run } from '../../servers/child.ts';
import { Site } from '../../servers/site.ts';
import { waitForSocket } from '../servers.ts';
import { Numbers } from './made-frames.ts';

const FILL_BYTES = 256 * 1024;
const BLOCK_BYTES = 4096;
/** One write in so many blocks, before the position that is looked at and after it. */
const OVERWRITTEN = 8;
const IN_FLIGHT = 16;

/** A site with a history, and a qcow2 overlay over a raw file that holds what the disk held in the middle of it. */
export interface HistorySite {
  readonly site: Site;
  readonly middleLsn: number;
  readonly overlay: string;
}

/** `packed`: every other 2 KiB are zeroes, so that chunks are stored compressed; otherwise nothing shrinks. */
function bytesOf(length: number, packed: boolean): Buffer {
  const bytes = randomFillSync(Buffer.alloc(length));
  for (let at = 2048; packed && at < length; at += BLOCK_BYTES) bytes.fill(0, at, at + 2048);
  return bytes;
}

/** `count` steps, several at a time. */
async function many(count: number, step: (index: number) => Promise<void>): Promise<void> {
  let next = 0;
  const lane = async (): Promise<void> => {
    while (next < count) await step(next++);
  };
  await Promise.all(Array.from({ length: IN_FLIGHT }, lane));
}

async function client(uri: string): Promise<NbdClient> {
  return NbdClient.connect(parseNbdUri(uri), { inFlightMax: IN_FLIGHT });
}

/** A qemu-nbd that serves the overlay, as a user would serve it. */
export async function serveOverlay(overlay: string, readOnly: boolean): Promise<{ child: Child; uri: string }> {
  const socket = `${overlay}.sock`;
  fs.rmSync(socket, { force: true });
  const child = new Child('qemu-nbd', 'qemu-nbd', [
    ...(readOnly ? ['-r'] : []),
    '-f',
    'qcow2',
    '--cache=writeback',
    '--aio=threads',
    '-t',
    '-e',
    '8',
    '-k',
    socket,
    overlay,
  ]);
  await waitForSocket(socket, child);
  return { child, uri: `nbd+unix:///?socket=${socket}` };
}

/** Fills a disk, overwrites an eighth of it, remembers the position, overwrites another eighth. */
export async function historySite(directory: string, sizeBytes: number, packed: boolean): Promise<HistorySite> {
  fs.mkdirSync(directory, { recursive: true });
  const [base, overlay] = [path.join(directory, 'base.raw'), path.join(directory, 'overlay.qcow2')];
  const site = new Site(path.join(directory, 'site'), {
    volumes: [{ name: 'disk0', sizeBytes }],
    journalBudget: '4GiB',
    journalFileSize: '64MiB',
  });
  fs.mkdirSync(site.directory);
  try {
    await site.start();
    const disk = await client(site.exportUri('disk0'));
    const file = fs.openSync(base, 'w');
    await many(sizeBytes / FILL_BYTES, async (index) => {
      const bytes = bytesOf(FILL_BYTES, packed);
      fs.writeSync(file, bytes, 0, bytes.length, index * FILL_BYTES);
      await disk.write(index * FILL_BYTES, bytes);
    });
    fs.closeSync(file);
    await run('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', base, '-F', 'raw', overlay]);
    const served = await serveOverlay(overlay, false);
    const peer = await client(served.uri);
    const numbers = new Numbers(0x0fe);
    const blocks = sizeBytes / BLOCK_BYTES;
    const overwritten = new Set<number>();
    while (overwritten.size < blocks / OVERWRITTEN) overwritten.add(numbers.below(blocks));
    const places = [...overwritten];
    await many(places.length, async (index) => {
      const [at, bytes] = [(places[index] as number) * BLOCK_BYTES, bytesOf(BLOCK_BYTES, packed)];
      await Promise.all([disk.write(at, bytes), peer.write(at, bytes)]);
    });
    await peer.flush();
    await peer.close();
    await served.child.stop();
    await disk.flush();
    const middleLsn = await site.headLsn();
    await many(places.length, async () => {
      await disk.write(numbers.below(blocks) * BLOCK_BYTES, bytesOf(BLOCK_BYTES, packed));
    });
    await disk.flush();
    await disk.close();
    await site.waitForReplica(await site.headLsn(), 300_000);
    return { site, middleLsn, overlay };
  } catch (error) {
    await site.stop();
    throw error;
  }
}
