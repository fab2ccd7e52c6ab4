import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { readStamp } from '../../daemon/backing/backing-stamp.ts';
import { WindowPart } from '../../daemon/nbd/export.ts';
import { replayOffline } from '../../daemon/volume/offline-replay.ts';
import { TidemarkError } from '../../journal/base/errors.ts';
import type { Disk, DiskFile, Host } from '../../journal/host/host.ts';
import { realHost } from '../../journal/host/real-host.ts';
import { FaultyDevice } from '../doubles/faulty-device.ts';
import {
  GroupBench,
  HandClient,
  MIB,
  ModelDisk,
  pattern,
  type Request,
  randomRequest,
  randomSource,
  until,
} from './support/group-bench.ts';

const SIZE = 4 * MIB;

test('what was written is read back, before and after it reaches the disk, also past a restart', async (t) => {
  const bench = new GroupBench();
  bench.disk('a.raw', SIZE);
  let group = await bench.open(bench.options([{ name: 'a', backing: bench.backing('a.raw') }]));
  let client = new HandClient(group.exports('local')[0]!);
  const requests: Request[] = [
    { do: 'write', offset: 512, bytes: pattern(1024, 1) },
    { do: 'write', offset: 1024, bytes: pattern(8192, 2) },
    { do: 'trim', offset: 2048, length: 512 },
    { do: 'flush' },
    { do: 'write', offset: MIB, bytes: pattern(4096, 3), fua: true },
  ];
  t.deepEqual(await client.all(requests, 28), ['ok', 'ok', 'ok', 'ok', 'ok']);
  const model = new ModelDisk(SIZE);
  for (const request of requests) model.apply(request);
  t.true((await client.read(0, SIZE)).equals(model.bytes));
  await group.drain();
  t.true((await client.read(0, SIZE)).equals(model.bytes));
  t.true(readFileSync(bench.path('a.raw')).equals(model.bytes));
  client.client.detach();
  await group.close();
  group = await bench.open(bench.options([{ name: 'a', backing: bench.backing('a.raw') }]));
  client = new HandClient(group.exports('local')[0]!);
  t.true((await client.read(0, SIZE)).equals(model.bytes));
  await group.close();
  bench.remove();
});

test('killed at any moment, everything acknowledged on both volumes is there, and the disks end up equal to it', async (t) => {
  const bench = new GroupBench();
  bench.disk('a.raw', SIZE);
  bench.disk('b.raw', SIZE);
  const volumes = (from: GroupBench) => [
    { name: 'a', backing: from.backing('a.raw') },
    { name: 'b', backing: from.backing('b.raw') },
  ];
  const group = await bench.open(bench.options(volumes(bench)));
  const clients = group.exports('local').map((one) => new HandClient(one));
  const models = [new ModelDisk(SIZE), new ModelDisk(SIZE)];
  const random = randomSource(7);
  for (let round = 1; round <= 240; round++) {
    const which = random(2);
    const requests = Array.from({ length: 1 + random(12) }, () => randomRequest(random, SIZE));
    const answers = clients[which]!.submit(requests, random(2) * 28);
    for (const request of requests) models[which]!.apply(request);
    if (random(3) === 0) await Promise.all(answers);
    await clients[which]!.ready();
    if (round % 40 !== 0) continue;
    // shipped moves, so that files are recycled meanwhile
    bench.marks.advanceAddress('shipped', bench.marks.address('durable'));
    const killed = bench.copy();
    const again = await killed.open(killed.options(volumes(killed)));
    for (const [index, one] of again.exports('local').entries()) {
      t.true((await new HandClient(one).read(0, SIZE)).equals(models[index]!.bytes), `round ${round}, volume ${index}`);
    }
    await again.drain();
    t.true(readFileSync(killed.path('a.raw')).equals(models[0]!.bytes));
    t.true(readFileSync(killed.path('b.raw')).equals(models[1]!.bytes));
    await again.close();
    killed.remove();
  }
  for (const [index, client] of clients.entries()) {
    t.true((await client.read(0, SIZE)).equals(models[index]!.bytes));
  }
  t.true(bench.marks.address('checkpoint') > 0);
  await group.close();
  bench.remove();
});

