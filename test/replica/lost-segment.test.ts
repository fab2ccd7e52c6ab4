import test from 'ava';
import { hasCode, TidemarkError } from '../../journal/base/errors.ts';
import { FrameLayout } from '../../journal/frame-layout.ts';
import { RecordKind } from '../../journal/record.ts';
import { encodeGap } from '../../journal/record-bodies.ts';
import { REPLICA_DEFAULTS, ReplicaGroup } from '../../replica/replica-group.ts';
import { GROUP, HandSource, History, Model, seal } from './support/history.ts';
import { type MemoryHost, memoryHost } from './support/memory-host.ts';

/* A segment in the middle of history whose header page is damaged, or that is gone. */

const FIRST_POINT = 12;

const small = {
  ...REPLICA_DEFAULTS,
  directory: '/replica',
  groupId: GROUP,
  replica: 'r1',
  segmentBytes: 64 * 1024,
  reserveBytes: 4096,
  memtableEntries: 128,
};

function open(host: MemoryHost): Promise<ReplicaGroup> {
  return ReplicaGroup.open(host, small);
}

async function received(history: History): Promise<MemoryHost> {
  const host = memoryHost(history.lastLsn);
  const group = await open(host);
  const source = new HandSource();
  group.start(source);
  for (const frame of seal(history)) source.push(frame);
  await group.idle();
  await group.close();
  return host;
}

/** Refused, or the model's bytes: the LSN of the first refusal, 0: none. */
async function firstRefused(group: ReplicaGroup, history: History, wrong: (lsn: number) => void): Promise<number> {
  const model = new Model();
  for (let lsn = FIRST_POINT; lsn <= group.headLsn; lsn += 7) {
    model.advance(history, lsn);
    const view = group.openView({ lsn, owner: 't', scratchBytesMax: 0 });
    for (const { volume, device } of view.volumes) {
      const bytes = Buffer.alloc(volume.size);
      try {
        await device.read(0, bytes);
      } catch (error) {
        if (!hasCode(error, 'frame-damaged')) throw error;
        return lsn;
      }
      if (!bytes.equals(model.disk(volume.id))) wrong(lsn);
    }
    await group.views.close(view.id);
  }
  return 0;
}

function madeHistory(): History {
  const history = new History(21);
  history.addVolumes();
  return history.fill(400);
}

const MIDDLE = '/replica/segments/000000000003.seg';

test('a segment whose header page has rotted is read on by its footer and frames, and the page is written again', async (t) => {
  const history = madeHistory();
  const host = await received(history);
  const bytes = host.disk.files.get(MIDDLE)?.bytes;
  if (bytes === undefined) return t.fail('no segment');
  const whole = Buffer.from(bytes.subarray(0, 4096));
  // byte 5: the version
  for (const at of [0, 5, 9, 20, 41, 2000]) {
    bytes.writeUInt8(bytes.readUInt8(at) ^ 4, at);
    const group = await open(host);
    t.is(group.headLsn, history.lastLsn);
    t.deepEqual((await group.status()).damage, []);
    t.is(await firstRefused(group, history, (lsn) => t.fail(`wrong bytes at LSN ${lsn}, byte ${at}`)), 0);
    await group.close();
    t.true(whole.equals(host.disk.files.get(MIDDLE)!.bytes.subarray(0, 4096)), `byte ${at}`);
  }
});

test('a header page and the first frame are damaged: what tells where it begins are the footer or the header of the frame', async (t) => {
  const history = madeHistory();
  const newest = [...(await received(history)).disk.files.keys()]
    .filter((path) => path.endsWith('.seg'))
    .sort()
    .at(-1)!;
  for (const [path, at] of [
    [MIDDLE, 4100],
    [MIDDLE, 5000],
    [newest, 5000],
  ] as const) {
    const host = await received(history);
    const { bytes } = host.disk.files.get(path)!;
    const firstLsn = Number(bytes.readBigUInt64LE(40));
    for (const spoilt of [9, at]) bytes.writeUInt8(bytes.readUInt8(spoilt) ^ 4, spoilt);
    const group = await open(host);
    t.is(group.headLsn, history.lastLsn, `${path} at ${at}`);
    const refused = await firstRefused(group, history, (lsn) => t.fail(`wrong bytes at LSN ${lsn}`));
    t.true(refused === 0 || refused >= firstLsn, `${refused}`);
    await group.close();
  }
});

