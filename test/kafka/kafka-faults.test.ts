import { KafkaLog } from '../../daemon/stream/kafka/kafka-log.ts';
import { KafkaSink } from '../../daemon/stream/kafka/kafka-sink.ts';
import { KafkaSource } from '../../daemon/stream/kafka/kafka-source.ts';
import { streamContract } from '../contract/stream-contract.ts';
import { arrived, deleteTopic, KafkaTests, POLICY } from './kafka-tests.ts';
import { newGroup, sameBytes, sealFrames, until } from './stream-ends.ts';

/* The Kafka stream against a real broker that is cut off, killed, frozen, and whose topics are taken away. */

const kafka = new KafkaTests({});

kafka.run('frames arrive once, in order and unchanged; a restart goes on behind what the topic holds', async (t) => {
  const site = kafka.newSite();
  const frames = sealFrames(site.identity, 300, 8192);
  const first = kafka.ship(site, frames.slice(0, 200));
  const receiver = kafka.receive(site);
  await arrived(receiver, first);
  await until(
    () => first.feedbacks.at(-1)?.durableLsn === 400,
    30_000,
    () => first.feedbacks.at(-1),
  );
  t.deepEqual(first.seeks, [{ fromLsn: 1, reason: 'the topic holds no frame' }]);
  t.regex(first.sink.status().reason, /one broker.*flush\.messages/);
  await first.sink.close();

  const second = kafka.ship(site, frames);
  await arrived(receiver, second);
  t.is(second.seeks[0]?.fromLsn, 401);
  t.is(receiver.repeats, 0);
  t.true(sameBytes(receiver.kept, frames));
});

kafka.run('lost requests and lost answers: every frame is there, in order, after repeats are dropped', async (t) => {
  const site = kafka.newSite(kafka.broker.proxiedAddress);
  const frames = sealFrames(site.identity, 1500, 4096);
  const shipper = kafka.ship(site, frames);
  const receiver = kafka.receive(site);
  await until(
    () => shipper.acceptedLsn > 0,
    30_000,
    () => shipper.sink.status(),
  );
  kafka.broker.proxy.requestLost = 0.02;
  kafka.broker.proxy.responseLost = 0.02;
  await arrived(receiver, shipper, 40_000);
  const { requestsLost, responsesLost } = kafka.broker.proxy.counts;
  t.log(
    `${requestsLost} requests and ${responsesLost} answers lost, ${receiver.repeats} repeats, held ${receiver.heldMost}`,
  );
  t.true(requestsLost > 0 && responsesLost > 0 && receiver.repeats > 0);
  t.true(receiver.heldMost <= 8);
  t.is(shipper.seeks.length, 1, 'a lost answer is settled by sending again, not by a seek');
  t.true(sameBytes(receiver.kept, frames));
});

kafka.run('an answer that never comes is unknown: the frame is sent again after the timeout', async (t) => {
  const site = kafka.newSite(kafka.broker.proxiedAddress);
  const frames = sealFrames(site.identity, 60, 4096);
  const shipper = kafka.ship(site, frames.slice(0, 20), { sendTimeoutMs: 500 });
  const receiver = kafka.receive(site);
  await arrived(receiver, shipper);
  kafka.broker.proxy.swallow = 1;
  shipper.frames.push(...frames.slice(20));
  shipper.pump();
  await arrived(receiver, shipper);
  await until(
    () => shipper.acceptedLsn === shipper.lastLsn,
    30_000,
    () => shipper.sink.status(),
  );
  t.is(kafka.broker.proxy.counts.swallowed, 1);
  t.true(sameBytes(receiver.kept, frames));
});

kafka.run('an answer cut in its middle is not read on with the next connection', async (t) => {
  const site = kafka.newSite(kafka.broker.proxiedAddress);
  const admin = site.log.admin();
  kafka.atEnd(() => admin.close());
  t.is(await admin.describe(site.topic), undefined);
  for (let cut = 0; cut < 3; cut++) {
    kafka.broker.proxy.cutAnswers = 1;
    await t.throwsAsync(admin.describe(site.topic), { message: /Closed connection|Connection error/ });
    // without a reset: the library connects again by itself
    t.is(await admin.describe(site.topic), undefined);
  }
});

kafka.run('a broker killed and restarted in the middle loses nothing', async (t) => {
  const site = kafka.newSite();
  const frames = sealFrames(site.identity, 3000, 4096);
  const shipper = kafka.ship(site, frames, { windowBytes: 256 * 1024 });
  const receiver = kafka.receive(site);
  await until(
    () => receiver.durableLsn > 200,
    30_000,
    () => receiver.durableLsn,
  );
  await kafka.broker.kill();
  t.true(receiver.durableLsn < shipper.lastLsn, 'killed in the middle');
  await until(
    () => shipper.sink.status().state === 'retrying',
    30_000,
    () => shipper.sink.status(),
  );
  t.is(shipper.sink.status().code, 'stream-unavailable');
  await kafka.broker.restart();
  await arrived(receiver, shipper, 40_000);
  t.true(sameBytes(receiver.kept, frames));
  t.deepEqual(receiver.losses, []);
});

