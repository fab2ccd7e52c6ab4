import test from 'ava';
import { TidemarkError } from '../../journal/base/errors.ts';
import type { SealedFrame } from '../../journal/frame-sealer.ts';
import { FrameView } from '../../journal/frame-view.ts';
import { REPLICA_DEFAULTS, ReplicaGroup } from '../../replica/replica-group.ts';
import { GROUP, HandSource, History, Model, seal } from './support/history.ts';
import { type MemoryHost, memoryHost } from './support/memory-host.ts';

const RECORDS = 300;
const READ_BYTES = 64 * 1024;

/** A stream whose far side gives frames again. */
class GivingSource extends HandSource {
  frames: readonly SealedFrame[] = [];

  async *fetch(fromLsn: number): AsyncGenerator<Uint8Array> {
    await Promise.resolve();
    for (const frame of this.frames) if (frame.lastLsn >= fromLsn) yield frame.bytes;
  }
}

function open(host: MemoryHost, onReopen: () => void = () => undefined): Promise<ReplicaGroup> {
  return ReplicaGroup.open(host, {
    ...REPLICA_DEFAULTS,
    directory: '/replica',
    groupId: GROUP,
    replica: 'r1',
    segmentBytes: 64 * 1024,
    reserveBytes: 64 * 1024,
    memtableEntries: 64,
    onReopen,
  });
}

/** Zeroes the header and the record list of a stored frame. */
function spoil(host: MemoryHost, { bytes }: SealedFrame): void {
  for (const name of host.disk.list('/replica/segments')) {
    const file = host.disk.files.get(`/replica/segments/${name}`);
    const at = file?.bytes.indexOf(bytes.subarray(0, 160)) ?? -1;
    if (at < 0) continue;
    file?.bytes.fill(0, at, at + Math.min(512, bytes.length));
    return;
  }
  throw new Error('the frame is not stored');
}

interface Outcome {
  right: number;
  refused: number;
  wrong: number;
}

/** Reads every disk at some points, part by part. */
async function readAt(group: ReplicaGroup, history: History, lsns: readonly number[]): Promise<Outcome> {
  const outcome = { right: 0, refused: 0, wrong: 0 };
  const model = new Model();
  for (const lsn of lsns) {
    model.advance(history, lsn);
    const view = group.openView({ lsn, owner: 'test', scratchBytesMax: 0 });
    for (const { volume, device } of view.volumes) {
      const disk = model.disk(volume.id);
      for (let offset = 0; offset < disk.length; offset += READ_BYTES) {
        const bytes = Buffer.alloc(Math.min(READ_BYTES, disk.length - offset));
        try {
          await device.read(offset, bytes);
          outcome[bytes.equals(disk.subarray(offset, offset + bytes.length)) ? 'right' : 'wrong'] += 1;
        } catch (error) {
          if (!(error instanceof TidemarkError) || !error.code.endsWith('-damaged')) throw error;
          outcome.refused += 1;
        }
      }
    }
    await group.views.close(view.id);
  }
  return outcome;
}

test('a frame without its record list: no point behind it is shown until it is back, the catalog loses nothing', async (t) => {
  const history = new History(6);
  history.addVolumes();
  history.fill(100);
  // in the frame that is lost, beside writes of the disks
  const lostLsn = history.bookmark('in the lost frame');
  history.fill(RECORDS);
  const frames = seal(history, { recordsPerFrame: () => 20 });
  const lost = frames.find(({ firstLsn, lastLsn }) => firstLsn <= lostLsn && lostLsn <= lastLsn)!;
  const host = memoryHost(6);
  let group = await open(host);
  const filling = new HandSource();
  group.start(filling);
  for (const frame of frames) filling.push(frame);
  await group.idle();
  const bookmarks = group.bookmarks();
  t.true(bookmarks.some(({ lsn }) => lsn === lostLsn));
  await group.close();

  spoil(host, lost);
  for (const name of host.disk.list('/replica/index')) host.disk.unlink(`/replica/index/${name}`);
  const points = [lost.firstLsn - 1, lost.lastLsn, history.lastLsn];
  // found at the first opening, known at the second
  for (const opening of ['first', 'second']) {
    group = await open(host);
    t.deepEqual(group.bookmarks(), bookmarks, opening);
    const { refused, right, wrong } = await readAt(group, history, points);
    t.is(wrong, 0, opening);
    t.deepEqual(
      [right > 0, refused],
      [true, 2 * right],
      `${opening}: what lies before is shown, what lies behind is not`,
    );
    await group.close();
  }

  const reopened = Promise.withResolvers<void>();
  group = await open(host, reopened.resolve);
  const source = new GivingSource();
  source.frames = frames;
  group.start(source);
  const ticking = setInterval(() => host.clock.advance(1000), 5);
  await reopened.promise;
  clearInterval(ticking);
  await group.close();
  group = await open(host);
  t.like(await readAt(group, history, points), { wrong: 0, refused: 0 });
  t.deepEqual(group.bookmarks(), bookmarks);
  await group.close();
});

