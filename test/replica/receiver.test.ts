import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { crc32c } from '@node-rs/crc32';
import test from 'ava';
import { CHAIN_START } from '../../journal/chain.ts';
import { FrameSealer, type SealedFrame } from '../../journal/frame-sealer.ts';
import { FrameView } from '../../journal/frame-view.ts';
import { RecordKind } from '../../journal/record.ts';
import { encodeGap, encodeIncarnation } from '../../journal/record-bodies.ts';
import { receiverState } from '../../replica/receive/receiver-state.ts';
import { SpaceWatch } from '../../replica/receive/space-watch.ts';
import { REPLICA_DEFAULTS, ReplicaGroup, type ReplicaGroupOptions } from '../../replica/replica-group.ts';
import { declaresGap } from '../../replica/store/declared-gap.ts';
import { SegmentStore } from '../../replica/store/segment-store.ts';
import { GROUP, HandSource, History, Model, START, seal } from './support/history.ts';
import { type MemoryHost, memoryHost, SeededRandom } from './support/memory-host.ts';

function options(change: Partial<ReplicaGroupOptions> = {}): ReplicaGroupOptions {
  return {
    ...REPLICA_DEFAULTS,
    directory: '/replica',
    groupId: GROUP,
    replica: 'r1',
    segmentBytes: 256 * 1024,
    reserveBytes: 4096,
    memtableEntries: 128,
    ...change,
  };
}

async function opened(
  host: MemoryHost,
  change: Partial<ReplicaGroupOptions> = {},
): Promise<{ group: ReplicaGroup; source: HandSource }> {
  const group = await ReplicaGroup.open(host, options(change));
  const source = new HandSource();
  group.start(source);
  return { group, source };
}

function madeHistory(seed: number, count = 300): History {
  const history = new History(seed);
  history.addVolumes();
  return history.fill(count);
}

async function headEqualsModel(group: ReplicaGroup, history: History): Promise<boolean> {
  const model = new Model();
  model.advance(history, group.headLsn);
  const view = group.openView({ lsn: group.headLsn, owner: 't', scratchBytesMax: 0 });
  let same = true;
  for (const { volume, device } of view.volumes) {
    const bytes = Buffer.alloc(volume.size);
    await device.read(0, bytes);
    same &&= bytes.equals(model.disk(volume.id));
  }
  await group.views.close(view.id);
  return same;
}

test("frames repeated, straddling, out of order: the history is the source's", async (t) => {
  for (let seed = 1; seed <= 5; seed += 1) {
    const history = madeHistory(seed);
    const host = memoryHost(seed);
    const { group, source } = await opened(host);
    const random = new SeededRandom(seed);
    // Three sealings with other borders, each in pieces, neighbours swapped, some twice.
    const frames: SealedFrame[] = [];
    for (const size of [7, 13, 29]) {
      for (const frame of seal(history, { recordsPerFrame: () => 1 + random.below(size) })) {
        frames.push(frame);
        if (random.below(5) === 0) frames.push(frame);
      }
    }
    frames.sort((a, b) => a.firstLsn - b.firstLsn);
    for (let i = 0; i + 4 < frames.length; i += 1) {
      const j = i + random.below(4);
      const swapped = frames[i];
      if (swapped === undefined || frames[j] === undefined) continue;
      frames[i] = frames[j];
      frames[j] = swapped;
    }
    for (const frame of frames) source.push(frame);
    await group.idle();
    t.is(group.headLsn, history.lastLsn);
    const { receiver } = await group.status();
    t.true(receiver.duplicates > 10);
    t.is(receiver.state, 'receiving');
    t.is(receiver.missingFrom, 0);
    const bookmarks = history.records.flatMap(({ kind }, i) => (kind === RecordKind.bookmark ? [i + 1] : []));
    t.deepEqual(
      group.bookmarks().map(({ lsn }) => lsn),
      bookmarks,
      'what straddles the head is counted from behind it',
    );
    t.true(await headEqualsModel(group, history));
    host.clock.advance(300);
    t.is(source.last?.durableLsn, history.lastLsn);
    await group.close();
  }
});

