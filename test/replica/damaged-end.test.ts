import test, { type ExecutionContext } from 'ava';
import { hasCode } from '../../journal/base/errors.ts';
import type { SealedFrame } from '../../journal/frame-sealer.ts';
import { FrameView } from '../../journal/frame-view.ts';
import { REPLICA_DEFAULTS, ReplicaGroup } from '../../replica/replica-group.ts';
import {
  decodeSegmentFooter,
  SEGMENT_FOOTER_BYTES,
  SEGMENT_HEADER_BYTES,
  segmentName,
} from '../../replica/store/segment-format.ts';
import { SegmentStore } from '../../replica/store/segment-store.ts';
import { GROUP, HandSource, History, Model, seal } from './support/history.ts';
import { MemoryDisk, type MemoryHost, memoryHost } from './support/memory-host.ts';

const DIRECTORY = '/segments';
const [FIRST, SECOND] = [`${DIRECTORY}/${segmentName(1)}`, `${DIRECTORY}/${segmentName(2)}`];
/** In the middle of the frame that is damaged, 11 to 20. */
const MARK = 16;

/** The records of one history in frames that begin as told. */
function framesFrom(history: History, ...begins: number[]): SealedFrame[] {
  const lengths = begins.map((lsn, i) => (begins[i + 1] ?? history.lastLsn + 1) - lsn);
  const before = begins[0] === 1 ? [] : [(begins[0] ?? 1) - 1];
  const all = [...before, ...lengths];
  return seal(history, { recordsPerFrame: () => all.shift() ?? 1 }).filter(({ firstLsn }) => begins.includes(firstLsn));
}

function open(disk: MemoryDisk, durableLsn: number): Promise<SegmentStore> {
  return SegmentStore.open(memoryHost(1, disk), {
    directory: DIRECTORY,
    groupId: GROUP,
    segmentBytes: 1 << 20,
    durableLsn,
  });
}

/** Stores a frame as the receiver does: counted from behind what is held. */
async function append(store: SegmentStore, { bytes, firstLsn, lastLsn }: SealedFrame): Promise<void> {
  const view = FrameView.open(bytes);
  const from = Math.max(firstLsn, store.lastLsn + 1);
  const firstTime = view.record(from - firstLsn).time;
  await store.append(bytes, { firstLsn: from, lastLsn, firstTime, lastTime: view.lastTime, records: view.recordCount });
}

interface Damaged {
  readonly disk: MemoryDisk;
  readonly history: History;
}

/** Frames 1 to 10 and 11 to 20, of which the second is spoilt at this byte; negative: from its end. */
async function damagedEnd(byte: number): Promise<Damaged> {
  const history = new History(3);
  history.addVolumes();
  history.fill(60);
  const disk = new MemoryDisk();
  const store = await open(disk, 0);
  const [one, two] = framesFrom(history, 1, 11, 21);
  await append(store, one!);
  const at = store.bytes + (byte < 0 ? two!.bytes.length : 0) + byte;
  await append(store, two!);
  await store.sync();
  await store.close();
  disk.files.get(FIRST)!.bytes[at]! ^= 0x55;
  return { disk, history };
}

/** Where every frame that is listed begins and ends, and whether it is whole. */
async function listed(store: SegmentStore): Promise<[number, number, string][]> {
  const found: [number, number, string][] = [];
  for await (const { firstLsn, lastLsn, segment, offset, bytes } of store.frames(1, store.lastLsn)) {
    const content = new Uint8Array(bytes);
    await store.read(segment, offset, content);
    let state = 'whole';
    try {
      const view = FrameView.open(content);
      view.verifyChunks();
      if (view.lastLsn !== lastLsn) state = 'damaged';
    } catch {
      state = 'damaged';
    }
    found.push([firstLsn, lastLsn, state]);
  }
  return found;
}

async function opensAs(t: ExecutionContext, disk: MemoryDisk, durableLsn: number, frames: unknown): Promise<void> {
  const store = await open(disk, durableLsn);
  t.deepEqual(await listed(store), frames as [number, number, string][], `durable ${durableLsn}`);
  t.deepEqual(store.damage, []);
  await store.close();
}

