import test from 'ava';
import { encodeFeedback, feedbackKey } from '../../daemon/stream/kafka/feedback-codec.ts';
import { KafkaLog } from '../../daemon/stream/kafka/kafka-log.ts';
import { KafkaSink, type KafkaSinkOptions } from '../../daemon/stream/kafka/kafka-sink.ts';
import { KafkaSource } from '../../daemon/stream/kafka/kafka-source.ts';
import { type LogAdmin } from '../../daemon/stream/kafka/log-ports.ts';
import { frameTopicConfiguration, type TopicPolicy } from '../../daemon/stream/kafka/topic-policy.ts';
import { hasCode } from '../../journal/base/errors.ts';
import { FrameView } from '../../journal/frame-view.ts';
import { realHost } from '../../journal/host/real-host.ts';
import { type OutgoingFrame, type ReplicaFeedback, type SourceIdentity } from '../../journal/stream.ts';
import { streamContract } from '../contract/stream-contract.ts';
import { KafkaBroker, kafkaMissing } from '../servers/kafka-broker.ts';
import { newGroup, Receiver, Shipper, sealFrames, until } from './stream-ends.ts';

/*
 * The Kafka stream against a real broker: every test has topics of its own, the broker is shared and mistreated, so the
 * tests run one after the other.
 */

const missing = kafkaMissing();
const serial = missing === undefined ? test.serial : test.serial.skip;
if (missing !== undefined) test(`skipped: ${missing}`, (t) => t.pass());

const host = realHost();
const POLICY: TopicPolicy = { replicationFactor: 1, minInsyncReplicas: 1, create: true, acceptWeak: false };
const closers: (() => Promise<void> | void)[] = [];
let broker: KafkaBroker;
let topics = 0;

if (missing === undefined) {
  test.before('start a broker', async () => {
    broker = await KafkaBroker.start();
  });
  test.afterEach.always('close the ends', async () => {
    broker.proxy.mend();
    for (const close of closers.splice(0)) await close();
  });
  test.after.always('stop the broker', () => broker?.stop());
}

interface Site {
  readonly log: KafkaLog;
  readonly identity: SourceIdentity;
  readonly topic: string;
  readonly feedbackTopic: string;
}

/** A group with topics of its own; `address` is the broker's or the proxy's. */
function newSite(address: string, identity: SourceIdentity = newGroup()): Site {
  const topic = `t${++topics}`;
  const log = new KafkaLog(broker.client({ brokers: [address], connectTimeoutMs: 2_000 }));
  return { log, identity, topic, feedbackTopic: `${topic}.feedback` };
}

function newSink(site: Site, options: Partial<KafkaSinkOptions> = {}): KafkaSink {
  const { topic, feedbackTopic, identity } = site;
  const sink = new KafkaSink(host, site.log, {
    groupId: identity.groupId,
    topic,
    feedbackTopic,
    replicas: ['r'],
    policy: POLICY,
    sendTimeoutMs: 2_000,
    recheckMs: 500,
    ...options,
  });
  closers.push(() => sink.close());
  return sink;
}

function ship(site: Site, frames: OutgoingFrame[], options: Partial<KafkaSinkOptions> = {}): Shipper {
  const shipper = new Shipper(newSink(site, options), frames);
  shipper.sink.open(site.identity, shipper);
  return shipper;
}

function receive(site: Site, resume: Partial<Pick<Receiver, 'durableLsn' | 'resumeOffset'>> = {}): Receiver {
  const log = new KafkaLog(broker.client({ connectTimeoutMs: 2_000 }));
  const source = new KafkaSource(host, log, { ...site, checkIntervalMs: 500 });
  const receiver = new Receiver(source, site.identity, 'r');
  Object.assign(receiver, resume);
  receiver.open();
  closers.push(() => source.close());
  return receiver;
}

function newAdmin(): LogAdmin {
  const admin = new KafkaLog(broker.client()).admin();
  closers.push(() => admin.close());
  return admin;
}

function arrived(receiver: Receiver, shipper: Shipper, ms = 20_000): Promise<void> {
  const state = (): unknown => [
    receiver.durableLsn,
    shipper.lastLsn,
    receiver.missingFrom,
    shipper.acceptedLsn,
    shipper.sink.status(),
    receiver.source.status(),
    shipper.seeks,
    receiver.losses,
  ];
  return until(() => receiver.durableLsn === shipper.lastLsn, ms, state);
}

