import test, { type ExecutionContext } from 'ava';
import type { Disk, DiskFile, Host } from '../../journal/host/host.ts';
import { RecordFlag, RecordKind } from '../../journal/record.ts';
import { encodeDegreeChange, encodeSeedEnd } from '../../journal/record-bodies.ts';
import { REPLICA_DEFAULTS, ReplicaGroup, type ReplicaGroupOptions } from '../../replica/replica-group.ts';
import { readStamp, type StandbyStamp, writeStamp } from '../../replica/standby/standby-stamp.ts';
import { GROUP, HandSource, History, Model, seal, VOLUMES } from './support/history.ts';
import { MemoryDisk, type MemoryHost, memoryHost } from './support/memory-host.ts';

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

async function applied(host: MemoryHost, group: ReplicaGroup): Promise<void> {
  await until(host, 'all of it is applied', async () => {
    const { standby, headLsn } = await group.status();
    return standby?.appliedLsn === headLsn && standby.state !== 'settling' && standby.state !== 'copying';
  });
}

function stampOf(disk: MemoryDisk): Promise<StandbyStamp | undefined> {
  return readStamp(disk, STANDBY, GROUP);
}

function fileOf(disk: MemoryDisk, name: string): Buffer {
  const content = disk.files.get(`${STANDBY}/${name}.raw`);
  return content === undefined ? Buffer.alloc(0) : content.bytes.subarray(0, content.length);
}

/** Every sector of every file is as it was right before, or right after, one record behind `fromLsn`: which one. */
function positionOf(disk: MemoryDisk, volumes: StandbyStamp['volumes'], history: History, fromLsn: number): number {
  const before = new Model();
  const after = new Model();
  before.advance(history, fromLsn);
  after.advance(history, fromLsn);
  for (let lsn = fromLsn; lsn <= history.lastLsn; lsn++) {
    before.advance(history, lsn);
    after.advance(history, Math.min(lsn + 1, history.lastLsn));
    const isThere = volumes.every(({ id, name }) => {
      const file = fileOf(disk, name);
      for (let at = 0; at < file.length; at += SECTOR) {
        const sector = file.subarray(at, at + SECTOR);
        if (sector.equals(before.disk(id).subarray(at, at + SECTOR))) continue;
        if (!sector.equals(after.disk(id).subarray(at, at + SECTOR))) return false;
      }
      return true;
    });
    if (isThere) return lsn;
  }
  return -1;
}

function isAt(disk: MemoryDisk, history: History, lsn: number): boolean {
  const model = new Model();
  model.advance(history, lsn);
  return ['system', 'data'].every((name, index) => {
    // nothing has told of the volume yet
    if (lsn <= index) return true;
    return fileOf(disk, name).equals(model.disk(index + 1));
  });
}

async function opened(host: Host, change: Partial<ReplicaGroupOptions> = {}): Promise<[ReplicaGroup, HandSource]> {
  const group = await ReplicaGroup.open(host, { ...OPTIONS, ...change });
  const source = new HandSource();
  group.start(source);
  return [group, source];
}

/** Calls `moment` right before and right behind everything that changes a file under the standby image. */
function watched(below: MemoryDisk, moment: () => void): Disk {
  const around = <T>(path: string, run: () => T): T => {
    if (!path.startsWith(STANDBY)) return run();
    moment();
    const result = run();
    moment();
    return result;
  };
  const fileAround = (file: DiskFile): DiskFile =>
    new Proxy(file, {
      get(target, name) {
        const value: unknown = Reflect.get(target, name);
        if (typeof value !== 'function') return value;
        if (name === 'write') {
          return (...args: Parameters<DiskFile['writeSync']>) =>
            Promise.resolve().then(() => around(target.path, () => target.writeSync(...args)));
        }
        if (name === 'punchHole' || name === 'truncate') {
          return (...args: [number, number]) =>
            around(target.path, () => (value as (...a: number[]) => unknown).call(target, ...args));
        }
        return value.bind(target);
      },
    });
  return new Proxy<Disk>(below, {
    get(target, name) {
      const value: unknown = Reflect.get(target, name);
      if (typeof value !== 'function') return value;
      if (name === 'open')
        return (path: string, mode: 'read') => fileAround(around(path, () => below.open(path, mode)));
      if (name === 'rename') return (from: string, to: string) => around(to, () => below.rename(from, to));
      return value.bind(target);
    },
  });
}

