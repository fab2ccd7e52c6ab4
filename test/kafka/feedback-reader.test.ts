import test from 'ava';
import { encodeFeedback, feedbackKey } from '../../daemon/stream/kafka/feedback-codec.ts';
import { FeedbackReader } from '../../daemon/stream/kafka/feedback-reader.ts';
import type { LogReader, LogRecord } from '../../daemon/stream/kafka/log-ports.ts';
import { TidemarkError } from '../../journal/base/errors.ts';
import { realHost } from '../../journal/host/real-host.ts';
import type { StateName } from '../../journal/record-bodies.ts';
import type { ReplicaFeedback } from '../../journal/stream.ts';

const GROUP_ID = 'ab'.repeat(16);

function record(offset: number, replica: string, durableLsn: number, sent?: StateName): LogRecord {
  const value = encodeFeedback({
    replica,
    groupId: GROUP_ID,
    epoch: 1,
    incarnation: 1,
    durableLsn,
    chain: '0'.repeat(16),
    state: 'receiving',
    reason: '',
    missingFrom: 0,
    heartbeatMs: 0,
    resumeOffset: '',
    ...(sent && { sent }),
  });
  return { offset: BigInt(offset), key: feedbackKey(GROUP_ID, replica), value };
}

test('an old state in the topic is never told: the topic is read to its end first', async (t) => {
  // dr1 had 100, lost data, and has 40; a broker gives one record per read.
  const log = [record(0, 'dr1', 100), record(1, 'dr2', 7), record(2, 'dr1', 40)];
  let closed = (): void => undefined;
  const stuck = new Promise<void>((resolve) => {
    closed = resolve;
  });
  const topic: LogReader = {
    bounds: () => Promise.resolve({ start: 0n, end: 3n, topicId: 'a'.repeat(32) }),
    read: async (from) => {
      if (from === 3n) await stuck;
      return { records: log.slice(Number(from), Number(from) + 1), end: 3n };
    },
    reset: () => undefined,
    close: () => closed(),
  };
  const reader = new FeedbackReader(realHost(), topic, GROUP_ID);
  const told: string[] = [];
  reader.subscribe(({ replica, durableLsn }: ReplicaFeedback) => told.push(`${replica} ${durableLsn}`));
  await reader.readToEnd();
  t.deepEqual(told.toSorted(), ['dr1 40', 'dr2 7']);
  reader.close();
});

test('what was read before a broker failed on the way to the end of the topic is not forgotten', async (t) => {
  const log = [record(0, 'dr1', 100), record(1, 'dr2', 7), record(2, 'dr2', 8)];
  let closed = (): void => undefined;
  const stuck = new Promise<void>((resolve) => {
    closed = resolve;
  });
  let failures = 1;
  const topic: LogReader = {
    bounds: () => Promise.resolve({ start: 0n, end: 3n, topicId: 'a'.repeat(32) }),
    read: async (from) => {
      if (from === 3n) await stuck;
      if (from === 1n && failures-- > 0) throw new TidemarkError('stream-unavailable', 'for the test');
      return { records: log.slice(Number(from), Number(from) + 1), end: 3n };
    },
    reset: () => undefined,
    close: () => closed(),
  };
  const alive = setInterval(() => undefined, 1_000);
  t.teardown(() => clearInterval(alive));
  const reader = new FeedbackReader(realHost(), topic, GROUP_ID);
  const told: string[] = [];
  reader.subscribe(({ replica, durableLsn }: ReplicaFeedback) => told.push(`${replica} ${durableLsn}`));
  await reader.readToEnd();
  t.deepEqual(told.toSorted(), ['dr1 100', 'dr2 8']);
  reader.close();
});

test('a state that got into the topic behind one its replica sent later is not told: nothing was lost', async (t) => {
  const [one, other] = ['ab'.repeat(8), 'cd'.repeat(8)];
  const log = [
    record(0, 'dr1', 100, { run: one, sentMs: 2_000 }),
    record(1, 'dr1', 90, { run: one, sentMs: 1_000 }),
    // of another run, whose clock began anew
    record(2, 'dr2', 100, { run: one, sentMs: 2_000 }),
    record(3, 'dr2', 40, { run: other, sentMs: 10 }),
    record(4, 'dr1', 95, { run: one, sentMs: 1_500 }),
  ];
  const late = Promise.withResolvers<void>();
  const taken = Promise.withResolvers<void>();
  const closed = Promise.withResolvers<void>();
  const topic: LogReader = {
    bounds: () => Promise.resolve({ start: 0n, end: 4n, topicId: 'a'.repeat(32) }),
    read: async (from) => {
      if (from === 4n) await late.promise;
      if (from === 5n) taken.resolve();
      if (from === 5n) await closed.promise;
      return { records: log.slice(Number(from), Number(from) + 1), end: from < 4n ? 4n : 5n };
    },
    reset: () => undefined,
    close: () => closed.resolve(),
  };
  const reader = new FeedbackReader(realHost(), topic, GROUP_ID);
  const told: string[] = [];
  reader.subscribe(({ replica, durableLsn }: ReplicaFeedback) => told.push(`${replica} ${durableLsn}`));
  await reader.readToEnd();
  late.resolve();
  await taken.promise;
  t.deepEqual(told.toSorted(), ['dr1 100', 'dr2 40']);
  reader.close();
});
