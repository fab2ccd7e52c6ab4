import test from 'ava';
import { TidemarkError } from '../../journal/base/errors.ts';
import type { SealedFrame } from '../../journal/frame-sealer.ts';
import { RecordKind } from '../../journal/record.ts';
import { encodeHeartbeat } from '../../journal/record-bodies.ts';
import { REPLICA_DEFAULTS, ReplicaGroup, type ReplicaGroupOptions } from '../../replica/replica-group.ts';
import { EPOCH_MICROS, GROUP, HandSource, History, Model, seal, VOLUMES } from './support/history.ts';
import { type MemoryDisk, type MemoryHost, memoryHost } from './support/memory-host.ts';

const RECORDS = 300;
const INDEX = '/replica/index';
const READ_BYTES = 64 * 1024;

/** A stream whose far side gives frames again, when it is let. */
class GivingSource extends HandSource {
  frames: readonly SealedFrame[] = [];
  gate: Promise<void> = Promise.resolve();
  asked = 0;

  async *fetch(fromLsn: number): AsyncGenerator<Uint8Array> {
    this.asked += 1;
    await this.gate;
    for (const frame of this.frames) if (frame.lastLsn >= fromLsn) yield frame.bytes;
  }
}

function open(host: MemoryHost, change: Partial<ReplicaGroupOptions> = {}): Promise<ReplicaGroup> {
  return ReplicaGroup.open(host, {
    ...REPLICA_DEFAULTS,
    directory: '/replica',
    groupId: GROUP,
    replica: 'r1',
    segmentBytes: 64 * 1024,
    reserveBytes: 64 * 1024,
    // one run holds the index of all of it
    memtableEntries: 4096,
    indexCacheBytesMax: 64 * 1024,
    // a start reads the lists of many frames: they are read again by who needs them
    layoutCacheBytesMax: 4096,
    ...change,
  });
}

/** A replica that received a history and was stopped; one frame of a sealed segment is `lost`, once it is spoilt. */
async function stopped(
  seed: number,
  lostAt = 7,
): Promise<{ host: MemoryHost; history: History; frames: SealedFrame[]; lost: SealedFrame }> {
  const history = new History(seed);
  const { random } = history;
  history.addVolumes();
  // no request is left open: a start would read again from its first piece on
  while (history.lastLsn < RECORDS) {
    const { id, sectors } = VOLUMES[random.below(2)]!;
    const payload = new Uint8Array(4096).map(() => random.below(256));
    history.push(RecordKind.write, { volume: id, sector: random.below(sectors - 8), sectors: 8, payload });
    if (random.below(10) > 0) continue;
    const heartbeat = { monotonicMs: history.lastLsn + 1, wallMicros: EPOCH_MICROS };
    history.push(RecordKind.heartbeat, { payload: encodeHeartbeat(heartbeat) });
  }
  const frames = seal(history, { recordsPerFrame: () => 20 });
  const host = memoryHost(seed);
  const group = await open(host);
  const source = new HandSource();
  group.start(source);
  for (const frame of frames) {
    source.push(frame);
    await group.idle();
  }
  await group.close();
  return { host, history, frames, lost: frames[lostAt]! };
}

/** Bits turn in the record list of a stored frame. */
function spoilFrame({ disk }: MemoryHost, { bytes }: SealedFrame): void {
  for (const name of disk.list('/replica/segments')) {
    const file = disk.files.get(`/replica/segments/${name}`);
    const at = file?.bytes.indexOf(bytes.subarray(0, 160)) ?? -1;
    if (at < 0) continue;
    file!.bytes.writeUInt8(file!.bytes.readUInt8(at + 170) ^ 4, at + 170);
    return;
  }
  throw new Error('the frame is not stored');
}

/** A bit turns in every page of entries; what names the run stays whole. */
function spoilRuns({ disk }: MemoryHost): void {
  for (const name of disk.list(INDEX)) {
    const file = disk.files.get(`${INDEX}/${name}`)!;
    const footerAt = file.length - 4096;
    const topPages = Math.ceil((file.bytes.readUInt32LE(footerAt + 64) * 24) / 4096);
    for (let at = 100; at < footerAt - topPages * 4096; at += 4096)
      file.bytes.writeUInt8(file.bytes.readUInt8(at) ^ 4, at);
  }
}