function sameBytes(kept: readonly Uint8Array[], sent: readonly OutgoingFrame[]): boolean {
  return (
    kept.length === sent.length &&
    kept.every((bytes, index) => Buffer.compare(bytes, sent[index]?.bytes ?? bytes) === 0)
  );
}

serial('frames arrive once, in order and unchanged; a restart goes on behind what the topic holds', async (t) => {
  const site = newSite(broker.address);
  const frames = sealFrames(site.identity, 300, 8192);
  const first = ship(site, frames.slice(0, 200));
  const receiver = receive(site);
  await arrived(receiver, first);
  await until(
    () => first.feedbacks.at(-1)?.durableLsn === 400,
    5_000,
    () => first.feedbacks.at(-1),
  );
  t.deepEqual(first.seeks, [{ fromLsn: 1, reason: 'the topic holds no frame' }]);
  t.regex(first.sink.status().reason, /one broker.*flush\.messages/);
  await first.sink.close();

  const second = ship(site, frames);
  await arrived(receiver, second);
  t.is(second.seeks[0]?.fromLsn, 401);
  t.is(receiver.repeats, 0);
  t.true(sameBytes(receiver.kept, frames));
});

serial('lost requests and lost answers: every frame is there, in order, after repeats are dropped', async (t) => {
  const site = newSite(broker.proxiedAddress);
  const frames = sealFrames(site.identity, 1500, 4096);
  const shipper = ship(site, frames);
  const receiver = receive(site);
  await until(
    () => shipper.acceptedLsn > 0,
    10_000,
    () => shipper.sink.status(),
  );
  broker.proxy.requestLost = 0.02;
  broker.proxy.responseLost = 0.02;
  await arrived(receiver, shipper, 40_000);
  const { requestsLost, responsesLost } = broker.proxy.counts;
  t.log(
    `${requestsLost} requests and ${responsesLost} answers lost, ${receiver.repeats} repeats, held ${receiver.heldMost}`,
  );
  t.true(requestsLost > 0 && responsesLost > 0 && receiver.repeats > 0);
  t.true(receiver.heldMost <= 8);
  t.is(shipper.seeks.length, 1, 'a lost answer is settled by sending again, not by a seek');
  t.true(sameBytes(receiver.kept, frames));
});

serial('an answer that never comes is unknown: the frame is sent again after the timeout', async (t) => {
  const site = newSite(broker.proxiedAddress);
  const frames = sealFrames(site.identity, 60, 4096);
  const shipper = ship(site, frames.slice(0, 20), { sendTimeoutMs: 500 });
  const receiver = receive(site);
  await arrived(receiver, shipper);
  broker.proxy.swallow = 1;
  shipper.frames.push(...frames.slice(20));
  shipper.pump();
  await arrived(receiver, shipper);
  await until(
    () => shipper.acceptedLsn === shipper.lastLsn,
    10_000,
    () => shipper.sink.status(),
  );
  t.is(broker.proxy.counts.swallowed, 1);
  t.true(sameBytes(receiver.kept, frames));
});

serial('a broker killed and restarted in the middle loses nothing', async (t) => {
  const site = newSite(broker.address);
  const frames = sealFrames(site.identity, 3000, 4096);
  const shipper = ship(site, frames, { windowBytes: 256 * 1024 });
  const receiver = receive(site);
  await until(
    () => receiver.durableLsn > 200,
    10_000,
    () => receiver.durableLsn,
  );
  await broker.kill();
  t.true(receiver.durableLsn < shipper.lastLsn, 'killed in the middle');
  await until(
    () => shipper.sink.status().state === 'retrying',
    10_000,
    () => shipper.sink.status(),
  );
  t.is(shipper.sink.status().code, 'stream-unavailable');
  await broker.restart();
  await arrived(receiver, shipper, 40_000);
  t.true(sameBytes(receiver.kept, frames));
  t.deepEqual(receiver.losses, []);
});

