import test, { type ExecutionContext } from 'ava';
import { hasCode } from '../../journal/base/errors.ts';
import { decideRetention } from '../../replica/base/retention-policy.ts';
import { REPLICA_DEFAULTS, ReplicaGroup, type ReplicaGroupOptions } from '../../replica/replica-group.ts';
import { GROUP, HandSource, History, Model, seal, VOLUMES } from './support/history.ts';
import { type MemoryHost, memoryHost, SeededRandom } from './support/memory-host.ts';

const RECORDS = 2000;

function options(change: Partial<ReplicaGroupOptions> = {}): ReplicaGroupOptions {
  return {
    ...REPLICA_DEFAULTS,
    directory: '/replica',
    groupId: GROUP,
    replica: 'r1',
    segmentBytes: 256 * 1024,
    reserveBytes: 64 * 1024,
    indexCacheBytesMax: 64 * 1024,
    memtableEntries: 128,
    chunkCacheBytesMax: 256 * 1024,
    layoutCacheBytesMax: 256 * 1024,
    ...change,
  };
}

async function received(
  host: MemoryHost,
  history: History,
  change: Partial<ReplicaGroupOptions> = {},
): Promise<ReplicaGroup> {
  const group = await ReplicaGroup.open(host, options(change));
  const source = new HandSource();
  group.start(source);
  for (const frame of seal(history)) {
    source.push(frame);
    if (frame.lastLsn % 7 === 0) await group.idle();
  }
  await group.idle();
  return group;
}

/** Reads a random piece of every volume at a position and compares; whole disks at every tenth. */
async function sameAsModel(
  t: ExecutionContext,
  group: ReplicaGroup,
  model: Model,
  random: SeededRandom,
): Promise<void> {
  const view = group.openView({ lsn: model.lsn, owner: 'test', scratchBytesMax: 0 });
  for (const { volume, device } of view.volumes) {
    const disk = model.disk(volume.id);
    const whole = model.lsn % 40 === 0;
    const offset = whole ? 0 : random.below(disk.length / 512 - 64) * 512;
    const bytes = Buffer.alloc(whole ? disk.length : (1 + random.below(64)) * 512);
    await device.read(offset, bytes);
    if (!bytes.equals(disk.subarray(offset, offset + bytes.length))) {
      t.fail(`${volume.name} at LSN ${model.lsn} differs in [${offset}, +${bytes.length})`);
    }
    if (!whole) continue;
    let at = 0;
    for (const extent of await device.extents(0, disk.length)) {
      if (extent.kind !== 'data' && disk.subarray(at, at + extent.length).some((byte) => byte !== 0)) {
        t.fail(`${volume.name} at LSN ${model.lsn}: data in a hole at ${at}`);
      }
      at += extent.length;
    }
    if (at !== disk.length) t.fail(`extents of ${at} bytes for ${disk.length}`);
  }
  await group.views.close(view.id);
}

async function everyPoint(t: ExecutionContext, group: ReplicaGroup, history: History, step: number): Promise<number> {
  const model = new Model();
  const random = new SeededRandom(5);
  let points = 0;
  for (let lsn = group.floorLsn; lsn <= group.headLsn; lsn += step) {
    model.advance(history, lsn);
    if (lsn < 12) continue;
    await sameAsModel(t, group, model, random);
    points += 1;
  }
  return points;
}

function madeHistory(seed: number, count = RECORDS): History {
  const history = new History(seed);
  history.addVolumes();
  return history.fill(count);
}