/** Reads both disks at a point, part by part: how many reads were right, refused by name, and wrong. */
async function readAt(
  group: ReplicaGroup,
  history: History,
  lsn: number,
): Promise<{ right: number; refused: number; wrong: number }> {
  const outcome = { right: 0, refused: 0, wrong: 0 };
  const model = new Model();
  model.advance(history, lsn);
  const view = group.openView({ lsn, owner: 'test', scratchBytesMax: 0 });
  for (const { volume, device } of view.volumes) {
    const disk = model.disk(volume.id);
    for (let offset = 0; offset < disk.length; offset += READ_BYTES) {
      const bytes = Buffer.alloc(READ_BYTES);
      try {
        await device.read(offset, bytes);
        outcome[bytes.equals(disk.subarray(offset, offset + READ_BYTES)) ? 'right' : 'wrong'] += 1;
      } catch (error) {
        if (!(error instanceof TidemarkError)) throw error;
        outcome.refused += 1;
      }
    }
  }
  await group.views.close(view.id);
  return outcome;
}

async function turnsUntil(holds: () => boolean, tick: () => void = () => undefined): Promise<void> {
  for (let turn = 0; turn < 2000; turn += 1) {
    if (holds()) return;
    tick();
    await new Promise(setImmediate);
  }
  throw new Error('it did not come to that');
}

/** The disk as a kill leaves it, opened: nothing that is read is wrong. */
async function wrongAfterKill(disk: MemoryDisk, history: History): Promise<number> {
  const group = await open(memoryHost(77, disk.copy()));
  const { wrong } = await readAt(group, history, history.lastLsn);
  await group.close();
  return wrong;
}

// Simulation seed 20704421: a view at LSN 1114 showed what a trim had zeroed at 1106, in a frame that had rotted.
test('a read that builds a damaged run again past a damaged frame is refused, the first one too', async (t) => {
  const { host, history, lost } = await stopped(6);
  const group = await open(host);
  const view = group.openView({ lsn: history.lastLsn, owner: 'test', scratchBytesMax: 0 });
  spoilRuns(host);
  spoilFrame(host, lost);
  const model = new Model();
  model.advance(history, history.lastLsn);
  // a sector that nothing has changed since the frame that is lost
  const record = history.records.slice(lost.firstLsn - 1, lost.lastLsn).find(({ payload, sector, volume }) => {
    const bytes = model.disk(volume).subarray(sector * 512, sector * 512 + payload.length);
    return payload.length > 0 && Buffer.compare(bytes, payload) === 0;
  })!;
  const { device } = view.volumes.find(({ volume }) => volume.id === record.volume)!;
  const bytes = Buffer.alloc(record.payload.length);
  await t.throwsAsync(device.read(record.sector * 512, bytes), { code: 'frame-damaged' });
  await t.throwsAsync(device.extents(0, device.size), { code: 'frame-damaged' });
  await group.views.close(view.id);
  t.deepEqual(await readAt(group, history, lost.firstLsn - 1), { right: 96, refused: 0, wrong: 0 });
  await group.close();
});

test('what a run of the index lacks is on disk before the run is, whenever a start is killed', async (t) => {
  const { host, history, lost } = await stopped(7);
  spoilFrame(host, lost);
  for (const name of host.disk.list(INDEX)) host.disk.unlink(`${INDEX}/${name}`);
  const kills: MemoryDisk[] = [];
  // many runs, so that the first ones are there long before the last
  const opening = open(host, { memtableEntries: 32 });
  let isOpen = false;
  void opening.then(() => {
    isOpen = true;
  });
  for (let names = ''; !isOpen; await Promise.resolve()) {
    const now = host.disk.list(INDEX).join();
    if (now !== names) kills.push(host.disk.copy());
    names = now;
  }
  t.true(kills.length > 4, `${kills.length} kills`);
  for (const disk of kills) t.is(await wrongAfterKill(disk, history), 0);
  await (await opening).close();
});

test('a run that would lack records is not written while nobody can note that on disk', async (t) => {
  const { host, history, lost } = await stopped(8);
  const group = await open(host);
  spoilRuns(host);
  spoilFrame(host, lost);
  host.disk.syncOf = (path) =>
    path.endsWith('/state.tmp') ? Promise.reject(new TidemarkError('sync-failed', path)) : undefined;
  for (let round = 0; round < 2; round += 1) {
    const { refused, wrong } = await readAt(group, history, history.lastLsn);
    t.deepEqual([refused, wrong], [96, 0]);
    t.is(await wrongAfterKill(host.disk, history), 0);
  }
  host.disk.syncOf = () => undefined;
  // what lies before the damage is shown as soon as it can be noted
  t.deepEqual(await readAt(group, history, lost.firstLsn - 1), { right: 96, refused: 0, wrong: 0 });
  t.is(await wrongAfterKill(host.disk, history), 0);
  await group.close();
});

