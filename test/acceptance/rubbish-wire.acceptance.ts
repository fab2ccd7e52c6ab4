import { randomBytes, randomInt } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { encodeFeedback, feedbackKey } from '../../daemon/stream/kafka/feedback-codec.ts';
import { KafkaLog } from '../../daemon/stream/kafka/kafka-log.ts';
import type { LogProducer } from '../../daemon/stream/kafka/log-ports.ts';
import { FrameView } from '../../journal/frame-view.ts';
import type { ReplicaFeedback } from '../../journal/stream.ts';
import { KafkaBroker } from '../servers/kafka-broker.ts';
import { kafkaMissing } from '../servers/kafka-java.ts';
import { Site } from '../servers/site.ts';
import { testUnless } from '../setup/test-unless.ts';
import { readDisk } from './rubbish-files.ts';
import { cut, directRubbish, frameOf, nbdRubbish, pelt, readTopic, spoil, workOn } from './rubbish-wire.ts';

/*
 * Whatever comes over the wire - NBD bytes, messages of the direct stream, records in Kafka - beside a client that
 * works: both daemons stay the processes they are, and every byte of the history at the replica is right.
 */

const DISK_BYTES = 16 * 1024 * 1024;
const CONNECTIONS = 3000;
const RECORDS = 600;
const SEND_MS = 10_000;

async function inDirectory(t: ExecutionContext, run: (directory: string) => Promise<void>): Promise<void> {
  t.timeout(10 * 60_000);
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'tidemark-wire-'));
  try {
    await run(directory);
  } finally {
    fs.rmSync(directory, { recursive: true, force: true });
  }
}

/** The bookmark's view holds these bytes. */
async function sameAt(t: ExecutionContext, site: Site, at: string, volume: string, expected: Buffer): Promise<void> {
  const view = await site.mount(at);
  t.true((await readDisk(view.uri(volume))).equals(expected), `${volume} at ${at}`);
  await site.unmount(view);
}

test.serial('rubbish connections to the NBD socket and to the replica harm nobody', (t) =>
  inDirectory(t, async (directory) => {
    const volumes = [
      { name: 'root', sizeBytes: DISK_BYTES },
      // What of the rubbish is a request that holds, writes here.
      { name: 'scratch', sizeBytes: DISK_BYTES },
    ];
    const site = new Site(directory, { volumes });
    try {
      await site.start();
      const pids = [site.source.pid, site.replica.pid];
      const model = Buffer.alloc(DISK_BYTES);
      const listen = (await site.replicaGroup()).listen ?? '';
      const replicaPort = { host: '127.0.0.1', port: Number(listen.split(':').at(-1)) };
      const nbdSocket = { path: path.join(directory, 'source/nbd/nbd.sock') };
      let pelting = true;
      const rubbish = Promise.all([
        pelt(nbdSocket, CONNECTIONS, () => nbdRubbish('scratch')),
        pelt(replicaPort, CONNECTIONS, () => directRubbish(site.group)),
      ]).finally(() => {
        pelting = false;
      });
      let rounds = 0;
      while (pelting || rounds === 0) {
        await workOn(site.exportUri('root'), model, 200);
        rounds += 1;
      }
      await rubbish;
      t.log(`${CONNECTIONS} rubbish connections at each end beside ${rounds * 200} writes`);
      await site.bookmark('after');
      await site.waitForReplica(await site.headLsn());
      t.deepEqual([site.source.pid, site.replica.pid], pids);
      t.true(site.source.child.running && site.replica.child.running);
      t.is((await site.sourceGroup()).state, 'protecting', (await site.sourceGroup()).reason);
      await sameAt(t, site, 'after', 'root', model);
      // The rubbish's own writes are history like any other.
      await sameAt(t, site, 'after', 'scratch', await readDisk(site.exportUri('scratch')));
      t.true((await readDisk(site.exportUri('root'))).equals(model), 'the disk itself');
    } finally {
      await site.stop();
    }
  }),
);

const kafka = testUnless(kafkaMissing(), test.serial);

