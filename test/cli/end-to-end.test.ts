import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import test, { type ExecutionContext } from 'ava';
import type {
  ActionReply,
  BookmarkReply,
  PointsReply,
  RestoreReply,
  SourceGroupReply,
} from '../../daemon/control/control-api.ts';
import { NbdClient } from '../../daemon/nbd/client.ts';
import { parseNbdUri } from '../../daemon/nbd/nbd-uri.ts';
import { attempt, run } from '../servers/child.ts';
import { Site } from '../servers/site.ts';
import { cliMain, TidemarkProcess } from '../servers/tidemark-process.ts';

/*
 * The wiring as users meet it: two processes started from the command line, a guest on the NBD export, every verb of the
 * CLI, kill -9 of both sides, and a clean end. The disk is compared with a model that holds every acknowledged write.
 */

const DISK_BYTES = 64 * 1024 * 1024;
const BLOCK_BYTES = 4096;

/** What the guest was told it has. */
class Model {
  readonly bytes: Buffer = Buffer.alloc(DISK_BYTES);

  copy(): Buffer {
    return Buffer.from(this.bytes);
  }
}

async function connect(uri: string): Promise<NbdClient> {
  return NbdClient.connect(parseNbdUri(uri));
}

/** Writes `count` numbered blocks all over the disk; each is in the model once it was acknowledged. */
async function write(disk: NbdClient, model: Model, from: number, count: number): Promise<void> {
  for (let number = from; number < from + count; number += 1) {
    const offset = ((number * 7919) % (DISK_BYTES / BLOCK_BYTES)) * BLOCK_BYTES;
    const block = Buffer.alloc(BLOCK_BYTES, `block ${number} `);
    await disk.write(offset, block);
    block.copy(model.bytes, offset);
  }
}

async function content(uri: string): Promise<Buffer> {
  const disk = await connect(uri);
  try {
    const bytes = Buffer.alloc(disk.size);
    for (let offset = 0; offset < disk.size; offset += 4 * 1024 * 1024) {
      await disk.read(offset, bytes.subarray(offset, offset + 4 * 1024 * 1024));
    }
    return bytes;
  } finally {
    await disk.close();
  }
}

function json<T>(text: string): T {
  return JSON.parse(text) as T;
}

async function withSite(t: ExecutionContext, body: (site: Site, directory: string) => Promise<void>): Promise<void> {
  t.timeout(240_000);
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'tidemark-cli-'));
  const site = new Site(directory, { volumes: [{ name: 'root', sizeBytes: DISK_BYTES }] });
  try {
    await site.start();
    await body(site, directory);
  } catch (error) {
    t.log(site.source.child.output.slice(-4000));
    t.log(site.replica.child.output.slice(-4000));
    throw error;
  } finally {
    await site.stop();
    fs.rmSync(directory, { recursive: true, force: true });
  }
}