test('a request in pieces is nothing until its last piece, also for a restart in the middle of it', async (t) => {
  const bench = new GroupBench();
  bench.disk('a.raw', SIZE);
  const group = await bench.open(bench.options([{ name: 'a', backing: bench.backing('a.raw') }]));
  const [target] = group.exports('local');
  const client = new HandClient(target!);
  const other = new HandClient(target!);
  await client.write(0, pattern(8192, 1));
  await client.all([{ do: 'write', offset: 0, bytes: pattern(4096, 2), part: WindowPart.more }]);
  t.true((await client.read(0, 8192)).equals(pattern(8192, 1)));
  // what is written between the pieces is older than the whole request
  await other.write(0, pattern(512, 3));
  await other.flush();
  const killed = bench.copy();
  const again = await killed.open(killed.options([{ name: 'a', backing: killed.backing('a.raw') }]));
  const reader = new HandClient(again.exports('local')[0]!);
  const expected = Buffer.concat([pattern(512, 3), pattern(8192, 1).subarray(512)]);
  t.true((await reader.read(0, 8192)).equals(expected));
  await again.drain();
  t.true((await reader.read(0, 8192)).equals(expected));
  await again.close();
  killed.remove();
  // the open request holds the checkpoint back, not the write-out
  await group.drain();
  t.true(bench.marks.address('checkpoint') < bench.marks.address('applied'));
  t.true((await client.read(0, 8192)).equals(expected));
  t.deepEqual(await client.all([{ do: 'write', offset: 4096, bytes: pattern(4096, 4), part: WindowPart.last }]), [
    'ok',
  ]);
  const whole = Buffer.concat([pattern(4096, 2), pattern(4096, 4)]);
  t.true((await client.read(0, 8192)).equals(whole));
  await group.drain();
  t.is(bench.marks.address('checkpoint'), bench.marks.address('applied'));
  t.true(readFileSync(bench.path('a.raw')).subarray(0, 8192).equals(whole));
  await client.all([{ do: 'write', offset: 0, bytes: pattern(512, 9), part: WindowPart.more }]);
  await group.drain();
  t.true(bench.marks.address('checkpoint') < bench.marks.address('applied'));
  client.client.detach();
  await other.write(SIZE - 512, pattern(512, 1));
  await group.drain();
  t.is(bench.marks.address('checkpoint'), bench.marks.address('applied'), 'who is gone holds nothing up');
  t.true((await other.read(0, 8192)).equals(whole));
  await group.close();
  bench.remove();
});

test('a closing piece whose write failed and yet stands in the journal counts whole at the next start', async (t) => {
  const bench = new GroupBench();
  bench.disk('a.raw', SIZE);
  const { host, breakWrites } = faultyHost();
  // what is written out is synced by the stop, behind the failure
  const late = { flushAgeMs: 600_000, flushBytes: 64 * MIB, destageWindowBytes: MIB / 2 };
  const group = await bench.open(bench.options([{ name: 'a', backing: bench.backing('a.raw') }], late), host);
  const client = new HandClient(group.exports('local')[0]!);
  await client.write(0, pattern(8192, 1));
  await client.all([{ do: 'write', offset: 0, bytes: pattern(4096, 2), part: WindowPart.more }]);
  const other = new HandClient(group.exports('local')[0]!);
  // several windows to write out, so that some end behind the failure
  for (let at = 1; at < 4; at++) await other.write(at * MIB, pattern(MIB / 2, at));
  await other.flush();
  breakWrites();
  t.deepEqual(await client.all([{ do: 'write', offset: 4096, bytes: pattern(4096, 3), part: WindowPart.last }]), [
    'device-failed',
  ]);
  await until(() => group.status().destagedBytes >= 1.5 * MIB);
  await group.close();
  const again = await bench.open(bench.options([{ name: 'a', backing: bench.backing('a.raw') }]));
  const reader = new HandClient(again.exports('local')[0]!);
  const whole = Buffer.concat([pattern(4096, 2), pattern(4096, 3)]);
  t.true((await reader.read(0, 8192)).equals(whole), 'what a replica would make of the same records');
  await again.drain();
  t.true(readFileSync(bench.path('a.raw')).subarray(0, 8192).equals(whole));
  await again.close();
  bench.remove();
});