test('behind a segment that is gone no point is shown, at this start and the next; those before it are', async (t) => {
  const history = madeHistory();
  const host = await received(history);
  const bytes = host.disk.files.get(MIDDLE)!.bytes;
  const firstLost = Number(bytes.readBigUInt64LE(40));
  t.true(firstLost > FIRST_POINT && firstLost < history.lastLsn);
  host.disk.files.delete(MIDDLE);
  for (let start = 0; start < 2; start += 1) {
    const again = await open(host);
    t.is(again.headLsn, history.lastLsn);
    const refused = await firstRefused(again, history, (lsn) => t.fail(`wrong bytes at LSN ${lsn}`));
    t.true(refused >= firstLost && refused < firstLost + 7, `${refused}, lost from ${firstLost}`);
    t.true((await again.status()).damage.some(({ fromLsn }) => fromLsn === firstLost));
    await again.close();
  }
});

test('a volume whose first record stands in a damaged frame is not said to be missing', async (t) => {
  const history = madeHistory();
  const host = await received(history);
  for (const path of host.disk.files.keys()) {
    if (path.includes('/index/') || path.endsWith('/state')) host.disk.files.delete(path);
  }
  const { bytes } = host.disk.files.get('/replica/segments/000000000001.seg')!;
  bytes.writeUInt8(bytes.readUInt8(4100) ^ 4, 4100);
  const group = await open(host);
  for (const volumes of [undefined, ['data']]) {
    const request = { lsn: FIRST_POINT, owner: 't', scratchBytesMax: 0, ...(volumes && { volumes }) };
    t.throws(() => group.openView(request), { code: 'frame-damaged' });
  }
  t.throws(() => group.openView({ lsn: 0, owner: 't', scratchBytesMax: 0 }), { code: 'not-found' });
  await group.close();
});

test('an error of the medium that passes is no damage: nothing is named, and nothing is asked for again', async (t) => {
  const history = madeHistory();
  const host = await received(history);
  // the index is gone, so that the next start reads every record list
  for (const path of host.disk.files.keys()) if (path.includes('/index/')) host.disk.files.delete(path);
  let failures = 0;
  const open = host.disk.open.bind(host.disk);
  host.disk.open = (path, mode) => {
    const file = open(path, mode);
    if (mode !== 'read' || !path.endsWith('.seg')) return file;
    const read = file.read.bind(file);
    let reads = 0;
    file.read = (...where) => {
      reads += 1;
      if (reads % 5 !== 1) return read(...where);
      failures += 1;
      return Promise.reject(new TidemarkError('device-failed', `${path}: EIO`));
    };
    return file;
  };
  const group = await ReplicaGroup.open(host, { ...small, chunkCacheBytesMax: 4096, layoutCacheBytesMax: 4096 });
  t.is(await firstRefused(group, history, (lsn) => t.fail(`wrong bytes at LSN ${lsn}`)), 0);
  t.deepEqual((await group.status()).damage, []);
  t.true(failures > 20, `${failures}`);
  await group.close();
});

test('a segment that is gone right before a gap that the source declared is lost, and not a part of the gap', async (t) => {
  const history = madeHistory();
  const at = history.lastLsn;
  for (let lsn = at + 1; lsn <= at + 2; lsn++) {
    history.push(RecordKind.heartbeat, { payload: new Uint8Array([0xc0]) });
  }
  history.push(RecordKind.gap, { payload: encodeGap({ fromLsn: at + 1, toLsn: at + 2, reason: 'out of room' }) });
  history.fill(at + 40);
  const host = memoryHost(22);
  const oneFrameEach = { ...small, segmentBytes: 4096 };
  const group = await ReplicaGroup.open(host, oneFrameEach);
  const source = new HandSource();
  group.start(source);
  const before = seal(history, { toLsn: at });
  for (const frame of [...before, ...seal(history, { fromLsn: at + 3 })]) source.push(frame);
  await group.idle();
  await group.close();
  const { firstLsn } = before.at(-1)!;
  const files = [...host.disk.files.keys()].filter((path) => path.endsWith('.seg'));
  const gone = files.find((path) => Number(host.disk.files.get(path)!.bytes.readBigUInt64LE(40)) === firstLsn);
  if (gone === undefined) return t.fail('the last frame before the gap has no segment of its own');
  host.disk.files.delete(gone);
  const again = await ReplicaGroup.open(host, oneFrameEach);
  t.deepEqual(
    (await again.status()).damage.map(({ fromLsn, toLsn }) => [fromLsn, toLsn]),
    [[firstLsn, at]],
  );
  t.is(again.headLsn, history.lastLsn);
  await again.close();
});