// Simulation seed 2116 of 2026-11-21: the view was refused as one of a seed that has not ended.
test('the record that ends a seed stands in a damaged frame: a point behind it is damaged, not unfinished', async (t) => {
  const history = new History(7);
  history.addVolumes();
  const seededLsn = history.lastLsn;
  history.fill(60);
  const frames = seal(history, { recordsPerFrame: () => 5 });
  const host = memoryHost(7);
  let group = await open(host);
  const filling = new HandSource();
  group.start(filling);
  for (const frame of frames) filling.push(frame);
  await group.idle();
  const view = (lsn: number): unknown => group.openView({ lsn, owner: 'test', scratchBytesMax: 0 });
  t.throws(() => view(seededLsn - 1), { code: 'precondition-failed' });
  t.notThrows(() => view(seededLsn));
  await group.close();
  spoil(host, frames.find(({ firstLsn, lastLsn }) => firstLsn <= seededLsn && seededLsn <= lastLsn)!);
  for (const path of host.disk.files.keys()) {
    if (path.includes('/index/') || path.endsWith('/state')) host.disk.files.delete(path);
  }
  group = await open(host);
  t.throws(() => view(history.lastLsn), { code: 'frame-damaged' });
  await group.close();
});

// Simulation seed 400961: the start that took the records into the index forgot that the saved catalog lacked them.
test('what a repaired frame told the catalog is durable before the damage is forgotten', async (t) => {
  const history = new History(8);
  history.addVolumes();
  history.fill(60);
  const lostLsn = history.bookmark('in the lost frame');
  history.fill(100);
  const frames = seal(history, { recordsPerFrame: () => 5 });
  const host = memoryHost(8);
  let group = await open(host);
  const filling = new HandSource();
  group.start(filling);
  for (const frame of frames) filling.push(frame);
  await group.idle();
  const bookmarks = group.bookmarks();
  await group.close();
  spoil(host, frames.find(({ firstLsn, lastLsn }) => firstLsn <= lostLsn && lostLsn <= lastLsn)!);
  for (const path of host.disk.files.keys()) if (path.endsWith('/state')) host.disk.files.delete(path);
  // saved without what stands in the frame
  group = await open(host);
  t.false(group.bookmarks().some(({ lsn }) => lsn === lostLsn));
  await group.close();
  const reopened = Promise.withResolvers<void>();
  group = await open(host, reopened.resolve);
  const source = new GivingSource();
  source.frames = frames;
  group.start(source);
  const ticking = setInterval(() => host.clock.advance(1000), 5);
  await reopened.promise;
  clearInterval(ticking);
  await group.close();
  group = await open(host);
  t.deepEqual(group.bookmarks(), bookmarks);
  const killed = memoryHost(9, host.disk.copy());
  await group.close();
  for (const after of [killed, host]) {
    group = await open(after);
    t.deepEqual(group.bookmarks(), bookmarks);
    await group.close();
  }
});

test('a bookmark whose text rots in a frame whose list is whole is named as damage when it is needed again', async (t) => {
  const history = new History(9);
  history.addVolumes();
  history.fill(60);
  const lsn = history.bookmark('before the rot');
  history.fill(100);
  const frames = seal(history, { recordsPerFrame: () => 10 });
  const host = memoryHost(9);
  let group = await open(host);
  const filling = new HandSource();
  group.start(filling);
  for (const frame of frames) filling.push(frame);
  await group.idle();
  t.true(group.bookmarks().some((one) => one.lsn === lsn));
  await group.close();
  const victim = frames.find(({ firstLsn, lastLsn }) => firstLsn <= lsn && lsn <= lastLsn)!;
  const head = Buffer.from(victim.bytes.subarray(0, 160));
  const paths = host.disk.list('/replica/segments').map((name) => `/replica/segments/${name}`);
  const file = paths.map((path) => host.disk.files.get(path)).find((one) => one?.bytes.includes(head))!;
  const at = file.bytes.indexOf(head);
  // its chunks, and nothing before them
  const { layout } = FrameView.open(victim.bytes);
  const record = layout.record(lsn - layout.firstLsn);
  const { storedOffset } = layout.chunkRange(record.payloadOffset, 1);
  file.bytes.fill(0xee, at + storedOffset, at + victim.bytes.length);
  for (const path of host.disk.files.keys()) if (path.endsWith('/state')) host.disk.files.delete(path);
  group = await open(host);
  t.is(group.headLsn, history.lastLsn);
  t.false(
    group.bookmarks().some((one) => one.lsn === lsn),
    'nobody knows its name',
  );
  const { damage } = await group.status();
  t.true(damage.some(({ fromLsn, toLsn }) => fromLsn <= lsn && lsn <= toLsn));
  await group.close();
});
