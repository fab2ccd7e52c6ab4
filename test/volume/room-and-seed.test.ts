import { existsSync, readdirSync, readFileSync, statSync, unlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { WindowPart } from '../../daemon/nbd/export.ts';
import { ComingShipper } from '../../daemon/ship/coming-shipper.ts';
import { Shipper } from '../../daemon/ship/shipper.ts';
import { ChangeMap, GRANULE_BYTES } from '../../daemon/volume/change-map.ts';
import type { GroupOptions } from '../../daemon/volume/group-options.ts';
import type { ProtectedGroup } from '../../daemon/volume/protected-group.ts';
import { TidemarkError } from '../../journal/base/errors.ts';
import { FRAME_VERSION } from '../../journal/frame-codec.ts';
import type { Host } from '../../journal/host/host.ts';
import { realHost } from '../../journal/host/real-host.ts';
import { JournalReader } from '../../journal/journal-reader.ts';
import { RecordKind } from '../../journal/record.ts';
import { decodeGap, decodeVolumeAdded, type GapBody } from '../../journal/record-bodies.ts';
import { MemorySink } from '../ship/memory-sink.ts';
import { GroupBench, HandClient, MIB, pattern, randomSource, until } from './support/group-bench.ts';

const SIZE = 16 * MIB;

function small(bench: GroupBench, change: Partial<GroupOptions>): Partial<GroupOptions> {
  const { journal } = bench.options([]);
  return { journal: { ...journal, fileBytes: MIB, budgetBytes: 6 * MIB }, ...change };
}

/** However busy the machine is. */
const FOR_EVER = { silentMs: 600_000, slowMs: 600_000 };

/** A file system of 6 MiB under a budget of a gibibyte. */
function onSmallFileSystem(): Host {
  const real = realHost();
  const freeBytes = (directory: string): number => {
    const sizes = readdirSync(directory).map(
      (name) => statSync(join(directory, name), { throwIfNoEntry: false })?.size,
    );
    return Math.max(0, 6 * MIB - sizes.reduce<number>((sum, size) => sum + (size ?? 0), 0));
  };
  const disk = new Proxy(real.disk, {
    get(target, name) {
      if (name === 'freeBytes') return freeBytes;
      const value: unknown = Reflect.get(target, name);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
  return { ...real, disk };
}

for (const [what, host, budgetBytes] of [
  ['out of room', realHost(), 6 * MIB],
  ['on a file system smaller than the budget', onSmallFileSystem(), 1024 * MIB],
] as const) {
  test(`${what}, with the policy block: the guest waits, without an error, until there is room`, async (t) => {
    const bench = new GroupBench();
    bench.disk('a.raw', SIZE);
    const options = bench.options(
      [{ name: 'a', backing: bench.backing('a.raw') }],
      small(bench, { outOfRoom: 'block' }),
    );
    const group = await bench.open({ ...options, journal: { ...options.journal, budgetBytes } }, host);
    const client = new HandClient(group.exports('local')[0]!);
    const random = randomSource(5);
    let windows = 0;
    while (group.status().clientsHeldBack === 0) {
      await client.ready();
      const answers = await client.all(
        Array.from({ length: 8 }, () => ({ do: 'write', offset: random(SIZE / 4096) * 4096, bytes: pattern(4096, 1) })),
      );
      t.true(answers.every((answer) => answer === 'ok'));
      windows++;
      await new Promise((resolve) => {
        setImmediate(resolve);
      });
    }
    t.true(windows > 50 && client.pauses > 1, `${windows} windows, ${client.pauses} pauses`);
    t.true(group.status().pressure > 0.9);
    await until(() => group.status().checkpointLsn > 8);
    t.is(group.status().clientsHeldBack, 1, 'it is the stream that is waited for');
    t.true(group.status().heldForRoom);
    bench.marks.advanceAddress('shipped', bench.marks.address('durable'));
    await client.ready();
    t.is(await client.write(0, pattern(4096, 2)), 'ok');
    t.is(group.status().state, 'protecting');
    t.false(group.status().heldForRoom);
    await group.close();
    bench.remove();
  });
}

test('out of room with the policy stop-protecting: the guest goes on, what was given up is known and recorded', async (t) => {
  const bench = new GroupBench();
  bench.disk('a.raw', SIZE);
  const options = () =>
    bench.options(
      [{ name: 'a', backing: bench.backing('a.raw') }],
      small(bench, { outOfRoom: 'stop-protecting', flushAgeMs: 1 }),
    );
  let group = await bench.open(options());
  const client = new HandClient(group.exports('local')[0]!);
  // 12 MiB through a budget of 6, all into the first half of the disk
  const random = randomSource(6);
  const written = new Map<number, number>();
  for (let window = 0; window < 192; window++) {
    await client.ready();
    const offset = random(SIZE / 2 / 65_536) * 65_536;
    written.set(offset, window);
    t.is(await client.write(offset, pattern(65_536, window)), 'ok');
  }
  await until(() => group.status().state === 'unprotected');
  const { givenUp } = group.status();
  t.true(givenUp !== undefined && givenUp.toLsn > 50);
  await until(() => group.status().givenUp?.announcedLsn === group.status().givenUp?.toLsn);
  for (const [offset, window] of written) t.true((await client.read(offset, 65_536)).equals(pattern(65_536, window)));
  await group.close();
  // Giving up goes on until then.
  const last = group.status().givenUp!;

  const map = await ChangeMap.open(realHost(), bench.place, [{ id: 1, size: SIZE }]);
  t.deepEqual(map.givenUp, last);
  t.true(map.markedGranules > 20);
  let outside = 0;
  for (let at = SIZE / 2; at < SIZE; at += GRANULE_BYTES) if (map.isMarked(1, at / 512)) outside++;
  t.is(outside, 0);
  await map.close();
  const gaps = gapsOf(bench, last.address);
  t.is(gaps.at(-1)?.toLsn, last.toLsn);
  t.is(gaps.at(-1)?.fromLsn, 1);

  group = await bench.open(options());
  t.is(group.status().state, 'unprotected', 'a restart does not forget the gap');
  const reader = new HandClient(group.exports('local')[0]!);
  for (const [offset, window] of written) t.true((await reader.read(offset, 65_536)).equals(pattern(65_536, window)));
  await group.close();
  bench.remove();
});

/** A shipper on a file system that has no room for a new ship.state. */
function ship(bench: GroupBench, group: ProtectedGroup, sink: MemorySink): Promise<Shipper> {
  const real = realHost();
  const open: Host['disk']['open'] = (path, how) => {
    if (path.endsWith('/ship.state.new')) throw new TidemarkError('no-space', path);
    return real.disk.open(path, how);
  };
  const disk = new Proxy(real.disk, {
    get(target, name) {
      if (name === 'open') return open;
      const value: unknown = Reflect.get(target, name);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
  const { journal } = group;
  const { epoch, marks } = journal;
  const incarnation = journal.incarnation!;
  return Shipper.open(
    { ...real, disk },
    {
      directory: bench.journalDirectory,
      journal,
      marks,
      identity: { groupId: bench.groupId, groupName: 'bench', epoch, incarnation, frameVersion: FRAME_VERSION },
      sinks: [sink],
      replicas: [{ name: 'dr1', required: true }],
      givenUp: group.status().givenUp,
    },
  );
}

test('a start that finds the journal full gives up nothing before shipping is open: a replica right behind it goes on', async (t) => {
  const bench = new GroupBench();
  bench.disk('a.raw', SIZE);
  let asked = 0;
  const open = (from: GroupBench, coming: ComingShipper) => {
    asked = 0;
    const beforeGivingUp: GroupOptions['beforeGivingUp'] = (end) => {
      asked++;
      return coming.keepChainAt(end);
    };
    const policy = { outOfRoom: 'stop-protecting', flushAgeMs: 1, beforeGivingUp } as const;
    return from.open(from.options([{ name: 'a', backing: from.backing('a.raw') }], small(from, policy)));
  };
  const never = new ComingShipper();
  const first = await open(bench, never);
  const client = new HandClient(first.exports('local')[0]!);
  for (let window = 0; window < 400 && asked === 0; window++) {
    await client.ready();
    t.is(await client.write((window % 64) * 65_536, pattern(65_536, window)), 'ok');
  }
  await until(() => asked === 1);
  await client.flush();
  const killed = bench.copy();
  never.failed();
  await first.close();
  t.is(first.status().givenUp, undefined, 'without a shipper nothing is given up');

  const coming = new ComingShipper();
  const group = await open(killed, coming);
  const { journal } = group;
  await until(() => asked === 1);
  await new Promise((resolve) => setTimeout(resolve, 100));
  t.is(group.status().givenUp, undefined);
  t.is(journal.oldestLsn, 1);
  const sink = new MemorySink();
  sink.windowBytes = 0;
  const shipper = await ship(killed, group, sink);
  coming.opened(shipper);
  await until(() => (group.status().givenUp?.announcedLsn ?? 0) > 0);
  const { oldestLsn } = journal;
  t.is(oldestLsn, group.status().givenUp!.toLsn + 1);
  sink.windowBytes = 1 << 30;
  sink.seek(oldestLsn);
  await until(() => sink.frames.length > 0 || shipper.status().code !== null);
  t.is(shipper.status().reason, '');
  t.is(sink.frames[0]?.firstLsn, oldestLsn);
  const chain = sink.frames[0]?.chainBefore;
  const again = killed.copy();
  await shipper.close();
  await group.close();

  // The next start knows the chain though ship.state never had any room.
  t.false(existsSync(join(again.journalDirectory, 'ship.state')));
  const soon = new ComingShipper();
  const last = await open(again, soon);
  t.is(last.journal.oldestLsn, oldestLsn);
  const lastSink = new MemorySink();
  const lastShipper = await ship(again, last, lastSink);
  soon.opened(lastShipper);
  lastSink.seek(oldestLsn);
  await until(() => lastSink.frames.length > 0 || lastShipper.status().code !== null);
  t.is(lastShipper.status().reason, '');
  t.deepEqual([lastSink.frames[0]?.firstLsn, lastSink.frames[0]?.chainBefore], [oldestLsn, chain]);
  await lastShipper.close();
  await last.close();
  for (const each of [bench, killed, again]) each.remove();
});

test('what replicas took after history was given up is not said to be given up: the change map knows nothing of it', async (t) => {
  const bench = new GroupBench();
  bench.disk('a.raw', SIZE);
  const volumes = [{ name: 'a', backing: bench.backing('a.raw') }];
  const group = await bench.open(bench.options(volumes, small(bench, { outOfRoom: 'stop-protecting', flushAgeMs: 1 })));
  const client = new HandClient(group.exports('local')[0]!);
  const fill = async (from: number, isEnough: () => boolean): Promise<void> => {
    for (let window = 0; window < 400 && !isEnough(); window++) {
      await client.ready();
      t.is(await client.write(from + (window % 64) * 65_536, pattern(65_536, window)), 'ok');
    }
  };
  await fill(0, () => group.status().givenUp !== undefined);
  await until(() => group.status().givenUp?.announcedLsn === group.status().givenUp?.toLsn);
  await client.flush();
  const shippedLsn = bench.marks.lsn('durable');
  bench.marks.advanceAddress('shipped', bench.marks.address('durable'));
  await fill(SIZE / 2, () => (group.status().givenUp?.toLsn ?? 0) > shippedLsn);
  const { fromLsn = 0, toLsn = 0 } = group.status().givenUp ?? {};
  t.true(toLsn > shippedLsn, `${toLsn}`);
  t.true(fromLsn > shippedLsn, `given up from ${fromLsn}, taken up to ${shippedLsn}`);
  await group.close();
  bench.remove();
});

// Simulation seed 400384 (R13): the record that closes a request stands in what was given up, its first pieces before it.
test('a request whose first pieces replicas took before history was given up is in the change map as a whole', async (t) => {
  const bench = new GroupBench();
  bench.disk('a.raw', SIZE);
  const volumes = [{ name: 'a', backing: bench.backing('a.raw') }];
  const group = await bench.open(bench.options(volumes, small(bench, { outOfRoom: 'stop-protecting', flushAgeMs: 1 })));
  const client = new HandClient(group.exports('local')[0]!);
  const slow = new HandClient(group.exports('local')[0]!);
  const piece = (at: number, part: 1 | 2) => ({ do: 'write', offset: at, bytes: pattern(65_536, at), part }) as const;
  void slow.submit([piece(0, WindowPart.more)]);
  await client.flush();
  bench.marks.advanceAddress('shipped', bench.marks.address('durable'));
  t.deepEqual(await slow.all([piece(65_536, WindowPart.last)]), ['ok']);
  const closedLsn = group.status().headLsn;
  for (let window = 0; window < 400 && (group.status().givenUp?.toLsn ?? 0) < closedLsn; window++) {
    await client.ready();
    t.is(await client.write(SIZE / 2 + (window % 64) * 65_536, pattern(65_536, window)), 'ok');
  }
  await group.close();
  const map = await ChangeMap.open(realHost(), bench.place, [{ id: 1, size: SIZE }]);
  t.true((map.givenUp?.fromLsn ?? 0) === closedLsn, `${map.givenUp?.fromLsn}`);
  t.true(map.isMarked(1, 65_536 / 512));
  t.true(map.isMarked(1, 0));
  t.false(map.isMarked(1, (3 * 65_536) / 512));
  await map.close();
  bench.remove();
});

test('a disk that is not empty is refused without a seed; with one, all of it but zeroes is journalled first', async (t) => {
  const bench = new GroupBench();
  const path = bench.disk('a.raw', SIZE);
  const content = Buffer.alloc(SIZE);
  pattern(12_288, 1).copy(content, MIB);
  pattern(512, 2).copy(content, SIZE - 512);
  writeFileSync(path, content);
  const plain = bench.options([{ name: 'a', backing: bench.backing('a.raw') }]);
  await t.throwsAsync(bench.open(plain), { code: 'backing-not-empty' });
  await plain.volumes[0]!.backing.close();
  const group = await bench.open(bench.options([{ name: 'a', backing: bench.backing('a.raw'), seed: true }]));
  await group.seeded();
  t.is(group.status().state, 'protecting');
  const client = new HandClient(group.exports('local')[0]!);
  t.true((await client.read(0, SIZE)).equals(content));
  const seeded = Buffer.alloc(SIZE);
  const kinds = readRecords(bench, 0, (kind, sector, payload) => {
    if (kind === RecordKind.seed) Buffer.from(payload).copy(seeded, sector * 512);
  });
  t.true(seeded.equals(content));
  t.is(kinds.filter((kind) => kind === RecordKind.seedEnd).length, 1);
  t.true(kinds.indexOf(RecordKind.volumeAdded) < kinds.indexOf(RecordKind.seed));
  await group.close();
  bench.remove();
});

test('a volume says how it starts; a seed that was announced ends also when the disk of the next start is an empty one', async (t) => {
  const bench = new GroupBench();
  bench.disk('a.raw', SIZE);
  const group = await bench.open(bench.options([{ name: 'a', backing: bench.backing('a.raw'), seed: true }]));
  await group.seeded();
  const starts: unknown[] = [];
  readRecords(bench, 0, (kind, _sector, payload) => {
    if (kind === RecordKind.volumeAdded) starts.push(decodeVolumeAdded(payload).starts);
  });
  t.deepEqual(starts, ['seeded']);
  // as if it was killed before its own files were written
  const killed = bench.copy();
  await group.close();
  bench.remove();
  for (const name of ['volumes.state', 'volume-1.stamp']) unlinkSync(`${killed.place.directory}/${name}`);
  const again = await killed.open(killed.options([{ name: 'a', backing: killed.backing('a.raw') }]));
  await again.seeded();
  const kinds = readRecords(killed, 0, () => undefined);
  t.is(kinds.filter((kind) => kind === RecordKind.volumeAdded).length, 1);
  t.is(kinds.filter((kind) => kind === RecordKind.seedEnd).length, 2);
  await again.close();
  killed.remove();
});

test('seeding goes on where a restart interrupted it, and the export stays shut until its end', async (t) => {
  const bench = new GroupBench();
  const path = bench.disk('a.raw', SIZE);
  writeFileSync(path, pattern(SIZE, 7));
  const options = () =>
    bench.options([{ name: 'a', backing: bench.exactBacking('a.raw'), seed: true }], small(bench, {}));
  let group = await bench.open(options());
  // nothing is shipped, so the seed fills the journal and waits; what it journalled needs no replay at the next start
  await until(() => group.status().pressure >= 0.85);
  await until(() => group.status().checkpointLsn > 8);
  t.is(group.status().state, 'seeding');
  t.throws(() => new HandClient(group.exports('local')[0]!), { code: 'precondition-failed' });
  const interrupted = group.seeded();
  // the product's own timers keep no process alive
  const alive = setInterval(() => undefined, 1_000);
  const before = group.status().headLsn;
  await group.close();
  await t.throwsAsync(interrupted, { code: 'shutting-down' });
  clearInterval(alive);
  group = await bench.open(options());
  const resumedFrom = group.status().volumes[0]!.seededBytes ?? 0;
  t.true(resumedFrom > 2 * MIB, `${resumedFrom}`);
  const ship = setInterval(() => bench.marks.advanceAddress('shipped', bench.marks.address('durable')), 5);
  await group.seeded();
  clearInterval(ship);
  t.true(group.status().headLsn - before < (SIZE - resumedFrom) / (256 * 1024) + 10, 'nothing was seeded twice');
  t.true((await new HandClient(group.exports('local')[0]!).read(0, SIZE)).equals(readFileSync(path)));
  await group.close();
  bench.remove();
});

test('a seed with the policy stop-protecting waits for the stream: it gives up no history, its own least of all', async (t) => {
  const bench = new GroupBench();
  writeFileSync(bench.disk('a.raw', SIZE), pattern(SIZE, 9));
  const options = bench.options(
    [{ name: 'a', backing: bench.backing('a.raw'), seed: true }],
    small(bench, { outOfRoom: 'stop-protecting' }),
  );
  const group = await bench.open(options);
  const { journal } = group;
  let isSeeded = false;
  const seeded = group.seeded().then(() => {
    isSeeded = true;
  });
  const isWaiting = async (): Promise<boolean> => {
    const before = journal.endAddress;
    await new Promise((resolve) => setTimeout(resolve, 200));
    return journal.endAddress === before;
  };
  for (let pushes = 0; !isSeeded; pushes++) {
    t.true(pushes < 100);
    while (!(isSeeded || (await isWaiting())));
    t.is(group.status().givenUp, undefined);
    t.is(journal.oldestAddress <= bench.marks.address('shipped'), true);
    bench.marks.advanceAddress('shipped', bench.marks.address('durable'));
  }
  await seeded;
  t.is(group.status().state, 'protecting');
  await group.close();
  bench.remove();
});

test('a disk that changes while its seeding is interrupted is refused', async (t) => {
  const bench = new GroupBench();
  const path = bench.disk('a.raw', SIZE);
  writeFileSync(path, pattern(SIZE, 7));
  const options = () =>
    bench.options([{ name: 'a', backing: bench.exactBacking('a.raw'), seed: true }], small(bench, {}));
  const group = await bench.open(options());
  await until(() => group.status().pressure >= 0.85);
  void group.seeded().catch(() => undefined);
  await group.close();
  writeFileSync(path, pattern(SIZE, 8));
  const changed = options();
  await t.throwsAsync(bench.open(changed), { code: 'backing-changed' });
  await changed.volumes[0]!.backing.close();
  bench.remove();
});

function readRecords(
  bench: GroupBench,
  from: number,
  visit: (kind: RecordKind, sector: number, payload: Uint8Array) => void,
): RecordKind[] {
  const { directory, groupId } = bench.options([]).journal;
  const reader = JournalReader.open(realHost(), { directory, groupId }, from);
  const kinds: RecordKind[] = [];
  const end = bench.marks.address('durable');
  for (let batch = reader.next(end); batch !== undefined; batch = reader.next(end)) {
    for (const record of batch) {
      kinds.push(record.kind);
      visit(record.kind, record.sector, record.payload);
    }
  }
  void reader.close();
  return kinds;
}

function gapsOf(bench: GroupBench, from: number): GapBody[] {
  const gaps: GapBody[] = [];
  readRecords(bench, from, (kind, _sector, payload) => {
    if (kind === RecordKind.gap) gaps.push(decodeGap(payload));
  });
  return gaps;
}

test('who has begun the request that alone holds all of the room goes on with it; who only waits like others does not', async (t) => {
  t.timeout(60_000);
  const bench = new GroupBench();
  bench.disk('a.raw', SIZE);
  const volumes = [{ name: 'a', backing: bench.backing('a.raw') }];
  const group = await bench.open(bench.options(volumes, small(bench, { flushAgeMs: 1, holderPatience: FOR_EVER })));
  const device = group.exports('local')[0]!;
  const [slow, young, fast] = [new HandClient(device), new HandClient(device), new HandClient(device)];
  const ship = setInterval(() => bench.marks.advanceAddress('shipped', bench.marks.address('durable')), 2);
  const piece = (client: HandClient, part: number, offset: number) =>
    client.submit([{ do: 'write', offset, bytes: pattern(65_536, offset), part }]);
  void piece(slow, WindowPart.more, 0);
  t.is(await fast.write(SIZE / 2, pattern(4096, 1)), 'ok');
  void piece(young, WindowPart.more, 524_288);
  // all of it reaches the disk, and the journal keeps it for the first piece
  while (group.status().clientsHeldBack === 0) {
    await fast.ready();
    t.is(await fast.write(SIZE / 2, pattern(65_536, 2)), 'ok');
  }
  void piece(young, WindowPart.more, 524_288 + 65_536);
  void piece(slow, WindowPart.more, 65_536);
  t.is(group.status().clientsHeldBack, 3);
  await slow.ready();
  t.is(group.status().clientsHeldBack, 2, 'the others wait for it');
  t.is(await piece(slow, WindowPart.last, 131_072)[0], 'ok');
  // which leaves the room to the other one, and then to all
  await young.ready();
  t.is(await piece(young, WindowPart.last, 524_288 + 131_072)[0], 'ok');
  await Promise.all([slow.ready(), young.ready(), fast.ready()]);
  for (const from of [0, 524_288]) {
    for (const at of [from, from + 65_536, from + 131_072]) {
      t.true((await fast.read(at, 65_536)).equals(pattern(65_536, at)), `${at}`);
    }
  }
  clearInterval(ship);
  await group.close();
  bench.remove();
});

test('who begins a request that comes to hold all of the room and stops sending is closed; it has no effect and the others go on', async (t) => {
  t.timeout(60_000);
  const bench = new GroupBench();
  bench.disk('a.raw', SIZE);
  const volumes = [{ name: 'a', backing: bench.backing('a.raw') }];
  const change = small(bench, { flushAgeMs: 1, heartbeatMs: 50, holderPatience: { silentMs: 100, slowMs: 1000 } });
  const group = await bench.open(bench.options(volumes, change));
  const device = group.exports('local')[0]!;
  const [hanging, fast] = [new HandClient(device), new HandClient(device)];
  const ship = setInterval(() => bench.marks.advanceAddress('shipped', bench.marks.address('durable')), 2);
  void hanging.submit([{ do: 'write', offset: 0, bytes: pattern(65_536, 7), part: WindowPart.more }]);
  // six times what the journal holds
  for (let write = 0; write < 200; write++) {
    await fast.ready();
    t.is(await fast.write(SIZE / 2, pattern(65_536, write)), 'ok');
  }
  t.regex(hanging.closedBy ?? '', /stopped in the middle/);
  t.is(fast.closedBy, undefined);
  t.true((await fast.read(0, 65_536)).equals(Buffer.alloc(65_536)));
  t.true((await fast.read(SIZE / 2, 65_536)).equals(pattern(65_536, 199)));
  clearInterval(ship);
  await group.close();
  bench.remove();
});

// The time since somebody held the room and left counted against the next one who did, who was closed at once.
test('the time for who holds all of the room begins anew when nobody waited in between', async (t) => {
  t.timeout(60_000);
  const bench = new GroupBench();
  bench.disk('a.raw', SIZE);
  const volumes = [{ name: 'a', backing: bench.backing('a.raw') }];
  const change = small(bench, { flushAgeMs: 1, heartbeatMs: 20, holderPatience: { silentMs: 60_000, slowMs: 2000 } });
  const group = await bench.open(bench.options(volumes, change));
  const ship = setInterval(() => bench.marks.advanceAddress('shipped', bench.marks.address('durable')), 2);
  const piece = (client: HandClient, part: number, at: number) =>
    client.submit([{ do: 'write', offset: (at * 65_536) % SIZE, bytes: pattern(65_536, at), part }])[0];
  /** Its request fills the journal, and it goes on with it. */
  const hold = async (client: HandClient): Promise<void> => {
    for (let at = 0; group.status().clientsHeldBack === 0; at++) {
      await client.ready();
      void piece(client, WindowPart.more, at);
    }
    await client.ready();
  };
  const first = new HandClient(group.exports('local')[0]!);
  await hold(first);
  first.client.detach();
  await new Promise((resolve) => setTimeout(resolve, 2500));
  const second = new HandClient(group.exports('local')[0]!);
  await hold(second);
  t.is(second.closedBy, undefined);
  t.is(await piece(second, WindowPart.last, 0), 'ok');
  clearInterval(ship);
  await group.close();
  bench.remove();
});

test('what was given up right before a kill is told by the next start, once, however often that cannot be noted', async (t) => {
  const bench = new GroupBench();
  bench.disk('a.raw', SIZE);
  const open = (host: Host, budgetBytes: number) => {
    const volumes = [{ name: 'a', backing: bench.backing('a.raw') }];
    const options = bench.options(volumes, small(bench, { outOfRoom: 'stop-protecting', flushAgeMs: 1 }));
    return bench.open({ ...options, journal: { ...options.journal, budgetBytes } }, host);
  };
  let group = await open(realHost(), 6 * MIB);
  const client = new HandClient(group.exports('local')[0]!);
  for (let window = 0; group.status().givenUp === undefined; window++) {
    await client.ready();
    t.is(await client.write((window % 64) * 65_536, pattern(65_536, window)), 'ok');
  }
  client.client.detach();
  await until(() => group.status().givenUp?.announcedLsn === group.status().givenUp?.toLsn);
  await group.close();
  const { toLsn, address } = group.status().givenUp!;
  const map = await ChangeMap.open(realHost(), bench.place, [{ id: 1, size: SIZE }]);
  await map.save({ ...map.givenUp!, announcedLsn: 0 });
  await map.close();
  const told = (): number => gapsOf(bench, address).filter((gap) => gap.toLsn === toLsn).length;
  const before = told();
  let writes = 0;
  // the first write is of what this start goes by: without it there is no start
  const isFailed = (): boolean => ++writes > 1 && writes <= 4;
  // with room: what the stop above still wrote out would let this start give up more, and tell that instead
  group = await open(
    withChangeMap((write) => (isFailed() ? Promise.reject(new TidemarkError('no-space', 'the change map')) : write())),
    64 * MIB,
  );
  // every move of a mark is a reason to try again
  for (let flush = 0; group.status().givenUp?.announcedLsn !== toLsn; flush++) {
    t.true(flush < 1_000);
    await group.bookmark(`${flush}`, 'crash');
  }
  t.true(writes > 4, `${writes}`);
  t.is(told(), before + 1);
  await group.close();
  bench.remove();
});

test('a guest that is faster than giving up waits for it, without an error, and goes on', async (t) => {
  const bench = new GroupBench();
  bench.disk('a.raw', SIZE);
  const volumes = [{ name: 'a', backing: bench.backing('a.raw') }];
  const change = small(bench, { outOfRoom: 'stop-protecting', flushAgeMs: 1 });
  let isSlow = false;
  let waiting: (() => void) | undefined;
  const slow = withChangeMap((write) => {
    if (!isSlow) return write();
    return new Promise<void>((resolve) => {
      waiting = resolve;
    }).then(write);
  });
  const group = await bench.open(bench.options(volumes, change), slow);
  isSlow = true;
  const client = new HandClient(group.exports('local')[0]!);
  const write = async (window: number) => {
    await client.ready();
    t.is(await client.write((window % 64) * 65_536, pattern(65_536, window)), 'ok');
  };
  let windows = 0;
  for (; windows < 400 && group.status().clientsHeldBack === 0; windows++) await write(windows);
  // what is written out holds nobody; the change map does
  await until(() => waiting !== undefined && group.status().checkpointLsn === group.status().headLsn);
  t.is(group.status().clientsHeldBack, 1);
  t.true(group.status().heldForRoom);
  t.is(group.status().givenUp, undefined);
  isSlow = false;
  waiting?.();
  for (const end = windows + 128; windows < end; windows++) await write(windows);
  t.true((group.status().givenUp?.toLsn ?? 0) > 0);
  await group.close();
  bench.remove();
});

/** A machine on which every write of the change map goes through `pass`. */
function withChangeMap(pass: (write: () => Promise<number>) => Promise<number>): Host {
  const real = realHost();
  const bound = <T extends object>(target: T, name: string | symbol): unknown => {
    const value: unknown = Reflect.get(target, name);
    return typeof value === 'function' ? value.bind(target) : value;
  };
  const open: Host['disk']['open'] = (path, how) => {
    const file = real.disk.open(path, how);
    // it is made under another name
    if (!path.includes('/change-map.state')) return file;
    const write: typeof file.write = (...what) => pass(() => file.write(...what));
    return new Proxy(file, { get: (target, name) => (name === 'write' ? write : bound(target, name)) });
  };
  const disk = new Proxy(real.disk, { get: (target, name) => (name === 'open' ? open : bound(target, name)) });
  return { ...real, disk };
}

test('the room of a request whose sender is gone comes free though nobody may write', async (t) => {
  t.timeout(60_000);
  const bench = new GroupBench();
  bench.disk('a.raw', SIZE);
  const volumes = [{ name: 'a', backing: bench.backing('a.raw') }];
  const group = await bench.open(
    bench.options(volumes, small(bench, { flushAgeMs: 1, heartbeatMs: 60_000, holderPatience: FOR_EVER })),
  );
  const device = group.exports('local')[0]!;
  const [leaves, stays] = [new HandClient(device), new HandClient(device)];
  const ship = setInterval(() => bench.marks.advanceAddress('shipped', bench.marks.address('durable')), 2);
  const begun = { do: 'write', offset: 0, bytes: pattern(65_536, 1), part: WindowPart.more } as const;
  void leaves.submit([begun]);
  while (group.status().clientsHeldBack === 0) {
    await stays.ready();
    t.is(await stays.write(SIZE / 2, pattern(65_536, 2)), 'ok');
  }
  // all of it is on the disk, so that nothing is left to be written out
  await until(() => bench.marks.address('applied') === bench.marks.address('written'));
  leaves.client.detach();
  await stays.ready();
  t.is(await stays.write(0, pattern(4096, 3)), 'ok');
  clearInterval(ship);
  await group.close();
  bench.remove();
});
