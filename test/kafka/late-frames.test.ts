import test, { type ExecutionContext } from 'ava';
import { encodeFeedback, feedbackKey } from '../../daemon/stream/kafka/feedback-codec.ts';
import { KafkaSink } from '../../daemon/stream/kafka/kafka-sink.ts';
import { FrameView } from '../../journal/frame-view.ts';
import type { OutgoingFrame, SourceIdentity } from '../../journal/stream.ts';
import { NO_DISK_FAULTS } from '../doubles/simulated-disk.ts';
import { SimulatedMachine } from '../doubles/simulated-machine.ts';
import { Scheduler } from '../simulation/scheduler.ts';
import { SimulatedLog } from './simulated-log.ts';
import { newGroup, Shipper, sealFrames } from './stream-ends.ts';

/*
 * A source that was replaced still runs, or its frames were still on their way: they land behind those of the source that
 * took its place. No replica takes them, and the true source goes on. In simulated time, on a log that is no broker.
 */

const NAMES = { topic: 't', feedbackTopic: 't.feedback' };
/** One frame at a time: the simulated log swaps what is sent side by side. */
const CALM = {
  windowFrames: 1,
  policy: { replicationFactor: 1, minInsyncReplicas: 1, create: true, acceptWeak: false },
};

/** Frame n holds the records 2n-1 and 2n. */
const identity = (counter: number): SourceIdentity => ({
  ...GROUP,
  incarnation: { counter, nonce: String(counter).repeat(16) },
});
const GROUP = newGroup();
/** The journal of the true source: the second start wrote the first 40 frames, the third goes on. */
const FRAMES = sealFrames(identity(2), 40, 1024);
const ZOMBIE = sealFrames(identity(1), 90, 1024);

class Site {
  readonly scheduler = new Scheduler(7);
  readonly log = new SimulatedLog(this.scheduler);

  /** The true source, third start, with frames behind those of the second. */
  async start(t: ExecutionContext, late: readonly OutgoingFrame[], states: object[] = []): Promise<Shipper> {
    await this.#write(FRAMES, late, states);
    const { host } = new SimulatedMachine('source', this.scheduler, NO_DISK_FAULTS, 0).start();
    const options = { ...NAMES, groupId: GROUP.groupId, replicas: ['r'], ...CALM };
    const sink = new KafkaSink(host, this.log, options);
    const tail = FrameView.open(FRAMES.at(-1)!.bytes);
    const more = sealFrames(identity(3), 5, 1024, { lsn: tail.lastLsn + 1, chain: tail.chainAfter });
    const shipper = new Shipper(sink, [...FRAMES, ...more]);
    t.teardown(() => sink.close());
    sink.open(identity(3), shipper);
    return shipper;
  }

  /** Everything the true source has is in the topic, behind what came late. */
  async goesOn(t: ExecutionContext, shipper: Shipper): Promise<void> {
    const whole = await this.scheduler.runUntil(() => shipper.acceptedLsn === shipper.lastLsn, 600_000_000);
    t.true(whole, JSON.stringify([shipper.sink.status(), shipper.seeks]));
    t.is(shipper.sink.status().state, 'streaming');
    t.deepEqual(
      shipper.statuses.filter(({ state }) => state === 'stopped'),
      [],
    );
  }

  async #write(frames: readonly OutgoingFrame[], late: readonly OutgoingFrame[], states: object[]): Promise<void> {
    const { host } = new SimulatedMachine('before', this.scheduler, NO_DISK_FAULTS, 0).start();
    const first = new KafkaSink(host, this.log, {
      ...NAMES,
      groupId: GROUP.groupId,
      replicas: [],
      ...CALM,
    });
    const shipper = new Shipper(first, [...frames]);
    first.open(identity(2), shipper);
    await this.scheduler.runUntil(() => shipper.acceptedLsn === shipper.lastLsn, 60_000_000);
    void first.close();
    const topic = this.log.topic(NAMES.topic);
    const append = (records: typeof topic.records, key: string, value: Uint8Array): void => {
      records.push({ offset: BigInt(records.length), key, value });
    };
    for (const { bytes } of late) append(topic.records, '', bytes);
    const feedbacks = this.log.topic(NAMES.feedbackTopic).records;
    for (const state of states) {
      const value = encodeFeedback({ ...BLANK, resumeOffset: `30@${topic.topicId}`, ...state });
      append(feedbacks, feedbackKey(GROUP.groupId, BLANK.replica), value);
    }
  }
}

const BLANK = {
  replica: 'r',
  groupId: GROUP.groupId,
  epoch: 1,
  incarnation: 2,
  durableLsn: 60,
  chain: '0'.repeat(16),
  state: 'receiving' as const,
  reason: '',
  missingFrom: 0,
  heartbeatMs: 0,
  resumeOffset: '',
};

test('late frames of an earlier start, equal in place and beyond the end, do not stop the true source', async (t) => {
  const site = new Site();
  const shipper = await site.start(t, ZOMBIE.slice(30, 50));
  await site.goesOn(t, shipper);
  t.deepEqual(
    shipper.seeks.map(({ fromLsn }) => fromLsn),
    [81],
  );
});

test('more of them than a source looks at: what replicas have seen tells that they are late', async (t) => {
  const site = new Site();
  const shipper = await site.start(t, ZOMBIE, [{}]);
  const asked = shipper.sink.settle(60_000);
  await site.goesOn(t, shipper);
  t.is((await asked).highestLsn, 60, 'they are not what the far side holds');
  t.deepEqual(
    shipper.seeks.map(({ fromLsn }) => fromLsn),
    [61],
  );
});

test('more of them, and no replica was heard: the topic is not believed, everything is sent again', async (t) => {
  const site = new Site();
  const shipper = await site.start(t, ZOMBIE.slice(5, 40));
  await site.goesOn(t, shipper);
  t.deepEqual(
    shipper.seeks.map(({ fromLsn }) => fromLsn),
    [81, 1],
  );
  t.regex(shipper.seeks[1]?.reason ?? '', /source start 1:1 wrote other records up to 80/);
});

test('other records of this very start are divergence', async (t) => {
  const site = new Site();
  const shipper = await site.start(t, []);
  await site.goesOn(t, shipper);
  await shipper.sink.close();
  const { host } = new SimulatedMachine('twin', site.scheduler, NO_DISK_FAULTS, 0).start();
  const sink = new KafkaSink(host, site.log, { ...NAMES, groupId: GROUP.groupId, replicas: ['r'], ...CALM });
  t.teardown(() => sink.close());
  sink.open(identity(3), new Shipper(sink, sealFrames(identity(3), 60, 1024)));
  t.true(await site.scheduler.runUntil(() => sink.status().state === 'stopped', 60_000_000));
  t.is(sink.status().code, 'divergence');
});