test('a gap is never stepped over: it is named, and closed by what is sent again', async (t) => {
  const history = madeHistory(11);
  const host = memoryHost(11);
  const { group, source } = await opened(host);
  const frames = seal(history);
  for (const [i, frame] of frames.entries()) if (i !== 3) source.push(frame, String(i));
  source.push(frames[0]!, String(frames.length));
  await group.idle();
  const held = (frames[3]?.firstLsn ?? 0) - 1;
  t.is(group.headLsn, held);
  host.clock.advance(300);
  t.is(source.last?.missingFrom, held + 1);
  t.is(source.last?.durableLsn, held);
  // What is only in memory is read again after a restart.
  t.is(source.last?.resumeOffset, '2');
  for (const frame of frames.slice(3, 4)) source.push(frame);
  await group.idle();
  t.is(group.headLsn, history.lastLsn);
  t.is((await group.status()).receiver.missingFrom, 0);
  t.true(await headEqualsModel(group, history));
  await group.close();
});

test('the window of early frames is bounded', async (t) => {
  const history = madeHistory(12);
  const receiver = { ...REPLICA_DEFAULTS.receiver, earlyFramesMax: 3 };
  const { group, source } = await opened(memoryHost(12), { receiver });
  const frames = seal(history);
  for (const frame of frames.slice(1)) source.push(frame);
  await group.idle();
  t.is((await group.status()).receiver.earlyFrames, 3);
  for (const frame of frames) source.push(frame);
  await group.idle();
  t.is(group.headLsn, history.lastLsn);
  await group.close();
});

test('any flipped bit of a frame is found before anything is stored', async (t) => {
  const history = madeHistory(13, 120);
  const frames = seal(history);
  const { group, source } = await opened(memoryHost(13));
  const random = new SeededRandom(13);
  for (const frame of frames) {
    const before = group.headLsn;
    for (let flip = 0; flip < 12; flip += 1) {
      const bytes = Uint8Array.from(frame.bytes);
      const at = random.below(bytes.length);
      bytes[at] = (bytes[at] ?? 0) ^ (1 << random.below(8));
      source.push({ ...frame, bytes });
      source.push({ ...frame, bytes: bytes.subarray(0, random.below(bytes.length)) });
    }
    await group.idle();
    t.is(group.headLsn, before);
    source.push(frame);
    await group.idle();
    t.is(group.headLsn, frame.lastLsn);
  }
  t.true((await group.status()).receiver.rejected > 100);
  t.true(await headEqualsModel(group, history));
  await group.close();
});

test('frames of another group, a lower incarnation or a lower epoch are not taken', async (t) => {
  const history = madeHistory(14);
  const { group, source } = await opened(memoryHost(14));
  for (const frame of seal(history, { toLsn: 100 })) source.push(frame);
  const second = { counter: 2, nonce: '2'.repeat(16) };
  for (const frame of seal(history, { fromLsn: 101, toLsn: 200, incarnation: second, epoch: 2 })) source.push(frame);
  await group.idle();
  t.is(group.headLsn, 200);
  const refusals: (string | undefined)[] = [];
  for (const change of [
    { groupId: 'cd'.repeat(16), incarnation: second },
    { incarnation: START },
    { incarnation: second, epoch: 1 },
  ]) {
    for (const frame of seal(history, { fromLsn: 201, epoch: 2, ...change })) source.push(frame);
    await group.idle();
    t.is(group.headLsn, 200);
    refusals.push((await group.status()).receiver.lastRejection.split(':')[0]);
  }
  t.deepEqual(refusals, ['frame-foreign', 'stale-incarnation', 'stale-epoch']);
  // Repeats of what is held are fine, whoever sealed them.
  for (const frame of seal(history, { toLsn: 200 })) source.push(frame);
  for (const frame of seal(history, { fromLsn: 190, incarnation: second, epoch: 2 })) source.push(frame);
  await group.idle();
  t.is(group.headLsn, history.lastLsn);
  t.is((await group.status()).receiver.state, 'receiving');
  await group.close();
});