serial('a broker frozen for ten seconds is ridden out', async (t) => {
  const site = newSite(broker.address);
  const frames = sealFrames(site.identity, 200, 4096);
  const shipper = ship(site, frames.slice(0, 50), { sendTimeoutMs: 1_000 });
  const receiver = receive(site);
  await arrived(receiver, shipper);
  broker.freeze();
  const thawed = new Promise<void>((resolve) => {
    setTimeout(() => {
      broker.thaw();
      resolve();
    }, 10_000);
  });
  shipper.frames.push(...frames.slice(50));
  shipper.pump();
  await until(
    () => shipper.sink.status().state === 'retrying',
    8_000,
    () => shipper.sink.status(),
  );
  await thawed;
  await arrived(receiver, shipper);
  t.true(sameBytes(receiver.kept, frames));
  t.deepEqual(receiver.losses, []);
});

serial('a topic truncated under the replica ends in a loss that is told, and in frames sent again', async (t) => {
  const site = newSite(broker.address);
  const frames = sealFrames(site.identity, 100, 4096);
  const shipper = ship(site, frames);
  const early = receive(site);
  await arrived(early, shipper);
  await early.source.close();
  await newAdmin().truncateBefore(site.topic, 80n);

  const behind = { durableLsn: 20, resumeOffset: early.resumeOffset.replace(/^\d+/, '10') };
  const receiver = receive(site, behind);
  await until(
    () => receiver.losses.length === 1,
    10_000,
    () => receiver.source.status(),
  );
  t.regex(receiver.losses[0]?.reason ?? '', /was truncated: it begins at 80, we stand at 10/);
  t.is(receiver.statuses.find((status) => status.code === 'needs-resync')?.state, 'retrying');
  t.is(receiver.kept.length, 0, 'nothing was taken across the loss');
  await arrived(receiver, shipper);
  t.is(shipper.seeks.at(-1)?.fromLsn, 21);
  t.true(sameBytes(receiver.kept, frames.slice(10)));
});

serial('a topic deleted and made again is never read as if it continued', async (t) => {
  const site = newSite(broker.address);
  const frames = sealFrames(site.identity, 100, 4096);
  const shipper = ship(site, frames.slice(0, 60), { checkIntervalMs: 300 });
  const receiver = receive(site);
  await arrived(receiver, shipper);
  await until(
    () => shipper.feedbacks.at(-1)?.durableLsn === 120,
    5_000,
    () => shipper.feedbacks.at(-1),
  );
  await deleteTopic(site.topic);
  await until(
    () => receiver.losses.length > 0,
    20_000,
    () => [receiver.source.status(), shipper.sink.status()],
  );
  t.regex(receiver.losses[0]?.reason ?? '', /deleted and made again/);
  shipper.frames.push(...frames.slice(60));
  shipper.pump();
  await arrived(receiver, shipper);
  t.is(shipper.seeks.at(-1)?.fromLsn, 121, 'from the durable position of the replica');
  t.true(sameBytes(receiver.kept, frames));
});

serial(
  'a replica that starts after its topic was replaced is told so, even where the offset exists again',
  async (t) => {
    const site = newSite(broker.address);
    const frames = sealFrames(site.identity, 40, 4096);
    const shipper = ship(site, frames);
    await until(
      () => shipper.acceptedLsn === shipper.lastLsn,
      10_000,
      () => shipper.sink.status(),
    );
    const foreign = '7'.repeat(32);
    const receiver = receive(site, { durableLsn: 20, resumeOffset: `10@${foreign}` });
    await until(
      () => receiver.losses.length === 1,
      10_000,
      () => receiver.source.status(),
    );
    t.regex(receiver.losses[0]?.reason ?? '', /deleted and made again/);
    const ahead = receive(site, {
      durableLsn: 20,
      resumeOffset: receiver.losses[0]?.oldest.replace(/^\d+/, '9999') ?? '',
    });
    await until(
      () => ahead.losses.length === 1,
      10_000,
      () => ahead.source.status(),
    );
    t.regex(ahead.losses[0]?.reason ?? '', /lost its end: it ends at 40, we stand at 9999/);
  },
);