test('a backing that fails and forgets gets everything again; guests notice nothing', async (t) => {
  const bench = new GroupBench();
  const device = new FaultyDevice(SIZE);
  const group = await bench.open(bench.options([{ name: 'a', backing: device }], { flushAgeMs: 1 }));
  const client = new HandClient(group.exports('local')[0]!);
  const model = new ModelDisk(SIZE);
  const random = randomSource(3);
  for (let round = 1; round <= 120; round++) {
    const requests = Array.from({ length: 1 + random(8) }, () => randomRequest(random, SIZE));
    for (const request of requests) model.apply(request);
    for (const answer of await client.all(requests)) t.is(answer, 'ok');
    bench.marks.advanceAddress('shipped', bench.marks.address('durable'));
    if (round % 20 === 5) device.fail('write', 'device-failed');
    if (round % 20 === 10) device.fail('zero', 'no-space');
    if (round % 20 === 15) {
      device.vanish();
      // what came before may be flushed already, and then nobody would notice
      const late: Request = { do: 'write', offset: 0, bytes: pattern(512, round) };
      model.apply(late);
      t.deepEqual(await client.all([late]), ['ok']);
      await until(() => group.status().state === 'backing-failed');
      // while the disk is behind, reads are not
      t.true((await client.read(0, SIZE)).equals(model.bytes));
      device.comeBack();
      await until(() => group.status().state === 'protecting');
      // at once: what comes later may write over what would be missing
      await group.drain();
      t.true(device.stable.equals(model.bytes), `round ${round}`);
    }
  }
  await until(() => group.status().state === 'protecting');
  device.heal();
  await group.drain();
  t.true(device.stable.equals(model.bytes));
  t.is(device.overlaps, 0);
  await group.close();
  bench.remove();
});

test('a restart whose replay begins in the middle of a closed request keeps all of it', async (t) => {
  const bench = new GroupBench();
  bench.disk('a.raw', SIZE);
  const group = await bench.open(bench.options([{ name: 'a', backing: bench.backing('a.raw') }]));
  const [first, second, third] = [0, 1, 2].map(() => new HandClient(group.exports('local')[0]!));
  await first!.all([{ do: 'write', offset: 0, bytes: pattern(4096, 1), part: WindowPart.more }]);
  await second!.all([{ do: 'write', offset: MIB, bytes: pattern(4096, 2), part: WindowPart.more }]);
  await third!.write(0, pattern(4096, 3));
  await first!.all([{ do: 'write', offset: 4096, bytes: pattern(4096, 4), part: WindowPart.last }]);
  // the checkpoint is held by the second request now, in the middle of the first
  await group.drain();
  t.true(bench.marks.address('checkpoint') < bench.marks.address('applied'));
  const expected = Buffer.concat([pattern(4096, 1), pattern(4096, 4)]);
  const killed = bench.copy();
  await group.close();
  const again = await killed.open(killed.options([{ name: 'a', backing: killed.backing('a.raw') }]));
  const reader = new HandClient(again.exports('local')[0]!);
  t.true((await reader.read(0, 8192)).equals(expected));
  await again.drain();
  t.true(readFileSync(killed.path('a.raw')).subarray(0, 8192).equals(expected));
  await again.close();
  killed.remove();
  bench.remove();
});

// Simulation seed 21602212: what a start needed of a full journal stayed what it was, for nothing more was written.
test('a checkpoint that was held by a request of a run that was killed goes on though no guest writes', async (t) => {
  const bench = new GroupBench();
  bench.disk('a.raw', SIZE);
  const group = await bench.open(bench.options([{ name: 'a', backing: bench.backing('a.raw') }]));
  const [open, other] = [0, 1].map(() => new HandClient(group.exports('local')[0]!));
  await open!.all([{ do: 'write', offset: 0, bytes: pattern(4096, 1), part: WindowPart.more }]);
  await other!.write(MIB, pattern(4096, 2));
  await group.drain();
  const { headLsn, checkpointLsn } = group.status();
  t.true(checkpointLsn < headLsn);
  const killed = bench.copy();
  await group.close();
  const idle = killed.options([{ name: 'a', backing: killed.backing('a.raw') }], { heartbeatMs: 10 });
  const again = await killed.open(idle);
  await until(() => again.status().checkpointLsn >= headLsn);
  const { checkpointLsn: reached } = again.status();
  await until(() => again.status().headLsn >= headLsn + 5);
  t.is(again.status().checkpointLsn, reached, 'heartbeats are not worth a write of the checkpoint');
  await again.close();
  killed.remove();
  bench.remove();
});

