import { crc32c } from '@node-rs/crc32';
import test from 'ava';
import { EMPTY_CATALOG } from '../../replica/catalog/catalog.ts';
import { ByteCache } from '../../replica/store/byte-cache.ts';
import { readWhole, replaceFile } from '../../replica/store/file-io.ts';
import { DIRECTORY_ENTRY_BYTES, entryAt, FrameDirectory } from '../../replica/store/frame-directory.ts';
import { type DurablePosition, PositionMark } from '../../replica/store/position-mark.ts';
import { type ReplicaState, readReplicaState, StateKeeper } from '../../replica/store/replica-state.ts';
import { sealedFooter } from '../../replica/store/sealed-footer.ts';
import {
  decodeSegmentFooter,
  decodeSegmentHeader,
  encodeSegmentFooter,
  encodeSegmentHeader,
  SEGMENT_FOOTER_BYTES,
  SEGMENT_HEADER_BYTES,
  segmentBegins,
} from '../../replica/store/segment-format.ts';
import { evictOldest, SharedFile } from '../../replica/store/shared-file.ts';
import { LateDisk } from '../doubles/late-disk.ts';
import { GROUP } from './support/history.ts';
import { MemoryDisk, type MemoryHost, memoryHost, SeededRandom } from './support/memory-host.ts';

const OTHER = 'cd'.repeat(16);
const damaged = { code: 'journal-damaged' };

function flipped(bytes: Buffer, bit: number): Buffer {
  const copy = Buffer.from(bytes);
  copy[bit >> 3]! ^= 1 << (bit & 7);
  return copy;
}

/** With fields changed and the checksum, which stands at `at`, made anew. */
function resealed(bytes: Buffer, at: number, change: (copy: Buffer) => void): Buffer {
  const copy = Buffer.from(bytes);
  change(copy);
  copy.writeUInt32LE(0, at);
  copy.writeUInt32LE(crc32c(copy), at);
  return copy;
}

test('the header page of a segment is read as written, or is damaged, foreign or too new', (t) => {
  const header = { groupId: GROUP, sequence: 2 ** 40 + 5, firstLsn: 2 ** 41 + 7 };
  const page = encodeSegmentHeader(header);
  t.is(page.length, SEGMENT_HEADER_BYTES);
  const before = Buffer.from(page);
  t.deepEqual(decodeSegmentHeader(page, 'it'), header);
  t.deepEqual(page, before, 'reading changes nothing');
  for (const bit of [0, 31, 64, 95, 130, 260, 330, 3000, SEGMENT_HEADER_BYTES * 8 - 1]) {
    t.throws(() => decodeSegmentHeader(flipped(page, bit), 'it'), { ...damaged, message: /^it: / }, `bit ${bit}`);
  }
  const newer = resealed(page, 8, (copy) => copy.writeUInt16LE(2, 4));
  t.throws(() => decodeSegmentHeader(newer, 'it'), { code: 'format-too-new' });
  const { firstLsn } = header;
  t.is(segmentBegins(page, 'it', GROUP, firstLsn - 1), firstLsn);
  t.throws(() => segmentBegins(page, 'it', GROUP, firstLsn), damaged);
  t.throws(() => segmentBegins(page, 'it', OTHER, 0), { code: 'journal-foreign' });
});