test('the standby image follows the head, in order, and an idle one is stamped with exactly the position it holds', async (t) => {
  const host = memoryHost(3);
  const history = new History(3);
  history.addVolumes();
  history.fill(240);
  const [group, source] = await opened(host);
  for (const frame of seal(history, { recordsPerFrame: () => 20 })) {
    source.push(frame);
    await group.idle();
    await applied(host, group);
    t.true(isAt(host.disk, history, frame.lastLsn), `LSN ${frame.lastLsn}`);
    const stamp = await stampOf(host.disk);
    t.true((stamp?.lsn ?? 0) <= frame.lastLsn);
  }
  await until(host, 'settled', async () => (await group.status()).standby?.state === 'settled');
  const stamp = await stampOf(host.disk);
  t.is(stamp?.state, 'settled');
  t.true(isAt(host.disk, history, stamp?.lsn ?? 0));
  t.deepEqual(
    stamp?.volumes.map(({ name, file, unsettled }) => [name, file, unsettled]),
    [
      ['system', 'system.raw', ''],
      ['data', 'data.raw', ''],
    ],
  );
  await group.close();
});

test('killed before or behind any change of its files, the image is one position or stamped as none, and the next start ends at the head', async (t) => {
  t.timeout(300_000);
  const below = new MemoryDisk();
  const kills: MemoryDisk[] = [];
  const host = { ...memoryHost(4, below), disk: watched(below, () => kills.push(below.moment())) };
  const history = new History(4);
  history.addVolumes();
  history.fill(90);
  const frames = seal(history, { recordsPerFrame: () => 9 });
  let [group, source] = await opened(host);
  for (const [index, frame] of frames.entries()) {
    if (index === 5) {
      // a start in the middle: what it finds has to be settled
      await group.close();
      below.locked.clear();
      [group, source] = await opened(host);
    }
    source.push(frame);
    await group.idle();
    await applied(memoryClock(host), group);
  }
  await group.close();
  t.true(kills.length > 150, `${kills.length} moments`);
  const counts: Record<string, number> = {};
  for (const [index, disk] of kills.entries()) {
    const stamp = await stampOf(disk);
    counts[stamp?.state ?? 'none'] = (counts[stamp?.state ?? 'none'] ?? 0) + 1;
    if (stamp?.state === 'applying') {
      t.true(
        positionOf(disk, stamp.volumes, history, stamp.lsn) >= 0,
        `kill ${index}: no position behind ${stamp.lsn}`,
      );
    }
    if (stamp?.state === 'settled') t.true(isAt(disk, history, stamp.lsn), `kill ${index}: not at ${stamp.lsn}`);
    if (index % 7 !== 0) continue;
    disk.locked.clear();
    const again = memoryHost(100 + index, disk);
    const [next] = await opened(again);
    await applied(again, next);
    t.true(isAt(disk, history, next.headLsn), `kill ${index}: the next start`);
    await next.close();
    const last = await stampOf(disk);
    t.is(last?.state, 'settled', `kill ${index}`);
    t.true(isAt(disk, history, last?.lsn ?? -1), `kill ${index}: stopped in order`);
  }
  t.true((counts['applying'] ?? 0) > 50 && (counts['settled'] ?? 0) > 5, JSON.stringify(counts));
});

function memoryClock(host: Omit<MemoryHost, 'disk'>): MemoryHost {
  return host as MemoryHost;
}

