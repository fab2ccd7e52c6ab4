import test, { type ExecutionContext } from 'ava';
import { hasCode, TidemarkError } from '../../journal/base/errors.ts';
import type { SealedFrame } from '../../journal/frame-sealer.ts';
import { RecordKind } from '../../journal/record.ts';
import { REPLICA_DEFAULTS, ReplicaGroup, type ReplicaGroupOptions } from '../../replica/replica-group.ts';
import { EPOCH_MICROS, GROUP, HandSource, History, Model, seal } from './support/history.ts';
import { type MemoryHost, memoryHost, SeededRandom } from './support/memory-host.ts';

const RECORDS = 300;

function options(change: Partial<ReplicaGroupOptions> = {}): ReplicaGroupOptions {
  return {
    ...REPLICA_DEFAULTS,
    directory: '/replica',
    groupId: GROUP,
    replica: 'r1',
    segmentBytes: 64 * 1024,
    reserveBytes: 64 * 1024,
    indexCacheBytesMax: 64 * 1024,
    memtableEntries: 128,
    chunkCacheBytesMax: 1024 * 1024,
    layoutCacheBytesMax: 1024 * 1024,
    ...change,
  };
}

/** A stream whose far side gives frames again, from whichever frame holds the LSN. */
class GivingSource extends HandSource {
  frames: readonly SealedFrame[] = [];
  refusal: TidemarkError | undefined;
  asked = 0;

  async *fetch(fromLsn: number): AsyncGenerator<Uint8Array> {
    await Promise.resolve();
    this.asked += 1;
    if (this.refusal !== undefined) throw this.refusal;
    for (const frame of this.frames) if (frame.lastLsn >= fromLsn) yield frame.bytes;
  }
}

function madeHistory(seed: number): History {
  const history = new History(seed);
  history.addVolumes();
  return history.fill(RECORDS);
}

async function stored(host: MemoryHost, history: History, change: Partial<ReplicaGroupOptions> = {}): Promise<void> {
  const group = await ReplicaGroup.open(host, options(change));
  const source = new HandSource();
  group.start(source);
  for (const frame of seal(history)) {
    source.push(frame);
    await group.idle();
  }
  await group.close();
}

/** Spoils a random place of a random segment, before its footer. */
function spoil(host: MemoryHost, random: SeededRandom): void {
  const names = host.disk.list('/replica/segments').filter((name) => name.endsWith('.seg'));
  const file = host.disk.files.get(`/replica/segments/${names[random.below(names.length)]}`);
  if (file === undefined) throw new Error('no segment');
  const at = 4096 + random.below(file.length - 4096 - 2000);
  if (random.below(2) === 0) file.bytes.writeUInt8(file.bytes.readUInt8(at) ^ (1 << random.below(8)), at);
  else file.bytes.fill(0, at - (at % 512), Math.min(at + 1024, file.length - 2000));
}

/** Reads at many points: every byte is the model's or an error with a code. Returns how many reads were errors. */
async function readAll(t: ExecutionContext, group: ReplicaGroup, history: History): Promise<number> {
  const model = new Model();
  let failures = 0;
  for (let lsn = 20; lsn <= group.headLsn; lsn += 71) {
    model.advance(history, lsn);
    try {
      const view = group.openView({ lsn, owner: 'test', scratchBytesMax: 0 });
      for (const { volume, device } of view.volumes) {
        const disk = model.disk(volume.id);
        for (let offset = 0; offset < disk.length; offset += 256 * 1024) {
          const bytes = Buffer.alloc(Math.min(256 * 1024, disk.length - offset));
          try {
            await device.read(offset, bytes);
            if (!bytes.equals(disk.subarray(offset, offset + bytes.length))) t.fail(`wrong bytes at LSN ${lsn}`);
          } catch (error) {
            if (!hasCode(error, 'frame-damaged') && !hasCode(error, 'journal-damaged')) throw error;
            failures += 1;
          }
        }
      }
      await group.views.close(view.id);
    } catch (error) {
      if (!(error instanceof TidemarkError)) throw error;
      failures += 1;
    }
  }
  return failures;
}

/** Lets the repair ask, again and again, until nothing is damaged or it gave up. */
async function repairing(host: MemoryHost, holds: () => Promise<boolean>): Promise<void> {
  for (let round = 0; round < 200; round += 1) {
    if (await holds()) return;
    host.clock.advance(1000);
    for (let turn = 0; turn < 20; turn += 1) await new Promise((resolve) => setImmediate(resolve));
  }
  throw new Error('it was not repaired');
}