test('the footer of a segment counts only where it ends the file that it speaks of', async (t) => {
  const footer = {
    directoryCrc: 5,
    entries: 3,
    directoryOffset: 8192,
    firstLsn: 1,
    lastLsn: 2 ** 40,
    openFromLsn: 9,
    firstTime: 2 ** 42,
    lastTime: 2 ** 43,
  };
  const bytes = encodeSegmentFooter(footer);
  t.is(bytes.length, SEGMENT_FOOTER_BYTES);
  t.deepEqual(decodeSegmentFooter(bytes, 'it'), footer);
  for (let bit = 0; bit < bytes.length * 8; bit += 7) {
    t.throws(() => decodeSegmentFooter(flipped(bytes, bit), 'it'), damaged, `bit ${bit}`);
  }
  const { disk } = memoryHost(1);
  let number = 0;
  const found = async (at: number, told: typeof footer): ReturnType<typeof sealedFooter> => {
    const file = disk.open(`/file${number++}`, 'create');
    const encoded = encodeSegmentFooter(told);
    await file.write(encoded, 0, encoded.length, at);
    return sealedFooter(file, file.path);
  };
  const behind = footer.directoryOffset + footer.entries * DIRECTORY_ENTRY_BYTES;
  t.deepEqual(await found(behind, footer), footer);
  t.is(await found(behind + 8, footer), undefined, 'it stands elsewhere');
  t.is(await found(behind - 8, footer), undefined);
  t.is(await found(behind, { ...footer, entries: 2 }), undefined);
  t.is(await found(8192, { ...footer, entries: 0 }), undefined, 'a segment of no frames is not sealed');
  const least = { ...footer, entries: 1, directoryOffset: SEGMENT_HEADER_BYTES - DIRECTORY_ENTRY_BYTES };
  t.is(await found(SEGMENT_HEADER_BYTES - 1, { ...least, directoryOffset: least.directoryOffset - 1 }), undefined);
  t.deepEqual(await found(SEGMENT_HEADER_BYTES, least), least, 'as long as header and footer');
});

test('a directory of frames gives back what was put in, however many there are', (t) => {
  const entry = (i: number) => ({
    firstLsn: 2 ** 40 + i * 10,
    lastLsn: 2 ** 40 + i * 10 + 9,
    offset: 4096 + i * 1000,
    bytes: 1000 + i,
    records: 10 + i,
    firstTime: 2 ** 42 + i * 5,
    lastTime: 2 ** 42 + i * 5 + 4,
  });
  const directory = new FrameDirectory();
  for (let i = 0; i < 200; i++) {
    directory.push(entry(i));
    t.is(directory.count, i + 1);
    t.is(directory.bytes.length, (i + 1) * DIRECTORY_ENTRY_BYTES);
  }
  const again = new FrameDirectory(Buffer.from(directory.bytes));
  for (const held of [directory, again]) {
    for (const i of [0, 1, 63, 64, 65, 127, 128, 199]) t.deepEqual(held.entry(i), entry(i));
    t.is(held.atLsn(2 ** 40 + 641), 64);
    t.is(held.atTime(2 ** 42 + 640), 128);
  }
  again.push(entry(200));
  t.deepEqual(again.entry(200), entry(200), 'one that was read grows too');
  t.deepEqual(again.entry(199), entry(199));
  t.deepEqual(entryAt(directory, 4096), entry(0));
  t.deepEqual(entryAt(directory, 4096 + 199_000), entry(199));
  t.deepEqual(entryAt(directory, 4096 + 1000), entry(1));
});

function position(durableLsn: number, change: Partial<DurablePosition> = {}): DurablePosition {
  const incarnation = { counter: 3, nonce: '0123456789abcdef' };
  return {
    durableLsn,
    chain: 'fedcba9876543210',
    epoch: 2,
    incarnation,
    resumeOffset: 'part 3: 77',
    heartbeatMs: 12.5,
    ...change,
  };
}

const MARK = '/r/position';

/** The position an opened mark begins with. */
async function initialOf(host: MemoryHost): Promise<DurablePosition | undefined> {
  const mark = await PositionMark.open(host, '/r', GROUP);
  await mark.close();
  return mark.initial;
}

function marked(content: Buffer): MemoryHost {
  const host = memoryHost(2);
  host.disk.files.set(MARK, { bytes: Buffer.from(content), length: content.length });
  return host;
}

