import test from 'ava';
import { TidemarkError } from '../../journal/base/errors.ts';
import { RecordFlag, RecordKind } from '../../journal/record.ts';
import { encodeGap, encodeVolumeAdded } from '../../journal/record-bodies.ts';
import { REPLICA_DEFAULTS, ReplicaGroup, type ReplicaGroupOptions } from '../../replica/replica-group.ts';
import { readStamp } from '../../replica/standby/standby-stamp.ts';
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

async function opened(
  host: MemoryHost,
  change: Partial<ReplicaGroupOptions> = {},
): Promise<[ReplicaGroup, HandSource]> {
  const group = await ReplicaGroup.open(host, { ...OPTIONS, ...change });
  const source = new HandSource();
  group.start(source);
  return [group, source];
}

async function applied(host: MemoryHost, group: ReplicaGroup, lsn: number): Promise<void> {
  await until(host, 'all of it is applied', async () => {
    const { standby } = await group.status();
    return standby?.appliedLsn === lsn && standby.state !== 'settling' && standby.state !== 'copying';
  });
}

test('begun anew, no byte of an exact image is written over before the name of the stamp that says so is durable', async (t) => {
  const host = memoryHost(32);
  const history = new History(32);
  history.addVolumes();
  history.fill(300);
  const frames = seal(history, { recordsPerFrame: () => 15 });
  const [group, source] = await opened(host);
  for (const frame of frames.slice(0, 2)) source.push(frame);
  await group.idle();
  await applied(host, group, group.headLsn);
  await group.close();
  const [plain, behind] = await opened(host, { apply: 'off', policy: { windowMs: 1, bytesMax: 0 } });
  for (const frame of frames.slice(2)) {
    behind.push(frame);
    await plain.idle();
  }
  await plain.retain();
  await plain.close();
  t.is((await readStamp(host.disk, STANDBY, GROUP))?.state, 'settled');
  let failures = 2;
  let isDurable = true;
  const { disk } = host;
  const [open, rename] = [disk.open.bind(disk), disk.rename.bind(disk)];
  disk.rename = (from, to) => {
    rename(from, to);
    if (to.startsWith(STANDBY)) isDurable = false;
  };
  disk.syncDirectory = (path?: string) => {
    if (path !== STANDBY) return Promise.resolve();
    if (failures-- > 0) return Promise.reject(new TidemarkError('sync-failed', STANDBY));
    isDurable = true;
    return Promise.resolve();
  };
  let writes = 0;
  disk.open = (path, mode) => {
    const file = open(path, mode);
    if (!path.endsWith('.raw')) return file;
    const [write, truncate, punch] = [file.write.bind(file), file.truncate.bind(file), file.punchHole.bind(file)];
    const look = (): void => {
      writes++;
      t.true(isDurable, 'the stamp on the medium is the exact one');
    };
    file.write = (...args) => {
      look();
      return write(...args);
    };
    file.truncate = (...args) => {
      look();
      return truncate(...args);
    };
    file.punchHole = (...args) => {
      look();
      return punch(...args);
    };
    return file;
  };
  const [next] = await opened(host);
  await applied(host, next, history.lastLsn);
  t.true(writes > 0 && failures < 0);
  t.true(isAt(host.disk, history, history.lastLsn));
  await next.close();
});

/** The newest segments are gone, from the one that begins behind `lsn` on. */
function loseTail(disk: MemoryDisk, lsn: number): void {
  for (const path of disk.files.keys()) {
    if (path.endsWith('.seg') && Number(disk.files.get(path)!.bytes.readBigUInt64LE(40)) > lsn) disk.files.delete(path);
  }
}

test('when the newest history is gone after a kill, an image that had it is called none until it has come again, or it is begun anew', async (t) => {
  const first = memoryHost(33);
  const history = new History(33);
  history.addVolumes();
  history.fill(260);
  const frames = seal(history, { recordsPerFrame: () => 10 });
  const slow = { standbyTimes: { roundMs: 1e9, settleMs: 1e9, retryMs: 10 } };
  const [group, source] = await opened(first, slow);
  for (const frame of frames) {
    source.push(frame);
    await group.idle();
  }
  await applied(first, group, history.lastLsn);
  const left = first.disk.copy();
  await group.close();
  t.is((await readStamp(left, STANDBY, GROUP))?.state, 'applying');
  loseTail(left, 60);
  for (const comes of [true, false]) {
    const host = memoryHost(34, left.copy());
    const [next, again] = await opened(host);
    t.true(next.headLsn < history.lastLsn);
    for (let turn = 0; turn < 400; turn++) {
      await new Promise((resolve) => setImmediate(resolve));
      host.clock.advance(1);
    }
    const { state } = (await readStamp(host.disk, STANDBY, GROUP))!;
    t.is(state, 'settling');
    t.regex(
      (await next.status()).standby?.reason ?? '',
      /are gone from history; needed behind LSN \d+: when nobody has it/,
    );
    if (comes) for (const frame of frames) again.push(frame);
    else for (const name of host.disk.list(STANDBY)) host.disk.unlink(`${STANDBY}/${name}`);
    await next.idle();
    await applied(host, next, next.headLsn);
    t.is(next.headLsn === history.lastLsn, comes);
    t.true(isAt(host.disk, history, next.headLsn));
    await next.close();
  }
});

