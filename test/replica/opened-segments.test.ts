import test from 'ava';
import type { SealedFrame } from '../../journal/frame-sealer.ts';
import { FrameView } from '../../journal/frame-view.ts';
import {
  encodeSegmentHeader,
  SEGMENT_FOOTER_BYTES,
  SEGMENT_HEADER_BYTES,
  segmentName,
} from '../../replica/store/segment-format.ts';
import { SegmentStore } from '../../replica/store/segment-store.ts';
import { GROUP, History, seal } from './support/history.ts';
import { MemoryDisk, memoryHost, SeededRandom } from './support/memory-host.ts';

const DIRECTORY = '/segments';
const OPTIONS = { directory: DIRECTORY, groupId: GROUP, segmentBytes: 20 * 1024 };

interface Placed {
  readonly frame: SealedFrame;
  readonly segment: number;
  readonly offset: number;
}

interface Written {
  readonly disk: MemoryDisk;
  readonly placed: Placed[];
  readonly lastLsn: number;
}

/** Frames in several segments, each of ten records; the newest segment is being written. */
async function written(seed: number, records: number, segmentBytes = OPTIONS.segmentBytes): Promise<Written> {
  const history = new History(seed);
  history.addVolumes();
  history.fill(records);
  const disk = new MemoryDisk();
  const store = await SegmentStore.open(memoryHost(seed, disk), { ...OPTIONS, segmentBytes, durableLsn: 0 });
  const placed: Placed[] = [];
  for (const frame of seal(history, { recordsPerFrame: () => 10 })) {
    if (store.wantsSeal) await store.seal(frame.firstLsn);
    const { bytes, firstLsn, lastLsn } = frame;
    const { firstTime, lastTime } = FrameView.open(bytes);
    const at = await store.append(bytes, { firstLsn, lastLsn, firstTime, lastTime, records: frame.recordCount });
    placed.push({ frame, ...at });
  }
  await store.sync();
  await store.close();
  return { disk, placed, lastLsn: records };
}

function pathOf(segment: number): string {
  return `${DIRECTORY}/${segmentName(segment)}`;
}

interface Found {
  readonly lastLsn: number;
  /** First LSNs of frames that are read as they were. */
  readonly whole: number[];
  /** LSNs that a frame stands for and cannot be read, or that are named as damage. */
  readonly named: Set<number>;
  readonly dropped: number;
}

/** What a store shows; throws when it shows anything that was not written. */
async function look(disk: MemoryDisk, placed: readonly Placed[], durableLsn: number): Promise<Found> {
  const store = await SegmentStore.open(memoryHost(99, disk), { ...OPTIONS, durableLsn });
  const whole: number[] = [];
  const named = new Set<number>();
  let next = store.oldestLsn;
  for await (const frame of store.frames(store.oldestLsn, store.lastLsn)) {
    if (frame.firstLsn < next || frame.lastLsn < frame.firstLsn) throw new Error(`${frame.firstLsn} after ${next - 1}`);
    for (let lsn = next; lsn < frame.firstLsn; lsn++) named.add(lsn);
    next = frame.lastLsn + 1;
    const original = placed.find(({ frame: one }) => one.firstLsn === frame.firstLsn && one.lastLsn === frame.lastLsn);
    const bytes = new Uint8Array(frame.bytes);
    try {
      await store.read(frame.segment, frame.offset, bytes);
      FrameView.open(bytes).verifyChunks();
    } catch {
      for (let lsn = frame.firstLsn; lsn <= frame.lastLsn; lsn++) named.add(lsn);
      continue;
    }
    if (original === undefined || !Buffer.from(bytes).equals(original.frame.bytes)) throw new Error('another frame');
    whole.push(frame.firstLsn);
  }
  if (store.lastLsn > 0 && next !== store.lastLsn + 1) throw new Error(`ends at ${next - 1}, not at ${store.lastLsn}`);
  for (const { fromLsn, toLsn } of store.damage) for (let lsn = fromLsn; lsn <= toLsn; lsn++) named.add(lsn);
  const found = { lastLsn: store.lastLsn, whole, named, dropped: store.droppedBytes };
  await store.close();
  return found;
}