async function isHealed(group: ReplicaGroup): Promise<boolean> {
  return (await group.status()).damage.length === 0;
}

function start(group: ReplicaGroup, frames: readonly SealedFrame[]): GivingSource {
  const source = new GivingSource();
  source.frames = frames;
  group.start(source);
  return source;
}

for (const seed of [1, 2, 3, 5]) {
  test(`damaged frames are named, do not stop the group, and are put back from the far side: seed ${seed}`, async (t) => {
    const history = madeHistory(seed);
    const whole = memoryHost(seed);
    await stored(whole, history);
    const random = new SeededRandom(seed * 31);
    // sealed at other borders than those that are stored
    const frames = seal(history, { recordsPerFrame: (one) => 5 + one.below(60) });
    for (let round = 0; round < 3; round += 1) {
      const host = memoryHost(seed * 100 + round, whole.disk.copy());
      for (let count = 0; count <= random.below(3); count += 1) spoil(host, random);
      if (round % 2 === 1)
        for (const name of host.disk.list('/replica/index')) host.disk.unlink(`/replica/index/${name}`);
      let reopen = 0;
      const onReopen = (): void => {
        reopen += 1;
      };
      let group = await ReplicaGroup.open(host, options({ onReopen }));
      // a damaged end comes again by itself
      const isEnd = group.headLsn < history.lastLsn;
      await readAll(t, group, history);
      let source = start(group, frames);
      if (isEnd) for (const frame of seal(history, { fromLsn: group.headLsn + 1 })) source.push(frame);
      await group.idle();
      t.is(group.headLsn, history.lastLsn);
      // behind a damaged frame another one may show when the first is whole
      for (let left = 5; left > 0; left -= 1) {
        await repairing(host, () => isHealed(group));
        if (reopen > 0) {
          await group.close();
          reopen = 0;
          group = await ReplicaGroup.open(host, options({ onReopen }));
          source = start(group, frames);
        }
        if ((await readAll(t, group, history)) === 0) break;
      }
      t.is(await readAll(t, group, history), 0, `seed ${seed} round ${round}`);
      t.true(await isHealed(group));
      t.is(source.last?.damagedFrom ?? 0, 0);
      await group.close();
      const again = await ReplicaGroup.open(host, options());
      t.is(await readAll(t, again, history), 0);
      await again.close();
    }
  });
}

test('what nobody has any more stays named and is asked for no longer; history goes on', async (t) => {
  const history = madeHistory(9);
  const host = memoryHost(9);
  await stored(host, history);
  const random = new SeededRandom(4);
  spoil(host, random);
  const group = await ReplicaGroup.open(host, options());
  await readAll(t, group, history);
  const source = new GivingSource();
  source.refusal = new TidemarkError('stream-unavailable', 'away');
  group.start(source);
  const { damage } = await group.status();
  t.is(damage.length, 1);
  await repairing(host, () => Promise.resolve(source.asked > 1));
  const { events } = await group.points(EPOCH_MICROS, EPOCH_MICROS + 3_600_000_000, 60_000_000);
  t.deepEqual(
    events.filter(({ kind }) => kind === 'damaged').map(({ lsn }) => lsn),
    [damage[0]?.fromLsn],
  );
  t.is(source.last?.damagedFrom, damage[0]?.fromLsn);
  source.refusal = new TidemarkError('trimmed', 'gone');
  await repairing(host, () => Promise.resolve(source.last?.damagedFrom === undefined));
  t.is((await group.status()).damage.length, 1);
  history.fill(RECORDS + 60);
  for (const frame of seal(history, { fromLsn: RECORDS + 1 })) source.push(frame);
  await group.idle();
  t.is(group.headLsn, history.lastLsn);
  await group.close();
});

test('frames with other records are never put in place of damaged ones', async (t) => {
  const history = madeHistory(12);
  const host = memoryHost(12);
  await stored(host, history);
  const random = new SeededRandom(8);
  spoil(host, random);
  const group = await ReplicaGroup.open(host, options());
  await readAll(t, group, history);
  const [damage] = (await group.status()).damage;
  const before = host.disk.list('/replica/segments/repaired');
  const forged = madeHistory(12);
  const record = forged.records
    .slice((damage?.fromLsn ?? 1) - 1, damage?.toLsn)
    .find(({ payload }) => payload.length > 0);
  record?.payload.fill(0x5a);
  const source = new GivingSource();
  source.frames = seal(forged);
  group.start(source);
  await repairing(host, async () => source.asked > 0 && (await group.status()).refusalOf(damage?.fromLsn ?? 0) !== '');
  t.deepEqual(host.disk.list('/replica/segments/repaired'), before);
  t.is((await group.status()).damage.length, 1);
  await group.close();
});

