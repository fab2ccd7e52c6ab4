import test from 'ava';
import { RecordFlag, RecordKind } from '../../journal/record.ts';
import { REPLICA_DEFAULTS, ReplicaGroup, type ReplicaGroupOptions } from '../../replica/replica-group.ts';
import { GROUP, HandSource, History, Model, seal } from './support/history.ts';
import { type MemoryDisk, type MemoryHost, memoryHost } from './support/memory-host.ts';

const STANDBY = '/replica/standby';
const SECTOR = 512;

const OPTIONS: ReplicaGroupOptions = {
  ...REPLICA_DEFAULTS,
  directory: '/replica',
  groupId: GROUP,
  replica: 'r1',
  segmentBytes: 48 * 1024,
  reserveBytes: 0,
  memtableEntries: 128,
  apply: 'sync',
  standbyTimes: { roundMs: 5, settleMs: 50, retryMs: 10 },
};

/** Turns of the event loop, and time, until it holds. */
async function until(host: MemoryHost, what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  for (let turn = 0; !(await holds()); turn++) {
    if (turn > 3_000) throw new Error(`${what}: not in time`);
    await new Promise((resolve) => setImmediate(resolve));
    if (turn % 20 === 19) host.clock.advance(1);
  }
}

function isAt(disk: MemoryDisk, history: History, lsn: number): boolean {
  const model = new Model();
  model.advance(history, lsn);
  return ['system', 'data'].every((name, index) => {
    const content = disk.files.get(`${STANDBY}/${name}.raw`);
    return content?.bytes.subarray(0, content.length).equals(model.disk(index + 1)) === true;
  });
}

test('an image begun while the end of a request is appended and not durable has all of the request later', async (t) => {
  const host = memoryHost(31);
  const history = new History(31);
  history.addVolumes();
  const payload = new Uint8Array(8 * SECTOR).fill(7);
  history.push(RecordKind.write, { volume: 2, sector: 16, sectors: 8, payload, flags: RecordFlag.piece, requestId: 9 });
  const [firstLsn, flags] = [history.lastLsn, RecordFlag.piece | RecordFlag.closes];
  history.push(RecordKind.write, { volume: 2, sector: 24, sectors: 8, payload, flags, requestId: 9 });
  const plain = await ReplicaGroup.open(host, { ...OPTIONS, apply: 'off' });
  const before = new HandSource();
  plain.start(before);
  for (const frame of seal(history, { toLsn: firstLsn })) before.push(frame);
  await plain.idle();
  await plain.close();
  // made by somebody else: the image is begun when it is moved away
  host.disk.open(`${STANDBY}/data.raw`, 'create');
  const group = await ReplicaGroup.open(host, OPTIONS);
  const source = new HandSource();
  group.start(source);
  await until(host, 'it says why', async () => /move it away/.test((await group.status()).standby?.reason ?? ''));
  let release = (): void => undefined;
  const syncing = new Promise<void>((resolve) => {
    release = resolve;
  });
  host.disk.syncOf = (path) => (path.includes('/segments/') ? syncing : undefined);
  for (const frame of seal(history, { fromLsn: firstLsn + 1 })) source.push(frame);
  await until(host, 'appended', async () => (await group.status()).receiver.headLsn === history.lastLsn);
  t.is(group.headLsn, firstLsn);
  host.disk.unlink(`${STANDBY}/data.raw`);
  await until(host, 'begun', async () => (await group.status()).standby?.state === 'settled');
  t.true(isAt(host.disk, history, firstLsn));
  release();
  await group.idle();
  await until(host, 'applied', async () => (await group.status()).standby?.appliedLsn === history.lastLsn);
  t.true(isAt(host.disk, history, history.lastLsn));
  await group.close();
});