for (const segmentBytes of [small.segmentBytes, 4096]) {
  test(`the declaration of a gap has rotted, in segments of ${segmentBytes}: it is put back, and the gap is one again`, async (t) => {
    const history = madeHistory();
    const at = history.lastLsn;
    for (let lsn = at + 1; lsn <= at + 2; lsn++) {
      history.push(RecordKind.heartbeat, { payload: new Uint8Array([0xc0]) });
    }
    history.push(RecordKind.gap, { payload: encodeGap({ fromLsn: at + 1, toLsn: at + 2, reason: 'out of room' }) });
    history.fill(at + 40);
    const host = memoryHost(23);
    const group = await ReplicaGroup.open(host, { ...small, segmentBytes });
    const source = new HandSource();
    group.start(source);
    const behind = seal(history, { fromLsn: at + 3 });
    for (const frame of [...seal(history, { toLsn: at }), ...behind]) source.push(frame);
    await group.idle();
    await group.close();
    const first = behind[0]!.bytes;
    const layout = FrameLayout.parse(first);
    const { storedOffset } = layout.chunkRange(layout.record(0).payloadOffset, 1);
    for (const { bytes } of host.disk.files.values()) {
      const frameAt = bytes.indexOf(first.subarray(0, 200));
      if (frameAt > 0) bytes.writeUInt8(bytes.readUInt8(frameAt + storedOffset) ^ 4, frameAt + storedOffset);
    }
    let asked = 0;
    const onReopen = (): void => {
      asked += 1;
    };
    const again = await ReplicaGroup.open(host, { ...small, segmentBytes, onReopen });
    again.start(
      Object.assign(new HandSource(), {
        async *fetch(fromLsn: number): AsyncGenerator<Uint8Array> {
          await Promise.resolve();
          if (fromLsn <= at + 2) throw new TidemarkError('trimmed', 'given up');
          for (const frame of behind) if (frame.lastLsn >= fromLsn) yield frame.bytes;
        },
      }),
    );
    for (let round = 0; round < 30; round += 1) {
      host.clock.advance(1000);
      for (let turn = 0; turn < 20; turn += 1) await new Promise((resolve) => setImmediate(resolve));
    }
    t.true(asked > 0, 'the group has to be opened anew');
    await again.close();
    const last = await open(host);
    t.deepEqual((await last.status()).damage, []);
    await last.close();
  });
}

test('the last point before a gap is found, by its LSN, by its time and by a time within the gap', async (t) => {
  const history = madeHistory();
  const at = history.lastLsn;
  for (let lsn = at + 1; lsn <= at + 2; lsn++) {
    history.push(RecordKind.heartbeat, { payload: new Uint8Array([0xc0]) });
  }
  history.push(RecordKind.gap, { payload: encodeGap({ fromLsn: at + 1, toLsn: at + 2, reason: 'out of room' }) });
  history.fill(at + 40);
  const group = await open(memoryHost(24));
  const source = new HandSource();
  group.start(source);
  for (const frame of [...seal(history, { toLsn: at }), ...seal(history, { fromLsn: at + 3 })]) source.push(frame);
  await group.idle();
  const timeOf = (lsn: number): number => history.records[lsn - 1]!.time;
  const before = await group.resolve({ kind: 'lsn', lsn: at, epoch: undefined });
  t.like(before, { lsn: at, at: { lsn: at, time: timeOf(at) }, after: undefined });
  for (const micros of [timeOf(at), timeOf(at + 1), timeOf(at + 3) - 1]) {
    t.is((await group.resolve({ kind: 'time', micros })).lsn, at);
  }
  t.is((await group.resolve({ kind: 'time', micros: timeOf(at + 3) })).lsn, at + 3);
  t.like(await group.resolve({ kind: 'lsn', lsn: at + 3, epoch: undefined }), { lsn: at + 3, before: undefined });
  await group.close();
});

test('a point is found though the record before it, or the one behind it, stands in a damaged frame', async (t) => {
  const history = madeHistory();
  const host = await received(history);
  const frames = seal(history);
  const { firstLsn, lastLsn, bytes: stored } = frames[4]!;
  for (const { bytes } of host.disk.files.values()) {
    const frameAt = bytes.indexOf(stored.subarray(0, 200));
    if (frameAt > 0) bytes.writeUInt8(bytes.readUInt8(frameAt + 170) ^ 4, frameAt + 170);
  }
  const group = await open(host);
  for (const lsn of [firstLsn - 1, lastLsn + 1]) {
    t.like(await group.resolve({ kind: 'lsn', lsn, epoch: undefined }), { lsn, at: { lsn } });
  }
  const { time } = history.records[firstLsn - 2]!;
  t.is((await group.resolve({ kind: 'time', micros: time })).lsn, firstLsn - 1);
  await group.close();
});