serial(
  'topics that weaken a promise are refused, each setting by its name, and taken once they are mended',
  async (t) => {
    const admin = newAdmin();
    const good = frameTopicConfiguration(POLICY);
    const wrong: [string, string, RegExp][] = [
      ['cleanup.policy', 'compact', /cleanup\.policy is compact, must be delete/],
      ['retention.ms', '604800000', /retention\.ms is 604800000, must be -1/],
      ['retention.bytes', '1000000000', /retention\.bytes is 1000000000, must be -1/],
      ['unclean.leader.election.enable', 'true', /unclean\.leader\.election\.enable is true, must be false/],
      ['max.message.bytes', '1048576', /max\.message\.bytes is 1048576, must be at least/],
      ['compression.type', 'gzip', /compression\.type is gzip, must be producer or uncompressed/],
      ['message.timestamp.type', 'CreateTime', /message\.timestamp\.type is CreateTime, must be LogAppendTime/],
      ['min.insync.replicas', '2', /min\.insync\.replicas is 2 with 1 copies: no write could succeed/],
    ];
    const site = newSite(broker.address);
    const configuration = new Map([...good, ...wrong.map(([name, value]): [string, string] => [name, value])]);
    await admin.create({ topic: site.topic, replicationFactor: 1, configuration });
    const frames = sealFrames(site.identity, 4, 4096);
    const shipper = ship(site, frames);
    await until(
      () => shipper.sink.status().state === 'stopped',
      10_000,
      () => shipper.sink.status(),
    );
    const { code, reason } = shipper.sink.status();
    t.is(code, 'stream-misconfigured');
    for (const [, , pattern] of wrong) t.regex(reason, pattern);
    t.deepEqual(shipper.seeks, []);

    await deleteTopic(site.topic);
    await until(
      () => shipper.acceptedLsn === shipper.lastLsn,
      10_000,
      () => shipper.sink.status(),
    );
    t.is(shipper.sink.status().state, 'streaming');

    const strict = newSite(broker.address);
    await admin.create({ topic: strict.topic, replicationFactor: 1, configuration: good });
    await admin.create({ topic: strict.feedbackTopic, replicationFactor: 1, configuration: new Map() });
    const careful = ship(strict, frames, {
      policy: { ...POLICY, replicationFactor: 3, minInsyncReplicas: 2, create: false },
    });
    await until(
      () => careful.sink.status().state === 'stopped',
      10_000,
      () => careful.sink.status(),
    );
    t.regex(careful.sink.status().reason, /replication factor is 1, must be at least 3/);
    t.regex(careful.sink.status().reason, /min\.insync\.replicas is 1, must be at least 2/);
    t.regex(careful.sink.status().reason, /\.feedback: cleanup\.policy is delete, must be compact/);
    const absent = ship(newSite(broker.address), [], { policy: { ...POLICY, create: false } });
    await until(
      () => absent.sink.status().state === 'stopped',
      10_000,
      () => absent.sink.status(),
    );
    t.regex(absent.sink.status().reason, /does not exist and may not be created/);
  },
);

serial('repeated frames, rubbish and the largest frame pass; a larger one is refused before it is sent', async (t) => {
  const site = newSite(broker.address);
  const frames = sealFrames(site.identity, 6, 768 * 1024);
  const shipper = ship(site, frames);
  const receiver = receive(site);
  await arrived(receiver, shipper);
  const writer = site.log.producer(site.topic);
  closers.push(() => writer.close());
  await writer.send(new TextEncoder().encode('no frame at all'), 5_000);
  await writer.send(frames[2]?.bytes ?? new Uint8Array(0), 5_000);
  await writer.send(frames[2]?.bytes ?? new Uint8Array(0), 5_000, 'with a key');
  await until(
    () => receiver.repeats === 2 && receiver.rubbish === 1,
    10_000,
    () => [receiver.repeats, receiver.rubbish],
  );
  const after = ship(site, frames);
  await until(
    () => after.seeks.length === 1,
    10_000,
    () => after.sink.status(),
  );
  t.is(after.seeks[0]?.fromLsn, 13, 'rubbish and repeats at the end of the topic do not hide what it holds');

  const big = new Uint8Array(4 * 1024 * 1024);
  big.set(frames[0]?.bytes ?? []);
  await t.notThrowsAsync(writer.send(big, 10_000), 'the topic takes a frame of the largest size');
  const huge = { bytes: new Uint8Array(9 * 1024 * 1024), firstLsn: 13, lastLsn: 13 };
  const refusal = t.throws(() => after.sink.send(huge));
  t.true(hasCode(refusal, 'invalid-argument'));
  t.regex(refusal?.message ?? '', /a frame of 9437184 bytes is larger than topic/);
});