// Simulation seed 30 of 2026-11-21: the last frame of a segment without a footer, which was acknowledged.
test('a damaged end of the newest segment that was acknowledged is named, held by its number, and put back', async (t) => {
  // its record list, or its header too
  for (const place of [200, 20]) {
    const history = madeHistory(13);
    const host = memoryHost(13);
    await stored(host, history, { segmentBytes: 64 * 1024 * 1024 });
    const file = host.disk.files.get('/replica/segments/000000000001.seg');
    if (file === undefined) throw new Error('no segment');
    const frames = seal(history);
    const last = frames.at(-1)!;
    const at = file.length - last.bytes.length + place;
    file.bytes.writeUInt8(file.bytes.readUInt8(at) ^ 1, at);
    let reopen = 0;
    const onReopen = (): void => {
      reopen += 1;
    };
    let group = await ReplicaGroup.open(host, options({ onReopen }));
    t.is(group.headLsn, history.lastLsn);
    t.like((await group.status()).damage, [{ fromLsn: last.firstLsn, toLsn: last.lastLsn }]);
    const readNewest = async (): Promise<void> => {
      const view = group.openView({ lsn: history.lastLsn, owner: 'test', scratchBytesMax: 0 });
      const model = new Model();
      model.advance(history, history.lastLsn);
      for (const { volume, device } of view.volumes) {
        const bytes = Buffer.alloc(model.disk(volume.id).length);
        await device.read(0, bytes);
        t.true(bytes.equals(model.disk(volume.id)));
      }
      await group.views.close(view.id);
    };
    await t.throwsAsync(readNewest, { code: 'frame-damaged' });
    const source = start(group, frames);
    history.fill(RECORDS + 30);
    for (const frame of seal(history, { fromLsn: last.lastLsn + 1 })) source.push(frame);
    await group.idle();
    await repairing(host, () => Promise.resolve(reopen > 0));
    t.is(source.feedbacks[0]?.durableLsn, last.lastLsn);
    await group.close();
    group = await ReplicaGroup.open(host, options());
    t.is(group.headLsn, history.lastLsn);
    t.deepEqual((await group.status()).damage, []);
    await readNewest();
    await group.close();
  }
});

// Simulation seed 7 with rot in the newest segment: what stood in for the first of two damaged frames hid the second.
test('two damaged frames beside one another are one hole: what stood in for the first does not hide the second', async (t) => {
  const history = madeHistory(15);
  const host = memoryHost(15);
  const frames = seal(history);
  await stored(host, history, { segmentBytes: 64 * 1024 * 1024 });
  const file = host.disk.files.get('/replica/segments/000000000001.seg');
  if (file === undefined) throw new Error('no segment');
  const index = frames.findIndex(({ firstLsn }) => firstLsn > 30);
  let at = 4096 + frames.slice(0, index).reduce((sum, { bytes }) => sum + bytes.length, 0);
  for (const damaged of frames.slice(index, index + 2)) {
    file.bytes.writeUInt8(file.bytes.readUInt8(at + 40) ^ 1, at + 40);
    for (const name of host.disk.list('/replica/index')) host.disk.unlink(`/replica/index/${name}`);
    let reopen = 0;
    const onReopen = (): void => {
      reopen += 1;
    };
    let group = await ReplicaGroup.open(host, options({ onReopen }));
    t.is(group.headLsn, history.lastLsn);
    t.is((await group.status()).damage[0]?.toLsn, damaged.lastLsn);
    t.true((await readAll(t, group, history)) > 0);
    start(group, frames);
    await repairing(host, () => Promise.resolve(reopen > 0));
    await group.close();
    group = await ReplicaGroup.open(host, options());
    t.deepEqual((await group.status()).damage, []);
    t.is(await readAll(t, group, history), 0);
    await group.close();
    at += damaged.bytes.length;
  }
});