test('a store that nothing happened to is opened as it was, whatever its mark says', async (t) => {
  const { disk, placed, lastLsn } = await written(1, 160);
  t.true(new Set(placed.map(({ segment }) => segment)).size >= 4);
  for (const durableLsn of [0, 1, 9, 10, 11, 50, 55, lastLsn - 1, lastLsn]) {
    const found = await look(disk.copy(), placed, durableLsn);
    t.is(found.lastLsn, lastLsn);
    t.is(found.whole.length, placed.length);
    t.deepEqual([...found.named], []);
  }
});

test('whatever rots, is wiped or is cut off in a store: nothing wrong is shown, nothing proven goes without a name', async (t) => {
  for (let seed = 1; seed <= 70; seed++) {
    const { disk, placed, lastLsn } = await written(1 + (seed % 3), 140);
    const random = new SeededRandom(seed);
    const durable = placed[random.below(placed.length)]!.frame.lastLsn;
    // now and then in the middle of a frame: the source seals anew with other borders
    const durableLsn = random.below(3) === 0 ? lastLsn : durable - (random.below(3) === 0 ? random.below(10) : 0);
    const copy = disk.copy();
    const hit = new Set<number>();
    let header = false;
    for (let count = 0; count <= random.below(2); count++) {
      const victim = placed[random.below(placed.length)]!;
      const file = copy.files.get(pathOf(victim.segment))!;
      const { length } = victim.frame.bytes;
      const kind = random.below(6);
      const ofSegment = placed.filter(({ segment }) => segment === victim.segment);
      if (kind === 0) {
        header = true;
        file.bytes.fill(0xee, random.below(48), 64);
      } else if (kind === 1) {
        // directory and footer, where there are any
        const end = ofSegment.at(-1)!.offset + ofSegment.at(-1)!.frame.bytes.length;
        file.bytes.fill(0xee, end + random.below(20), file.length);
      } else if (kind === 2) {
        file.length = victim.offset + random.below(length);
        for (const { frame, offset } of ofSegment) if (offset >= victim.offset) hit.add(frame.firstLsn);
      } else {
        const from = kind === 3 ? 0 : random.below(length);
        const bytes = [1, 200, 3000][random.below(3)] ?? 1;
        const to = Math.min(victim.offset + from + bytes, file.length);
        for (let at = victim.offset + from; at < to; at++) file.bytes[at]! ^= 0x5a;
        for (const { frame, offset } of ofSegment) {
          if (offset < to && offset + frame.bytes.length > victim.offset + from) hit.add(frame.firstLsn);
        }
      }
    }
    const found = await look(copy, placed, durableLsn);
    const what = `seed ${seed}, durable ${durableLsn}, held ${found.lastLsn}`;
    const shown = new Set(found.whole);
    for (const { frame } of placed) {
      if (shown.has(frame.firstLsn)) {
        t.false(hit.has(frame.firstLsn), `${what}: frame ${frame.firstLsn} was hit`);
        continue;
      }
      if (frame.lastLsn > durableLsn) continue;
      for (let lsn = frame.firstLsn; lsn <= frame.lastLsn; lsn++) {
        t.true(found.named.has(lsn) || lsn > found.lastLsn, `${what}: LSN ${lsn} is not told of`);
      }
      // frames beside the damage stay, but for what a header page or a lost end takes along
      if (!header && !hit.has(frame.firstLsn)) t.true(frame.firstLsn > Math.min(...hit), `${what}: ${frame.firstLsn}`);
    }
    // above the mark a prefix is kept, with nothing missing before it
    const above = placed
      .filter(({ frame }) => frame.firstLsn > durableLsn)
      .map(({ frame }) => shown.has(frame.firstLsn));
    t.false(above.join().includes('false,true'), `${what}: ${above.join()}`);
    const again = await look(copy, placed, durableLsn);
    t.deepEqual(again.whole, found.whole, `${what}: opened again`);
    t.is(again.lastLsn, found.lastLsn);
  }
});