test('a copy that was under way when the newest history went away has no block without it', async (t) => {
  const first = memoryHost(35);
  const history = new History(35);
  history.addVolumes();
  history.fill(260);
  const frames = seal(history, { recordsPerFrame: () => 10 });
  const [plain, source] = await opened(first, { apply: 'off' });
  for (const frame of frames) {
    source.push(frame);
    await plain.idle();
  }
  await plain.close();
  const left: MemoryDisk[] = [];
  const rename = first.disk.rename.bind(first.disk);
  first.disk.rename = (from, to) => {
    rename(from, to);
    if (to.startsWith(STANDBY)) left.push(first.disk.copy());
  };
  const [group] = await opened(first);
  await applied(first, group, history.lastLsn);
  await group.close();
  let copies = 0;
  for (const [index, disk] of left.entries()) {
    const stamp = await readStamp(disk, STANDBY, GROUP);
    if (stamp?.state !== 'copying') continue;
    copies++;
    loseTail(disk, 60);
    const host = memoryHost(36 + index, disk);
    const [next, again] = await opened(host);
    t.true(next.headLsn < history.lastLsn);
    for (let turn = 0; turn < 400; turn++) {
      await new Promise((resolve) => setImmediate(resolve));
      host.clock.advance(1);
    }
    const now = await readStamp(host.disk, STANDBY, GROUP);
    if (now?.state === 'settled' || now?.state === 'applying') t.true(isAt(disk, history, now.lsn), `copy ${index}`);
    for (const frame of frames) again.push(frame);
    await next.idle();
    await applied(host, next, history.lastLsn);
    t.true(isAt(disk, history, history.lastLsn), `copy ${index}`);
    await next.close();
  }
  t.true(copies > 1);
});

test('a file that is taken away while a start has looked already is not made anew as zeroes', async (t) => {
  const first = memoryHost(45);
  const history = new History(45);
  history.addVolumes();
  history.fill(160);
  const frames = seal(history, { recordsPerFrame: () => 10 });
  const slow = { standbyTimes: { roundMs: 1e9, settleMs: 1e9, retryMs: 10 } };
  const [before, early] = await opened(first);
  for (const frame of frames.slice(0, 8)) early.push(frame);
  await before.idle();
  await applied(first, before, before.headLsn);
  await before.close();
  const [group, source] = await opened(first, slow);
  for (const frame of frames.slice(8)) {
    source.push(frame);
    await group.idle();
  }
  await applied(first, group, history.lastLsn);
  const host = memoryHost(46, first.disk.copy());
  await group.close();
  const rename = host.disk.rename.bind(host.disk);
  let isTaken = false;
  host.disk.rename = (from, to) => {
    rename(from, to);
    if (isTaken || !to.startsWith(STANDBY)) return;
    isTaken = true;
    for (const name of ['system.raw', 'data.raw']) host.disk.unlink(`${STANDBY}/${name}`);
  };
  const [next] = await opened(host);
  await until(host, 'taken away', () => isTaken);
  await applied(host, next, history.lastLsn);
  t.true(isAt(host.disk, history, history.lastLsn));
  await next.close();
});

/** Turns a bit in the payload of a frame that is stored; done twice it is whole again. */
function spoil(disk: MemoryDisk, frame: Uint8Array): void {
  for (const [path, { bytes }] of disk.files) {
    const at = path.endsWith('.seg') ? bytes.indexOf(frame.subarray(0, 64)) : -1;
    if (at < 0) continue;
    const last = at + frame.length - 1;
    bytes.writeUInt8(bytes.readUInt8(last) ^ 1, last);
    return;
  }
  throw new Error('it is not there');
}