async function until(what: string, holds: () => Promise<boolean>): Promise<void> {
  const end = performance.now() + 60_000;
  while (!(await holds())) {
    if (performance.now() > end) throw new Error(`${what}: not in time`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

test('write, bookmark, look, mount, restore, kill both sides, stop in order', async (t) => {
  await withSite(t, async (site, directory) => {
    const model = new Model();
    let disk = await connect(site.exportUri('root'));
    await write(disk, model, 0, 500);
    await disk.flush();
    const bookmark = json<BookmarkReply>(
      await site.source.command('bookmark', 'shop', 'before upgrade', '--note', 'x', '-o', 'json'),
    );
    const good = model.copy();
    await write(disk, model, 500, 300);
    await disk.flush();
    const head = await site.headLsn();
    t.true(head > bookmark.lsn);
    await site.waitForReplica(head);

    const measured = (group: SourceGroupReply): boolean => {
      const lag = group.replicas[0]?.lag;
      return typeof lag?.records === 'number' && typeof lag.seconds === 'number' && typeof lag.bytes === 'number';
    };
    await until('lag is measured', async () => measured(await site.sourceGroup()));
    const group = await site.sourceGroup();
    t.is(group.state, 'protecting');
    t.is(group.volumes[0]?.traffic?.writes, 800);
    t.is(group.volumes[0]?.traffic?.writeBytes, 800 * BLOCK_BYTES);
    t.is(group.groupId, (await site.replicaGroup()).groupId);
    t.regex(await site.source.command('status'), /shop\s+protecting/);

    const points = json<PointsReply>(await site.replica.command('points', 'shop', '-o', 'json'));
    t.is(
      points.intervals.reduce((sum, interval) => sum + interval.writes, 0),
      800,
    );
    t.deepEqual(
      points.bookmarks.map(({ name, lsn }) => [name, lsn]),
      [['before upgrade', bookmark.lsn]],
    );
    t.regex(await site.replica.command('points', 'shop', '--every', '1s'), /\* before upgrade/);

    await lookAndRestore(t, site, directory, good, bookmark);

    // the source dies in the middle of writes: what was acknowledged is there afterwards
    const writing = write(disk, model, 800, 100_000);
    await until('writes flow', async () => (await site.headLsn()) > head + 50);
    await site.source.kill();
    await t.throwsAsync(writing);
    await site.source.start();
    await until('exports are open', async () => (await site.sourceStatus()).daemon.ready);
    t.true(agrees(await content(site.exportUri('root')), model.bytes));

    // the replica dies: the guest does not notice, and the replica catches up
    disk = await connect(site.exportUri('root'));
    await site.replica.kill();
    await write(disk, model, 200_000, 200);
    await disk.flush();
    await site.replica.start();
    await site.waitForReplica(await site.headLsn());
    const view = await site.mount('latest');
    t.true((await content(view.uri('root'))).equals(await content(site.exportUri('root'))));
    await site.unmount(view);
    await disk.close();

    const before = await content(site.exportUri('root'));
    t.is(await site.source.stop(), 0);
    t.is(await site.replica.stop(), 0);
    const journal = path.join(directory, 'source/shop');
    t.regex(await run(process.execPath, [cliMain(), 'journal', 'audit', journal]), /everything holds/);
    t.regex(await run(process.execPath, [cliMain(), 'journal', 'inspect', journal]), /journal-[0-9a-f]{16}.tmj/);
    const records = await run(process.execPath, [
      cliMain(),
      'journal',
      'inspect',
      journal,
      '--records',
      '--limit',
      '3',
      '-o',
      'json',
    ]);
    t.is(json<{ records: unknown[] }>(records).records.length, 3);

    // a clean stop is known as one, and detach gives the plain disk back
    await site.source.start();
    await until('exports are open', async () => (await site.sourceStatus()).daemon.ready);
    const plan = json<ActionReply>(await site.source.command('detach', 'shop', '--dry-run', '-o', 'json'));
    t.true(plan.dryRun);
    t.is((await site.sourceGroup()).volumes[0]?.state, 'serving');
    t.is(await site.source.command('release', 'shop', '--dry-run'), 'would release:\n  nothing is held\n');
    await site.source.command('detach', 'shop');
    t.true(fs.readFileSync(site.backing('root')).equals(before));
    t.is((await site.sourceGroup()).state, 'detached');
  });
});

test('a source that was killed opens its exports without asking a replica that is away', async (t) => {
  await withSite(t, async (site) => {
    const asked = /"code":"settled"/;
    t.regex(site.source.child.output, asked, 'an empty journal asks, and says so');
    const disk = await connect(site.exportUri('root'));
    const model = new Model();
    await write(disk, model, 0, 50);
    await disk.flush();
    await site.replica.kill();
    await site.source.kill();
    await site.source.start();
    await until('exports are open', async () => (await site.sourceStatus()).daemon.ready);
    t.notRegex(site.source.child.output, asked);
    t.like((await site.sourceGroup()).replicas[0], { state: 'unknown', durableLsn: null });
    t.true((await content(site.exportUri('root'))).equals(model.bytes));
  });
});

/** After a kill, a write that was under way may or may not be there; everything acknowledged must be. */
function agrees(disk: Buffer, model: Buffer): boolean {
  let differing = 0;
  for (let offset = 0; offset < DISK_BYTES; offset += BLOCK_BYTES) {
    if (!disk.subarray(offset, offset + BLOCK_BYTES).equals(model.subarray(offset, offset + BLOCK_BYTES)))
      differing += 1;
  }
  return differing <= 1;
}

async function lookAndRestore(
  t: ExecutionContext,
  site: Site,
  directory: string,
  good: Buffer,
  bookmark: BookmarkReply,
): Promise<void> {
  const view = await site.mount('before upgrade');
  t.is(view.lsn, bookmark.lsn);
  t.true((await content(view.uri('root'))).equals(good));
  const scratch = await site.mount(`${bookmark.epoch}:${bookmark.lsn}`, '--writable', '--name', 'drill');
  const client = await connect(scratch.uri('root'));
  await client.write(0, Buffer.alloc(BLOCK_BYTES, 'scratch'));
  await client.close();
  t.true((await content(view.uri('root'))).equals(good), 'a view does not see the scratch writes of another');
  t.false((await content(scratch.uri('root'))).equals(good));
  t.regex(await site.replica.command('status'), /drill\s.*scratch/);
  await site.unmount(scratch);
  await site.unmount(view);
  await t.throwsAsync(content(view.uri('root')));

  const target = path.join(directory, 'restored.raw');
  const restore = ['restore', 'shop', '--at', 'before upgrade', '--to', target];
  t.regex(await site.replica.command(...restore, '--dry-run'), /nothing was changed/);
  t.false(fs.existsSync(target));
  await site.replica.command(...restore);
  t.true(fs.readFileSync(target).equals(good));
  t.is((await site.replica.attempt(...restore)).code, 4);
  const again = json<RestoreReply>(await site.replica.command(...restore, '--overwrite', '-o', 'json'));
  t.is(again.job?.state, 'done');
  const own = await site.replica.attempt(
    'restore',
    'shop',
    '--at',
    'latest',
    '--to',
    path.join(directory, 'replica/shop/x'),
  );
  t.is(own.code, 4);
  t.regex(own.stderr, /target-is-ours/);
  const image = path.join(directory, 'restored.qcow2');
  await site.replica.command('restore', 'shop', '--at', String(bookmark.lsn), '--to', image);
  t.regex(await run('qemu-img', ['compare', '-f', 'qcow2', '-F', 'raw', image, target]), /identical/);

  for (const [at, code] of [
    ['no-such-bookmark', 3],
    ['999999999', 3],
    ['2026-11-20T10:00:00', 2],
    ['2001-01-01T00:00:00Z', 3],
  ] as const) {
    t.is((await site.replica.attempt('mount', 'shop', '--at', at)).code, code, at);
  }
  t.is((await site.replica.attempt('mount', 'nowhere', '--at', 'latest')).code, 3);
  t.is((await site.replica.attempt('unmount', 'shop', 'no-view')).code, 3);
}

test('usage, configuration and an absent daemon have exit codes of their own', async (t) => {
  t.timeout(60_000);
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'tidemark-cli-'));
  try {
    const cli = (...args: string[]) => attempt(process.execPath, [cliMain(), ...args]);
    t.is((await cli('--help')).code, 0);
    t.regex((await cli('--help')).stdout, /Exit codes:/);
    t.is((await cli('frobnicate')).code, 2);
    t.is((await cli('restore', 'shop', '--at', 'latest')).code, 2);
    t.is((await cli('points', 'shop', '--every', '5')).code, 2);
    const absent = await cli('status', '--socket', path.join(directory, 'none.sock'));
    t.is(absent.code, 5);
    t.regex(absent.stderr, /no daemon answers/);
    const config = path.join(directory, 'source.yaml');
    fs.writeFileSync(config, 'stateDir: relative\n');
    const bad = await cli('source', '--config', config);
    t.is(bad.code, 2);
    t.true(bad.stderr.startsWith(`${config}:1:1: control: is missing`), bad.stderr);
    const doctor = await cli('doctor', '--config', config);
    t.is(doctor.code, 4);
    t.regex(doctor.stdout, /problem.*stateDir: must be an absolute path/);
    t.is((await cli('journal', 'inspect', directory)).code, 3);
  } finally {
    fs.rmSync(directory, { recursive: true, force: true });
  }
});

test('a second daemon on the same state is refused, and the first goes on', async (t) => {
  await withSite(t, async (site) => {
    const second = new TidemarkProcess('source', site.source.configFile, site.source.socket);
    const refused = await attempt(process.execPath, [cliMain(), 'source', '--config', second.configFile]);
    t.is(refused.code, 4);
    t.regex(refused.stderr, /journal-locked/);
    t.is((await site.sourceGroup()).state, 'protecting');
  });
});