test('whole frames behind a segment whose seal is gone are kept, though nothing of them is proven', async (t) => {
  const { disk, placed, lastLsn } = await written(1, 160);
  for (const segment of new Set(placed.map((one) => one.segment))) {
    const copy = disk.copy();
    const last = placed.filter((one) => one.segment === segment).at(-1)!;
    copy.files.get(pathOf(segment))!.length = last.offset + last.frame.bytes.length;
    for (const durableLsn of [0, 30, lastLsn]) {
      const found = await look(copy.copy(), placed, durableLsn);
      t.is(found.lastLsn, lastLsn, `segment ${segment}, durable ${durableLsn}`);
      t.is(found.whole.length, placed.length);
      t.deepEqual([...found.named], []);
    }
  }
});

test('a tail that was never proven is cut at the first frame that is not whole, to the byte', async (t) => {
  const { disk, placed, lastLsn } = await written(2, 60);
  const newest = placed.at(-1)!;
  const before = placed.at(-2)!;
  const path = pathOf(newest.segment);
  const end = newest.offset + newest.frame.bytes.length;
  const usual = (await look(disk.copy(), placed, before.frame.lastLsn)).dropped;
  for (const length of [end - 1, newest.offset + 160, newest.offset + 159, newest.offset + 1]) {
    const copy = disk.copy();
    copy.files.get(path)!.length = length;
    const found = await look(copy, placed, before.frame.lastLsn);
    t.is(found.lastLsn, before.frame.lastLsn, `${length}`);
    // the seal of the segment before is made anew, where the mark does not prove it
    t.is(found.dropped - usual, length - newest.offset);
    t.deepEqual([...found.named], []);
    t.is(copy.files.get(path)?.length, newest.offset);
  }
  const proven = disk.copy();
  proven.files.get(path)!.length = end - 1;
  const found = await look(proven, placed, lastLsn);
  t.is(found.lastLsn, lastLsn, 'a frame that is proven and cut off counts as a damaged one');
  t.deepEqual(
    [...found.named],
    Array.from({ length: 10 }, (_, i) => newest.frame.firstLsn + i),
  );
  const gone = disk.copy();
  gone.files.get(path)!.length = newest.offset;
  t.is((await look(gone, placed, lastLsn)).lastLsn, before.frame.lastLsn, 'no byte of it is there');
  const more = disk.copy();
  const file = more.files.get(path)!;
  file.bytes = Buffer.concat([file.bytes.subarray(0, end), Buffer.alloc(777, 0xaa)]);
  file.length = end + 777;
  const longer = await look(more, placed, lastLsn);
  t.is(longer.lastLsn, lastLsn);
  t.is(longer.dropped, 777);
  t.is(more.files.get(path)?.length, end);
});

test('a segment shorter than its header, or with one that says nothing, is dropped when nothing in it is proven', async (t) => {
  const { disk, placed } = await written(3, 100);
  const last = Math.max(...placed.map(({ segment }) => segment));
  const held = placed.filter(({ segment }) => segment < last).at(-1)!.frame.lastLsn;
  for (const [what, change] of [
    ['short', (copy: MemoryDisk) => (copy.files.get(pathOf(last))!.length = SEGMENT_HEADER_BYTES - 1)],
    ['empty', (copy: MemoryDisk) => (copy.files.get(pathOf(last))!.length = 0)],
    ['wiped', (copy: MemoryDisk) => copy.files.get(pathOf(last))!.bytes.fill(0, 0, SEGMENT_HEADER_BYTES)],
  ] as const) {
    const copy = disk.copy();
    change(copy);
    const found = await look(copy, placed, held);
    t.is(found.lastLsn, held, what);
    t.deepEqual([...found.named], [], what);
    t.false(copy.files.has(pathOf(last)), what);
    const proven = disk.copy();
    change(proven);
    const named = await look(proven, placed, held + 10);
    if (what === 'wiped') {
      t.true(named.whole.includes(held + 1), 'its first frame says where it begins');
      continue;
    }
    t.is(named.lastLsn, held, what);
    t.deepEqual(
      [...named.named],
      Array.from({ length: 10 }, (_, i) => held + 1 + i),
    );
    t.true(proven.files.has(`${pathOf(last)}.damaged`), what);
  }
});