for (const [what, byte] of [
  ['whose header is whole', -20],
  ['header and all', 20],
] as const) {
  // The source seals anew what comes again: at the mark, across it, or from before the damage on.
  for (const begins of [17, 14, 8]) {
    test(`a damaged frame, ${what}, across the mark: every start finds it up to there, whatever comes behind it from ${begins} on`, async (t) => {
      const { disk, history } = await damagedEnd(byte);
      const held = [
        [1, 10, 'whole'],
        [11, 16, 'damaged'],
      ];
      for (let start = 1; start <= 3; start++) await opensAs(t, disk, MARK, held);
      const store = await open(disk, MARK);
      const frames = framesFrom(history, begins, 27, 37, 47);
      await append(store, frames[0]!);
      await append(store, frames[1]!);
      const more = [...held, [17, 26, 'whole'], [27, 36, 'whole']];
      t.deepEqual(await listed(store), more as [number, number, string][]);
      await store.sync();
      await store.close();
      // Also before the mark knows of them, and when it is in the middle of one.
      for (const durableLsn of [MARK, 19, 26, 36]) await opensAs(t, disk.copy(), durableLsn, more);
      const later = await open(disk, 36);
      await append(later, frames[2]!);
      await later.sync();
      await later.close();
      await opensAs(t, disk, 46, [...more, [37, 46, 'whole']]);
      t.is(disk.list(DIRECTORY).filter((name) => name.endsWith('.seg')).length, 2);
    });
  }

  test(`a damaged frame, ${what}, across the mark: rot in the footer or the directory behind it changes no border`, async (t) => {
    const { disk, history } = await damagedEnd(byte);
    const store = await open(disk, MARK);
    await append(store, framesFrom(history, 17, 27)[0]!);
    await store.sync();
    await store.close();
    const { length } = disk.files.get(FIRST)!;
    for (const at of [length - 10, length - SEGMENT_FOOTER_BYTES - 10]) {
      const copy = disk.copy();
      copy.files.get(FIRST)!.bytes[at]! ^= 1;
      for (let start = 1; start <= 2; start++) {
        await opensAs(t, copy, 26, [
          [1, 10, 'whole'],
          [11, 16, 'damaged'],
          [17, 26, 'whole'],
        ]);
      }
    }
  });

  test(`a damaged frame, ${what}, across the mark: what a power loss leaves of the first frame behind it takes nothing of what was acknowledged`, async (t) => {
    const { disk, history } = await damagedEnd(byte);
    const store = await open(disk, MARK);
    const before = store.bytes;
    await append(store, framesFrom(history, 17, 27)[0]!);
    await store.close();
    const whole = disk.copy();
    const cuts: [string, (copy: MemoryDisk) => void][] = [
      ['no second segment', (copy) => copy.unlink(SECOND)],
      ['empty', (copy) => (copy.files.get(SECOND)!.length = 0)],
      ['a header that is zeroes', (copy) => copy.files.get(SECOND)!.bytes.fill(0, 0, SEGMENT_HEADER_BYTES)],
      ['a header alone', (copy) => (copy.files.get(SECOND)!.length = SEGMENT_HEADER_BYTES)],
      ['a torn frame', (copy) => (copy.files.get(SECOND)!.length -= 1)],
    ];
    for (const [left, cut] of cuts) {
      const copy = whole.copy();
      cut(copy);
      const held = [
        [1, 10, 'whole'],
        [11, 16, 'damaged'],
      ];
      for (let start = 1; start <= 2; start++) await opensAs(t, copy, MARK, held);
      const again = await open(copy, MARK);
      t.true(again.segments[0]!.bytes <= before + 1000, `${left}: it does not grow`);
      await append(again, framesFrom(history, 17, 27)[0]!);
      await again.sync();
      await again.close();
      await opensAs(t, copy, 26, [...held, [17, 26, 'whole']]);
    }
  });
}

test('a damaged frame that ends at the mark stays in the segment that is written', async (t) => {
  const { disk, history } = await damagedEnd(-20);
  const store = await open(disk, 20);
  await append(store, framesFrom(history, 17, 27)[0]!);
  t.is(store.segments.length, 1);
  await store.sync();
  await store.close();
  for (const durableLsn of [20, 26]) {
    await opensAs(t, disk, durableLsn, [
      [1, 10, 'whole'],
      [11, 20, 'damaged'],
      [21, 26, 'whole'],
    ]);
  }
});