kafka('rubbish records in both topics of a group change nothing in its history', (t) =>
  inDirectory(t, async (directory) => {
    const broker = await KafkaBroker.start();
    const topic = 'shop-frames';
    const feedbackTopic = `${topic}.feedback`;
    const log = new KafkaLog(broker.client());
    const site = new Site(directory, {
      volumes: [{ name: 'root', sizeBytes: DISK_BYTES }],
      kafka: { brokers: [broker.address], topic },
    });
    const producers = [log.producer(topic), log.producer(feedbackTopic)] as const;
    try {
      await site.start();
      const model = Buffer.alloc(DISK_BYTES);
      await workOn(site.exportUri('root'), model, 300);
      await site.bookmark('before');
      const before = Buffer.from(model);
      await site.waitForReplica(await site.headLsn());
      // From here on what has been sent is of an older start.
      await site.source.stop();
      await site.source.start();
      await site.waitForReplica(await site.headLsn());
      const pids = [site.source.pid, site.replica.pid];
      const frames = (await readTopic(log, topic)).map(({ value }) => value);
      const states = (await readTopic(log, feedbackTopic)).filter(({ value }) => value.length > 0);
      let poisoning = true;
      const poisoned = Promise.all([
        poisonFrames(t, producers[0], frames),
        poisonFeedback(producers[1], states),
      ]).finally(() => {
        poisoning = false;
      });
      let rounds = 0;
      while (poisoning || rounds === 0) {
        await workOn(site.exportUri('root'), model, 200);
        rounds += 1;
      }
      await poisoned;
      t.log(`${RECORDS} rubbish records in each topic beside ${rounds * 200} writes`);
      await site.bookmark('after');
      const head = await site.headLsn();
      await site.waitForReplica(head, 60_000).catch(async (error: unknown) => {
        t.log(
          JSON.stringify([await site.sourceGroup(), await site.replicaGroup()]),
          site.replica.child.output.slice(-3000),
        );
        throw error;
      });
      t.deepEqual([site.source.pid, site.replica.pid], pids);
      await sameAt(t, site, 'before', 'root', before);
      await sameAt(t, site, 'after', 'root', model);
      const rejected = (await site.replicaGroup()).counters?.framesRejected ?? 0;
      t.true(rejected > RECORDS / 3, `${rejected} were rejected`);
      for (const code of ['frame-damaged', 'frame-foreign', 'stale-incarnation']) {
        t.true(site.replica.child.output.includes(`"errorCode":"${code}"`), `${code} was logged`);
      }
      // A last rubbish in both, and all of it is read again by a start: the topic's tail and the feedback.
      await producers[0].send(randomBytes(5000), SEND_MS);
      for (const { key } of states) await producers[1].send(randomBytes(100), SEND_MS, key);
      await Promise.all([site.source.stop(), site.replica.stop()]);
      await Promise.all([site.replica.start(), site.source.start()]);
      await workOn(site.exportUri('root'), model, 100);
      await site.bookmark('again');
      await site.waitForReplica(await site.headLsn(), 60_000);
      await sameAt(t, site, 'again', 'root', model);
      await sameAt(t, site, 'before', 'root', before);
      const group = await site.sourceGroup();
      t.is(group.state, 'protecting', group.reason);
      t.true((group.replicas[0]?.durableLsn ?? 0) <= (await site.headLsn()));
    } finally {
      for (const producer of producers) producer.close();
      await site.stop();
      await broker.stop();
    }
  }),
);

/** Random, cut and changed records, repeats, frames of another group and of an older start, and records beyond any frame. */
async function poisonFrames(t: ExecutionContext, producer: LogProducer, frames: readonly Uint8Array[]): Promise<void> {
  const views = frames.map((bytes) => FrameView.open(bytes));
  const oldest = views[0] as FrameView;
  const head = (views.at(-1) as FrameView).lastLsn;
  t.true(frames.length > 1 && oldest.incarnation.counter < (views.at(-1) as FrameView).incarnation.counter);
  for (let sent = 0; sent < RECORDS; sent += 1) {
    const frame = frames[randomInt(frames.length)] as Uint8Array;
    // An older start that still runs, beyond anything this one comes to.
    const ahead = head + 50_000 + randomInt(20_000);
    const kinds: (() => Uint8Array)[] = [
      () => randomBytes(randomInt(4096)),
      () => cut(frame),
      () => spoil(frame),
      () => frame,
      () => frameOf(randomBytes(16).toString('hex'), oldest.incarnation, ahead),
      () => frameOf(oldest.groupId, oldest.incarnation, ahead),
      () => frameOf(oldest.groupId, oldest.incarnation, 1 + randomInt(head)),
    ];
    await producer.send((kinds[sent % kinds.length] as () => Uint8Array)(), SEND_MS);
  }
  await producer.send(Buffer.concat([frames[0] as Uint8Array, randomBytes(7 * 1024 * 1024)]), SEND_MS);
  await producer.send(randomBytes(7 * 1024 * 1024), SEND_MS);
}

/** Under the replica's own key what is no state, and states of others under keys of their own and of the replica's. */
async function poisonFeedback(
  producer: LogProducer,
  states: readonly { readonly key: string; readonly value: Uint8Array }[],
): Promise<void> {
  for (let sent = 0; sent < RECORDS; sent += 1) {
    const { key, value } = states[randomInt(states.length)] as { key: string; value: Uint8Array };
    const stranger: ReplicaFeedback = {
      replica: `stranger-${randomInt(100)}`,
      groupId: randomBytes(16).toString('hex'),
      epoch: 9,
      incarnation: 99,
      durableLsn: 2 ** 40,
      chain: '0'.repeat(16),
      state: 'receiving',
      reason: '',
      missingFrom: 1,
      heartbeatMs: 0,
      resumeOffset: '',
    };
    const kinds: (() => [string, Uint8Array])[] = [
      () => [key, randomBytes(1 + randomInt(500))],
      () => [key, cut(value)],
      () => [key, encodeFeedback(stranger)],
      () => [key, encodeFeedback({ ...stranger, replica: 'site-b' })],
      () => [feedbackKey(stranger.groupId, stranger.replica), encodeFeedback(stranger)],
      () => [randomBytes(20).toString('latin1'), value],
    ];
    await producer.send(...reorder((kinds[sent % kinds.length] as () => [string, Uint8Array])()));
  }
  for (const { key } of states) await producer.send(randomBytes(900_000), SEND_MS, key);
}

function reorder([key, value]: [string, Uint8Array]): [Uint8Array, number, string] {
  return [value, SEND_MS, key];
}