test('a frame of a newer format stops the replica until it is upgraded, and is never skipped', async (t) => {
  const history = madeHistory(22);
  const host = memoryHost(22);
  const { group, source } = await opened(host);
  const frames = seal(history);
  const [newer, held] = [frames[3]!, frames[2]!.lastLsn];
  const bytes = Buffer.from(newer.bytes);
  bytes.writeUInt16LE(2, 4);
  bytes.writeUInt32LE(0, 12);
  bytes.writeUInt32LE(crc32c(bytes.subarray(0, 160)), 12);
  for (const [i, frame] of frames.entries()) source.push(i === 3 ? { ...frame, bytes } : frame, String(i));
  await group.idle();
  t.is(group.headLsn, held);
  host.clock.advance(300);
  t.is(source.last?.state, 'upgrade-required');
  t.is(source.last?.resumeOffset, '2');
  t.true(await headEqualsModel(group, history));
  await group.close();
  // The program that reads it now stands in for the upgraded one; an old one would stop there again.
  const upgraded = await opened(host);
  t.not(upgraded.source.last?.state, 'upgrade-required');
  for (const frame of frames.slice(3)) upgraded.source.push(frame);
  await upgraded.group.idle();
  t.is(upgraded.group.headLsn, history.lastLsn);
  await upgraded.group.close();
});

test('other records under one LSN are divergence: stop, also after a restart', async (t) => {
  const history = madeHistory(15);
  const host = memoryHost(15);
  const { group, source } = await opened(host);
  for (const frame of seal(history, { toLsn: 200 })) source.push(frame);
  const other = madeHistory(15);
  const changed = other.records[149];
  if (changed !== undefined) changed.payload = Uint8Array.from(changed.payload, (byte) => byte ^ 1);
  for (const frame of seal(other, { fromLsn: 180 })) source.push(frame);
  await group.idle();
  t.is(source.last?.state, 'diverged');
  t.is(group.headLsn, 200);
  await group.close();
  const again = await opened(host);
  for (const frame of seal(history)) again.source.push(frame);
  await again.group.idle();
  t.is(again.group.headLsn, 200);
  t.is(again.source.last?.state, 'diverged');
  t.true(await headEqualsModel(again.group, history));
  await again.group.close();
});

for (const [where, changedLsn, fromLsn, toLsn] of [
  ['a frame that is held as a whole', 150, 140, 180],
  ['the part of a frame that is held', 195, 190, 230],
  ['what lies before a frame that comes next', 150, 201, 230],
] as const) {
  test(`other records in ${where}: divergence, nothing of it is taken`, async (t) => {
    const history = madeHistory(15);
    const { group, source } = await opened(memoryHost(15));
    for (const frame of seal(history, { toLsn: 200 })) source.push(frame);
    await group.idle();
    const other = madeHistory(15);
    const changed = other.records[changedLsn - 1]!;
    changed.time += 1;
    const frames = seal(other, { fromLsn, toLsn, recordsPerFrame: () => 100 });
    t.is(frames.length, 1);
    for (const frame of frames) source.push(frame);
    await group.idle();
    t.is(source.last?.state, 'diverged');
    t.is(group.headLsn, 200);
    t.true(await headEqualsModel(group, history));
    await group.close();
  });
}