test('killed while what a kill left is written again, it is stamped as a mixture until all of it is', async (t) => {
  const first = memoryHost(5);
  const history = new History(5);
  history.addVolumes();
  // the same places all the time, so that what is older shows
  for (let count = 0; count < 60; count++) {
    const payload = new Uint8Array(4 * SECTOR).fill(count + 1);
    history.push(RecordKind.write, { volume: 1 + (count % 2), sector: 2 * (count % 5), sectors: 4, payload });
  }
  // stamps are written once and then not for long: much has to be written again
  const slow = { standbyTimes: { roundMs: 1e9, settleMs: 1e9, retryMs: 10 } };
  const [group, source] = await opened(first, slow);
  for (const frame of seal(history)) {
    source.push(frame);
    await group.idle();
  }
  await applied(first, group);
  const left = first.disk.copy();
  left.locked.clear();
  t.like(await stampOf(left), { state: 'applying' });
  const behind = (await stampOf(left))!.lsn;
  t.true(behind < history.lastLsn);
  const kills: MemoryDisk[] = [];
  const host = { ...memoryHost(6, left), disk: watched(left, () => kills.push(left.moment())) };
  const [again] = await opened(host, slow);
  await applied(memoryClock(host), again);
  let mixtures = 0;
  for (const [index, disk] of kills.entries()) {
    const stamp = await stampOf(disk);
    if (stamp?.state === 'applying') t.true(positionOf(disk, stamp.volumes, history, stamp.lsn) >= 0, `kill ${index}`);
    else t.is(stamp?.state, 'settling');
    if (stamp?.state === 'settling' && positionOf(disk, stamp.volumes, history, behind) < 0) mixtures++;
  }
  t.true(mixtures > 0, 'some of them could not be booted');
  await again.close();
  await group.close();
});

/** Each sector of the image as it is, or as it was at `fromLsn`: what a power loss may leave of what was not synced. */
function loseSome(disk: MemoryDisk, history: History, fromLsn: number): void {
  const model = new Model();
  model.advance(history, fromLsn);
  for (const [index, name] of ['system', 'data'].entries()) {
    const file = fileOf(disk, name);
    for (let at = 0; at < file.length; at += 3 * SECTOR) {
      file.set(model.disk(index + 1).subarray(at, at + SECTOR), at);
    }
  }
}

test('after a power loss no stamp names the boot that is until what was lost is written again, killed at any moment', async (t) => {
  const first = memoryHost(12);
  const history = new History(12);
  history.addVolumes();
  history.fill(120);
  const slow = { standbyTimes: { roundMs: 1e9, settleMs: 1e9, retryMs: 10 } };
  const [group, source] = await opened(first, slow);
  for (const frame of seal(history)) {
    source.push(frame);
    await group.idle();
  }
  await applied(first, group);
  const left = first.disk.copy();
  left.locked.clear();
  const { lsn: behind, state } = (await stampOf(left))!;
  t.is(state, 'applying');
  loseSome(left, history, behind);
  t.is(positionOf(left, (await stampOf(left))!.volumes, history, behind), -1, 'it is a mixture');
  const kills: MemoryDisk[] = [];
  const bootId = 'c'.repeat(36);
  const host = { ...memoryHost(13, left), bootId, disk: watched(left, () => kills.push(left.moment())) };
  const [again] = await opened(host, slow);
  await applied(memoryClock(host), again);
  await again.close();
  const counts = { before: 0, settling: 0, after: 0 };
  for (const [index, disk] of kills.entries()) {
    const stamp = (await stampOf(disk))!;
    if (stamp.state === 'settling') counts.settling++;
    else if (stamp.bootId !== bootId) counts.before++;
    else {
      counts.after++;
      t.true(positionOf(disk, stamp.volumes, history, stamp.lsn) >= 0, `kill ${index}`);
    }
  }
  t.true(counts.before > 0 && counts.settling > 50 && counts.after > 0, JSON.stringify(counts));
  await group.close();
});

