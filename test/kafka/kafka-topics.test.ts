import net from 'node:net';
import { setTimeout } from 'node:timers/promises';
import { type KafkaClientOptions } from '../../daemon/stream/kafka/client-options.ts';
import { encodeFeedback, feedbackKey } from '../../daemon/stream/kafka/feedback-codec.ts';
import { KafkaLog } from '../../daemon/stream/kafka/kafka-log.ts';
import { KafkaSink } from '../../daemon/stream/kafka/kafka-sink.ts';
import { KafkaSource } from '../../daemon/stream/kafka/kafka-source.ts';
import { frameTopicConfiguration } from '../../daemon/stream/kafka/topic-policy.ts';
import { ERROR_CODES, hasCode, type TidemarkError } from '../../journal/base/errors.ts';
import { FrameView } from '../../journal/frame-view.ts';
import { arrived, connectAdmin, deleteTopic, feedback, KafkaTests, POLICY } from './kafka-tests.ts';
import { newGroup, Receiver, Shipper, sealFrames, until } from './stream-ends.ts';

/*
 * The Kafka stream against a real broker with TLS, SASL and rights: who gets in, which topics are taken, what is kept in
 * them, and what is found there by a source that starts.
 */

const kafka = new KafkaTests({ security: 'sasl-ssl' });

async function failure(overrides: Partial<KafkaClientOptions>): Promise<TidemarkError> {
  const admin = new KafkaLog(kafka.broker.client({ connectTimeoutMs: 3_000, ...overrides })).admin();
  try {
    await admin.describe('any');
  } catch (error) {
    return error as TidemarkError;
  } finally {
    admin.close();
  }
  throw new Error('the broker let it in');
}

async function streams(overrides: Partial<KafkaClientOptions>, topic: string): Promise<boolean> {
  const identity = newGroup();
  const frames = sealFrames(identity, 20, 4096);
  const log = new KafkaLog(kafka.broker.client(overrides));
  const policy = { replicationFactor: 1, minInsyncReplicas: 1, create: true, acceptWeak: false };
  const names = { topic, feedbackTopic: `${topic}.feedback` };
  const sink = new KafkaSink(kafka.host, log, { groupId: identity.groupId, ...names, replicas: ['r'], policy });
  const shipper = new Shipper(sink, frames);
  const source = new KafkaSource(kafka.host, log, names);
  const receiver = new Receiver(source, identity, 'r');
  sink.open(identity, shipper);
  receiver.open();
  const state = (): unknown => [sink.status(), source.status()];
  try {
    await until(() => receiver.durableLsn === shipper.lastLsn, 30_000, state);
    await until(() => shipper.feedbacks.at(-1)?.durableLsn === shipper.lastLsn, 30_000, state);
  } finally {
    await Promise.all([sink.close(), source.close()]);
  }
  return receiver.durableLsn === shipper.lastLsn;
}

/** Whether the broker says what the topic takes; of a new one it may not at once. */
async function tellsHowFull(topic: string): Promise<boolean> {
  const admin = kafka.newAdmin();
  for (const end = performance.now() + 30_000; performance.now() < end; ) {
    if ((await admin.storedBytes(topic)) !== undefined) return true;
    await setTimeout(250);
  }
  return false;
}

kafka.run('frames and feedback go over TLS with SCRAM-SHA-512, SCRAM-SHA-256 and PLAIN', async (t) => {
  t.true(await streams({}, 'scram512'));
  const admin = { username: 'admin', password: 'admin-secret' };
  t.true(await streams({ sasl: { mechanism: 'scram-sha-256', ...admin } }, 'scram256'));
  t.true(await streams({ sasl: { mechanism: 'plain', ...admin } }, 'plain'));
});

kafka.run('a wrong password, an unknown authority and a wrong name are clear refusals', async (t) => {
  const password = await failure({ sasl: { mechanism: 'scram-sha-512', username: 'admin', password: 'wrong' } });
  t.true(hasCode(password, 'stream-refused'));
  t.regex(password.message, /authentication.*invalid credentials/i);
  const authority = await failure({ tls: {} });
  t.true(hasCode(authority, 'stream-refused'));
  t.regex(authority.message, /self-signed certificate/);
  const name = await failure({ tls: { ca: kafka.broker.certificate, servername: 'kafka.example.org' } });
  t.true(hasCode(name, 'stream-refused'));
  t.regex(name.message, /kafka\.example\.org/);
});

