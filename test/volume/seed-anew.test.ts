import { readFileSync, writeFileSync } from 'node:fs';
import test, { type ExecutionContext } from 'ava';
import type { Backing } from '../../daemon/backing/backing.ts';
import { FileBacking } from '../../daemon/backing/file-backing.ts';
import type { GroupOptions } from '../../daemon/volume/group-options.ts';
import type { ProtectedGroup } from '../../daemon/volume/protected-group.ts';
import { VolumeRegistry } from '../../daemon/volume/volume-registry.ts';
import { realHost } from '../../journal/host/real-host.ts';
import { JournalReader } from '../../journal/journal-reader.ts';
import { RecordKind } from '../../journal/record.ts';
import { decodeSeedEnd } from '../../journal/record-bodies.ts';
import { GroupBench, HandClient, MIB, pattern, until } from './support/group-bench.ts';

/* Behind a gap every volume is seeded anew: what history gets from then on is the disk, holes included. */

const SIZE = 8 * MIB;
const NAMES = ['a', 'b'] as const;

/** A disk that is taken for the same wherever a copy of it lies, whenever it was made. */
function copied(bench: GroupBench, name: string, writeMs: number): Backing {
  const backing = bench.backing(name);
  const identity = async () => ({
    ...(await FileBacking.prototype.identity.call(backing)),
    node: '',
    modifiedNanos: '0',
  });
  // slow, so that who does not wait for what is written out reads something else
  const write = async (offset: number, from: Uint8Array): Promise<void> => {
    await new Promise((resolve) => setTimeout(resolve, writeMs));
    await FileBacking.prototype.write.call(backing, offset, from);
  };
  return Object.assign(backing, { identity, write, writeMany: undefined });
}

function options(
  bench: GroupBench,
  budgetBytes = 64 * MIB,
  change: Partial<GroupOptions> = {},
  writeMs = 20,
): GroupOptions {
  const { journal } = bench.options([]);
  const volumes = NAMES.map((name) => ({ name, backing: copied(bench, `${name}.raw`, writeMs), seed: true }));
  return bench.options(volumes, { journal: { ...journal, fileBytes: MIB, budgetBytes }, ...change });
}

async function seedAllAnew(bench: GroupBench): Promise<void> {
  const registry = VolumeRegistry.load(realHost(), bench.place);
  registry.seedAllAnew();
  await registry.save();
}

/** What a replica that held nothing but rubbish would show of a volume at the newest SEED_END of it and behind. */
function historyOf(bench: GroupBench, id: number): { readonly image: Buffer; readonly ends: number } {
  const image = Buffer.alloc(SIZE, 0xee);
  let ends = 0;
  const { directory, groupId } = bench.place;
  const reader = JournalReader.open(realHost(), { directory, groupId }, 0);
  for (;;) {
    const batch = reader.next(bench.marks.address('durable'));
    if (batch === undefined) break;
    for (const { kind, volume, sector, sectors, payload } of batch) {
      if (kind === RecordKind.seedEnd && decodeSeedEnd(payload).volume === id) ends++;
      if (volume !== id) continue;
      if (kind === RecordKind.write || kind === RecordKind.seed) image.set(payload, sector * 512);
      const isZero = kind === RecordKind.blank || kind === RecordKind.zero || kind === RecordKind.trim;
      if (isZero) image.fill(0, sector * 512, (sector + sectors) * 512);
    }
  }
  void reader.close();
  return { image, ends };
}

/** Until the volumes are seeded; `isShipped`: as if a replica took everything, so that the journal has room. */
async function seeded(bench: GroupBench, group: ProtectedGroup, isShipped = false): Promise<void> {
  const ship = setInterval(() => {
    if (isShipped) bench.marks.advanceAddress('shipped', bench.marks.address('checkpoint'));
  }, 5);
  await group.seeded();
  clearInterval(ship);
}