test('an image that begins late is copied at first, from the base and history, and goes on where a kill stopped it', async (t) => {
  t.timeout(120_000);
  const host = memoryHost(7);
  const history = new History(7);
  history.addVolumes();
  history.fill(300);
  const frames = seal(history, { recordsPerFrame: () => 15 });
  const moving = { policy: { windowMs: 1, bytesMax: 0 } };
  const [plain, first] = await opened(host, { apply: 'off', ...moving });
  for (const frame of frames.slice(0, -6)) {
    first.push(frame);
    await plain.idle();
  }
  await plain.retain();
  t.true(plain.floorLsn > 0);
  t.is((await plain.status()).standby, undefined);
  await plain.close();
  t.is(await stampOf(host.disk), undefined);

  const kills: MemoryDisk[] = [];
  const below = host.disk;
  const watching = { ...memoryHost(8, below), disk: watched(below, () => kills.push(below.moment())) };
  const [group, source] = await opened(watching);
  await applied(memoryClock(watching), group);
  t.true(isAt(below, history, group.headLsn));
  for (const frame of frames) {
    source.push(frame);
    await group.idle();
  }
  await applied(memoryClock(watching), group);
  t.true(isAt(below, history, history.lastLsn));
  const status = await group.status();
  t.true(status.leases.some(({ owner }) => owner === 'the standby image'));
  await group.close();
  const states = new Set<string>();
  for (const [index, disk] of kills.entries()) {
    const stamp = await stampOf(disk);
    states.add(stamp?.state ?? 'none');
    if (index % 5 !== 0 || stamp?.state === 'applying') continue;
    disk.locked.clear();
    const again = memoryHost(200 + index, disk);
    const [next] = await opened(again);
    await applied(again, next);
    t.true(isAt(disk, history, next.headLsn), `kill ${index}, ${stamp?.state}`);
    await next.close();
  }
  t.true(states.has('copying') && states.has('settling') && states.has('applying'));
});

test('an image that history has left behind while nobody kept it is copied anew and exact again', async (t) => {
  const host = memoryHost(14);
  const history = new History(14);
  history.addVolumes();
  history.fill(600);
  const frames = seal(history, { recordsPerFrame: () => 15 });
  const moving = { policy: { windowMs: 1, bytesMax: 0 } };
  const taking = async (from: number, to: number, change: Partial<ReplicaGroupOptions>): Promise<ReplicaGroup> => {
    const [group, source] = await opened(host, { ...moving, ...change });
    for (const frame of frames.slice(from, to)) {
      source.push(frame);
      await group.idle();
    }
    return group;
  };
  const kept = await taking(0, 2, {});
  await applied(host, kept);
  await kept.close();
  const { lsn, state } = (await stampOf(host.disk))!;
  t.is(state, 'settled');
  const plain = await taking(2, frames.length, { apply: 'off' });
  await plain.retain();
  t.true(plain.floorLsn > lsn);
  await plain.close();
  const again = await taking(0, 0, {});
  await until(host, 'exact', async () => (await again.status()).standby?.state === 'settled');
  t.true(isAt(host.disk, history, history.lastLsn));
  t.like(await stampOf(host.disk), { state: 'settled', lsn: history.lastLsn });
  await again.close();
});

test('history that is gone with its segment is not stepped over: the image stays before it and says so', async (t) => {
  const host = memoryHost(15);
  const history = new History(15);
  history.addVolumes();
  history.fill(400);
  const [plain, source] = await opened(host, { apply: 'off' });
  for (const frame of seal(history, { recordsPerFrame: () => 15 })) {
    source.push(frame);
    await plain.idle();
  }
  await plain.close();
  const path = '/replica/segments/000000000002.seg';
  const content = host.disk.files.get(path)!;
  host.disk.unlink(path);
  // it was begun when all of history was there
  const disk = host.disk;
  disk.makeDirectory();
  const at = { lsn: 0, readFromLsn: 1, settleToLsn: 0, copied: {}, bootId: host.bootId, volumes: [] };
  await writeStamp(disk, STANDBY, { format: 1, groupId: GROUP, state: 'settled', ...at });

  const [group] = await opened(host);
  await until(host, 'it says why', async () => /LSN \d+ to \d+ are gone from history/.test(await reasonOf(group)));
  const [lost] = (await group.status()).damage;
  t.is((await group.status()).standby?.writtenLsn, lost!.fromLsn - 1);
  await group.close();
  const stamp = (await stampOf(disk))!;
  t.true(stamp.lsn < lost!.fromLsn);
  t.true(stamp.state !== 'settled' || isAt(disk, history, stamp.lsn));

  disk.files.set(path, content);
  const [again] = await opened(host);
  await applied(host, again);
  t.is(await reasonOf(again), '');
  t.true(isAt(disk, history, history.lastLsn));
  await again.close();
});