test('a frame that is put back while a run is built without it: the group is opened anew all the same', async (t) => {
  const { host, history, frames, lost } = await stopped(9);
  let reopens = 0;
  const group = await open(host, {
    onReopen: () => {
      reopens += 1;
    },
  });
  const source = new GivingSource();
  source.frames = frames;
  const gate = Promise.withResolvers<void>();
  source.gate = gate.promise;
  group.start(source);
  spoilFrame(host, lost);
  // the timeline needs nothing of the index
  await group.points(EPOCH_MICROS, EPOCH_MICROS + 3_600_000_000, 60_000_000);
  await turnsUntil(
    () => source.asked > 0,
    () => host.clock.advance(100),
  );
  spoilRuns(host);
  t.is((await readAt(group, history, history.lastLsn)).wrong, 0);
  gate.resolve();
  await turnsUntil(() => host.disk.list('/replica/segments/repaired').length > 0);
  await turnsUntil(() => reopens > 0);
  t.is((await readAt(group, history, history.lastLsn)).wrong, 0);
  await group.close();
  const again = await open(host);
  t.deepEqual(await readAt(again, history, history.lastLsn), { right: 96, refused: 0, wrong: 0 });
  await again.close();
});

test('a floor does not move over records that the index comes to lack meanwhile', async (t) => {
  const { host, history, frames, lost } = await stopped(10, 2);
  const policy = { windowMs: 1, bytesMax: 0 };
  let reopens = 0;
  let group = await open(host, {
    policy,
    onReopen: () => {
      reopens += 1;
    },
  });
  const gate = Promise.withResolvers<void>();
  let waiting = 0;
  host.disk.syncOf = (path) => {
    if (!path.endsWith('/1.img')) return undefined;
    waiting += 1;
    return gate.promise;
  };
  const retained = group.retain();
  // the first volume is merged, the second is not
  await turnsUntil(() => waiting > 0);
  t.true(group.floorLsn > lost.lastLsn);
  spoilFrame(host, lost);
  spoilRuns(host);
  t.is((await readAt(group, history, history.lastLsn)).wrong, 0);
  gate.resolve();
  await t.throwsAsync(retained, { code: 'frame-damaged' });
  host.disk.syncOf = () => undefined;
  const source = new GivingSource();
  source.frames = frames;
  group.start(source);
  await turnsUntil(
    () => reopens > 0,
    () => host.clock.advance(100),
  );
  await group.close();
  group = await open(host, { policy });
  t.deepEqual(await readAt(group, history, group.floorLsn), { right: 96, refused: 0, wrong: 0 });
  t.deepEqual(await readAt(group, history, history.lastLsn), { right: 96, refused: 0, wrong: 0 });
  await group.close();
});

test('pages of index runs that rotted hold back neither a floor nor what tells where data lies', async (t) => {
  const { host, history } = await stopped(39);
  spoilRuns(host);
  const extents = async (group: ReplicaGroup): Promise<unknown[]> => {
    const view = group.openView({ lsn: history.lastLsn, owner: 'test', scratchBytesMax: 0 });
    const told = [];
    for (const { volume, device } of view.volumes) told.push(await device.extents(0, volume.size));
    await group.views.close(view.id);
    return told;
  };
  const copy = memoryHost(77, host.disk.copy());
  for (const name of copy.disk.list(INDEX)) copy.disk.unlink(`${INDEX}/${name}`);
  const whole = await open(copy);
  const group = await open(memoryHost(78, host.disk.copy()));
  t.deepEqual(await extents(group), await extents(whole));
  await whole.close();
  await group.close();
  const moving = await open(host, { policy: { windowMs: 100, bytesMax: 0 } });
  await moving.retain();
  t.true(moving.floorLsn > 0);
  t.is(host.disk.list(INDEX).length, 1);
  t.like(await readAt(moving, history, moving.floorLsn), { refused: 0, wrong: 0 });
  await moving.close();
});