test('a source that lost its tail: the surplus is kept as a branch, both positions are named', async (t) => {
  const history = madeHistory(16);
  const host = memoryHost(16);
  const { group, source } = await opened(host);
  for (const frame of seal(history, { toLsn: 250 })) source.push(frame);
  await group.idle();
  const fork = new History(99);
  fork.records.push(...history.records.slice(0, 220));
  const second = { counter: 2, nonce: '2'.repeat(16) };
  fork.push(RecordKind.incarnation, {
    payload: encodeIncarnation({ ...second, bootId: 'b'.repeat(36), cutAfterLsn: 220 }),
  });
  fork.fill(240);
  for (const frame of seal(fork, { fromLsn: 221, incarnation: second })) source.push(frame);
  await group.idle();
  t.is(source.last?.state, 'needs-resync');
  t.regex(source.last?.reason ?? '', /1:220 .*1:250/);
  const { orphans } = await group.status();
  t.is(orphans[0]?.sourceLsn, 220);
  t.is(orphans[0]?.toLsn, 250);
  t.is(group.headLsn, 250);
  t.true(await headEqualsModel(group, history));
  await group.close();
});

test('a gap that the source declares is taken and is no point until the volumes are seeded again', async (t) => {
  const history = madeHistory(17, 200);
  const at = history.lastLsn;
  history.push(RecordKind.heartbeat, { payload: new Uint8Array([0xc0]) });
  history.push(RecordKind.heartbeat, { payload: new Uint8Array([0xc0]) });
  history.push(RecordKind.gap, { payload: encodeGap({ fromLsn: at + 1, toLsn: at + 2, reason: 'out of room' }) });
  history.fill(at + 40);
  const { group, source } = await opened(memoryHost(17));
  for (const frame of seal(history, { toLsn: at })) source.push(frame);
  for (const frame of seal(history, { fromLsn: at + 3 })) source.push(frame);
  await group.idle();
  t.is(group.headLsn, history.lastLsn);
  t.throws(() => group.openView({ lsn: group.headLsn, owner: 't', scratchBytesMax: 0 }), {
    message: /gap .*out of room/,
  });
  const before = group.openView({ lsn: at, owner: 't', scratchBytesMax: 0 });
  t.is(before.volumes.length, 2);
  await group.close();
});

test('a full disk: no acknowledgement, views go on, it recovers by itself', async (t) => {
  const history = madeHistory(18, 600);
  const host = memoryHost(18);
  const { group, source } = await opened(host, { reserveBytes: 64 * 1024, memtableEntries: 65_536 });
  const frames = seal(history);
  const half = frames.length >> 1;
  for (const frame of frames.slice(0, half)) source.push(frame);
  await group.idle();
  const acknowledged = group.headLsn;
  host.disk.capacity = host.disk.used() + 70 * 1024;
  for (const frame of frames.slice(half)) source.push(frame);
  await group.idle();
  t.is(source.last?.state, 'replica-full');
  t.true(source.paused);
  t.true(group.headLsn >= acknowledged && group.headLsn < history.lastLsn);
  t.is((await group.status()).spaceLevel, 95);
  t.true(host.disk.capacity - host.disk.used() >= 60 * 1024, 'frames leave the reserve alone');
  t.true(await headEqualsModel(group, history));
  host.clock.advance(2000);
  await group.idle();
  t.is(source.last?.state, 'replica-full');
  host.disk.capacity = Number.MAX_SAFE_INTEGER;
  host.clock.advance(2000);
  await group.idle();
  t.is(group.headLsn, history.lastLsn);
  t.is(source.last?.state, 'receiving');
  t.false(source.paused);
  t.true(await headEqualsModel(group, history));
  await group.close();
});

test('passing 50, 80 and 95 per cent of the room is told, upwards and downwards', (t) => {
  const host = memoryHost(23);
  const told: number[] = [];
  const note = (message: unknown): void => {
    const { group, level } = message as { group: string; level: number };
    if (group === 'levels') told.push(level);
  };
  subscribe('tidemark:replica:space', note);
  t.teardown(() => unsubscribe('tidemark:replica:space', note));
  let used = 0;
  host.disk.capacity = 1_100_000;
  const watch = new SpaceWatch(host, 'levels', '/', 100_000, () => used);
  for (const percent of [10, 49, 50, 79, 80, 94, 95, 99, 81, 60, 20]) {
    used = percent * 10_000;
    host.disk.capacity = host.disk.used() + 1_100_000 - used;
    watch.check();
  }
  t.deepEqual(told, [50, 80, 95, 80, 50, 0]);
});