test('before a frame that cannot be read the image is exact, is not written again by each try, and goes on from there', async (t) => {
  t.timeout(120_000);
  const below = new MemoryDisk();
  const history = new History(17);
  history.addVolumes();
  while (history.lastLsn < 250) {
    const lsn = history.lastLsn + 1;
    const payload = new Uint8Array(4 * SECTOR).map(() => history.random.below(256));
    const place = { volume: 1 + (lsn % 2), sectors: 4, payload, sector: 4 * lsn };
    // a request in two pieces over each border of frames
    const opens = lsn % 5 === 0;
    const closes = lsn % 5 === 1 && lsn > 15;
    const flags = opens ? RecordFlag.piece : closes ? RecordFlag.piece | RecordFlag.closes : 0;
    history.push(RecordKind.write, { ...place, flags, requestId: opens ? lsn : closes ? lsn - 1 : 0 });
  }
  const [plain, source] = await opened(memoryHost(17, below), { apply: 'off' });
  const frames = seal(history, { recordsPerFrame: () => 5 });
  for (const frame of frames) {
    source.push(frame);
    await plain.idle();
  }
  await plain.close();
  below.locked.clear();
  const at = { lsn: 0, readFromLsn: 1, settleToLsn: 0, copied: {}, bootId: 'b'.repeat(36), volumes: [] };
  const whole = below.copy();
  let broken = 0;
  for (const [index, frame] of frames.entries()) {
    const disk = whole.copy();
    // exact, or what a kill left: that is a mixture until all of it was written again
    const [before, after] = index % 4 < 2 ? (['settled', 'settled'] as const) : (['applying', 'settling'] as const);
    await writeStamp(disk, STANDBY, { format: 1, groupId: GROUP, state: before, ...at });
    const file = disk.files.get('/replica/segments/000000000002.seg')!;
    const offset = file.bytes.indexOf(frame.bytes);
    if (offset < 0) continue;
    broken++;
    const { firstLsn: lsn } = frame;
    const place = offset + (index % 2 === 0 ? 120 : frame.bytes.length >> 1);
    file.bytes[place] = file.bytes[place]! ^ 1;
    const host = memoryHost(18, disk);
    const [group] = await opened(host);
    await until(host, 'it says why', async () => /damaged/.test(await reasonOf(group)));
    const stamp = (await stampOf(disk))!;
    t.like(stamp, { state: after, lsn: lsn - 1 });
    t.true(isAt(disk, history, lsn - 1), `before LSN ${lsn}`);
    const files = ['system', 'data'].map((name) => fileOf(disk, name));
    const contents = files.map((content) => Buffer.from(content));
    for (const content of files) content.fill(0xee);
    for (let turn = 0; turn < 400; turn++) {
      await new Promise((resolve) => setImmediate(resolve));
      if (turn % 10 === 0) host.clock.advance(5);
    }
    t.true(
      files.every((content) => content.every((byte) => byte === 0xee)),
      'nothing is written again',
    );
    for (const [volume, content] of contents.entries()) files[volume]!.set(content);
    await group.close();
    disk.locked.clear();
    file.bytes[place] = file.bytes[place]! ^ 1;
    const again = memoryHost(19, disk);
    const [next] = await opened(again);
    await applied(again, next);
    t.true(isAt(disk, history, history.lastLsn), `put back at LSN ${lsn}`);
    await next.close();
  }
  t.true(broken >= 3, `${broken} frames`);
});

