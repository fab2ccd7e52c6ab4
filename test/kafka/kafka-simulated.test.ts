import test from 'ava';
import { KafkaSink } from '../../daemon/stream/kafka/kafka-sink.ts';
import { KafkaSource } from '../../daemon/stream/kafka/kafka-source.ts';
import { type OutgoingFrame, type SourceIdentity } from '../../journal/stream.ts';
import { NO_DISK_FAULTS } from '../doubles/simulated-disk.ts';
import { SimulatedMachine } from '../doubles/simulated-machine.ts';
import { Scheduler } from '../simulation/scheduler.ts';
import { SimulatedLog } from './simulated-log.ts';
import { Receiver, Shipper, sameBytes, sealFrames } from './stream-ends.ts';

/* Sink and source as they are, on a log that does everything a log may do, in simulated time: one seed, one run. */

const SEEDS = 200;
const FRAMES = 400;
const GROUP: SourceIdentity = {
  groupId: 'a'.repeat(32),
  groupName: 'g',
  epoch: 1,
  incarnation: { counter: 1, nonce: '1'.repeat(16) },
  frameVersion: 1,
};
const NAMES = { topic: 't', feedbackTopic: 't.feedback' };
const POLICY = { replicationFactor: 3, minInsyncReplicas: 2, create: true, acceptWeak: false };

type Trouble =
  | 'calm'
  | 'failures'
  | 'outage'
  | 'truncate'
  | 'lose-end'
  | 'replace'
  | 'restart-source'
  | 'restart-replica';
const TROUBLES: Trouble[] = [
  'calm',
  'failures',
  'outage',
  'truncate',
  'lose-end',
  'replace',
  'restart-source',
  'restart-replica',
];

/** A group whose source and replica restart now and then, and whose log is mistreated. */
class SimulatedSite {
  readonly #scheduler: Scheduler;
  readonly #log: SimulatedLog;
  readonly #frames: OutgoingFrame[];
  #shipped = 0;
  #counter = 0;
  shipper!: Shipper;
  receiver!: Receiver;
  kept: Uint8Array[] = [];
  readonly told: string[] = [];

  constructor(seed: number, frames: OutgoingFrame[]) {
    this.#scheduler = new Scheduler(seed);
    this.#log = new SimulatedLog(this.#scheduler);
    this.#frames = frames;
  }

  async run(): Promise<void> {
    const { random } = this.#scheduler;
    this.#startSource();
    this.#startReplica(0, '');
    while (this.#shipped < this.#frames.length) {
      const more = this.#frames.slice(this.#shipped, this.#shipped + random.between(1, 60));
      this.#shipped += more.length;
      this.shipper.frames.push(...more);
      this.shipper.pump();
      this.#trouble(random.pick(TROUBLES));
      await this.#pass(random.between(10_000, 3_000_000));
      this.#log.failures = 0;
      this.#log.down = false;
    }
    const whole = await this.#scheduler.runUntil(() => this.receiver.durableLsn === this.shipper.lastLsn, 900_000_000);
    if (!whole) throw new Error(`stuck: ${JSON.stringify(this.state())}`);
    await this.#scheduler.runUntil(() => this.shipper.acceptedLsn === this.shipper.lastLsn, 60_000_000);
    this.kept.push(...this.receiver.kept);
  }

  state(): unknown {
    const { durableLsn, missingFrom, losses } = this.receiver;
    const { seeks, acceptedLsn, sink } = this.shipper;
    return { durableLsn, missingFrom, losses, seeks, acceptedLsn, status: sink.status(), last: this.shipper.lastLsn };
  }

