import { copyFileSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { crc32 } from '@node-rs/crc32';
import test from 'ava';
import { readStamp } from '../../daemon/backing/backing-stamp.ts';
import { ChangeMap } from '../../daemon/volume/change-map.ts';
import { readCheckpoint } from '../../daemon/volume/checkpoint.ts';
import type { GroupOptions } from '../../daemon/volume/group-options.ts';
import { RemoteHold } from '../../daemon/volume/remote-hold.ts';
import { readStateFile, writeStateFile } from '../../daemon/volume/state-file.ts';
import { VolumeRegistry } from '../../daemon/volume/volume-registry.ts';
import { realHost } from '../../journal/host/real-host.ts';
import type { RecoveryReport } from '../../journal/recovery-report.ts';
import { NO_DISK_FAULTS } from '../doubles/simulated-disk.ts';
import { SimulatedMachine } from '../doubles/simulated-machine.ts';
import { Scheduler } from '../simulation/scheduler.ts';
import { GroupBench, HandClient, MIB } from './support/group-bench.ts';

const host = realHost();
const NAMES = ['change-map.state', 'checkpoint.state', 'volume-1.stamp', 'volumes.state'];

const pattern = Buffer.alloc(65_536, 7);

function options(bench: GroupBench): GroupOptions {
  return bench.options([{ name: 'a', backing: bench.backing('a.raw') }], { outOfRoom: 'stop-protecting' });
}

/** A group that was written to and stopped in order, with every state file that a group has. */
async function stoppedGroup(): Promise<GroupBench> {
  const bench = new GroupBench();
  bench.disk('a.raw', 8 * MIB);
  const group = await bench.open(options(bench));
  const client = new HandClient(group.exports('local')[0]!);
  await client.write(65_536, pattern);
  await client.flush();
  client.client.detach();
  await group.close();
  return bench;
}

test('a state file from the directory of another group is refused, and left as it is', async (t) => {
  const mine = await stoppedGroup();
  const other = await stoppedGroup();
  t.deepEqual(
    readdirSync(mine.journalDirectory).filter((name) => /\.(state|stamp)$/.test(name)),
    NAMES,
  );
  for (const name of NAMES) {
    const path = join(mine.journalDirectory, name);
    const before = readFileSync(path);
    const foreign = readFileSync(join(other.journalDirectory, name));
    copyFileSync(join(other.journalDirectory, name), path);
    const wanted = options(mine);
    const refused = await t.throwsAsync(mine.open(wanted), { code: 'journal-foreign' }, name);
    await wanted.volumes[0]!.backing.close();
    t.true(refused?.message.includes(`${name} belongs to group ${other.groupId}, not ${mine.groupId}`), name);
    t.deepEqual(readFileSync(path), foreign, name);
    writeFileSync(path, before);
  }
  const group = await mine.open(options(mine));
  t.deepEqual(await new HandClient(group.exports('local')[0]!).read(65_536, 65_536), pattern);
  await group.close();

  await writeStateFile(host, other.place, 'remote-hold.state', { afterLsn: 1 });
  copyFileSync(join(other.journalDirectory, 'remote-hold.state'), join(mine.journalDirectory, 'remote-hold.state'));
  const report = { bootChanged: false, cleanStop: true, lastLsn: 9 } as RecoveryReport;
  await t.throwsAsync(RemoteHold.open(host, mine.place, report, 'serve'), { code: 'journal-foreign' });
  mine.remove();
  other.remove();
});

/** The same value as version 1 wrote it: no version, no group. */
function version1(name: string, bytes: Buffer): Buffer {
  if (name !== 'change-map.state') {
    const old = Buffer.concat([Buffer.from('TMS1'), Buffer.alloc(4), bytes.subarray(28)]);
    old.writeUInt32LE(crc32(old.subarray(8)), 4);
    return old;
  }
  const slotBytes = bytes.length / 2;
  return Buffer.concat(
    [0, slotBytes].map((at) => {
      const slot = bytes.subarray(at, at + slotBytes);
      const old = Buffer.concat([slot.subarray(0, 56), slot.subarray(88), Buffer.alloc(32)]);
      old.write('TMC1', 0);
      old.writeUInt32LE(crc32(old.subarray(8)), 4);
      return old;
    }),
  );
}

test('state files of version 1, which name no group, are read; the next start names it in each', async (t) => {
  const bench = await stoppedGroup();
  const { place } = bench;
  const givenUp = { fromLsn: 2, toLsn: 5, address: 4096, announcedLsn: 5 };
  const map = await ChangeMap.open(host, place, [{ id: 1, size: 8 * MIB }]);
  map.mark(1, 0, 8);
  await map.save(givenUp);
  await map.close();
  const value = async (): Promise<unknown> => {
    const opened = await ChangeMap.open(host, place, [{ id: 1, size: 8 * MIB }]);
    await opened.close();
    return [
      readCheckpoint(host, place),
      readStamp(host, place, 1),
      VolumeRegistry.load(host, place).all,
      opened.givenUp,
      opened.isMarked(1, 0),
      opened.markedGranules,
    ];
  };
  const written = await value();
  for (const name of NAMES) {
    const path = join(bench.journalDirectory, name);
    writeFileSync(path, version1(name, readFileSync(path)));
  }
  t.deepEqual(await value(), written);

  const group = await bench.open(options(bench));
  const client = new HandClient(group.exports('local')[0]!);
  t.deepEqual(await client.read(65_536, 65_536), pattern);
  await client.write(0, pattern);
  await client.flush();
  client.client.detach();
  await group.close();
  const versionOf = (name: string): string => readFileSync(join(bench.journalDirectory, name)).toString('latin1', 3, 4);
  for (const name of NAMES) t.is(versionOf(name), name === 'change-map.state' ? '4' : '2', name);
  bench.remove();
});

test('a state file of a newer version is refused as that', async (t) => {
  const bench = new GroupBench();
  const place = { ...bench.place, directory: bench.directory };
  await writeStateFile(host, place, 'x.state', { lsn: 1 });
  const path = bench.path('x.state');
  const bytes = readFileSync(path);
  bytes.writeUInt16LE(3, 8);
  bytes.writeUInt32LE(crc32(bytes.subarray(8)), 4);
  writeFileSync(path, bytes);
  t.throws(() => readStateFile(host, place, 'x.state'), { code: 'format-too-new' });
  bench.remove();
});

test('a change map that knows no chain yet is read, and has room for one from then on', async (t) => {
  const bench = await stoppedGroup();
  const { place } = bench;
  const volumes = [{ id: 1, size: 8 * MIB }];
  const givenUp = { fromLsn: 2, toLsn: 5, address: 4096, announcedLsn: 5 };
  const map = await ChangeMap.open(host, place, volumes);
  map.mark(1, 0, 8);
  await map.save(givenUp);
  await map.close();
  const path = join(bench.journalDirectory, 'change-map.state');
  const bytes = readFileSync(path);
  const slotBytes = bytes.length / 2;
  for (const at of [0, slotBytes]) {
    const slot = bytes.subarray(at, at + slotBytes);
    slot.copyWithin(72, 88);
    slot.write('TMC2', 0);
    slot.writeUInt32LE(crc32(slot.subarray(8)), 4);
  }
  writeFileSync(path, bytes);
  const old = await ChangeMap.open(host, place, volumes);
  t.deepEqual([old.givenUp, old.isMarked(1, 0), old.markedGranules], [givenUp, true, 1]);
  const end = { lsn: 5, chain: { low: 7, high: 2 ** 32 - 1 } };
  await old.save({ ...givenUp, end });
  await old.close();
  const opened = await ChangeMap.open(host, place, volumes);
  t.deepEqual([opened.givenUp, opened.isMarked(1, 0), opened.markedGranules], [{ ...givenUp, end }, true, 1]);
  await opened.close();
  bench.remove();
});

test('what a start reads of a change map that could not be synced is on the medium when it goes on', async (t) => {
  const place = { directory: '/source', groupId: 'ab'.repeat(16) };
  const volumes = [{ id: 1, size: 8 * MIB }];
  const upTo = (toLsn: number) => ({ fromLsn: 2, toLsn, address: toLsn * 4096, announcedLsn: 0 });
  for (let seed = 1; seed <= 20; seed++) {
    const scheduler = new Scheduler(seed);
    const machine = new SimulatedMachine('source', scheduler, NO_DISK_FAULTS, 1 << 24);
    const inTime = async <T>(promise: Promise<T>): Promise<T> => {
      let settled = false;
      const settle = (): void => void (settled = true);
      promise.then(settle, settle);
      await scheduler.runUntil(() => settled, 10_000_000);
      return promise;
    };
    const start = (): Promise<ChangeMap> => {
      const { disk, ...rest } = machine.start().host;
      disk.makeDirectory(place.directory);
      return inTime(ChangeMap.open({ disk, ...rest }, place, volumes));
    };
    const map = await start();
    await inTime(map.save(upTo(5)));
    machine.disk.faults = { ...NO_DISK_FAULTS, syncFails: 1 };
    map.mark(1, 0, 8);
    await t.throwsAsync(inTime(map.save(upTo(9))), { code: 'sync-failed' });
    machine.disk.faults = NO_DISK_FAULTS;
    machine.kill();
    const again = await start();
    const told = again.givenUp?.toLsn;
    void again.save(upTo(12));
    await scheduler.runUntil(() => false, scheduler.random.below(2) * 500);
    machine.losePower();
    const last = await start();
    t.true([told, 12].includes(last.givenUp?.toLsn), `seed ${seed}: ${told}, then ${last.givenUp?.toLsn}`);
    t.true(last.isMarked(1, 0));
  }
});