async function turns(host: MemoryHost): Promise<void> {
  for (let turn = 0; turn < 400; turn++) {
    await new Promise((resolve) => setImmediate(resolve));
    host.clock.advance(1);
  }
}

test('an image that is begun while what tells of a volume is damaged has all of the volume when that was put back', async (t) => {
  for (const damaged of [0, 1]) {
    const host = memoryHost(50);
    const history = new History(50);
    history.addVolumes();
    history.fill(100);
    const frames = seal(history, { recordsPerFrame: () => 1 });
    const [plain, source] = await opened(host, { apply: 'off' });
    for (const frame of frames) source.push(frame);
    await plain.idle();
    await plain.close();
    for (const path of host.disk.files.keys()) {
      if (path.includes('/index/') || path === '/replica/state') host.disk.files.delete(path);
    }
    spoil(host.disk, frames[damaged]?.bytes ?? new Uint8Array(0));
    const [group] = await opened(host);
    await turns(host);
    await group.close();
    spoil(host.disk, frames[damaged]?.bytes ?? new Uint8Array(0));
    const [next] = await opened(host);
    await applied(host, next, history.lastLsn);
    t.true(isAt(host.disk, history, history.lastLsn), `frame ${damaged}`);
    await next.close();
  }
});

test('a volume that a stamp names stays in it, and in its file, while what tells of the volume is damaged', async (t) => {
  const host = memoryHost(51);
  const history = new History(51);
  history.addVolumes();
  history.fill(140);
  const frames = seal(history, { recordsPerFrame: () => 1 });
  const [group, source] = await opened(host);
  for (const frame of frames.slice(0, 80)) source.push(frame);
  await group.idle();
  await applied(host, group, 80);
  await group.close();
  for (const path of host.disk.files.keys()) {
    if (path.includes('/index/') || path === '/replica/state') host.disk.files.delete(path);
  }
  spoil(host.disk, frames[1]?.bytes ?? new Uint8Array(0));
  const [next, more] = await opened(host);
  for (const frame of frames.slice(80, 120)) more.push(frame);
  await next.idle();
  await turns(host);
  const stamp = await readStamp(host.disk, STANDBY, GROUP);
  t.deepEqual(stamp?.volumes.map(({ name }) => name).toSorted(), ['data', 'system']);
  await next.close();
  spoil(host.disk, frames[1]?.bytes ?? new Uint8Array(0));
  const [last, rest] = await opened(host);
  for (const frame of frames.slice(120)) rest.push(frame);
  await last.idle();
  await applied(host, last, history.lastLsn);
  t.true(isAt(host.disk, history, history.lastLsn));
  await last.close();
});

test('what a stamp says is no point stays so while the record that tells of it is damaged', async (t) => {
  for (const what of ['gap', 'seed'] as const) {
    const host = memoryHost(53);
    const history = new History(53);
    history.addVolumes();
    history.fill(80);
    const gapLsn = 80;
    history.records.length = gapLsn - 1;
    const body = { id: 2, name: 'data', size: 8192 * SECTOR, blockBytes: SECTOR, starts: 'seeded' } as const;
    if (what === 'seed') history.push(RecordKind.volumeAdded, { payload: encodeVolumeAdded(body) });
    else history.push(RecordKind.gap, { payload: encodeGap({ fromLsn: 70, toLsn: 79, reason: 'out of room' }) });
    history.fill(140);
    const toLsn = what === 'seed' ? gapLsn - 1 : 69;
    const before = seal(history, { toLsn, recordsPerFrame: () => 1 });
    const frames = seal(history, { fromLsn: gapLsn, recordsPerFrame: () => 1 });
    const [group, source] = await opened(host);
    for (const frame of [...before, ...frames.slice(0, 40)]) source.push(frame);
    await group.idle();
    await applied(host, group, group.headLsn);
    await group.close();
    const said = async (): Promise<string> => {
      const stamp = await readStamp(host.disk, STANDBY, GROUP);
      return stamp?.volumes.find(({ name }) => name === 'data')?.unsettled ?? 'nothing';
    };
    t.regex(await said(), /out of room|seeding/);
    for (const path of host.disk.files.keys()) {
      if (path.includes('/index/') || path === '/replica/state') host.disk.files.delete(path);
    }
    spoil(host.disk, frames[0]!.bytes);
    const [next, more] = await opened(host);
    for (const frame of frames.slice(40)) more.push(frame);
    await next.idle();
    await turns(host);
    t.regex(await said(), /out of room|seeding/, what);
    await next.close();
    t.regex(await said(), /out of room|seeding/, what);
  }
});
