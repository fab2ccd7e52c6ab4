import test, { type ExecutionContext } from 'ava';
import { encodeFeedback, feedbackKey } from '../../daemon/stream/kafka/feedback-codec.ts';
import { KafkaSink } from '../../daemon/stream/kafka/kafka-sink.ts';
import type { SourceIdentity } from '../../journal/stream.ts';
import { NO_DISK_FAULTS } from '../doubles/simulated-disk.ts';
import { SimulatedMachine } from '../doubles/simulated-machine.ts';
import { Scheduler } from '../simulation/scheduler.ts';
import { SimulatedLog } from './simulated-log.ts';
import { newGroup, Shipper, sealFrames } from './stream-ends.ts';

/*
 * Both topics were deleted, or what stood in them expired: nothing says what the replica holds. It holds something all the
 * same, and says so again within a minute. In simulated time, on a log that is no broker.
 */

const FEEDBACK_TOPIC = 't.feedback';
const GROUP = newGroup();
const POLICY = { replicationFactor: 1, minInsyncReplicas: 1, create: true, acceptWeak: false };

function start(
  t: ExecutionContext,
  counter: number,
  frames = 40,
): { scheduler: Scheduler; log: SimulatedLog; shipper: Shipper } {
  const scheduler = new Scheduler(7);
  const log = new SimulatedLog(scheduler);
  const { host } = new SimulatedMachine('source', scheduler, NO_DISK_FAULTS, 0).start();
  const names = { topic: 't', feedbackTopic: FEEDBACK_TOPIC };
  const options = { ...names, groupId: GROUP.groupId, replicas: ['r'], windowFrames: 1, policy: POLICY };
  const sink = new KafkaSink(host, log, options);
  t.teardown(() => sink.close());
  const identity: SourceIdentity = { ...GROUP, incarnation: { counter, nonce: String(counter).repeat(16) } };
  const shipper = new Shipper(sink, sealFrames(identity, frames, 1024));
  sink.open(identity, shipper);
  return { scheduler, log, shipper };
}

function says(log: SimulatedLog, durableLsn: number): void {
  const value = encodeFeedback({
    replica: 'r',
    groupId: GROUP.groupId,
    epoch: 1,
    incarnation: 1,
    durableLsn,
    chain: '0'.repeat(16),
    state: 'receiving',
    reason: '',
    missingFrom: 0,
    heartbeatMs: 0,
    resumeOffset: '',
  });
  const { records } = log.topic(FEEDBACK_TOPIC);
  records.push({ offset: BigInt(records.length), key: feedbackKey(GROUP.groupId, 'r'), value });
}

const places = ({ seeks }: Shipper): number[] => seeks.map(({ fromLsn }) => fromLsn);

test('what a replica holds is unknown when no topic tells it: the source waits until the replica says so', async (t) => {
  const { scheduler, log, shipper } = start(t, 3);
  await scheduler.runUntil(() => false, 4_000_000);
  t.deepEqual(shipper.seeks, []);
  t.is(shipper.sink.status().state, 'connecting');
  t.regex(shipper.sink.status().reason, /what replica r holds is unknown/);
  says(log, 60);
  t.true(await scheduler.runUntil(() => shipper.acceptedLsn === 80, 60_000_000));
  t.deepEqual(places(shipper), [61]);
  t.is(shipper.sink.status().state, 'streaming');
});

test('a replica that says nothing for long is sent everything; when there is nothing to send, what it says later counts', async (t) => {
  // as a journal that does not reach back so far: nothing is sent
  const { scheduler, log, shipper } = start(t, 3, 0);
  t.true(await scheduler.runUntil(() => shipper.seeks.length > 0, 30_000_000));
  t.deepEqual(places(shipper), [1]);
  says(log, 80);
  t.true(await scheduler.runUntil(() => shipper.seeks.length > 1, 60_000_000));
  t.deepEqual(places(shipper), [1, 81]);
});

test('the first start of a group waits for nobody: no replica can hold anything', async (t) => {
  const { scheduler, shipper } = start(t, 1);
  t.true(await scheduler.runUntil(() => shipper.acceptedLsn === 80, 5_000_000));
  t.deepEqual(places(shipper), [1]);
});

test("a topic that holds another group's frames is not written to, and is taken once it was made anew", async (t) => {
  const { scheduler, log, shipper } = start(t, 1);
  const [stranger] = sealFrames(newGroup(), 1, 1024);
  t.true(await scheduler.runUntil(() => log.topics.has('t'), 5_000_000));
  log.topic('t').records.push({ offset: 0n, key: '', value: stranger!.bytes });
  t.true(await scheduler.runUntil(() => shipper.sink.status().state === 'stopped', 5_000_000));
  t.is(shipper.sink.status().code, 'frame-foreign');
  await scheduler.runUntil(() => false, 120_000_000);
  t.is(shipper.sink.status().code, 'frame-foreign');
  t.is(log.topic('t').records.length, 1);
  log.topics.delete('t');
  t.true(await scheduler.runUntil(() => shipper.acceptedLsn === 80, 60_000_000));
  t.is(shipper.sink.status().state, 'streaming');
});