test('a view at every LSN of a history equals the model; also after reopening and after floor moves', async (t) => {
  const host = memoryHost(1);
  const history = madeHistory(1);
  let group = await received(host, history);
  t.is(group.headLsn, history.lastLsn);
  t.true((await everyPoint(t, group, history, 1)) > RECORDS - 20);
  await group.close();

  group = await ReplicaGroup.open(host, options({ policy: { windowMs: 1200, bytesMax: 0 } }));
  t.is(group.headLsn, history.lastLsn);
  await everyPoint(t, group, history, 7);

  // A view that is open holds the floor back and never changes.
  const held = group.openView({ lsn: 100, owner: 'holder', scratchBytesMax: 0 });
  const decision = await group.retain();
  t.true(decision.segments.some(({ reason }) => reason.includes('holder')));
  t.true(group.floorLsn <= 100);
  const before = Buffer.alloc(1024 * 1024);
  await held.volumes[0]?.device.read(0, before);
  await group.views.close(held.id);

  const later = group.openView({ lsn: 1500, owner: 'later', scratchBytesMax: 0 });
  const digest = Buffer.alloc(4096 * 512);
  await later.volumes[0]?.device.read(0, digest);
  await group.retain();
  t.true(group.floorLsn > 100 && group.floorLsn <= 1500, `floor ${group.floorLsn}`);
  const again = Buffer.alloc(4096 * 512);
  await later.volumes[0]?.device.read(0, again);
  t.true(digest.equals(again));
  await everyPoint(t, group, history, 5);
  t.true(
    hasCode(
      t.throws(() => group.openView({ lsn: group.floorLsn - 1, owner: 'x', scratchBytesMax: 0 })),
      'trimmed',
    ),
  );
  t.true(
    hasCode(
      t.throws(() => group.openView({ lsn: RECORDS * 2, owner: 'x', scratchBytesMax: 0 })),
      'not-found',
    ),
  );
  await group.close();

  group = await ReplicaGroup.open(host, options());
  await everyPoint(t, group, history, 9);
  await group.close();
});

test('a kill at any point of receiving or of a floor move leaves a prefix that goes on', async (t) => {
  const history = madeHistory(2, 900);
  const frames = seal(history);
  const random = new SeededRandom(77);
  const host = memoryHost(2);
  const group = await ReplicaGroup.open(host, options({ policy: { windowMs: 200, bytesMax: 0 } }));
  const source = new HandSource();
  group.start(source);
  // Copies of the disk at moments in between, each with what was acknowledged before.
  const kills: { disk: MemoryHost['disk']; acknowledged: number }[] = [];
  const kill = (): void => {
    kills.push({ disk: host.disk.copy(), acknowledged: source.last?.durableLsn ?? 0 });
  };
  for (const [i, frame] of frames.entries()) {
    source.push(frame);
    host.clock.advance(300);
    for (let turns = random.below(60); turns > 0; turns -= 1) await Promise.resolve();
    if (random.below(4) === 0) kill();
    if (i === frames.length - 10) {
      await group.idle();
      let moving = true;
      const retained = group.retain().finally(() => {
        moving = false;
      });
      for (let turn = 0; moving; turn += 1) {
        await Promise.resolve();
        if (turn % 151 === 0 && kills.length < 60) kill();
      }
      await retained;
    }
  }
  await group.idle();
  await group.close();
  t.true(kills.length > 20, `${kills.length} kills`);
  t.true(kills.some(({ acknowledged }) => acknowledged > 100));
  t.true(group.floorLsn > 0);
  for (const { disk, acknowledged } of kills) {
    const survivor = memoryHost(3, disk);
    const reopened = await ReplicaGroup.open(survivor, options());
    t.true(reopened.headLsn >= acknowledged, `held ${reopened.headLsn}, acknowledged ${acknowledged}`);
    await everyPoint(t, reopened, history, 61);
    const rest = new HandSource();
    reopened.start(rest);
    t.is(rest.start?.durableLsn, reopened.headLsn);
    for (const frame of frames) if (frame.lastLsn > reopened.headLsn) rest.push(frame);
    await reopened.idle();
    t.is(reopened.headLsn, history.lastLsn);
    await everyPoint(t, reopened, history, 83);
    await reopened.close();
  }
});