test('beginning again below an open request does not write again what the backing holds safely', async (t) => {
  const bench = new GroupBench();
  const device = new FaultyDevice(SIZE);
  const group = await bench.open(bench.options([{ name: 'a', backing: device }], { flushAgeMs: 1 }));
  const client = new HandClient(group.exports('local')[0]!);
  const other = new HandClient(group.exports('local')[0]!);
  await client.all([{ do: 'write', offset: 0, bytes: pattern(4096, 1), part: WindowPart.more }]);
  await other.write(MIB, pattern(4096, 2));
  await group.drain();
  t.true(bench.marks.address('checkpoint') < bench.marks.address('applied'));
  const offsets: number[] = [];
  device.onWrite = (offset) => offsets.push(offset);
  // for as long as nobody has seen it: on a busy machine a retry may be over before this test looks
  device.fail('write', 'device-gone', Number.POSITIVE_INFINITY);
  await other.write(2 * MIB, pattern(4096, 3));
  await until(() => group.status().state === 'backing-failed');
  device.heal();
  await until(() => group.status().state === 'protecting');
  await client.all([{ do: 'write', offset: 4096, bytes: pattern(4096, 4), part: WindowPart.last }]);
  await group.drain();
  // an older version in the backing would be read there: the overlay has forgotten that range
  t.deepEqual([...new Set(offsets)], [2 * MIB, 0]);
  t.true(device.stable.subarray(0, 8192).equals(Buffer.concat([pattern(4096, 1), pattern(4096, 4)])));
  await group.close();
  bench.remove();
});

test('nothing reaches the backing that is not durable in the journal', async (t) => {
  const bench = new GroupBench();
  const device = new FaultyDevice(SIZE);
  const group = await bench.open(bench.options([{ name: 'a', backing: device }], { flushAgeMs: 1 }));
  const client = new HandClient(group.exports('local')[0]!);
  let ahead = 0;
  device.onWrite = (_offset, bytes) => {
    // the first word of the pattern is the LSN of the write
    if (Buffer.from(bytes).readUInt32LE(0) > bench.marks.lsn('durable')) ahead++;
  };
  for (let round = 0; round < 200; round++) {
    const bytes = Buffer.alloc(512);
    bytes.writeUInt32LE(group.status().headLsn + 1, 0);
    await client.write((round % 100) * 512, bytes);
    if (round % 50 === 0) await group.drain();
  }
  await group.drain();
  t.is(ahead, 0);
  t.true(device.flushes > 1);
  await group.close();
  bench.remove();
});

test('a backing slower than the guest slows the guest, memory stays within its bound', async (t) => {
  const bench = new GroupBench();
  const device = new FaultyDevice(64 * MIB);
  const overlayBytesMax = 256 * 1024;
  const group = await bench.open(bench.options([{ name: 'a', backing: device }], { overlayBytesMax }));
  const client = new HandClient(group.exports('local')[0]!);
  device.hold();
  const bytes = pattern(512, 1);
  let written = 0;
  for (; client.paused === 0 || group.status().clientsHeldBack === 0; written += 64) {
    await client.ready();
    await client.all(
      Array.from({ length: 64 }, (_, at) => ({ do: 'write', offset: ((written + at) * 1024) % (64 * MIB), bytes })),
    );
    if (written > 64 * 1024) break;
  }
  t.is(group.status().clientsHeldBack, 1);
  const [volume] = group.status().volumes;
  t.true(volume!.overlayBytes <= overlayBytesMax, `${volume!.overlayBytes}`);
  t.true(client.pauses > 1, 'the guest was slowed down before it was stopped');
  device.release();
  await client.ready();
  t.is(group.status().clientsHeldBack, 0);
  await group.drain();
  t.is(group.status().volumes[0]!.overlayBytes, 0);
  await group.close();
  bench.remove();
});