test('while a volume is seeded anew no stamp of the image calls it a point, whenever a kill comes', async (t) => {
  const below = new MemoryDisk();
  const kills: MemoryDisk[] = [];
  const host = { ...memoryHost(20, below), disk: watched(below, () => kills.push(below.moment())) };
  const history = new History(20);
  history.addVolumes();
  history.fill(40);
  const seedFrom = history.lastLsn + 1;
  for (let sector = 0; sector < 80; sector += 8) {
    const payload = new Uint8Array(8 * SECTOR).map(() => history.random.below(256));
    history.push(RecordKind.seed, { volume: 1, sector, sectors: 8, payload });
  }
  const seedEnd = history.push(RecordKind.seedEnd, { payload: encodeSeedEnd({ volume: 1 }) });
  history.fill(70);
  // no stamp comes by itself, or one as soon as nothing is to be written
  for (const settleMs of [1e9, 0]) {
    const [group, source] = await opened(host, { standbyTimes: { roundMs: 1e9, settleMs, retryMs: 10 } });
    for (const frame of seal(history, { recordsPerFrame: () => 7 })) {
      source.push(frame);
      await group.idle();
      await applied(memoryClock(host), group);
    }
    await group.close();
    let seen = 0;
    for (const [index, disk] of kills.splice(0).entries()) {
      const stamp = await stampOf(disk);
      if (stamp?.state !== 'applying' && stamp?.state !== 'settled') continue;
      const at = positionOf(disk, stamp.volumes, history, stamp.lsn);
      if (at < seedFrom || at >= seedEnd) continue;
      seen++;
      t.is(stamp.volumes[0]?.unsettled, 'seeding', `kill ${index}, ${stamp.state} at ${at}, stamp of ${stamp.lsn}`);
    }
    t.true(seen > 10, `${seen} kills`);
    t.is((await stampOf(below))?.volumes[0]?.unsettled, '');
    for (const path of below.files.keys()) below.unlink(path);
    below.locked.clear();
  }
});

async function reasonOf(group: ReplicaGroup): Promise<string> {
  return (await group.status()).standby?.reason ?? '';
}

async function heldBack(
  t: ExecutionContext,
  spoil: (disk: MemoryDisk) => void,
  mend: (disk: MemoryDisk) => void,
  reason: RegExp,
): Promise<void> {
  const host = memoryHost(9);
  const history = new History(9);
  history.addVolumes();
  history.fill(60);
  spoil(host.disk);
  const [group, source] = await opened(host);
  for (const frame of seal(history)) {
    source.push(frame);
    await group.idle();
  }
  await until(host, 'it says why', async () => reason.test(await reasonOf(group)));
  t.is(group.headLsn, history.lastLsn, 'history goes on');
  mend(host.disk);
  await applied(host, group);
  t.true(isAt(host.disk, history, history.lastLsn));
  t.is(await reasonOf(group), '');
  await group.close();
}

test('a file of somebody else is not written over, and history does not wait for the image', async (t) => {
  const path = `${STANDBY}/standby.json`;
  const junk = Buffer.from('{}\n00000000\n');
  await heldBack(
    t,
    (disk) => void disk.open(path, 'create').writeSync(junk, 0, junk.length, 0),
    (disk) => disk.unlink(path),
    /checksum/,
  );
  const host = memoryHost(10);
  const history = new History(10);
  history.addVolumes();
  const [plain, source] = await opened(host, { apply: 'off' });
  for (const frame of seal(history)) source.push(frame);
  await plain.idle();
  await plain.close();
  host.disk.open(`${STANDBY}/data.raw`, 'create');
  const [group] = await opened(host);
  await until(host, 'it says why', async () => /move it away/.test(await reasonOf(group)));
  host.disk.unlink(`${STANDBY}/data.raw`);
  await applied(host, group);
  await group.close();
});

test('a source that waits for the image hears of it when it is synced; an image that lags on purpose is not told', async (t) => {
  for (const apply of ['sync', 'async'] as const) {
    const host = memoryHost(11);
    const history = new History(11);
    history.addVolumes();
    const body = { from: 'degraded', to: 'in-sync', reason: '', ack: 'applied', ackAt: 'flush' };
    history.push(RecordKind.degreeChange, { payload: encodeDegreeChange(body) });
    history.fill(100);
    const [group, source] = await opened(host, { apply });
    for (const frame of seal(history)) {
      source.push(frame);
      await group.idle();
    }
    await applied(host, group);
    if (apply === 'sync') {
      t.is(source.last?.appliedLsn, history.lastLsn);
      t.true(source.feedbacks.every(({ appliedLsn, durableLsn }) => (appliedLsn ?? 0) <= durableLsn));
    } else {
      t.true(source.feedbacks.every(({ appliedLsn }) => appliedLsn === undefined));
    }
    await group.close();
  }
});