  #trouble(trouble: Trouble): void {
    const { random } = this.#scheduler;
    this.told.push(trouble);
    const bounds = this.#log.bounds(NAMES.topic);
    if (trouble === 'failures') this.#log.failures = random.pick([0.02, 0.1, 0.4]);
    else if (trouble === 'outage') this.#log.down = true;
    else if (trouble === 'restart-source') {
      void this.shipper.sink.close();
      this.#startSource();
    } else if (trouble === 'restart-replica') {
      this.kept.push(...this.receiver.kept);
      void this.receiver.source.close();
      this.#startReplica(this.receiver.durableLsn, this.receiver.resumeOffset);
    } else if (bounds === undefined || trouble === 'calm') return;
    else if (trouble === 'truncate') {
      this.#log.truncateBefore(NAMES.topic, bounds.start + BigInt(random.below(Number(bounds.end - bounds.start) + 1)));
    } else if (trouble === 'lose-end') this.#log.loseEnd(NAMES.topic, random.between(1, 20));
    else this.#log.topics.delete(NAMES.topic);
  }

  #startSource(): void {
    const { host } = this.#start();
    const incarnation = { counter: ++this.#counter, nonce: '1'.repeat(16) };
    const options = { ...NAMES, groupId: GROUP.groupId, replicas: ['r'], policy: POLICY, checkIntervalMs: 5_000 };
    const sink = new KafkaSink(host, this.#log, { ...options, windowBytes: 64 * 1024 });
    this.shipper = new Shipper(sink, this.#frames.slice(0, this.#shipped));
    sink.open({ ...GROUP, incarnation }, this.shipper);
  }

  #startReplica(durableLsn: number, resumeOffset: string): void {
    const { host } = this.#start();
    const source = new KafkaSource(host, this.#log, { ...NAMES, readBytes: 32 * 1024, checkIntervalMs: 5_000 });
    this.receiver = new Receiver(source, GROUP, 'r');
    this.receiver.durableLsn = durableLsn;
    this.receiver.resumeOffset = resumeOffset;
    this.receiver.open();
    this.receiver.report();
    const missing = this.receiver;
    const watch = (held: number): void => {
      host.clock.after(5_000, () => {
        if (this.receiver !== missing) return;
        if (missing.held > 0 && missing.durableLsn === held) missing.ask();
        watch(missing.durableLsn);
      });
    };
    watch(durableLsn);
  }

  #start(): ReturnType<SimulatedMachine['start']> {
    // Each end is a process of its own; they live on machines that nothing else is asked of.
    return new SimulatedMachine('end', this.#scheduler, NO_DISK_FAULTS, 0).start();
  }

  async #pass(micros: number): Promise<void> {
    await this.#scheduler.runUntil(() => false, micros);
  }
}

test('whatever the log does, the replica ends with every frame, in order and unchanged', async (t) => {
  const frames = sealFrames(GROUP, FRAMES, 1024);
  for (let seed = 1; seed <= SEEDS; seed++) {
    const site = new SimulatedSite(seed, frames);
    try {
      await site.run();
    } catch (error) {
      t.fail(`seed ${seed}: ${String(error)} after ${site.told.join(', ')}`);
      return;
    }
    const same = sameBytes(site.kept, frames);
    t.true(same, `seed ${seed}: ${site.kept.length} frames kept`);
  }
});

test('what is acknowledged while the topic is compared with it is not called lost', async (t) => {
  const frames = sealFrames(GROUP, FRAMES, 1024);
  for (let seed = 1; seed <= 20; seed++) {
    const scheduler = new Scheduler(seed);
    const { host } = new SimulatedMachine('end', scheduler, NO_DISK_FAULTS, 0).start();
    const options = { ...NAMES, groupId: GROUP.groupId, replicas: ['r'], policy: POLICY, checkIntervalMs: 1 };
    // one frame under way at a time: this log answers in any order
    const sink = new KafkaSink(host, new SimulatedLog(scheduler), { ...options, windowBytes: 1 });
    const shipper = new Shipper(sink, frames);
    sink.open(GROUP, shipper);
    const whole = await scheduler.runUntil(() => shipper.acceptedLsn === shipper.lastLsn, 600_000_000);
    t.true(whole, `seed ${seed}: ${sink.status().reason}`);
    t.is(shipper.seeks.length, 1, `seed ${seed}: ${shipper.seeks.at(-1)?.reason}`);
    await sink.close();
  }
});