test('a restart over more than memory may hold writes the excess out first', async (t) => {
  const bench = new GroupBench();
  bench.disk('a.raw', SIZE);
  const lazy = { flushAgeMs: 60_000, flushBytes: 32 * MIB };
  const group = await bench.open(bench.options([{ name: 'a', backing: bench.backing('a.raw') }], lazy));
  const client = new HandClient(group.exports('local')[0]!);
  const model = new ModelDisk(SIZE);
  for (let window = 0; window < 64; window++) {
    const requests: Request[] = Array.from({ length: 64 }, (_, at) => {
      const offset = ((window * 64 + at) * 37 * 1024) % SIZE;
      return { do: 'write', offset, bytes: pattern(512, window * 64 + at) };
    });
    for (const request of requests) model.apply(request);
    await client.all(requests);
  }
  const held = group.status().volumes[0]!.overlayBytes;
  const killed = bench.copy();
  await group.close();
  const overlayBytesMax = 64 * 1024;
  t.true(held > overlayBytesMax);
  const change = { ...lazy, overlayBytesMax };
  const again = await killed.open(killed.options([{ name: 'a', backing: killed.backing('a.raw') }], change));
  t.true(again.status().volumes[0]!.overlayBytes <= overlayBytesMax);
  t.true((await new HandClient(again.exports('local')[0]!).read(0, SIZE)).equals(model.bytes));
  await again.close();
  killed.remove();
  bench.remove();
});

test('a read under way on the backing misses nothing that is acknowledged meanwhile', async (t) => {
  const bench = new GroupBench();
  const group = await bench.open(bench.options([{ name: 'a', backing: new FaultyDevice(SIZE) }]));
  const client = new HandClient(group.exports('local')[0]!);
  const reading = client.read(0, 8192);
  const [answer] = client.submit([{ do: 'write', offset: 512, bytes: pattern(1024, 1) }]);
  t.is(await answer, 'ok');
  const found = await reading;
  t.true(found.subarray(512, 1536).equals(pattern(1024, 1)));
  t.true(found.subarray(1536).equals(Buffer.alloc(8192 - 1536)));
  await group.close();
  bench.remove();
});

test('the map of a volume shows journal over backing, exactly covered', async (t) => {
  const bench = new GroupBench();
  bench.disk('a.raw', SIZE);
  const lazy = { flushAgeMs: 60_000, flushBytes: 32 * MIB };
  const group = await bench.open(bench.options([{ name: 'a', backing: bench.backing('a.raw') }], lazy));
  const client = new HandClient(group.exports('local')[0]!);
  await client.write(MIB, pattern(MIB, 1));
  await group.drain();
  await client.all([
    { do: 'write', offset: 4096, bytes: pattern(4096, 2) },
    { do: 'trim', offset: MIB + 65_536, length: 65_536 },
  ]);
  const kinds = (await client.client.extents(0, SIZE)).map(({ kind, length }) => `${kind} ${length}`);
  t.deepEqual(kinds, [
    'hole 4096',
    'data 4096',
    `hole ${MIB - 8192}`,
    'data 65536',
    'zero 65536',
    `data ${MIB - 131_072}`,
    `hole ${2 * MIB}`,
  ]);
  await group.close();
  bench.remove();
});

test('a disk of 12 TiB: what lies 2 TiB apart is kept apart, in the overlay and behind it', async (t) => {
  const bench = new GroupBench();
  const size = 12 * 1024 ** 4;
  bench.disk('a.raw', size);
  let group = await bench.open(bench.options([{ name: 'a', backing: bench.backing('a.raw') }]));
  const client = new HandClient(group.exports('local')[0]!);
  const offsets = [0, 1, 2, 3, 4, 5].map((times) => times * 2 * 1024 ** 4 + 512);
  for (const [i, offset] of offsets.entries()) t.is(await client.write(offset, pattern(512, i + 1)), 'ok');
  await client.all([{ do: 'trim', offset: offsets[3]! - 512, length: 2 ** 31 }]);
  const check = async (reader: HandClient): Promise<void> => {
    for (const [i, offset] of offsets.entries()) {
      const expected = i === 3 ? Buffer.alloc(512) : pattern(512, i + 1);
      t.true((await reader.read(offset, 512)).equals(expected), `${offset}`);
    }
  };
  await check(client);
  await group.close();
  group = await bench.open(bench.options([{ name: 'a', backing: bench.backing('a.raw') }]));
  t.is(group.status().volumes[0]!.overlayBytes, 0);
  await check(new HandClient(group.exports('local')[0]!));
  await group.close();
  bench.remove();
});

