import test from 'ava';
import { TidemarkError } from '../../journal/base/errors.ts';
import type { SealedFrame } from '../../journal/frame-sealer.ts';
import { RecordKind } from '../../journal/record.ts';
import { REPLICA_DEFAULTS, ReplicaGroup } from '../../replica/replica-group.ts';
import { SEGMENT_FOOTER_BYTES } from '../../replica/store/segment-format.ts';
import { GROUP, HandSource, History, Model, seal } from './support/history.ts';
import { type MemoryHost, memoryHost } from './support/memory-host.ts';

/* What lies on the medium rots in more than one place, and a frame that is put back must not hide another. */

const RECORDS = 300;

/** A stream whose far side gives frames again. */
class GivingSource extends HandSource {
  frames: readonly SealedFrame[] = [];

  async *fetch(fromLsn: number): AsyncGenerator<Uint8Array> {
    await Promise.resolve();
    for (const frame of this.frames) if (frame.lastLsn >= fromLsn) yield frame.bytes;
  }
}

function made(seed: number): History {
  const history = new History(seed);
  history.addVolumes();
  // no request stays open: a start reads nothing again of what the index holds
  while (history.lastLsn < RECORDS) {
    const payload = new Uint8Array(4096).map(() => history.random.below(256));
    const volume = 1 + history.random.below(2);
    history.push(RecordKind.write, { volume, sector: history.random.below(500) * 8, sectors: 8, payload });
  }
  return history;
}

function open(host: MemoryHost, onReopen: () => void = () => undefined, segmentBytes = 256 * 1024) {
  return ReplicaGroup.open(host, {
    ...REPLICA_DEFAULTS,
    directory: '/replica',
    groupId: GROUP,
    replica: 'r1',
    segmentBytes,
    reserveBytes: 64 * 1024,
    memtableEntries: 64,
    onReopen,
  });
}

async function stored(host: MemoryHost, frames: readonly SealedFrame[], segmentBytes?: number): Promise<void> {
  const group = await open(host, undefined, segmentBytes);
  const source = new HandSource();
  group.start(source);
  for (const frame of frames) {
    source.push(frame);
    await group.idle();
  }
  await group.close();
}

function placeOf(host: MemoryHost, { bytes }: SealedFrame) {
  for (const name of host.disk.list('/replica/segments')) {
    const file = host.disk.files.get(`/replica/segments/${name}`);
    const at = file?.bytes.indexOf(bytes.subarray(0, 160)) ?? -1;
    if (file !== undefined && at >= 0) return { file, at };
  }
  throw new Error('the frame is not stored');
}

function turn(file: { bytes: Buffer }, at: number): void {
  file.bytes.writeUInt8(file.bytes.readUInt8(at) ^ 1, at);
}

/** Reads every disk at some points: how many parts were refused and how many were other bytes. */
async function readAt(group: ReplicaGroup, history: History, lsns: readonly number[]) {
  const outcome = { right: 0, refused: 0, wrong: 0 };
  const model = new Model();
  for (const lsn of lsns) {
    model.advance(history, lsn);
    const view = group.openView({ lsn, owner: 'test', scratchBytesMax: 0 });
    for (const { volume, device } of view.volumes) {
      const disk = model.disk(volume.id);
      for (let offset = 0; offset < disk.length; offset += 4096) {
        const bytes = Buffer.alloc(4096);
        try {
          await device.read(offset, bytes);
          outcome[bytes.equals(disk.subarray(offset, offset + 4096)) ? 'right' : 'wrong'] += 1;
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

/** Lets the repair ask until it is done, reading meanwhile: nothing it shows is wrong. */
async function repaired(host: MemoryHost, group: ReplicaGroup, isDone: () => Promise<boolean>): Promise<void> {
  for (let round = 0; round < 100; round += 1) {
    if (await isDone()) return;
    host.clock.advance(1000);
    for (let turns = 0; turns < 20; turns += 1) await new Promise((resolve) => setImmediate(resolve));
  }
  throw new Error(`it was not put back: ${JSON.stringify((await group.status()).damage)}`);
}

const PER_FRAME = { recordsPerFrame: () => 20 };

for (const [what, fromLsn, count] of [
  ['a frame that begins before the end of the one before it', 71, 1],
  ['two frames beside one another', 81, 2],
] as const) {
  test(`a directory and headers rot, of ${what}: what is put back shows no other bytes`, async (t) => {
    const history = made(61);
    const frames = [
      ...seal(history, { toLsn: 80, ...PER_FRAME }),
      ...seal(history, { fromLsn, toLsn: 100, recordsPerFrame: () => 101 - fromLsn }),
      ...seal(history, { fromLsn: 101, ...PER_FRAME }),
    ];
    const host = memoryHost(61);
    await stored(host, frames);
    for (const frame of frames.slice(4, 4 + count)) {
      const { file, at } = placeOf(host, frame);
      t.is(file, placeOf(host, frames[6]!).file);
      turn(file, at + 40);
    }
    const { file } = placeOf(host, frames[6]!);
    turn(file, file.length - SEGMENT_FOOTER_BYTES - 8);
    const points = [100, 120, 300];
    let reopen = 0;
    let group = await open(host, () => {
      reopen += 1;
    });
    const before = await readAt(group, history, points);
    t.is(before.wrong, 0);
    t.true(before.refused > 0);
    const source = new GivingSource();
    source.frames = seal(history, { recordsPerFrame: () => 35 });
    group.start(source);
    await repaired(host, group, async () => {
      t.is((await readAt(group, history, points)).wrong, 0);
      return reopen > 0 || (await group.status()).damage.length === 0;
    });
    await group.close();
    group = await open(host);
    t.like(await readAt(group, history, points), { wrong: 0, refused: 0 });
    t.deepEqual((await group.status()).damage, []);
    await group.close();
  });
}

test('a frame that was put back where the newest segment is cut later does not hide what comes in its place', async (t) => {
  const history = made(62);
  const one = 64 * 1024 * 1024;
  const frames = seal(history, PER_FRAME);
  const victim = frames[10]!;
  const host = memoryHost(62);
  await stored(host, frames.slice(0, 10), one);
  const older = Buffer.from(host.disk.files.get('/replica/position')!.bytes);
  await stored(host, frames.slice(10), one);
  const { file, at } = placeOf(host, victim);
  turn(file, at + victim.bytes.length - 1);
  let reopen = 0;
  const onReopen = (): void => {
    reopen += 1;
  };
  let group = await open(host, onReopen, one);
  let source = new GivingSource();
  source.frames = frames;
  group.start(source);
  await repaired(host, group, () => Promise.resolve(reopen > 0));
  t.is(host.disk.list('/replica/segments/repaired').length, 1);
  await group.close();
  // the newest slot of the mark has rotted: nothing proves the records behind the one before
  older.copy(host.disk.files.get('/replica/position')!.bytes);
  group = await open(host, undefined, one);
  t.is(group.headLsn, victim.firstLsn - 1);
  source = new GivingSource();
  group.start(source);
  // at other borders, from an earlier record on
  for (const frame of seal(history, { fromLsn: victim.firstLsn - 5, recordsPerFrame: () => 25 })) source.push(frame);
  await group.idle();
  t.is(group.headLsn, RECORDS);
  t.like(await readAt(group, history, [victim.lastLsn, RECORDS]), { wrong: 0, refused: 0 });
  await group.close();
  group = await open(host, undefined, one);
  t.like(await readAt(group, history, [victim.lastLsn, RECORDS]), { wrong: 0, refused: 0 });
  await group.close();
});