test('a header that says another LSN than its proven footer and its first frame is written again from them', async (t) => {
  const { disk, placed, lastLsn } = await written(3, 100);
  const first = placed[0]!.segment;
  const second = first + 1;
  for (const [segment, firstLsn] of [
    [first, 1_000_000],
    [first, 4],
    [second, 1_000_000],
    [second, lastLsn],
  ] as const) {
    const copy = disk.copy();
    const bytes = copy.files.get(pathOf(segment))!.bytes;
    const was = Buffer.from(bytes.subarray(0, SEGMENT_HEADER_BYTES));
    encodeSegmentHeader({ groupId: GROUP, sequence: segment, firstLsn }).copy(bytes);
    const found = await look(copy, placed, lastLsn);
    t.is(found.whole.length, placed.length, `${segment} at ${firstLsn}`);
    t.deepEqual([...found.named], []);
    t.deepEqual(Buffer.from(copy.files.get(pathOf(segment))!.bytes.subarray(0, SEGMENT_HEADER_BYTES)), was);
  }
});

test('damage that goes on above the mark is a hole up to the mark: what was never acknowledged comes again', async (t) => {
  const { disk, placed, lastLsn } = await written(3, 100, 50 * 1024);
  const segments = [...new Set(placed.map(({ segment }) => segment))];
  t.is(segments.length, 3);
  for (const [i, segment] of segments.slice(0, 2).entries()) {
    const [proven, unproven, behind] = placed.filter((one) => one.segment === segment).slice(1 - i);
    const { firstLsn } = proven!.frame;
    const damaged = disk.copy();
    damaged.files.get(pathOf(segment))!.bytes.fill(0xee, proven!.offset, behind!.offset);
    // the mark is behind the first of two damaged frames, or in the middle of the second
    for (const durableLsn of [proven!.frame.lastLsn, unproven!.frame.lastLsn - 4]) {
      const copy = damaged.copy();
      const before = placed.map(({ frame }) => frame.firstLsn).filter((lsn) => lsn < firstLsn);
      const named = Array.from({ length: durableLsn - firstLsn + 1 }, (_, n) => firstLsn + n);
      for (const start of ['first', 'second']) {
        const what = `segment ${segment}, durable ${durableLsn}, ${start} start`;
        const found = await look(copy, placed, durableLsn);
        t.is(found.lastLsn, durableLsn, what);
        t.deepEqual(found.whole, before, what);
        t.deepEqual([...found.named], named, what);
      }
    }
    const found = await look(damaged, placed, lastLsn);
    t.is(found.whole.length, placed.length - 2, 'all of it was acknowledged: what stands behind stays');
  }
});

test('a time in a sealed segment whose end is damaged, frames and directory, is found at its end', async (t) => {
  const { disk, placed, lastLsn } = await written(3, 100);
  const { segment } = placed[0]!;
  const last = placed.filter((one) => one.segment === segment).at(-1)!;
  const { bytes, length } = disk.files.get(pathOf(segment))!;
  bytes.fill(0xee, last.offset, length - SEGMENT_FOOTER_BYTES);
  const store = await SegmentStore.open(memoryHost(1, disk), { ...OPTIONS, durableLsn: lastLsn });
  const { lastTime } = store.segments[0]!;
  const found = await store.findTime(lastTime);
  t.is(found?.segment, segment);
  t.is(found?.lastLsn, last.frame.lastLsn);
  const next = await store.findTime(lastTime + 1);
  t.is(next?.firstLsn, last.frame.lastLsn + 1);
  await store.close();
});

test('the segments of another group and of a newer program are refused and left as they are', async (t) => {
  const { disk } = await written(1, 40);
  const options = { ...OPTIONS, durableLsn: 0 };
  const before = [...disk.files.keys()];
  await t.throwsAsync(SegmentStore.open(memoryHost(1, disk), { ...options, groupId: 'cd'.repeat(16) }), {
    code: 'journal-foreign',
  });
  t.deepEqual([...disk.files.keys()], before);
});