test('a file that somebody took away is made anew with all that was in it', async (t) => {
  const host = memoryHost(14);
  const history = new History(14);
  history.addVolumes();
  history.fill(120);
  const [group, source] = await opened(host);
  const frames = seal(history);
  for (const frame of frames.slice(0, -2)) source.push(frame);
  await group.idle();
  await applied(host, group);
  await group.close();
  host.disk.unlink(`${STANDBY}/data.raw`);
  const [next, last] = await opened(host);
  await applied(host, next);
  t.true(isAt(host.disk, history, next.headLsn));
  for (const frame of frames) last.push(frame);
  await next.idle();
  await applied(host, next);
  t.true(isAt(host.disk, history, history.lastLsn));
  await next.close();
});

test('an exact image that history has gone past is copied anew, and exact again', async (t) => {
  const host = memoryHost(15);
  const history = new History(15);
  history.addVolumes();
  history.fill(300);
  const frames = seal(history, { recordsPerFrame: () => 15 });
  const [group, source] = await opened(host);
  for (const frame of frames.slice(0, 2)) source.push(frame);
  await group.idle();
  await applied(host, group);
  await group.close();
  t.is((await stampOf(host.disk))?.state, 'settled');
  const [plain, behind] = await opened(host, { apply: 'off', policy: { windowMs: 1, bytesMax: 0 } });
  for (const frame of frames.slice(2)) {
    behind.push(frame);
    await plain.idle();
  }
  await plain.retain();
  t.true(plain.floorLsn > 30);
  await plain.close();
  const [next] = await opened(host);
  await applied(host, next);
  t.true(isAt(host.disk, history, history.lastLsn));
  await next.close();
  t.like(await stampOf(host.disk), { state: 'settled', lsn: history.lastLsn });
});

test('history that nobody has any more keeps the image where it is, which it says; moved away, it is begun anew once it needs that no more', async (t) => {
  for (const moved of ['before it is overwritten', 'after']) {
    const host = memoryHost(12);
    const history = new History(12);
    history.addVolumes();
    history.fill(160);
    const frames = seal(history, { recordsPerFrame: () => 10 });
    const [group, source] = await opened(host);
    for (const frame of frames.slice(0, 8)) source.push(frame);
    await group.idle();
    await applied(host, group);
    const heldLsn = group.headLsn;
    await group.close();
    const [plain, behind] = await opened(host, { apply: 'off' });
    for (const frame of frames.slice(8)) behind.push(frame);
    await plain.idle();
    await plain.close();
    spoil(host.disk, frames[8]?.bytes ?? Buffer.alloc(0));

    const [next, last] = await opened(host);
    await until(host, 'it says why', async () =>
      reasonOf(next).then((reason) => reason.includes(`move ${STANDBY} away`)),
    );
    t.regex(await reasonOf(next), new RegExp(`^frame-damaged: .*; needed behind LSN ${heldLsn}: `));
    t.is((await stampOf(host.disk))?.state, 'settled');
    t.true(isAt(host.disk, history, heldLsn), 'what can be booted is left alone');
    const move = (): void => {
      for (const name of host.disk.list(STANDBY)) host.disk.unlink(`${STANDBY}/${name}`);
    };
    if (moved !== 'after') {
      move();
      await until(host, 'it says why', async () => /needed for the copy/.test(await reasonOf(next)));
    }
    for (const { id: volume, sectors } of VOLUMES) history.push(RecordKind.zero, { volume, sectors });
    history.fill(200);
    for (const frame of seal(history, { fromLsn: next.headLsn + 1 })) last.push(frame);
    await next.idle();
    if (moved === 'after') move();
    await applied(host, next);
    t.is(next.headLsn, history.lastLsn);
    t.true(isAt(host.disk, history, history.lastLsn), moved);
    t.is(await reasonOf(next), '');
    await next.close();
  }
});

/** Turns a bit in the payload of a frame that is stored. */
function spoil(disk: MemoryDisk, frame: Uint8Array): void {
  for (const name of disk.list('/replica/segments')) {
    const bytes = disk.files.get(`/replica/segments/${name}`)?.bytes;
    const at = bytes?.indexOf(frame) ?? -1;
    if (bytes === undefined || at < 0) continue;
    const last = at + frame.length - 1;
    bytes.writeUInt8(bytes.readUInt8(last) ^ 1, last);
    return;
  }
  throw new Error('it is not there');
}