test('a damaged end is sealed, durably, before anything comes behind it, open as far back as what is before it', async (t) => {
  const { disk, history } = await damagedEnd(-20);
  const store = await open(disk, MARK);
  const bytes = store.bytes;
  const frame = framesFrom(history, 17, 27)[0]!;
  disk.capacity = disk.used() + 50;
  await t.throwsAsync(append(store, frame), { code: 'no-space' });
  t.is(disk.files.get(FIRST)!.length, bytes, 'the store stands where it stood');
  t.is(store.lastLsn, MARK);
  disk.capacity = Number.MAX_SAFE_INTEGER;
  const calls: string[] = [];
  disk.syncOf = (path) => {
    calls.push(`${path}: ${disk.files.has(SECOND)}`);
    return undefined;
  };
  await append(store, frame);
  t.deepEqual(calls, [`${FIRST}: false`]);
  const { bytes: content, length } = disk.files.get(FIRST)!;
  const footer = decodeSegmentFooter(Buffer.from(content.subarray(length - SEGMENT_FOOTER_BYTES, length)), FIRST);
  // A piece in the damaged records may be open: nobody knows.
  t.like(footer, { firstLsn: 1, lastLsn: MARK, openFromLsn: 1, entries: 2 });
  // As late as what comes behind it: who asks for that time gets the damage, and not what is later.
  const found = await store.findTime(FrameView.open(frame.bytes).firstTime - 1);
  t.like(found, { firstLsn: 11, lastLsn: MARK });
  await store.close();
});

/** Gives frames again, or refuses. */
class FarSide extends HandSource {
  readonly #frames: readonly SealedFrame[];

  constructor(frames: readonly SealedFrame[]) {
    super();
    this.#frames = frames;
  }

  async *fetch(fromLsn: number): AsyncGenerator<Uint8Array> {
    await Promise.resolve();
    for (const frame of this.#frames) if (frame.lastLsn >= fromLsn) yield frame.bytes;
  }
}

function openGroup(host: MemoryHost, onReopen = (): void => undefined): Promise<ReplicaGroup> {
  return ReplicaGroup.open(host, {
    ...REPLICA_DEFAULTS,
    directory: '/replica',
    groupId: GROUP,
    replica: 'r1',
    onReopen,
  });
}

async function namedDamage(group: ReplicaGroup): Promise<[number, number][]> {
  return (await group.status()).damage.map(({ fromLsn, toLsn }) => [fromLsn, toLsn]);
}

/** Whether all of the newest point can be read; a byte that is read and wrong fails the test. */
async function readsAll(t: ExecutionContext, group: ReplicaGroup, history: History): Promise<boolean> {
  const view = group.openView({ lsn: history.lastLsn, owner: 'test', scratchBytesMax: 0 });
  const model = new Model();
  model.advance(history, history.lastLsn);
  try {
    for (const { volume, device } of view.volumes) {
      const bytes = Buffer.alloc(model.disk(volume.id).length);
      await device.read(0, bytes);
      t.true(bytes.equals(model.disk(volume.id)));
    }
    return true;
  } catch (error) {
    if (!hasCode(error, 'frame-damaged')) throw error;
    return false;
  } finally {
    await group.views.close(view.id);
  }
}

test('a damaged end with frames of other borders behind it keeps its name over starts, and what was put back in its place', async (t) => {
  const history = new History(21);
  history.addVolumes();
  history.fill(60);
  const host = memoryHost(21);
  let group = await openGroup(host);
  const first = new HandSource();
  group.start(first);
  for (const frame of framesFrom(history, 1, 21, 41).slice(0, 2)) {
    first.push(frame);
    await group.idle();
  }
  await group.close();
  const file = host.disk.files.get(`/replica/segments/${segmentName(1)}`)!;
  const damaged = framesFrom(history, 21, 41)[0]!;
  file.bytes[file.length - damaged.bytes.length + 20]! ^= 1;
  group = await openGroup(host);
  t.deepEqual(await namedDamage(group), [[21, 40]]);
  const next = new FarSide([]);
  group.start(next);
  // from before the end of the damage on: a start that looked for the next header would let the damage end there
  next.push(framesFrom(history, 31, 61)[0]!);
  await group.idle();
  t.is(group.headLsn, 60);
  await group.close();
  for (let start = 1; start <= 2; start++) {
    group = await openGroup(host);
    t.deepEqual(await namedDamage(group), [[21, 40]], `start ${start}`);
    t.false(await readsAll(t, group, history));
    await group.close();
  }
  let isBack = false;
  group = await openGroup(host, () => (isBack = true));
  group.start(new FarSide(framesFrom(history, 1, 16, 36)));
  for (let turn = 0; turn < 2000 && !isBack; turn++) {
    if (turn % 20 === 0) host.clock.advance(1000);
    await new Promise((resolve) => setImmediate(resolve));
  }
  t.true(isBack);
  await group.close();
  for (let start = 1; start <= 3; start++) {
    group = await openGroup(host);
    t.deepEqual(await namedDamage(group), [], `start ${start}, put back`);
    t.true(await readsAll(t, group, history));
    await group.close();
  }
});