test('a torn tail is cut and sent again; damage below the mark is quarantined and named', async (t) => {
  const history = madeHistory(4, 400);
  const host = memoryHost(4);
  await (await received(host, history)).close();
  const newest = host.disk
    .list('/replica/segments')
    .filter((name) => name.endsWith('.seg'))
    .at(-1);

  const torn = memoryHost(5, host.disk.copy());
  const file = torn.disk.files.get(`/replica/segments/${newest}`);
  if (file === undefined) return t.fail('no segment');
  const half =
    seal(madeHistory(4, 450), { fromLsn: history.lastLsn + 1 })[0]?.bytes.subarray(0, 300) ?? new Uint8Array(0);
  file.bytes = Buffer.concat([file.bytes.subarray(0, file.length), half]);
  file.length = file.bytes.length;
  const cut = await ReplicaGroup.open(torn, options());
  t.is(cut.headLsn, history.lastLsn);
  t.deepEqual((await cut.status()).damage, []);
  await everyPoint(t, cut, history, 50);
  await cut.close();

  const rotten = memoryHost(6, host.disk.copy());
  const bad = rotten.disk.files.get(`/replica/segments/${newest}`);
  if (bad === undefined) return t.fail('no segment');
  const header = bad.bytes.lastIndexOf('TMF1', bad.length, 'latin1') + 40;
  bad.bytes.writeUInt8(bad.bytes.readUInt8(header) ^ 1, header);
  // more than a frame can give back
  bad.bytes = Buffer.concat([bad.bytes.subarray(0, bad.length), Buffer.alloc(4 * 1024 * 1024)]);
  bad.length = bad.bytes.length;
  const group = await ReplicaGroup.open(rotten, options());
  const { damage } = await group.status();
  t.is(damage.length, 1);
  t.is(damage[0]?.toLsn, history.lastLsn);
  t.is(group.headLsn, (damage[0]?.fromLsn ?? 0) - 1);
  t.true(rotten.disk.list('/replica/segments/quarantine').length === 1);
  const source = new HandSource();
  group.start(source);
  for (const frame of seal(history)) source.push(frame);
  await group.idle();
  t.is(group.headLsn, history.lastLsn);
  await everyPoint(t, group, history, 50);
  await group.close();
});

/** Reads all of a history of which many bytes are damaged; returns how many pieces were refused. */
async function refusals(t: ExecutionContext, host: MemoryHost): Promise<number> {
  const history = madeHistory(8, 300);
  const group = await received(host, history, { chunkCacheBytesMax: 4096 });
  const file = host.disk.files.get('/replica/segments/000000000001.seg');
  if (file === undefined) throw new Error('no segment');
  for (let at = 5000; at < file.length - 600; at += 5000) file.bytes.writeUInt8(file.bytes.readUInt8(at) ^ 64, at);
  const view = group.openView({ lsn: 300, owner: 't', scratchBytesMax: 0 });
  const model = new Model();
  model.advance(history, 300);
  let failures = 0;
  for (let offset = 0; offset < 4096 * 512; offset += 4096) {
    const bytes = Buffer.alloc(4096);
    try {
      await view.volumes[0]?.device.read(offset, bytes);
      if (!bytes.equals(model.disk(1).subarray(offset, offset + 4096))) t.fail(`wrong bytes at ${offset}`);
    } catch (error) {
      if (!hasCode(error, 'frame-damaged')) throw error;
      failures += 1;
    }
  }
  await group.close();
  return failures;
}

test('a damaged chunk in the middle of history is an error for who reads it, never wrong bytes', async (t) => {
  t.true((await refusals(t, memoryHost(8))) > 0);
});

test('a damaged chunk is an error for who reads it from memory, too, and the same one', async (t) => {
  const host = memoryHost(8);
  host.disk.readsNow = () => true;
  t.is(await refusals(t, host), await refusals(t, memoryHost(8)));
});

test('a view equals the model whether what it reads is in memory or has to be waited for', async (t) => {
  const history = madeHistory(17);
  for (const coldInTen of [0, 5]) {
    const host = memoryHost(17);
    const random = new SeededRandom(18);
    host.disk.readsNow = () => random.below(10) >= coldInTen;
    const group = await received(host, history, { chunkCacheBytesMax: 8192, indexCacheBytesMax: 32 * 1024 });
    t.true((await everyPoint(t, group, history, 3)) > 600);
    await group.close();
  }
});