kafka.run('a user without rights is told which topic refuses it', async (t) => {
  const identity = newGroup();
  const shipper = { mechanism: 'scram-sha-512', username: 'shipper', password: 'ship-secret' } as const;
  const sink = new KafkaSink(kafka.host, new KafkaLog(kafka.broker.client({ sasl: shipper })), {
    groupId: identity.groupId,
    topic: 'forbidden',
    feedbackTopic: 'forbidden.feedback',
    replicas: [],
    policy: { replicationFactor: 1, minInsyncReplicas: 1, create: true, acceptWeak: false },
  });
  t.teardown(() => sink.close());
  sink.open(identity, new Shipper(sink, []));
  await until(
    () => sink.status().state === 'stopped',
    30_000,
    () => sink.status(),
  );
  t.is(sink.status().code, 'stream-refused');
  t.is(ERROR_CODES['stream-refused'], 'ask-operator');
  t.regex(sink.status().reason, /no right to describe topic forbidden/);
  const names = { topic: 'forbidden', feedbackTopic: 'forbidden.feedback' };
  const source = new KafkaSource(kafka.host, new KafkaLog(kafka.broker.client({ sasl: shipper })), names);
  t.teardown(() => source.close());
  new Receiver(source, identity, 'r').open();
  await until(
    () => source.status().state === 'stopped',
    30_000,
    () => source.status(),
  );
  t.is(source.status().code, 'stream-refused');
});

kafka.run('dead and silent brokers at the head of the list are passed over', async (t) => {
  const silent = net.createServer();
  const dead = net.createServer();
  for (const server of [silent, dead]) {
    await new Promise<void>((resolve) => {
      server.listen(0, '127.0.0.1', resolve);
    });
  }
  const [silentPort, deadPort] = [silent, dead].map((server) => (server.address() as net.AddressInfo).port);
  dead.close();
  t.teardown(() => silent.close());
  const brokers = [`127.0.0.1:${silentPort}`, `127.0.0.1:${deadPort}`, kafka.broker.address];
  t.true(await streams({ brokers, connectTimeoutMs: 1_500 }, 'rotated'));
});

kafka.run(
  'topics that weaken a promise are refused, each setting by its name, and taken once they are mended',
  async (t) => {
    const admin = kafka.newAdmin();
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
    const site = kafka.newSite();
    const configuration = new Map([...good, ...wrong.map(([name, value]): [string, string] => [name, value])]);
    await admin.create({ topic: site.topic, replicationFactor: 1, configuration });
    const frames = sealFrames(site.identity, 4, 4096);
    const shipper = kafka.ship(site, frames);
    await until(
      () => shipper.sink.status().state === 'stopped',
      30_000,
      () => shipper.sink.status(),
    );
    const { code, reason } = shipper.sink.status();
    t.is(code, 'stream-misconfigured');
    for (const [, , pattern] of wrong) t.regex(reason, pattern);
    t.deepEqual(shipper.seeks, []);

    await deleteTopic(kafka.broker, site.topic);
    await until(
      () => shipper.acceptedLsn === shipper.lastLsn,
      30_000,
      () => shipper.sink.status(),
    );
    t.is(shipper.sink.status().state, 'streaming');

    const strict = kafka.newSite();
    await admin.create({ topic: strict.topic, replicationFactor: 1, configuration: good });
    await admin.create({ topic: strict.feedbackTopic, replicationFactor: 1, configuration: new Map() });
    const careful = kafka.ship(strict, frames, {
      policy: { ...POLICY, replicationFactor: 3, minInsyncReplicas: 2, create: false },
    });
    await until(
      // A broker may not know a topic yet that was made a moment ago; that is looked at again, too.
      () => careful.sink.status().state === 'stopped' && !/does not exist/.test(careful.sink.status().reason ?? ''),
      30_000,
      () => careful.sink.status(),
    );
    t.regex(careful.sink.status().reason, /replication factor is 1, must be at least 3/);
    t.regex(careful.sink.status().reason, /min\.insync\.replicas is 1, must be at least 2/);
    t.regex(careful.sink.status().reason, /\.feedback: cleanup\.policy is delete, must be compact/);
    const absent = kafka.ship(kafka.newSite(), [], { policy: { ...POLICY, create: false } });
    await until(
      () => absent.sink.status().state === 'stopped',
      30_000,
      () => absent.sink.status(),
    );
    t.regex(absent.sink.status().reason, /does not exist and may not be created/);
  },
);

