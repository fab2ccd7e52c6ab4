import { randomBytes } from 'node:crypto';
import test, { type ExecutionContext } from 'ava';
import { type Admin, type SASLOptions } from 'kafkajs';
import { KafkaLog } from '../../daemon/stream/kafka/kafka-log.ts';
import { KafkaSink } from '../../daemon/stream/kafka/kafka-sink.ts';
import { type KafkaSinkOptions } from '../../daemon/stream/kafka/kafka-sink-options.ts';
import { KafkaSource } from '../../daemon/stream/kafka/kafka-source.ts';
import { type LogAdmin } from '../../daemon/stream/kafka/log-ports.ts';
import { type TopicPolicy } from '../../daemon/stream/kafka/topic-policy.ts';
import { type Host } from '../../journal/host/host.ts';
import { realHost } from '../../journal/host/real-host.ts';
import { type OutgoingFrame, type ReplicaFeedback, type SourceIdentity } from '../../journal/stream.ts';
import { KafkaBroker, type KafkaBrokerOptions } from '../servers/kafka-broker.ts';
import { kafkaMissing } from '../servers/kafka-java.ts';
import { testUnless } from '../setup/test-unless.ts';
import { newGroup, Receiver, Shipper, until } from './stream-ends.ts';

export const POLICY: TopicPolicy = { replicationFactor: 1, minInsyncReplicas: 1, create: true, acceptWeak: false };

/** A group with topics of its own on the file's broker. */
export interface Site {
  readonly log: KafkaLog;
  readonly identity: SourceIdentity;
  readonly topic: string;
  readonly feedbackTopic: string;
}

/** One broker for all tests of a file, and what they open on it. Without Java or Kafka every test is skipped, and fails in CI. */
export class KafkaTests {
  readonly host: Host = realHost();
  readonly missing: string | undefined = kafkaMissing();
  readonly #closers: (() => Promise<void> | void)[] = [];
  #broker: KafkaBroker | undefined;

  constructor(options: KafkaBrokerOptions) {
    if (this.missing !== undefined) return;
    test.before('start a broker', async () => {
      this.#broker = await KafkaBroker.start(options);
    });
    test.afterEach.always('close the ends', async () => {
      this.#broker?.proxy.mend();
      for (const close of this.#closers.splice(0)) await close();
    });
    test.after.always('stop the broker', () => this.#broker?.stop());
  }

  get broker(): KafkaBroker {
    if (this.#broker === undefined) throw new Error('the broker is not started');
    return this.#broker;
  }

  /** A test that runs alone: the broker is shared, and some of them mistreat it. */
  run(title: string, body: (t: ExecutionContext) => Promise<void>): void {
    testUnless(this.missing, test.serial)(title, body);
  }

  atEnd(close: () => Promise<void> | void): void {
    this.#closers.push(close);
  }

  newSite(address: string = this.broker.address, identity: SourceIdentity = newGroup()): Site {
    const topic = `t-${randomBytes(4).toString('hex')}`;
    const log = new KafkaLog(this.broker.client({ brokers: [address], connectTimeoutMs: 2_000 }));
    return { log, identity, topic, feedbackTopic: `${topic}.feedback` };
  }

  newSink(site: Site, options: Partial<KafkaSinkOptions> = {}): KafkaSink {
    const { topic, feedbackTopic, identity } = site;
    const sink = new KafkaSink(this.host, site.log, {
      groupId: identity.groupId,
      topic,
      feedbackTopic,
      replicas: ['r'],
      policy: POLICY,
      sendTimeoutMs: 2_000,
      recheckMs: 500,
      ...options,
    });
    this.atEnd(() => sink.close());
    return sink;
  }

  ship(site: Site, frames: OutgoingFrame[], options: Partial<KafkaSinkOptions> = {}): Shipper {
    const shipper = new Shipper(this.newSink(site, options), frames);
    shipper.sink.open(site.identity, shipper);
    return shipper;
  }

  receive(site: Site, resume: Partial<Pick<Receiver, 'durableLsn' | 'resumeOffset'>> = {}): Receiver {
    const log = new KafkaLog(this.broker.client({ connectTimeoutMs: 2_000 }));
    const source = new KafkaSource(this.host, log, { ...site, checkIntervalMs: 500 });
    const receiver = new Receiver(source, site.identity, 'r');
    Object.assign(receiver, resume);
    receiver.open();
    this.atEnd(() => source.close());
    return receiver;
  }

  newAdmin(): LogAdmin {
    const admin = new KafkaLog(this.broker.client()).admin();
    this.atEnd(() => admin.close());
    return admin;
  }
}

/** Resolves when the receiver holds everything the shipper has. */
export function arrived(receiver: Receiver, shipper: Shipper, ms = 30_000): Promise<void> {
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

export function feedback(site: Site, fields: Partial<ReplicaFeedback>): ReplicaFeedback {
  const { groupId } = site.identity;
  const chain = '0'.repeat(16);
  const blank = { replica: 'r', groupId, epoch: 1, incarnation: 1, durableLsn: 0, chain, state: 'receiving' as const };
  return { ...blank, reason: '', missingFrom: 0, heartbeatMs: 0, resumeOffset: '', ...fields };
}

/** kafkajs's own, for what the product never does. */
export async function connectAdmin(broker: KafkaBroker): Promise<Admin> {
  const { brokers, tls, sasl } = broker.client();
  const { default: kafkajs } = await import('kafkajs');
  const admin = new kafkajs.Kafka({
    brokers: [...brokers],
    logLevel: kafkajs.logLevel.NOTHING,
    ...(tls === undefined ? {} : { ssl: { ca: [tls.ca ?? ''] } }),
    ...(sasl === undefined ? {} : { sasl: sasl as SASLOptions }),
  }).admin();
  await admin.connect();
  return admin;
}

/** Deleting a topic is nothing the product ever does. */
export async function deleteTopic(broker: KafkaBroker, topic: string): Promise<void> {
  const admin = await connectAdmin(broker);
  await admin.deleteTopics({ topics: [topic] });
  await admin.disconnect();
}