test('a disk that takes half a frame leaves the history as it was', async (t) => {
  const history = madeHistory(19, 200);
  const host = memoryHost(19);
  const { group, source } = await opened(host, { reserveBytes: 0 });
  const frames = seal(history, { recordsPerFrame: () => 20 });
  for (const frame of frames.slice(0, 4)) source.push(frame);
  await group.idle();
  const at = group.headLsn;
  // As with a quota: the write itself comes up short.
  host.disk.capacity = host.disk.used() + 1000;
  host.disk.overstatedBytes = 1024 * 1024;
  for (const frame of frames.slice(4)) source.push(frame);
  await group.idle();
  t.is(group.headLsn, at);
  t.is(source.last?.state, 'replica-full');
  t.regex(source.last?.reason ?? '', /the disk took/);
  host.disk.overstatedBytes = 0;
  host.disk.capacity = Number.MAX_SAFE_INTEGER;
  host.clock.advance(2000);
  await group.idle();
  t.is(group.headLsn, history.lastLsn);
  t.true(await headEqualsModel(group, history));
  await group.close();
});

test('one process per directory; a directory of another group is refused and left alone', async (t) => {
  const host = memoryHost(20);
  const { group, source } = await opened(host);
  for (const frame of seal(madeHistory(20))) source.push(frame);
  await group.idle();
  await t.throwsAsync(ReplicaGroup.open(host, options()), { message: '/replica' });
  await group.close();
  const before = host.disk.copy();
  await t.throwsAsync(ReplicaGroup.open(host, options({ groupId: 'cd'.repeat(16) })), { message: /belongs to group/ });
  t.deepEqual([...host.disk.files.keys()].sort(), [...before.files.keys()].sort());
});

test('frames are given back to a source that lost them', async (t) => {
  const history = madeHistory(21);
  const { group, source } = await opened(memoryHost(21));
  const frames = seal(history);
  for (const frame of frames) source.push(frame);
  await group.idle();
  const given: Uint8Array[] = [];
  for await (const bytes of source.start?.framesFrom(100) ?? []) given.push(bytes);
  t.deepEqual(
    given,
    frames.filter((frame) => frame.lastLsn >= 100).map((frame) => frame.bytes),
  );
  await group.close();
});

test('a segment that is sealed while its sync runs stays open until its footer is synced too', async (t) => {
  const host = memoryHost(1);
  const [first, second] = seal(madeHistory(1), { toLsn: 60, recordsPerFrame: () => 30 });
  if (first === undefined || second === undefined) throw new Error('two frames were sealed');
  let goOn = Promise.resolve();
  const open = host.disk.open.bind(host.disk);
  host.disk.open = (path, mode) => {
    const file = open(path, mode);
    const dataSync = file.dataSync.bind(file);
    file.dataSync = () => goOn.then(dataSync);
    return file;
  };
  const store = await SegmentStore.open(host, {
    directory: '/segments',
    groupId: GROUP,
    segmentBytes: 64 * 1024,
    durableLsn: 0,
  });
  const append = ({ bytes, firstLsn, lastLsn }: SealedFrame) =>
    store.append(bytes, { firstLsn, lastLsn, firstTime: 1, lastTime: 1, records: 30 });
  const held = Promise.withResolvers<void>();
  await append(first);
  goOn = held.promise;
  const syncing = store.sync();
  await store.seal(1);
  await append(second);
  held.resolve();
  await syncing;
  await t.notThrowsAsync(store.sync());
  t.is((await store.find(31)).firstLsn, 31);
  await store.close();
});