test('of the two slots of a mark the newest whole one counts, and the other one takes the next', async (t) => {
  const host = memoryHost(1);
  const mark = await PositionMark.open(host, '/r', GROUP);
  const content = (): Buffer => {
    const { bytes, length } = host.disk.files.get(MARK)!;
    return Buffer.from(bytes.subarray(0, length));
  };
  t.is(content().length, 8192);
  t.is(await initialOf(marked(content())), undefined);
  const states = [content()];
  for (let lsn = 1; lsn <= 5; lsn++) {
    await mark.write(position(lsn));
    const now = content();
    const before = states.at(-1)!;
    const changed = [0, 4096].filter((at) => !now.subarray(at, at + 4096).equals(before.subarray(at, at + 4096)));
    t.deepEqual(changed, [lsn % 2 === 0 ? 0 : 4096], 'one slot at a time, by turns');
    states.push(now);
    t.deepEqual(await initialOf(marked(now)), position(lsn));
    // one that rots leaves the one before
    for (const cut of [4, 60, 100]) {
      const rotten = Buffer.from(now);
      const at = changed[0] ?? 0;
      before.copy(rotten, at + cut, at + cut, at + 512);
      if (rotten.equals(now)) continue;
      if (lsn === 1) await t.throwsAsync(initialOf(marked(rotten)), damaged, 'there is none before it');
      else t.deepEqual(await initialOf(marked(rotten)), position(lsn - 1));
    }
  }
  await mark.close();
  const last = states.at(-1)!;
  const again = await PositionMark.open(marked(last), '/r', GROUP);
  await again.close();
  for (const at of [0, 4096]) {
    const one = Buffer.from(last);
    one.fill(0, at, at + 4096);
    t.is((await initialOf(marked(one)))?.durableLsn, at === 0 ? 5 : 4);
  }
  const reopened = marked(last);
  const next = await PositionMark.open(reopened, '/r', GROUP);
  await next.write(position(6));
  await next.close();
  t.is((await initialOf(reopened))?.durableLsn, 6, 'it goes on behind the newest');
  const both = reopened.disk.files.get(MARK)!.bytes;
  both.fill(0, 0, 4096);
  t.is((await initialOf(reopened))?.durableLsn, 5);
});

test('a mark that tells nothing whole is damaged, one of another group is foreign, one that was never finished is new', async (t) => {
  const host = memoryHost(1);
  const mark = await PositionMark.open(host, '/r', GROUP);
  await mark.write(position(1, { resumeOffset: 'x'.repeat(400) }));
  await mark.close();
  const { bytes } = host.disk.files.get(MARK)!;
  const slot = bytes.subarray(4096, 4096 + 512);
  t.is((await initialOf(marked(bytes)))?.resumeOffset.length, 400);
  for (let bit = 0; bit < 512 * 8; bit += 13) {
    const rotten = Buffer.from(bytes);
    flipped(slot, bit).copy(rotten, 4096);
    await t.throwsAsync(PositionMark.open(marked(rotten), '/r', GROUP), damaged, `bit ${bit}`);
  }
  const changed = (change: (copy: Buffer) => void): MemoryHost => {
    const copy = Buffer.from(bytes);
    resealed(slot, 4, change).copy(copy, 4096);
    return marked(copy);
  };
  await t.throwsAsync(
    PositionMark.open(
      changed((copy) => copy.writeUInt16LE(401, 72)),
      '/r',
      GROUP,
    ),
    damaged,
  );
  await t.throwsAsync(
    PositionMark.open(
      changed((copy) => copy.writeUInt8(0xff, 80)),
      '/r',
      GROUP,
    ),
    damaged,
  );
  await t.throwsAsync(
    PositionMark.open(
      changed((copy) => copy.writeUInt8(0, 0)),
      '/r',
      GROUP,
    ),
    damaged,
  );
  t.is((await initialOf(changed((copy) => copy.writeUInt16LE(399, 72))))?.resumeOffset.length, 399);
  await t.throwsAsync(PositionMark.open(marked(bytes), '/r', OTHER), { code: 'journal-foreign' });
  const short = marked(bytes.subarray(0, 8191));
  t.is(await initialOf(short), undefined, 'killed while it was made');
  t.is(short.disk.files.get(MARK)?.length, 8192);
  t.is(await initialOf(marked(Buffer.alloc(8192))), undefined);
  for (const at of [0, 4096 + 511]) {
    const dirty = Buffer.alloc(8192);
    dirty[at] = 1;
    await t.throwsAsync(PositionMark.open(marked(dirty), '/r', GROUP), damaged, `byte ${at}`);
  }
});

const STATE: ReplicaState = {
  groupId: GROUP,
  floorLsn: 1,
  floorIntentLsn: 2,
  oldestNeededLsn: 0,
  halt: undefined,
  orphans: [],
  damage: [],
  catalog: EMPTY_CATALOG,
};