test('a journal that cannot sync fails every write from then on; a restart keeps what was acknowledged', async (t) => {
  const bench = new GroupBench();
  bench.disk('a.raw', SIZE);
  const faulty = faultyHost();
  const group = await bench.open(bench.options([{ name: 'a', backing: bench.backing('a.raw') }]), faulty.host);
  const client = new HandClient(group.exports('local')[0]!);
  t.is(await client.write(0, pattern(4096, 1)), 'ok');
  await group.drain();
  faulty.breakSync();
  t.is(await client.write(8192, pattern(4096, 2)), 'ok');
  t.is(await client.flush(), 'device-failed');
  t.is(await client.write(0, pattern(4096, 3)), 'device-failed');
  t.deepEqual(await client.all([{ do: 'write', offset: 0, bytes: pattern(512, 4), fua: true }, { do: 'flush' }]), [
    'device-failed',
    'device-failed',
  ]);
  t.is(group.status().state, 'failed');
  t.true((await client.read(0, 4096)).equals(pattern(4096, 1)));
  await t.throwsAsync(client.read(8192, 4096), { message: /may be lost/ });
  await t.throwsAsync(group.bookmark('b', 'crash'));
  await group.close();
  const again = await bench.open(bench.options([{ name: 'a', backing: bench.backing('a.raw') }]));
  const reader = new HandClient(again.exports('local')[0]!);
  t.true((await reader.read(0, 4096)).equals(pattern(4096, 1)));
  t.true((await reader.read(8192, 4096)).equals(pattern(4096, 2)));
  await again.close();
  bench.remove();
});

test('a disk that was written to while nobody looked is refused; one that was not is taken back', async (t) => {
  const bench = new GroupBench();
  bench.disk('a.raw', SIZE);
  const options = () => bench.options([{ name: 'a', backing: bench.exactBacking('a.raw') }]);
  let group = await bench.open(options());
  await new HandClient(group.exports('local')[0]!).write(0, pattern(4096, 1));
  await group.close();
  group = await bench.open(options());
  await group.close();
  const content = readFileSync(bench.path('a.raw'));
  writeFileSync(bench.path('a.raw'), content);
  const refused = options();
  await t.throwsAsync(bench.open(refused), { code: 'backing-changed' });
  await refused.volumes[0]!.backing.close();
  bench.remove();
});

test('a detached volume is a plain disk with everything in it, and comes back if nobody wrote to it', async (t) => {
  const bench = new GroupBench();
  bench.disk('a.raw', SIZE);
  bench.disk('b.raw', SIZE);
  const both = () => [
    { name: 'a', backing: bench.backing('a.raw') },
    { name: 'b', backing: bench.backing('b.raw') },
  ];
  // nothing is synced in the backings of its own accord
  let group = await bench.open(bench.options(both(), { flushAgeMs: 60_000, flushBytes: 32 * MIB }));
  const client = new HandClient(group.exports('local')[0]!);
  await client.all([
    { do: 'write', offset: 4096, bytes: pattern(MIB, 1) },
    { do: 'trim', offset: 8192, length: 4096 },
  ]);
  const model = new ModelDisk(SIZE);
  model.apply({ do: 'write', offset: 4096, bytes: pattern(MIB, 1) });
  model.apply({ do: 'trim', offset: 8192, length: 4096 });
  await t.throwsAsync(group.detach('a'), { code: 'precondition-failed' });
  client.client.detach();
  const { headLsn } = group.status();
  await group.detach('a');
  t.true(readFileSync(bench.path('a.raw')).equals(model.bytes));
  t.like(readStamp(realHost(), bench.place, 1), { state: 'detached', lsn: headLsn });
  t.deepEqual(
    group.status().volumes.map(({ name }) => name),
    ['b'],
  );
  await group.close();
  group = await bench.open(bench.options([{ name: 'b', backing: bench.backing('b.raw') }]));
  await group.close();
  group = await bench.open(bench.options(both()));
  const again = new HandClient(group.exports('local').find(({ name }) => name === 'a')!);
  t.true((await again.read(0, SIZE)).equals(model.bytes));
  t.is(await again.write(0, pattern(512, 5)), 'ok');
  again.client.detach();
  await group.detach('a');
  await group.close();
  writeFileSync(bench.path('a.raw'), Buffer.alloc(SIZE, 1));
  const changed = bench.options(both());
  await t.throwsAsync(bench.open(changed), { code: 'backing-changed' });
  for (const { backing } of changed.volumes) await backing.close();
  bench.remove();
});