test('a repair that is killed at any moment is done again, and no read between them shows other bytes', async (t) => {
  const history = madeHistory(16);
  const host = memoryHost(16);
  await stored(host, history);
  const random = new SeededRandom(3);
  for (let count = 0; count < 3; count += 1) spoil(host, random);
  const frames = seal(history);
  let reopen = 0;
  const onReopen = (): void => {
    reopen += 1;
  };
  const group = await ReplicaGroup.open(host, options({ onReopen }));
  await readAll(t, group, history);
  t.true((await group.status()).damage.length > 0);
  start(group, frames);
  host.clock.advance(1000);
  const kills: MemoryHost['disk'][] = [];
  for (let turn = 0; turn < 4000 && !(await isHealed(group)); turn += 1) {
    await Promise.resolve();
    if (turn % 3 === 0 && kills.length < 40) kills.push(host.disk.copy());
    if (turn % 50 === 49) {
      host.clock.advance(1000);
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
  await group.close();
  kills.push(host.disk.copy());
  t.true(kills.length > 5, `${kills.length} kills`);
  let unfinished = 0;
  for (const [at, disk] of kills.entries()) {
    const survivor = memoryHost(100 + at, disk);
    let one = await ReplicaGroup.open(survivor, options({ onReopen }));
    t.is(one.headLsn, history.lastLsn);
    await readAll(t, one, history);
    if (!(await isHealed(one))) {
      unfinished += 1;
      start(one, frames);
      await repairing(survivor, () => isHealed(one));
    }
    await one.close();
    one = await ReplicaGroup.open(survivor, options());
    t.is(await readAll(t, one, history), 0);
    await one.close();
  }
  t.true(unfinished > 0 && unfinished < kills.length, `${unfinished} of ${kills.length} were not finished`);
});

test('a frame that stood in for one of a segment that is gone does not hide what comes in a segment of that number', async (t) => {
  const history = new History(91);
  history.addVolumes();
  for (let count = 0; count < 120; count += 1) {
    const payload = new Uint8Array(4096).map(() => history.random.below(256));
    history.push(RecordKind.write, { volume: 2, sector: 8 * history.random.below(40), sectors: 8, payload });
  }
  const host = memoryHost(91);
  const frames = seal(history, { recordsPerFrame: () => 20 });
  const one = { segmentBytes: 4096 };
  const group = await ReplicaGroup.open(host, options(one));
  const source = new GivingSource();
  source.frames = frames;
  group.start(source);
  for (const frame of frames) {
    source.push(frame);
    await group.idle();
  }
  const newest = host.disk
    .list('/replica/segments')
    .filter((name) => name.endsWith('.seg'))
    .at(-1)!;
  const { bytes, length } = host.disk.files.get(`/replica/segments/${newest}`)!;
  bytes.fill(0, length - 6000, length - 3000);
  await t.throwsAsync(async () => {
    const view = group.openView({ lsn: history.lastLsn, owner: 't', scratchBytesMax: 0 });
    for (const { volume, device } of view.volumes) await device.read(0, Buffer.alloc(volume.size));
  });
  await repairing(host, () => Promise.resolve(host.disk.list('/replica/segments/repaired').length === 1));
  await group.close();
  host.disk.unlink(`/replica/segments/${newest}`);
  const synced: string[] = [];
  const sync = host.disk.syncDirectory.bind(host.disk);
  host.disk.syncDirectory = (path?: string) => {
    if (path !== undefined && host.disk.list('/replica/segments/repaired').length === 0) synced.push(path);
    return sync();
  };
  const again = await ReplicaGroup.open(host, options(one));
  t.true(synced.includes('/replica/segments/repaired'), 'no power loss brings it back');
  const { firstLsn } = frames.at(-1)!;
  t.is(again.headLsn, firstLsn - 1);
  const other = new HandSource();
  again.start(other);
  // other borders: it begins before what is missing
  for (const frame of seal(history, { fromLsn: firstLsn - 5, recordsPerFrame: () => 30 })) other.push(frame);
  await again.idle();
  t.is(again.headLsn, history.lastLsn);
  t.is(await readAll(t, again, history), 0);
  const model = new Model();
  model.advance(history, history.lastLsn);
  const view = again.openView({ lsn: history.lastLsn, owner: 't', scratchBytesMax: 0 });
  for (const { volume, device } of view.volumes) {
    const read = Buffer.alloc(volume.size);
    await device.read(0, read);
    t.true(read.equals(model.disk(volume.id)), `${volume.name} is as it was`);
  }
  await again.close();
});