async function storedState(
  host: MemoryHost,
  state: unknown,
  change: (bytes: Buffer) => void = () => undefined,
): Promise<void> {
  const body = Buffer.from(typeof state === 'string' ? state : JSON.stringify(state));
  const bytes = Buffer.alloc(16 + body.length);
  bytes.writeUInt32LE(0x53534d54, 0);
  bytes.writeUInt16LE(1, 4);
  bytes.writeUInt32LE(crc32c(body), 8);
  bytes.writeUInt32LE(body.length, 12);
  bytes.set(body, 16);
  change(bytes);
  await replaceFile(host.disk, '/r', 'state', bytes);
}

test('a state whose fields cannot be is damaged, though its checksum holds', async (t) => {
  const host = memoryHost(1);
  const read = (): ReturnType<typeof readReplicaState> => readReplicaState(host, '/r', GROUP);
  t.is(await read(), undefined);
  await storedState(host, STATE);
  t.like(await read(), { groupId: GROUP, floorLsn: 1, floorIntentLsn: 2, oldestNeededLsn: 0 });
  await storedState(host, { ...STATE, halt: { state: 'diverged', reason: 'r' }, orphans: [{}], damage: [{}] });
  t.like(await read(), { halt: { state: 'diverged' } });
  const { catalog } = STATE;
  for (const wrong of [
    { groupId: 5 },
    { floorLsn: -1 },
    { floorLsn: 1.5 },
    { floorLsn: 2 ** 53 },
    { floorIntentLsn: '1' },
    { oldestNeededLsn: null },
    { halt: 'diverged' },
    { halt: null },
    { halt: [] },
    { orphans: {} },
    { orphans: [5] },
    { damage: [null] },
    { damage: undefined },
    { catalog: undefined },
    { catalog: [] },
    { catalog: { ...catalog, upToLsn: -1 } },
    { catalog: { ...catalog, epoch: 'x' } },
    { catalog: { ...catalog, volumes: {} } },
    { catalog: { ...catalog, bookmarks: undefined } },
    { catalog: { ...catalog, events: ['x'] } },
    { catalog: { ...catalog, unvouched: 'x' } },
  ]) {
    await storedState(host, { ...STATE, ...wrong });
    await t.throwsAsync(read(), { ...damaged, message: /wrong or missing/ }, JSON.stringify(wrong));
  }
  for (const body of ['null', '5', '[]', '"x"']) {
    await storedState(host, body);
    await t.throwsAsync(read(), { ...damaged, message: /wrong or missing/ }, body);
  }
  await storedState(host, '{');
  await t.throwsAsync(read(), { ...damaged, message: /no JSON/ });
  await storedState(host, { ...STATE, groupId: OTHER });
  await t.throwsAsync(read(), { code: 'journal-foreign' });
  await storedState(host, STATE, (bytes) => bytes.writeUInt16LE(2, 4));
  await t.throwsAsync(read(), { code: 'format-too-new' });
  await storedState(host, STATE, (bytes) => bytes.writeUInt16LE(0, 4));
  await t.throwsAsync(read(), { ...damaged, message: /version 0/ });
  await storedState(host, STATE, (bytes) => bytes.writeUInt32LE(1, 0));
  await t.throwsAsync(read(), { ...damaged, message: /not a replica state/ });
  await storedState(host, STATE, (bytes) => bytes.writeUInt32LE(bytes.length - 15, 12));
  await t.throwsAsync(read(), { ...damaged, message: /checksum/ });
  await storedState(host, STATE, (bytes) => bytes.writeUInt32LE(1, 8));
  await t.throwsAsync(read(), { ...damaged, message: /checksum/ });
  await replaceFile(host.disk, '/r', 'state', Buffer.alloc(15));
  await t.throwsAsync(read(), { ...damaged, message: /not a replica state/ });
  await replaceFile(host.disk, '/r', 'state', Buffer.alloc(16));
  await t.throwsAsync(read(), { ...damaged, message: /not a replica state/ });
});