test('replay without a source makes the same plain disk, twice if asked, and protection can go on', async (t) => {
  const bench = new GroupBench();
  bench.disk('a.raw', SIZE);
  const group = await bench.open(
    bench.options([{ name: 'a', backing: bench.backing('a.raw') }], { flushAgeMs: 60_000, flushBytes: 32 * MIB }),
  );
  const client = new HandClient(group.exports('local')[0]!);
  const model = new ModelDisk(SIZE);
  const random = randomSource(11);
  for (let round = 0; round < 60; round++) {
    const request = randomRequest(random, SIZE);
    model.apply(request);
    await client.all([request]);
  }
  const killed = bench.copy();
  await group.close();
  for (let time = 0; time < 2; time++) {
    const backing = killed.backing('a.raw');
    const { journal } = killed.options([]);
    await replayOffline(realHost(), journal, 'a', backing);
    await backing.close();
    t.true(readFileSync(killed.path('a.raw')).equals(model.bytes));
  }
  const backing = killed.backing('a.raw');
  await t.throwsAsync(replayOffline(realHost(), killed.options([]).journal, 'x', backing), { code: 'not-found' });
  const again = await killed.open(killed.options([{ name: 'a', backing }]));
  t.true((await new HandClient(again.exports('local')[0]!).read(0, SIZE)).equals(model.bytes));
  await again.close();
  killed.remove();
  bench.remove();
});

test('bookmarks are told when they are durable; heartbeats go on by themselves; a resize is refused', async (t) => {
  const bench = new GroupBench();
  bench.disk('a.raw', SIZE);
  const group = await bench.open(bench.options([{ name: 'a', backing: bench.backing('a.raw') }], { heartbeatMs: 5 }));
  const { lsn } = await group.bookmark('before-upgrade', 'crash', { note: 'ticket 12' });
  t.true(lsn <= bench.marks.lsn('durable'));
  await until(() => group.status().headLsn > lsn + 2);
  await t.throwsAsync(group.bookmark('', 'crash'), { code: 'invalid-argument' });
  await t.throwsAsync(group.resize('a'), { code: 'unsupported' });
  await group.close();
  const larger = bench.options([{ name: 'a', backing: new FaultyDevice(2 * SIZE) }]);
  await t.throwsAsync(bench.open(larger), { code: 'backing-changed' });
  const missing = bench.options([]);
  await t.throwsAsync(bench.open(missing), { code: 'precondition-failed' });
  bench.remove();
});

test('after a power loss remote guests stay out until they are released; local ones are let on', async (t) => {
  const bench = new GroupBench();
  bench.disk('a.raw', SIZE);
  const group = await bench.open(bench.options([{ name: 'a', backing: bench.backing('a.raw') }]));
  await new HandClient(group.exports('local')[0]!).write(0, pattern(512, 1));
  const lost = bench.copy();
  const unheld = bench.copy();
  await group.close();
  const host: Host = { ...realHost(), bootId: '0'.repeat(36) };
  const again = await lost.open(lost.options([{ name: 'a', backing: lost.backing('a.raw') }]), host);
  t.true(again.status().remoteHeld);
  t.throws(() => new HandClient(again.exports('remote')[0]!), { code: 'precondition-failed' });
  t.notThrows(() => new HandClient(again.exports('local')[0]!));
  await again.close();
  // neither a stop nor another start on the same boot is the operator's word
  for (let start = 0; start < 2; start++) {
    const held = await lost.open(lost.options([{ name: 'a', backing: lost.backing('a.raw') }]), host);
    t.true(held.status().remoteHeld);
    t.throws(() => new HandClient(held.exports('remote')[0]!), { code: 'precondition-failed' });
    if (start === 1) {
      await held.release();
      t.notThrows(() => new HandClient(held.exports('remote')[0]!));
    }
    await held.close();
  }
  const policy = { afterPowerLoss: 'serve' as const };
  const served = await unheld.open(unheld.options([{ name: 'a', backing: unheld.backing('a.raw') }], policy), host);
  t.notThrows(() => new HandClient(served.exports('remote')[0]!));
  await served.close();
  unheld.remove();
  // a clean stop is no power loss, and a release is for good
  const clean = await lost.open(lost.options([{ name: 'a', backing: lost.backing('a.raw') }]));
  t.false(clean.status().remoteHeld);
  await clean.close();
  lost.remove();
  bench.remove();
});