test('positions that are no points are refused with the reason', async (t) => {
  const history = madeHistory(9, 60);
  const group = await received(memoryHost(9), history);
  const seeding = t.throws(() => group.openView({ lsn: 6, owner: 't', scratchBytesMax: 0 }));
  t.true(hasCode(seeding, 'precondition-failed'));
  t.regex(seeding?.message ?? '', /system is not consistent at LSN 6: seeding; the next point is LSN 11/);
  const other = group.openView({ lsn: 6, volumes: ['data'], owner: 't', scratchBytesMax: 0 });
  t.is(other.volumes.length, 1);
  t.true(
    hasCode(
      t.throws(() => group.openView({ lsn: 1, volumes: ['data'], owner: 't', scratchBytesMax: 0 })),
      'not-found',
    ),
  );
  const { volumes, heartbeatAgeMs, headLsn } = await group.status();
  t.deepEqual(
    volumes.map(({ name, unsettled }) => ({ name, unsettled })),
    VOLUMES.map(({ name }) => ({ name, unsettled: '' })),
  );
  t.is(headLsn, history.lastLsn);
  t.true(heartbeatAgeMs === undefined || heartbeatAgeMs >= 0);
  await group.close();
});

test('scratch writes are seen by their view alone, and thrown away', async (t) => {
  const history = madeHistory(10, 300);
  const host = memoryHost(10);
  const group = await received(host, history);
  const model = new Model();
  model.advance(history, 250);
  const mine = group.openView({ lsn: 250, owner: 'mine', scratchBytesMax: 512 * 1024 });
  const other = group.openView({ lsn: 250, owner: 'other', scratchBytesMax: 512 * 1024 });
  const disk = Buffer.from(model.disk(2));
  const random = new SeededRandom(3);
  const device = mine.volumes[1]?.device;
  const untouched = other.volumes[1]?.device;
  if (device === undefined || untouched === undefined) return t.fail('no device');
  for (let i = 0; i < 120; i += 1) {
    const sectors = 1 + random.below(20);
    const offset = random.below(disk.length / 512 - sectors + 1) * 512;
    if (random.below(3) === 0) {
      await device.zero(offset, sectors * 512, true);
      disk.fill(0, offset, offset + sectors * 512);
    } else {
      const bytes = random.bytes(sectors * 512);
      try {
        await device.write(offset, bytes);
        disk.set(bytes, offset);
      } catch (error) {
        if (!hasCode(error, 'no-space')) throw error;
      }
    }
  }
  const now = Buffer.alloc(disk.length);
  await device.read(0, now);
  t.true(now.equals(disk));
  await untouched.read(0, now);
  t.true(now.equals(model.disk(2)));
  await t.throwsAsync(device.write(0, new Uint8Array(1024 * 1024)), { message: /scratch space/ });
  t.true(host.disk.list('/replica/scratch').length > 0);
  await group.views.close(mine.id);
  await group.views.close(other.id);
  t.deepEqual(host.disk.list('/replica/scratch'), []);
  await group.close();
});

test('retention says why each segment stays', (t) => {
  const segment = (sequence: number, lastTime: number) => ({
    sequence,
    firstLsn: sequence * 10 - 9,
    lastLsn: sequence * 10,
    lastTime,
    bytes: 100,
    sealed: sequence < 5,
  });
  const segments = [segment(1, 1e6), segment(2, 2e6), segment(3, 3e6), segment(4, 4e6), segment(5, 5e6)];
  const policy = { windowMs: 2500, bytesMax: 0 };
  t.is(decideRetention(segments, [], policy, 0, 5e6).floorLsn, 20);
  t.is(decideRetention(segments, [], { windowMs: 1, bytesMax: 0 }, 0, 5e6).floorLsn, 40);
  t.is(decideRetention(segments, [], { windowMs: 1e9, bytesMax: 350 }, 0, 5e6).floorLsn, 20);
  const held = decideRetention(segments, [{ id: 1, lsn: 15, kind: 'pin', owner: 'audit' }], policy, 0, 5e6);
  t.is(held.floorLsn, 10);
  t.deepEqual(
    held.segments.map(({ reason }) => reason),
    [
      'older than the window',
      'pin: audit at LSN 15',
      'behind a kept segment',
      'behind a kept segment',
      'behind a kept segment',
    ],
  );
});