serial('what the far side holds is asked freshly, and read back from any record on', async (t) => {
  const site = newSite(broker.address);
  const none = newSink(site);
  t.deepEqual(await none.settle(10_000), { highestLsn: 0 }, 'no topic, nothing held');

  const frames = sealFrames(site.identity, 120, 4096);
  const shipper = ship(site, frames);
  await until(
    () => shipper.acceptedLsn === shipper.lastLsn,
    10_000,
    () => shipper.sink.status(),
  );
  t.deepEqual(await none.settle(10_000), { highestLsn: 240 });
  const receiver = receive(site);
  await arrived(receiver, shipper);
  receiver.report({ durableLsn: 500 });
  await until(
    () => shipper.feedbacks.at(-1)?.durableLsn === 500,
    5_000,
    () => shipper.feedbacks.at(-1),
  );
  t.deepEqual(await none.settle(10_000), { highestLsn: 500 }, 'a replica may be ahead of the topic');

  const read: number[] = [];
  for await (const bytes of none.fetch(101, new AbortController().signal)) read.push(FrameView.open(bytes).firstLsn);
  t.deepEqual(
    read,
    frames.slice(50).map((frame) => frame.firstLsn),
  );
  await newAdmin().truncateBefore(site.topic, 100n);
  const gone = await t.throwsAsync(none.fetch(101, new AbortController().signal)[Symbol.asyncIterator]().next());
  t.true(hasCode(gone, 'trimmed'));
});

serial('records are deleted behind the slowest registered replica, never beyond what was allowed', async (t) => {
  const site = newSite(broker.address);
  const frames = sealFrames(site.identity, 100, 4096);
  const shipper = ship(site, frames, { replicas: ['fast', 'slow'] });
  await until(
    () => shipper.acceptedLsn === shipper.lastLsn,
    10_000,
    () => shipper.sink.status(),
  );
  const reader = site.log.reader(site.topic);
  const states = site.log.producer(site.feedbackTopic);
  closers.push(
    () => reader.close(),
    () => states.close(),
  );
  const topicId = (await reader.bounds())?.topicId ?? '';
  const report = async (replica: string, durableLsn: number, offset: number): Promise<void> => {
    const state = feedback(site, { replica, durableLsn, resumeOffset: `${offset}@${topicId}` });
    await states.send(encodeFeedback(state), 5_000, feedbackKey(site.identity.groupId, replica));
  };
  await report('fast', 60, 29);
  await report('fast', 200, 99);
  await until(
    () => shipper.feedbacks.at(-1)?.durableLsn === 200,
    5_000,
    () => shipper.feedbacks,
  );
  shipper.sink.trim(200);
  await report('slow', 80, 39);
  await until(
    () => shipper.feedbacks.at(-1)?.durableLsn === 80,
    5_000,
    () => shipper.feedbacks,
  );
  t.is((await reader.bounds())?.start, 0n, 'one replica had not spoken');
  shipper.sink.trim(80);
  let start = 0n;
  while (start === 0n) start = (await reader.bounds())?.start ?? 0n;
  t.true(start === 29n || start === 39n, `the newest states of both at or below 80: ${start}`);
});

serial('a source of an older incarnation, another group, or with other records does not write', async (t) => {
  const site = newSite(broker.address);
  const frames = sealFrames(site.identity, 10, 4096);
  const shipper = ship(site, frames);
  await until(
    () => shipper.acceptedLsn === shipper.lastLsn,
    10_000,
    () => shipper.sink.status(),
  );
  await shipper.sink.close();

  const twin = { ...site.identity, incarnation: { counter: 1, nonce: 'f'.repeat(16) } };
  const stale = ship({ ...site, identity: twin }, []);
  await until(
    () => stale.sink.status().state === 'stopped',
    10_000,
    () => stale.sink.status(),
  );
  t.is(stale.sink.status().code, 'stale-incarnation');

  const foreign = ship({ ...site, identity: newGroup() }, []);
  await until(
    () => foreign.sink.status().state === 'stopped',
    10_000,
    () => foreign.sink.status(),
  );
  t.is(foreign.sink.status().code, 'frame-foreign');

  const later = { ...site.identity, incarnation: { counter: 2, nonce: '0'.repeat(16) } };
  const rewritten = sealFrames(later, 12, 4096);
  const diverged = ship({ ...site, identity: later }, rewritten);
  await until(
    () => diverged.sink.status().state === 'stopped',
    10_000,
    () => diverged.sink.status(),
  );
  t.is(diverged.sink.status().code, 'divergence');
});