/** Two disks with holes, seeded, written to over holes and trimmed; nothing of the last part is written out yet. */
async function written(t: ExecutionContext): Promise<{ bench: GroupBench; models: Record<'a' | 'b', Buffer> }> {
  const bench = new GroupBench();
  t.teardown(() => bench.remove());
  const models = { a: Buffer.alloc(SIZE), b: Buffer.alloc(SIZE) };
  for (const [index, name] of NAMES.entries()) {
    const path = bench.disk(`${name}.raw`, SIZE);
    pattern(MIB, index).copy(models[name], (index + 1) * MIB);
    writeFileSync(path, models[name]);
  }
  const group = await bench.open(options(bench, 64 * MIB, { flushAgeMs: 60_000, flushBytes: 64 * MIB }));
  await seeded(bench, group);
  const synced = { a: Buffer.from(models.a), b: Buffer.from(models.b) };
  for (const [index, name] of NAMES.entries()) {
    const client = new HandClient(group.exports('local')[index]!);
    for (let at = 0; at < 8; at++) {
      const offset = 4 * MIB + at * 65_536 * 2;
      t.is(await client.write(offset, pattern(65_536, 10 * index + at)), 'ok');
      pattern(65_536, 10 * index + at).copy(models[name], offset);
    }
    const trimmed = await client.all([{ do: 'trim', offset: (index + 1) * MIB, length: 65_536 }]);
    t.deepEqual(trimmed, ['ok']);
    models[name].fill(0, (index + 1) * MIB, (index + 1) * MIB + 65_536);
    await client.flush();
  }
  const killed = bench.copy();
  // nothing of it was synced in the disks: power that goes may take it
  for (const name of NAMES) writeFileSync(killed.path(`${name}.raw`), synced[name]);
  t.teardown(() => killed.remove());
  await group.close();
  return { bench: killed, models };
}

async function check(t: ExecutionContext, bench: GroupBench, models: Record<'a' | 'b', Buffer>): Promise<void> {
  for (const [index, name] of NAMES.entries()) {
    t.true(readFileSync(bench.path(`${name}.raw`)).equals(models[name]), `the disk of ${name}`);
    const { image, ends } = historyOf(bench, index + 1);
    t.true(image.equals(models[name]), `the history of ${name}`);
    t.true(ends >= 1);
  }
}

test('seeded anew: what the journal alone holds goes into the disks first, zeroes are told before the first block, the disks stay as they are', async (t) => {
  const { bench, models } = await written(t);
  await seedAllAnew(bench);
  const group = await bench.open(options(bench, 64 * MIB, {}, 250));
  t.is(group.status().state, 'seeding');
  t.throws(() => new HandClient(group.exports('local')[0]!), { code: 'precondition-failed' });
  await seeded(bench, group);
  t.is(group.status().state, 'protecting');
  const client = new HandClient(group.exports('local')[1]!);
  t.is(await client.write(0, pattern(4096, 99)), 'ok');
  pattern(4096, 99).copy(models.b, 0);
  await client.flush();
  await group.drain();
  await check(t, bench, models);
  await group.close();
  t.true(VolumeRegistry.load(realHost(), bench.place).all.every(({ reseedFromLsn }) => reseedFromLsn === undefined));
});

test('a seed anew that is killed at any place goes on at the next start, and counts nothing of the seed before', async (t) => {
  const { bench, models } = await written(t);
  await seedAllAnew(bench);
  const copies: GroupBench[] = [];
  const group = await bench.open(options(bench, 64 * MIB, { heartbeatMs: 1000 }));
  const running = seeded(bench, group);
  let done = false;
  void running.finally(() => (done = true));
  while (!done) {
    // registry, stamps and disks as they are at some moment: no two files need be of one moment but for the journal
    copies.push(bench.copy());
    await new Promise((resolve) => setTimeout(resolve, 15));
  }
  await running;
  await group.close();
  t.true(copies.length >= 3, `${copies.length}`);
  let unfinished = 0;
  for (const copy of copies) {
    const again = await copy.open(options(copy));
    if (again.status().state === 'seeding') unfinished++;
    await seeded(copy, again);
    await again.drain();
    await check(t, copy, models);
    await again.close();
    copy.remove();
  }
  t.true(unfinished >= 2, `${unfinished}`);
});

test('a seed anew that is stopped goes on from where it was, with its progress shown', async (t) => {
  const { bench, models } = await written(t);
  await seedAllAnew(bench);
  for (const name of NAMES) {
    writeFileSync(bench.path(`${name}.raw`), pattern(SIZE, 5));
    models[name] = pattern(SIZE, 5);
  }
  const group = await bench.open(options(bench, 12 * MIB));
  await until(() => group.status().pressure >= 0.85);
  const interrupted = group.seeded();
  const alive = setInterval(() => undefined, 1_000);
  await group.close();
  await t.throwsAsync(interrupted, { code: 'shutting-down' });
  clearInterval(alive);
  const again = await bench.open(options(bench, 12 * MIB));
  t.true(again.status().volumes.some(({ seededBytes = 0 }) => seededBytes >= 256 * 1024));
  await seeded(bench, again, true);
  t.is(again.status().state, 'protecting');
  for (const name of NAMES) t.is(readFileSync(bench.path(`${name}.raw`)).length, SIZE);
  await again.close();
});