/** The real machine, but for the journal's files: syncs can be made to fail, and writes to say that they did. */
function faultyHost(): { host: Host; breakSync: () => void; breakWrites: () => void } {
  const real = realHost();
  let broken = false;
  let lying = false;
  const wrap = (file: DiskFile): DiskFile =>
    new Proxy(file, {
      get(target, name) {
        if (broken && name === 'dataSync') {
          return () => Promise.reject(new TidemarkError('sync-failed', 'EIO'));
        }
        if (broken && name === 'dataSyncSync') {
          return () => {
            throw new TidemarkError('sync-failed', 'EIO');
          };
        }
        if (lying && name === 'writeSync' && target.path.endsWith('.tmj')) {
          return (...args: Parameters<DiskFile['writeSync']>) => {
            target.writeSync(...args);
            throw new TidemarkError('device-failed', 'EIO');
          };
        }
        const value: unknown = Reflect.get(target, name);
        return typeof value === 'function' ? value.bind(target) : value;
      },
    });
  const disk = new Proxy(real.disk, {
    get(target, name) {
      if (name === 'open') return (...args: Parameters<Disk['open']>) => wrap(target.open(...args));
      const value: unknown = Reflect.get(target, name);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
  return {
    host: { ...real, disk },
    breakSync: () => {
      broken = true;
    },
    breakWrites: () => {
      lying = true;
    },
  };
}

test('what the journal alone holds and is known to be damaged there is an error to its reader until it is overwritten', async (t) => {
  const bench = new GroupBench();
  bench.disk('a.raw', SIZE);
  // nothing is written out meanwhile
  const change = { flushAgeMs: 600_000, flushBytes: 64 * MIB };
  const group = await bench.open(bench.options([{ name: 'a', backing: bench.backing('a.raw') }], change));
  const client = new HandClient(group.exports('local')[0]!);
  const from = group.journal.endAddress;
  await client.write(0, pattern(4096, 1));
  const to = group.journal.endAddress;
  await client.write(8192, pattern(4096, 2));
  t.is(await client.flush(), 'ok');
  t.true((await client.read(0, 4096)).equals(pattern(4096, 1)));
  group.unreadable.add(from, to);
  await t.throwsAsync(client.read(0, 4096), { code: 'journal-damaged' });
  await t.throwsAsync(client.read(512, 512), { code: 'journal-damaged' });
  t.true((await client.read(8192, 4096)).equals(pattern(4096, 2)));
  t.is(await client.write(0, pattern(4096, 3)), 'ok');
  t.true((await client.read(0, 4096)).equals(pattern(4096, 3)));
  await group.close();
  bench.remove();
});

test('a start whose disks need a journal file that is gone refuses, and says so', async (t) => {
  const bench = new GroupBench();
  bench.disk('a.raw', 16 * MIB);
  const change = { flushAgeMs: 600_000, flushBytes: 64 * MIB, destageWindowBytes: 32 * MIB, overlayBytesMax: 32 * MIB };
  const group = await bench.open(bench.options([{ name: 'a', backing: bench.backing('a.raw') }], change));
  const client = new HandClient(group.exports('local')[0]!);
  for (let at = 0; at < 8; at++) {
    await client.ready();
    t.is(await client.write(at * MIB, pattern(MIB, at)), 'ok');
  }
  t.is(await client.flush(), 'ok');
  const killed = bench.copy();
  await group.close();
  rmSync(join(killed.journalDirectory, `journal-${'1'.padStart(16, '0')}.tmj`));
  const opening = killed.open(killed.options([{ name: 'a', backing: killed.backing('a.raw') }], change));
  await t.throwsAsync(opening, {
    code: 'journal-damaged',
    message: /cannot be read, and the backings do not hold them: the file is gone/,
  });
  bench.remove();
  killed.remove();
});
