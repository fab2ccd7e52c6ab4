import { randomBytes } from 'node:crypto';
import test from 'ava';
import type { LogBounds, LogReader } from '../../daemon/stream/kafka/log-ports.ts';
import { framesFrom } from '../../daemon/stream/kafka/stream-history.ts';
import { readTail } from '../../daemon/stream/kafka/stream-tail.ts';
import { FrameView } from '../../journal/frame-view.ts';
import { newGroup, sealFrames } from './stream-ends.ts';

/** A topic that holds these records and gets no more. */
function topicOf(values: readonly Uint8Array[]): { reader: LogReader; bounds: LogBounds } {
  const bounds = { start: 0n, end: BigInt(values.length), topicId: 'x' };
  const reader: LogReader = {
    bounds: () => Promise.resolve(bounds),
    read: (from) => {
      const records = values.slice(Number(from), Number(from) + 5);
      const numbered = records.map((value, index) => ({ offset: from + BigInt(index), key: '', value }));
      return Promise.resolve({ records: numbered, end: bounds.end });
    },
    reset: () => {},
    close: () => {},
  };
  return { reader, bounds };
}

const ours = newGroup();
const frames = sealFrames(ours, 60, 4096).map(({ bytes }) => bytes);
/** Positions as ours, another group. */
const foreign = sealFrames(newGroup(), 60, 4096).map(({ bytes }) => bytes);

test('frames of another group and rubbish among ours are passed over, at the end of a topic and in its history', async (t) => {
  const mixed = frames.flatMap((bytes, index) => [bytes, foreign[(index * 7) % 60] as Uint8Array, randomBytes(index)]);
  const { reader, bounds } = topicOf(mixed);
  const tail = await readTail(reader, bounds, ours.groupId, []);
  const last = FrameView.open(frames.at(-1) as Uint8Array);
  t.is(tail.last?.lastLsn, last.lastLsn);
  t.is(tail.highestLsn, last.lastLsn);
  for (const from of [1, FrameView.open(frames[31] as Uint8Array).firstLsn]) {
    let next = from;
    for await (const bytes of framesFrom(reader, ours.groupId, from, {}, new AbortController().signal)) {
      const frame = FrameView.open(bytes);
      t.is(frame.groupId, ours.groupId);
      t.true(frame.firstLsn <= next);
      next = frame.lastLsn + 1;
    }
    t.is(next, last.lastLsn + 1);
  }
});

test("a topic whose end holds another group's frames alone is refused", async (t) => {
  const { reader, bounds } = topicOf([...frames.slice(0, 5), ...foreign]);
  await t.throwsAsync(readTail(reader, bounds, ours.groupId, []), { code: 'frame-foreign' });
});

/** A start before the one that sealed `frames`, with records of its own. */
const before = { ...ours, incarnation: { counter: 0, nonce: '0'.repeat(16) } };
const late = sealFrames(before, 90, 4096).map(({ bytes }) => bytes);

test('frames that come after one of a later start say nothing of what a topic holds, at its end and in its history', async (t) => {
  const { reader, bounds } = topicOf([...frames.slice(0, 20), ...late.slice(10, 30)]);
  const tail = await readTail(reader, bounds, ours.groupId, []);
  t.deepEqual([tail.last?.lastLsn, tail.highestLsn], [40, 40]);
  t.is(tail.frames.length, 24);
  const alone = topicOf([...frames.slice(0, 20), ...late.slice(10, 70)]);
  const unknown = await readTail(alone.reader, alone.bounds, ours.groupId, []);
  t.is(unknown.highestLsn, 140, 'nothing shows that they are late');
  const seen = [{ epoch: 1, incarnation: 1 }];
  const known = await readTail(alone.reader, alone.bounds, ours.groupId, seen);
  t.deepEqual([known.last, known.highestLsn], [undefined, 0], 'a replica has seen the later start');

  const mixed = topicOf(frames.flatMap((bytes, index) => [bytes, late[index + 1] as Uint8Array]));
  const read: Uint8Array[] = [];
  for await (const bytes of framesFrom(mixed.reader, ours.groupId, 1, {}, new AbortController().signal))
    read.push(bytes);
  t.deepEqual(read, frames);
});

test('what an earlier start wrote is given back though replicas have seen a later one; what a start before the writer sent is not', async (t) => {
  const next = { ...ours, incarnation: { counter: 2, nonce: '2'.repeat(16) } };
  const tail = FrameView.open(frames.at(-1) as Uint8Array);
  const more = sealFrames(next, 5, 4096, { lsn: tail.lastLsn + 1, chain: tail.chainAfter }).map(({ bytes }) => bytes);
  const { reader } = topicOf([...late.slice(0, 12), ...frames, ...more]);
  const lsns = async (starts: Parameters<typeof framesFrom>[3]): Promise<number> => {
    let covered = 0;
    for await (const bytes of framesFrom(reader, ours.groupId, 1, starts, new AbortController().signal)) {
      const frame = FrameView.open(bytes);
      t.true(frame.incarnation.counter >= 1, 'none of the start before');
      covered = frame.lastLsn;
    }
    return covered;
  };
  t.is(await lsns({ writtenBy: 1 }), FrameView.open(more.at(-1) as Uint8Array).lastLsn);
  const seen = [{ epoch: ours.epoch, incarnation: 2 }];
  await t.throwsAsync(lsns({ seen }), { code: 'trimmed' }, 'at the end of a journal only the newest start counts');
});