serial('feedback is state: the newest of each replica counts, also from a compacted topic', async (t) => {
  const site = newSite(broker.address);
  const admin = newAdmin();
  const configuration = new Map([
    ['cleanup.policy', 'compact'],
    ['segment.bytes', '1048576'],
    ['min.cleanable.dirty.ratio', '0.01'],
    ['max.compaction.lag.ms', '1'],
  ]);
  await admin.create({ topic: site.feedbackTopic, replicationFactor: 1, configuration });
  const writer = receive(site);
  const reason = 'x'.repeat(4096);
  const target = site.log.producer(site.feedbackTopic);
  closers.push(() => target.close());
  const { encodeFeedback, feedbackKey } = await import('../../daemon/stream/kafka/feedback-codec.ts');
  const sends = Array.from({ length: 800 }, (_, index) => {
    const replica = index % 2 === 0 ? 'r' : 'other';
    const value = encodeFeedback(feedback(site, { reason, replica, durableLsn: index + 1 }));
    return target.send(value, 20_000, feedbackKey(site.identity.groupId, replica));
  });
  await Promise.all(sends);
  await target.send(new TextEncoder().encode('rubbish'), 5_000, feedbackKey(site.identity.groupId, 'r'));
  const reader = site.log.reader(site.feedbackTopic);
  closers.push(() => reader.close());
  let first = 0n;
  const deadline = performance.now() + 20_000;
  while (first === 0n && performance.now() < deadline)
    first = (await reader.read(0n, 1024, 0)).records[0]?.offset ?? 0n;
  t.true(first > 0n, 'the broker compacted');

  const shipper = ship(site, []);
  await until(
    () => shipper.feedbacks.length === 2,
    10_000,
    () => shipper.feedbacks.length,
  );
  const newest = Object.fromEntries(shipper.feedbacks.map((feedback) => [feedback.replica, feedback.durableLsn]));
  t.deepEqual(newest, { other: 800, r: 799 });
  await writer.source.close();
});

if (missing === undefined) {
  streamContract('Kafka', () => {
    const { groupId } = newGroup();
    const topic = `t${++topics}`;
    const names = { groupId, topic, feedbackTopic: `${topic}.feedback` };
    const client = broker.client({ brokers: [broker.proxiedAddress] });
    const windowBytes = 4 * 1024 * 1024;
    return Promise.resolve({
      groupId,
      replica: 'r',
      windowBytes,
      sink: () => new KafkaSink(host, new KafkaLog(client), { ...names, replicas: ['r'], policy: POLICY, windowBytes }),
      source: () => new KafkaSource(host, new KafkaLog(client), names),
      interrupt: () => {
        broker.proxy.cut();
        broker.proxy.mend();
      },
      close: () => Promise.resolve(),
    });
  });
}

function feedback(site: Site, fields: Partial<ReplicaFeedback>): ReplicaFeedback {
  const { groupId } = site.identity;
  const chain = '0'.repeat(16);
  const blank = { replica: 'r', groupId, epoch: 1, incarnation: 1, durableLsn: 0, chain, state: 'receiving' as const };
  return { ...blank, reason: '', missingFrom: 0, heartbeatMs: 0, resumeOffset: '', ...fields };
}

/** Deleting is nothing the product ever does. */
async function deleteTopic(topic: string): Promise<void> {
  const { default: kafkajs } = await import('kafkajs');
  const admin = new kafkajs.Kafka({ brokers: [broker.address], logLevel: kafkajs.logLevel.NOTHING }).admin();
  await admin.connect();
  await admin.deleteTopics({ topics: [topic] });
  await admin.disconnect();
}