test('nothing is acknowledged, told or entered into the catalog before the segments are synced', async (t) => {
  const history = madeHistory(71);
  history.bookmark('before the sync');
  const host = memoryHost(71);
  const { group, source } = await opened(host);
  const told: number[] = [];
  group.onDurable((lsn) => told.push(lsn));
  const synced = Promise.withResolvers<void>();
  host.disk.syncOf = (path) => (path.endsWith('.seg') ? synced.promise : undefined);
  for (const frame of seal(history)) source.push(frame);
  for (let turn = 0; turn < 300; turn++) {
    host.clock.advance(10);
    await new Promise(setImmediate);
  }
  t.deepEqual(told, []);
  t.is((await group.status()).receiver.durable.durableLsn, 0);
  t.true(source.feedbacks.every(({ durableLsn }) => durableLsn === 0));
  t.is(group.bookmarks().length, 0);
  synced.resolve();
  await group.idle();
  host.clock.advance(300);
  t.is(told.at(-1), history.lastLsn);
  t.is(source.last?.durableLsn, history.lastLsn);
  t.true(group.bookmarks().length > 0);
  await group.close();
});

// Simulation seed 30 of 2026-11-21: what is acknowledged has a witness, so that damage is never taken for a torn tail.
test('nothing is acknowledged or told before the mark that says so is synced', async (t) => {
  const history = madeHistory(72);
  const host = memoryHost(72);
  const { group, source } = await opened(host);
  const told: number[] = [];
  group.onDurable((lsn) => told.push(lsn));
  const synced = Promise.withResolvers<void>();
  host.disk.syncOf = (path) => (path.endsWith('/position') ? synced.promise : undefined);
  for (const frame of seal(history)) source.push(frame);
  for (let turn = 0; turn < 300; turn++) {
    host.clock.advance(10);
    await new Promise(setImmediate);
  }
  t.deepEqual(told, []);
  t.true(source.feedbacks.every(({ durableLsn }) => durableLsn === 0));
  synced.resolve();
  await group.idle();
  host.clock.advance(300);
  t.is(told.at(-1), history.lastLsn);
  t.is(source.last?.durableLsn, history.lastLsn);
  await group.close();
});

test('a replica tells the gravest of its troubles first', (t) => {
  const well = { failed: '', halt: undefined, full: '', lost: '', missingFrom: 0 };
  const halt = { state: 'diverged', reason: 'h' } as const;
  t.deepEqual(receiverState(well), { state: 'receiving', reason: '' });
  t.deepEqual(receiverState({ ...well, missingFrom: 7 }), { state: 'receiving', reason: 'waiting for LSN 7' });
  t.regex(receiverState({ ...well, missingFrom: 7, lost: 'l' }).reason, /lost frames: l/);
  t.deepEqual(receiverState({ ...well, lost: 'l', full: 'f' }), { state: 'replica-full', reason: 'f' });
  t.deepEqual(receiverState({ ...well, full: 'f', halt }), halt);
  t.deepEqual(receiverState({ ...well, halt, failed: 'x' }), { state: 'stopped', reason: 'x' });
});

test('a frame that begins behind the head counts as a declared gap only when it gives up exactly what is between', (t) => {
  const frame = (fromLsn: number, toLsn: number): FrameView => {
    const payload = encodeGap({ fromLsn, toLsn, reason: '' });
    const sealer = new FrameSealer(
      { groupId: GROUP, epoch: 1, incarnation: START },
      { chunkBytes: 4096, targetBytes: 65_536, compress: false },
    );
    sealer.begin(20, CHAIN_START);
    const place = { flags: 0, volume: 0, sector: 0, sectors: 0, requestId: 0, time: 1, lsn: 20 };
    sealer.add({ ...place, kind: RecordKind.gap, payload });
    return FrameView.open(sealer.seal(20).bytes);
  };
  t.true(declaresGap(frame(11, 19), 10));
  t.true(declaresGap(frame(5, 19), 10), 'more is given up than is missing');
  t.false(declaresGap(frame(12, 19), 10), 'LSN 11 is neither held nor given up');
  t.false(declaresGap(frame(11, 18), 10), 'LSN 19 is neither given up nor in the frame');
  t.false(declaresGap(frame(12, 18), 10));
});
