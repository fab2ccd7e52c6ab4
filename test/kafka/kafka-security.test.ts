import net from 'node:net';
import test from 'ava';
import { type KafkaClientOptions } from '../../daemon/stream/kafka/client-options.ts';
import { KafkaLog } from '../../daemon/stream/kafka/kafka-log.ts';
import { KafkaSink } from '../../daemon/stream/kafka/kafka-sink.ts';
import { KafkaSource } from '../../daemon/stream/kafka/kafka-source.ts';
import { ERROR_CODES, hasCode, type TidemarkError } from '../../journal/base/errors.ts';
import { realHost } from '../../journal/host/real-host.ts';
import { KafkaBroker, kafkaMissing } from '../servers/kafka-broker.ts';
import { newGroup, Receiver, Shipper, sealFrames, until } from './stream-ends.ts';

/* TLS, SASL and rights against a real broker, and a broker list whose first entries are dead or frozen. */

const missing = kafkaMissing();
const check = missing === undefined ? test : test.skip;
if (missing !== undefined) test(`skipped: ${missing}`, (t) => t.pass());

const host = realHost();
let broker: KafkaBroker;
if (missing === undefined) {
  test.before('start a broker', async () => {
    broker = await KafkaBroker.start({ security: 'sasl-ssl' });
  });
  test.after.always('stop the broker', () => broker?.stop());
}

async function failure(overrides: Partial<KafkaClientOptions>): Promise<TidemarkError> {
  const admin = new KafkaLog(broker.client({ connectTimeoutMs: 3_000, ...overrides })).admin();
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
  const log = new KafkaLog(broker.client(overrides));
  const policy = { replicationFactor: 1, minInsyncReplicas: 1, create: true, acceptWeak: false };
  const names = { topic, feedbackTopic: `${topic}.feedback` };
  const sink = new KafkaSink(host, log, { groupId: identity.groupId, ...names, replicas: ['r'], policy });
  const shipper = new Shipper(sink, frames);
  const source = new KafkaSource(host, log, names);
  const receiver = new Receiver(source, identity, 'r');
  sink.open(identity, shipper);
  receiver.open();
  const state = (): unknown => [sink.status(), source.status()];
  try {
    await until(() => receiver.durableLsn === shipper.lastLsn, 20_000, state);
    await until(() => shipper.feedbacks.at(-1)?.durableLsn === shipper.lastLsn, 5_000, state);
  } finally {
    await Promise.all([sink.close(), source.close()]);
  }
  return receiver.durableLsn === shipper.lastLsn;
}

check('frames and feedback go over TLS with SCRAM-SHA-512, SCRAM-SHA-256 and PLAIN', async (t) => {
  t.true(await streams({}, 'scram512'));
  const admin = { username: 'admin', password: 'admin-secret' };
  t.true(await streams({ sasl: { mechanism: 'scram-sha-256', ...admin } }, 'scram256'));
  t.true(await streams({ sasl: { mechanism: 'plain', ...admin } }, 'plain'));
});

check('a wrong password, an unknown authority and a wrong name are clear refusals', async (t) => {
  const password = await failure({ sasl: { mechanism: 'scram-sha-512', username: 'admin', password: 'wrong' } });
  t.true(hasCode(password, 'stream-refused'));
  t.regex(password.message, /authentication.*invalid credentials/i);
  const authority = await failure({ tls: {} });
  t.true(hasCode(authority, 'stream-refused'));
  t.regex(authority.message, /self-signed certificate/);
  const name = await failure({ tls: { ca: broker.certificate, servername: 'kafka.example.org' } });
  t.true(hasCode(name, 'stream-refused'));
  t.regex(name.message, /kafka\.example\.org/);
});

check('a user without rights is told which topic refuses it', async (t) => {
  const identity = newGroup();
  const shipper = { mechanism: 'scram-sha-512', username: 'shipper', password: 'ship-secret' } as const;
  const sink = new KafkaSink(host, new KafkaLog(broker.client({ sasl: shipper })), {
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
    10_000,
    () => sink.status(),
  );
  t.is(sink.status().code, 'stream-refused');
  t.is(ERROR_CODES['stream-refused'], 'ask-operator');
  t.regex(sink.status().reason, /no right to describe topic forbidden/);
});

check('dead and silent brokers at the head of the list are passed over', async (t) => {
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
  const brokers = [`127.0.0.1:${silentPort}`, `127.0.0.1:${deadPort}`, broker.address];
  t.true(await streams({ brokers, connectTimeoutMs: 1_500 }, 'rotated'));
});