kafka.run(
  'repeated frames, rubbish and the largest frame pass; a larger one is refused before it is sent',
  async (t) => {
    const site = kafka.newSite();
    const frames = sealFrames(site.identity, 6, 768 * 1024);
    const shipper = kafka.ship(site, frames);
    const receiver = kafka.receive(site);
    await arrived(receiver, shipper);
    const writer = site.log.producer(site.topic);
    kafka.atEnd(() => writer.close());
    await writer.send(new TextEncoder().encode('no frame at all'), 20_000);
    await writer.send(frames[2]?.bytes ?? new Uint8Array(0), 20_000);
    await writer.send(frames[2]?.bytes ?? new Uint8Array(0), 20_000, 'with a key');
    await until(
      () => receiver.repeats === 2 && receiver.rubbish === 1,
      30_000,
      () => [receiver.repeats, receiver.rubbish],
    );
    const after = kafka.ship(site, frames);
    await until(
      () => after.seeks.length === 1,
      30_000,
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
  },
);

kafka.run('what the far side holds is asked freshly, and read back from any record on', async (t) => {
  const site = kafka.newSite();
  const none = kafka.newSink(site);
  t.deepEqual(await none.settle(10_000), { highestLsn: 0 }, 'no topic, nothing held');

  const frames = sealFrames(site.identity, 120, 4096);
  const shipper = kafka.ship(site, frames);
  await until(
    () => shipper.acceptedLsn === shipper.lastLsn,
    30_000,
    () => shipper.sink.status(),
  );
  t.deepEqual(await none.settle(10_000), { highestLsn: 240 });
  const receiver = kafka.receive(site);
  await arrived(receiver, shipper);
  receiver.report({ durableLsn: 500 });
  await until(
    () => shipper.feedbacks.at(-1)?.durableLsn === 500,
    30_000,
    () => shipper.feedbacks.at(-1),
  );
  t.deepEqual(await none.settle(10_000), { highestLsn: 500 }, 'a replica may be ahead of the topic');

  const read: number[] = [];
  for await (const bytes of none.fetch(101, new AbortController().signal)) read.push(FrameView.open(bytes).firstLsn);
  t.deepEqual(
    read,
    frames.slice(50).map((frame) => frame.firstLsn),
  );
  await kafka.newAdmin().truncateBefore(site.topic, 100n);
  const gone = await t.throwsAsync(none.fetch(101, new AbortController().signal)[Symbol.asyncIterator]().next());
  t.true(hasCode(gone, 'trimmed'));
});

kafka.run('records are deleted behind the slowest registered replica, never beyond what was allowed', async (t) => {
  const site = kafka.newSite();
  const frames = sealFrames(site.identity, 100, 4096);
  const shipper = kafka.ship(site, frames, { replicas: ['fast', 'slow'] });
  await until(
    () => shipper.acceptedLsn === shipper.lastLsn,
    30_000,
    () => shipper.sink.status(),
  );
  const reader = site.log.reader(site.topic);
  const states = site.log.producer(site.feedbackTopic);
  kafka.atEnd(() => reader.close());
  kafka.atEnd(() => states.close());
  const topicId = (await reader.bounds())?.topicId ?? '';
  const report = async (replica: string, durableLsn: number, offset: number): Promise<void> => {
    const state = feedback(site, { replica, durableLsn, resumeOffset: `${offset}@${topicId}` });
    await states.send(encodeFeedback(state), 20_000, feedbackKey(site.identity.groupId, replica));
  };
  await report('fast', 60, 29);
  await report('fast', 200, 99);
  await until(
    () => shipper.feedbacks.at(-1)?.durableLsn === 200,
    30_000,
    () => shipper.feedbacks,
  );
  shipper.sink.trim(200);
  await report('slow', 80, 39);
  await until(
    () => shipper.feedbacks.at(-1)?.durableLsn === 80,
    30_000,
    () => shipper.feedbacks,
  );
  t.is((await reader.bounds())?.start, 0n, 'one replica had not spoken');
  shipper.sink.trim(80);
  let start = 0n;
  while (start === 0n) start = (await reader.bounds())?.start ?? 0n;
  t.true(start === 29n || start === 39n, `the newest states of both at or below 80: ${start}`);
});

/** The least a user needs to ship into topics of this prefix: nothing on the cluster. */
async function allowShipping(prefix: string): Promise<void> {
  const admin = await connectAdmin(kafka.broker);
  const every = { principal: 'User:shipper', host: '*', permissionType: 3, resourcePatternType: 4 };
  await admin.createAcls({ acl: [{ ...every, resourceType: 2, resourceName: prefix, operation: 2 }] });
  await admin.disconnect();
}

kafka.run('how full a capped topic is: the broker tells, else it is estimated, else unknown', async (t) => {
  const capped = { checkIntervalMs: 200, policy: { ...POLICY, retentionBytes: 8_000_000 } };
  const site = kafka.newSite();
  const frames = sealFrames(site.identity, 40, 64 * 1024);
  const bytes = frames.reduce((sum, frame) => sum + frame.bytes.length, 0);
  const told = kafka.ship(site, frames, capped);
  t.deepEqual(told.sink.status().topic, { capBytes: 8_000_000, usedBytes: null, estimated: false });
  const used = (shipper: Shipper): number => shipper.sink.status().topic?.usedBytes ?? 0;
  await until(
    () => told.acceptedLsn === told.lastLsn,
    30_000,
    () => told.sink.status(),
  );
  // A broker cannot tell where its directory is on no file system that is in the list of mounts, as in a bare chroot.
  const tells = await tellsHowFull(site.topic);
  await until(
    // a new topic's broker may not tell at once: then it is estimated meanwhile
    () => used(told) >= bytes * 0.95 && told.sink.status().topic?.estimated === !tells,
    30_000,
    () => [tells, told.sink.status()],
  );
  // frames may stand in it more than once, and still come: while a new topic finds its leader, they are sent again
  const reader = new KafkaLog(kafka.broker.client()).reader(site.topic);
  kafka.atEnd(() => reader.close());
  let stored = 0;
  let ratio = 0;
  for (let attempt = 0; attempt < 40 && (ratio < 0.95 || ratio > 1.1); attempt++) {
    await setTimeout(500);
    const bounds = await reader.bounds();
    stored = Number((bounds?.end ?? 0n) - (bounds?.start ?? 0n));
    ratio = used(told) / ((stored * bytes) / frames.length);
  }
  t.true(ratio > 0.95 && ratio < 1.1, `${used(told)} for ${stored} frames, 40 are ${bytes} bytes`);

  await allowShipping('t-');
  const shipper = { mechanism: 'scram-sha-512', username: 'shipper', password: 'ship-secret' } as const;
  const restricted = { ...kafka.newSite(), log: new KafkaLog(kafka.broker.client({ sasl: shipper })) };
  const estimated = kafka.ship(restricted, frames.slice(0, 0), capped);
  await until(
    () => estimated.sink.status().state === 'streaming',
    30_000,
    () => estimated.sink.status(),
  );
  t.like(estimated.sink.status().topic, { usedBytes: null, estimated: false }, 'nothing sent, nothing to estimate by');
  const own = kafka.ship({ ...restricted, identity: site.identity, topic: `${restricted.topic}2` }, frames, capped);
  await until(
    () => used(own) >= bytes * 0.95 && own.acceptedLsn === own.lastLsn,
    30_000,
    () => own.sink.status(),
  );
  t.like(own.sink.status().topic, { capBytes: 8_000_000, estimated: true });
  t.is(kafka.newSink(site).status().topic, undefined, 'without a cap there is nothing to fill');
});

kafka.run('a source of an older incarnation, another group, or with other records does not write', async (t) => {
  const site = kafka.newSite();
  const frames = sealFrames(site.identity, 10, 4096);
  const shipper = kafka.ship(site, frames);
  await until(
    () => shipper.acceptedLsn === shipper.lastLsn,
    30_000,
    () => shipper.sink.status(),
  );
  await shipper.sink.close();

  const twin = { ...site.identity, incarnation: { counter: 1, nonce: 'f'.repeat(16) } };
  const stale = kafka.ship({ ...site, identity: twin }, []);
  await until(
    () => stale.sink.status().state === 'stopped',
    30_000,
    () => stale.sink.status(),
  );
  t.is(stale.sink.status().code, 'stale-incarnation');

  const foreign = kafka.ship({ ...site, identity: newGroup() }, []);
  await until(
    () => foreign.sink.status().state === 'stopped',
    30_000,
    () => foreign.sink.status(),
  );
  t.is(foreign.sink.status().code, 'frame-foreign');

  const rewritten = sealFrames(site.identity, 12, 4096);
  const diverged = kafka.ship(site, rewritten);
  await until(
    () => diverged.sink.status().state === 'stopped',
    30_000,
    () => diverged.sink.status(),
  );
  t.is(diverged.sink.status().code, 'divergence');

  const later = { ...site.identity, incarnation: { counter: 2, nonce: '0'.repeat(16) } };
  const replacing = kafka.ship({ ...site, identity: later }, sealFrames(later, 12, 4096));
  await until(
    () => replacing.acceptedLsn === replacing.lastLsn,
    30_000,
    () => replacing.sink.status(),
  );
  t.deepEqual(
    replacing.seeks.map(({ fromLsn }) => fromLsn),
    [21, 1],
    'what an earlier start wrote does not stop a later one: replicas judge what they hold',
  );
});

kafka.run('feedback is state: the newest of each replica counts, also from a compacted topic', async (t) => {
  const site = kafka.newSite();
  const admin = kafka.newAdmin();
  const configuration = new Map([
    ['cleanup.policy', 'compact'],
    ['segment.bytes', '1048576'],
    ['min.cleanable.dirty.ratio', '0.01'],
    ['max.compaction.lag.ms', '1'],
  ]);
  await admin.create({ topic: site.feedbackTopic, replicationFactor: 1, configuration });
  const writer = kafka.receive(site);
  const reason = 'x'.repeat(4096);
  const target = site.log.producer(site.feedbackTopic);
  kafka.atEnd(() => target.close());
  const { encodeFeedback, feedbackKey } = await import('../../daemon/stream/kafka/feedback-codec.ts');
  const sends = Array.from({ length: 800 }, (_, index) => {
    const replica = index % 2 === 0 ? 'r' : 'other';
    const value = encodeFeedback(feedback(site, { reason, replica, durableLsn: index + 1 }));
    return target.send(value, 20_000, feedbackKey(site.identity.groupId, replica));
  });
  await Promise.all(sends);
  await target.send(new TextEncoder().encode('rubbish'), 20_000, feedbackKey(site.identity.groupId, 'r'));
  const reader = site.log.reader(site.feedbackTopic);
  kafka.atEnd(() => reader.close());
  let first = 0n;
  const deadline = performance.now() + 40_000;
  while (first === 0n && performance.now() < deadline)
    first = (await reader.read(0n, 1024, 0)).records[0]?.offset ?? 0n;
  t.true(first > 0n, 'the broker compacted');

  const shipper = kafka.ship(site, []);
  await until(
    () => shipper.feedbacks.length === 2,
    30_000,
    () => shipper.feedbacks.length,
  );
  const newest = Object.fromEntries(shipper.feedbacks.map((feedback) => [feedback.replica, feedback.durableLsn]));
  t.deepEqual(newest, { other: 800, r: 799 });
  await until(
    () => shipper.sink.status().state === 'streaming',
    30_000,
    () => shipper.sink.status(),
  );
  t.regex(shipper.sink.status().reason, /replica other is not registered/);
  await writer.source.close();
});