kafka.run('a broker frozen for ten seconds is ridden out', async (t) => {
  const site = kafka.newSite();
  const frames = sealFrames(site.identity, 200, 4096);
  const shipper = kafka.ship(site, frames.slice(0, 50), { sendTimeoutMs: 1_000 });
  const receiver = kafka.receive(site);
  await arrived(receiver, shipper);
  kafka.broker.freeze();
  const thawed = new Promise<void>((resolve) => {
    setTimeout(() => {
      kafka.broker.thaw();
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

kafka.run('a topic truncated under the replica ends in a loss that is told, and in frames sent again', async (t) => {
  const site = kafka.newSite();
  const frames = sealFrames(site.identity, 100, 4096);
  const shipper = kafka.ship(site, frames);
  const early = kafka.receive(site);
  await arrived(early, shipper);
  await early.source.close();
  await kafka.newAdmin().truncateBefore(site.topic, 80n);

  const behind = { durableLsn: 20, resumeOffset: early.resumeOffset.replace(/^\d+/, '10') };
  const receiver = kafka.receive(site, behind);
  await until(
    () => receiver.losses.length === 1,
    30_000,
    () => receiver.source.status(),
  );
  t.regex(receiver.losses[0]?.reason ?? '', /was truncated: it begins at 80, we stand at 10/);
  t.is(receiver.statuses.find((status) => status.code === 'needs-resync')?.state, 'retrying');
  t.is(receiver.kept.length, 0, 'nothing was taken across the loss');
  await arrived(receiver, shipper);
  t.is(shipper.seeks.at(-1)?.fromLsn, 21);
  t.true(sameBytes(receiver.kept, frames.slice(10)));
});

kafka.run('a topic deleted and made again is never read as if it continued', async (t) => {
  const site = kafka.newSite();
  const frames = sealFrames(site.identity, 100, 4096);
  const shipper = kafka.ship(site, frames.slice(0, 60), { checkIntervalMs: 300 });
  const receiver = kafka.receive(site);
  await arrived(receiver, shipper);
  await until(
    () => shipper.feedbacks.at(-1)?.durableLsn === 120,
    30_000,
    () => shipper.feedbacks.at(-1),
  );
  await deleteTopic(kafka.broker, site.topic);
  await until(
    () => receiver.losses.length > 0,
    30_000,
    () => [receiver.source.status(), shipper.sink.status()],
  );
  t.regex(receiver.losses[0]?.reason ?? '', /deleted and made again/);
  shipper.frames.push(...frames.slice(60));
  shipper.pump();
  await arrived(receiver, shipper);
  t.is(shipper.seeks.at(-1)?.fromLsn, 121, 'from the durable position of the replica');
  t.true(sameBytes(receiver.kept, frames));
});

kafka.run(
  'a replica that starts after its topic was replaced is told so, even where the offset exists again',
  async (t) => {
    const site = kafka.newSite();
    const frames = sealFrames(site.identity, 40, 4096);
    const shipper = kafka.ship(site, frames);
    await until(
      () => shipper.acceptedLsn === shipper.lastLsn,
      30_000,
      () => shipper.sink.status(),
    );
    const foreign = '7'.repeat(32);
    const receiver = kafka.receive(site, { durableLsn: 20, resumeOffset: `10@${foreign}` });
    await until(
      () => receiver.losses.length === 1,
      30_000,
      () => receiver.source.status(),
    );
    t.regex(receiver.losses[0]?.reason ?? '', /deleted and made again/);
    const ahead = kafka.receive(site, {
      durableLsn: 20,
      resumeOffset: receiver.losses[0]?.oldest.replace(/^\d+/, '9999') ?? '',
    });
    await until(
      () => ahead.losses.length === 1,
      30_000,
      () => ahead.source.status(),
    );
    t.regex(ahead.losses[0]?.reason ?? '', /lost its end: it ends at 40, we stand at 9999/);
  },
);

if (kafka.missing === undefined) {
  streamContract('Kafka', () => {
    const { groupId } = newGroup();
    const topic = `t-${groupId}`;
    const names = { groupId, topic, feedbackTopic: `${topic}.feedback` };
    const client = kafka.broker.client({ brokers: [kafka.broker.proxiedAddress], clientId: topic });
    const windowBytes = 4 * 1024 * 1024;
    return Promise.resolve({
      groupId,
      replica: 'r',
      windowBytes,
      sink: () =>
        new KafkaSink(kafka.host, new KafkaLog(client), { ...names, replicas: ['r'], policy: POLICY, windowBytes }),
      source: () => new KafkaSource(kafka.host, new KafkaLog(client), names),
      interrupt: () => kafka.broker.proxy.cut(topic),
      close: () => Promise.resolve(),
    });
  });
}

kafka.run('a broker tells how long it lets a dead one be missed', async (t) => {
  const settings = await kafka.newAdmin().brokerSettings();
  t.regex(settings.get('broker.session.timeout.ms') ?? '', /^\d+$/);
  t.regex(settings.get('replica.lag.time.max.ms') ?? '', /^\d+$/);
});
