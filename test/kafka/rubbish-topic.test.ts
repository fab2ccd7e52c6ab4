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
  const tail = await readTail(reader, bounds, ours.groupId);
  const last = FrameView.open(frames.at(-1) as Uint8Array);
  t.is(tail.last?.lastLsn, last.lastLsn);
  t.is(tail.highestLsn, last.lastLsn);
  for (const from of [1, FrameView.open(frames[31] as Uint8Array).firstLsn]) {
    let next = from;
    for await (const bytes of framesFrom(reader, ours.groupId, from, new AbortController().signal)) {
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
  await t.throwsAsync(readTail(reader, bounds, ours.groupId), { code: 'frame-foreign' });
});