test('a state is told only once it is durable; changes follow each other, also behind one that failed', async (t) => {
  const below = new MemoryDisk();
  const disk = new LateDisk(below, new SeededRandom(1));
  const host = { ...memoryHost(1, below), disk };
  const keeper = new StateKeeper(host, '/r', STATE);
  const first = keeper.update((state) => ({ floorLsn: state.floorLsn + 10 }));
  const second = keeper.update((state) => ({ floorLsn: state.floorLsn * 2 }));
  t.is(keeper.state.floorLsn, 1);
  await first;
  t.is(keeper.state.floorLsn, 11);
  await second;
  t.is(keeper.state.floorLsn, 22);
  t.deepEqual([disk.changing, disk.descriptors, disk.unsyncedFiles, disk.unsyncedNames('/r')], [[], [], [], []]);
  t.deepEqual(below.list('/r'), ['state']);
  t.is((await readReplicaState(host, '/r', GROUP))?.floorLsn, 22);
  below.capacity = below.used() + 10;
  const failing = keeper.update(() => ({ floorLsn: 99 }));
  await t.throwsAsync(failing, { code: 'no-space' });
  t.is(keeper.state.floorLsn, 22, 'what is not on disk is not told');
  below.capacity = Number.MAX_SAFE_INTEGER;
  await keeper.update((state) => ({ floorIntentLsn: state.floorLsn }));
  t.like(await readReplicaState(host, '/r', GROUP), { floorLsn: 22, floorIntentLsn: 22 });
  t.is(await readWhole(disk, '/r/nothing'), undefined);
  t.deepEqual(disk.descriptors, []);
});

test('a cache keeps what was used last within its bytes, and one load serves all who ask', async (t) => {
  const cache = new ByteCache<{ size: number }>(100, ({ size }) => size);
  const value = (size: number) => () => Promise.resolve({ size });
  t.is(cache.now('a'), undefined);
  await cache.load('a', value(40));
  await cache.load('b', value(60));
  t.is(cache.bytes, 100);
  t.like(cache.now('a'), { size: 40 }, 'used again');
  await cache.load('c', value(1));
  t.is(cache.now('b'), undefined, 'used longest ago');
  t.like(cache.now('a'), { size: 40 });
  t.is(cache.bytes, 41);
  await cache.load('d', value(500));
  t.like(cache.now('d'), { size: 500 }, 'one larger than all stays alone');
  t.is(cache.now('a'), undefined);
  t.is(cache.bytes, 500);
  await cache.load('e', value(5));
  t.is(cache.now('d'), undefined);
  t.is(cache.bytes, 5);
  let loads = 0;
  const slow = async (): Promise<{ size: number }> => {
    loads++;
    await new Promise(setImmediate);
    return { size: 7 };
  };
  const both = await Promise.all([cache.load('s', slow), cache.load('s', slow)]);
  t.is(loads, 1);
  t.is(both[0], both[1]);
  t.is(cache.bytes, 12);
  const failure = new Error('no');
  await t.throwsAsync(
    cache.load('x', () => Promise.reject(failure)),
    { is: failure },
  );
  t.like(await cache.load('x', value(3)), { size: 3 }, 'asked anew');
});

test('a file in use is closed by the last who uses it, one that is not at once', async (t) => {
  const disk = new LateDisk(new MemoryDisk(), new SeededRandom(1));
  const open = (path: string): SharedFile => new SharedFile(disk.open(path, 'create'));
  const idle = open('/idle');
  await idle.use(() => Promise.resolve());
  t.deepEqual(disk.descriptors, ['/idle'], 'used and kept');
  await idle.retire();
  t.deepEqual(disk.descriptors, []);
  const busy = open('/busy');
  const [one, two] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  const first = busy.use(() => one.promise);
  const second = busy.use(() => two.promise);
  await busy.retire();
  t.deepEqual(disk.descriptors, ['/busy']);
  one.resolve();
  await first;
  t.deepEqual(disk.descriptors, ['/busy'], 'one still reads');
  two.reject(new Error('failed'));
  await t.throwsAsync(second, { message: 'failed' });
  t.deepEqual(disk.descriptors, [], 'also when that failed');
  const map = new Map([1, 2, 3].map((key) => [key, `v${key}`]));
  t.is(evictOldest(map, 3), undefined);
  t.is(evictOldest(map, 2), 'v1');
  t.deepEqual([...map.keys()], [2, 3]);
});
