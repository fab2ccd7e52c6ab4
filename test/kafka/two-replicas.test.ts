import test, { type ExecutionContext } from 'ava';
import { Shipper } from '../../daemon/ship/shipper.ts';
import { encodeFeedback, feedbackKey } from '../../daemon/stream/kafka/feedback-codec.ts';
import { KafkaSink } from '../../daemon/stream/kafka/kafka-sink.ts';
import { chainString } from '../../journal/chain.ts';
import { FRAME_VERSION } from '../../journal/frame-codec.ts';
import { FrameView } from '../../journal/frame-view.ts';
import { Journal } from '../../journal/journal.ts';
import type { Lsn } from '../../journal/position.ts';
import { RecordKind } from '../../journal/record.ts';
import { NO_DISK_FAULTS } from '../doubles/simulated-disk.ts';
import { SimulatedMachine } from '../doubles/simulated-machine.ts';
import { Scheduler } from '../simulation/scheduler.ts';
import { SimulatedLog } from './simulated-log.ts';

/*
 * Two replicas read one topic, one of them lacks what the journal has no more: the other is served all the same. The journal
 * and the shipper are the product's, the log is no broker, in simulated time.
 */

const GROUP_ID = 'c0c1c2c3c4c5c6c7c8c9cacbcccdcecf';
const NAMES = { topic: 't', feedbackTopic: 't.feedback' };
const POLICY = { replicationFactor: 1, minInsyncReplicas: 1, create: true, acceptWeak: false };
const SECOND = 1_000_000;
const FILE_BYTES = 256 * 1024;

class Rig {
  readonly scheduler: Scheduler = new Scheduler(7);
  readonly log: SimulatedLog = new SimulatedLog(this.scheduler);
  readonly #views = new WeakMap<Uint8Array, FrameView>();
  /** Chains of what was ever in the topic. */
  readonly #sent: FrameView[] = [];
  journal!: Journal;
  shipper!: Shipper;

  /** `a` is required, `b` as told. */
  static async start(t: ExecutionContext, { bothRequired = false } = {}): Promise<Rig> {
    const rig = new Rig();
    const { host } = new SimulatedMachine('source', rig.scheduler, NO_DISK_FAULTS, 1 << 30).start();
    const place = { directory: '/journal', groupId: GROUP_ID };
    host.disk.makeDirectory(place.directory);
    rig.journal = await rig.done(
      Journal.open(host, {
        ...place,
        groupName: 'g',
        fileBytes: FILE_BYTES,
        budgetBytes: 128 * FILE_BYTES,
        syncIntervalMs: 20,
      }),
    );
    await rig.done(rig.journal.begin());
    const { epoch, incarnation } = rig.journal;
    const identity = {
      groupId: GROUP_ID,
      groupName: 'g',
      epoch,
      incarnation: incarnation!,
      frameVersion: FRAME_VERSION,
    };
    const options = { ...NAMES, groupId: GROUP_ID, replicas: ['a', 'b'], windowFrames: 1 };
    const sink = new KafkaSink(host, rig.log, { ...options, windowBytes: 64 * 1024, policy: POLICY });
    const replicas = [
      { name: 'a', required: true },
      { name: 'b', required: bothRequired },
    ];
    const { journal } = rig;
    rig.shipper = await rig.done(
      Shipper.open(host, {
        directory: place.directory,
        journal,
        marks: journal.marks,
        identity,
        sinks: [sink],
        replicas,
        sealer: { targetBytes: 16 * 1024 },
      }),
    );
    t.teardown(() => void rig.shipper.close());
    return rig;
  }

  /** Lets time pass until it resolves. */
  async done<T>(promise: Promise<T>): Promise<T> {
    let over = false;
    const end = (): boolean => (over = true);
    promise.then(end, end);
    if (!(await this.scheduler.runUntil(() => over, 60 * SECOND))) throw new Error('it takes more than a minute');
    return promise;
  }

  async until(what: string, condition: () => boolean): Promise<void> {
    if (await this.scheduler.runUntil(condition, 400 * SECOND)) return;
    throw new Error(`${what}: ${JSON.stringify(this.shipper.status())}`);
  }

  async write(count: number): Promise<Lsn> {
    for (let i = 0; i < count; i++) {
      const lsn = this.journal.lastLsn + 1;
      const body = new Uint8Array(4096).fill(lsn);
      this.journal.append(RecordKind.write, { volume: 1, sector: lsn * 8, sectors: 8, body });
    }
    await this.done(this.journal.sync());
    return this.journal.lastLsn;
  }

  frames(): FrameView[] {
    const records = this.log.topics.get('t')?.records ?? [];
    return records.map(({ value }) => {
      const view = this.#views.get(value) ?? FrameView.open(value);
      this.#views.set(value, view);
      return view;
    });
  }

  /** The largest LSN that somebody finds in the topic who holds everything up to `fromLsn - 1`. */
  reached(fromLsn: Lsn): Lsn {
    let next = fromLsn;
    for (const frame of this.frames()) if (frame.firstLsn <= next) next = Math.max(next, frame.lastLsn + 1);
    return next - 1;
  }

  arrived(lsn: Lsn, fromLsn: Lsn = 1): Promise<void> {
    return this.until(`record ${lsn} in the topic`, () => this.reached(fromLsn) >= lsn);
  }

  says(replica: string, durableLsn: Lsn, missingFrom: Lsn = 0): void {
    this.#sent.push(...this.frames());
    const frame = this.#sent.find((one) => one.firstLsn <= durableLsn && one.lastLsn >= durableLsn);
    const chain = frame === undefined ? '0'.repeat(16) : chainString(frame.chainAt(durableLsn));
    const value = encodeFeedback({
      replica,
      groupId: GROUP_ID,
      epoch: this.journal.epoch,
      incarnation: this.journal.incarnation!.counter,
      durableLsn,
      chain,
      state: 'receiving',
      reason: '',
      missingFrom,
      heartbeatMs: 0,
      resumeOffset: '',
    });
    const { records } = this.log.topic('t.feedback');
    records.push({ offset: BigInt(records.length), key: feedbackKey(GROUP_ID, replica), value });
  }

  /** `a` holds everything, and the journal gives up what it has no need to keep. */
  async release(lsn: Lsn): Promise<void> {
    const { marks } = this.journal;
    this.says('a', lsn);
    await this.until('release', () => marks.address('shipped') > FILE_BYTES);
    this.journal.recycleBelow(marks.address('shipped'));
  }

  /** Deleted, made again, and found out. */
  async replaceTopic(): Promise<void> {
    this.log.topics.delete('t');
    await this.until('the topic is made again', () => this.log.topics.has('t'));
  }
}

test('a topic is made again and one replica is behind the journal: it is named, the other is sent what it needs', async (t) => {
  const rig = await Rig.start(t);
  const first = await rig.write(300);
  await rig.arrived(first);
  rig.says('b', 10);
  await rig.release(first);
  t.true(rig.journal.oldestLsn > 11);
  await rig.replaceTopic();
  const last = await rig.write(20);
  await rig.arrived(last, first + 1);
  const status = rig.shipper.status();
  t.like(status, { state: 'needs-resync', code: 'needs-resync' });
  t.regex(
    status.reason,
    /^replica b: it lacks record 11, the oldest in this journal is \d+: seed it anew, or unregister it/,
  );
  t.like(status.replicas[0], { name: 'a', state: 'receiving' });
  t.like(status.replicas[1], { name: 'b', state: 'needs-resync' });
  rig.says('a', last);
  await rig.until('a is released', () => rig.journal.marks.lsn('replicated') === last);

  // it was seeded from what the other holds
  rig.says('b', first);
  await rig.until('b is served', () => rig.shipper.status().state === 'streaming');
  t.is(rig.shipper.status().replicas[1]?.state, 'receiving');
});

test('a replica that asks again and again for what the journal has no more does not stop the one beside it', async (t) => {
  const rig = await Rig.start(t);
  let last = await rig.write(300);
  await rig.arrived(last);
  rig.says('b', 10);
  await rig.release(last);
  for (let round = 0; round < 3; round++) {
    rig.says('b', 10, 11);
    await rig.scheduler.runUntil(() => false, 30 * SECOND);
    t.is(rig.shipper.status().replicas[1]?.state, 'needs-resync');
    const before = last;
    last = await rig.write(20);
    await rig.arrived(last, before + 1);
  }
  // it came back with a place that is in the journal, and not in the topic that it stands in
  const { oldestLsn } = rig.journal;
  rig.log.truncateBefore('t', BigInt(rig.log.topic('t').records.length));
  rig.says('b', oldestLsn + 4, oldestLsn + 5);
  await rig.arrived(last, oldestLsn + 5);
  t.is(rig.shipper.status().replicas[1]?.state, 'receiving');
  t.is(rig.shipper.status().state, 'streaming');
});

test('a replica that was registered and never heard does not stop the other when the topic is made again', async (t) => {
  const rig = await Rig.start(t);
  const first = await rig.write(300);
  await rig.arrived(first);
  await rig.release(first);
  await rig.replaceTopic();
  const last = await rig.write(20);
  await rig.arrived(last, first + 1);
  t.regex(rig.shipper.status().reason, /^replica b: it lacks record 1,/);
});

test('the journal gives up what an optional replica is being sent: the required one goes on', async (t) => {
  const rig = await Rig.start(t);
  const first = await rig.write(300);
  await rig.arrived(first);
  await rig.release(first);
  const { oldestLsn } = rig.journal;
  const second = await rig.write(3000);
  await rig.arrived(second);
  rig.says('b', oldestLsn, oldestLsn + 1);
  await rig.until('b is being sent what it lacks', () => rig.frames().at(-1)!.lastLsn < second);
  rig.says('a', second);
  await rig.until('release', () => rig.journal.marks.lsn('replicated') === second);
  const { marks } = rig.journal;
  await rig.until('release', () => marks.address('shipped') > marks.address('durable') - FILE_BYTES);
  t.true(rig.frames().at(-1)!.lastLsn < second);
  rig.journal.recycleBelow(marks.address('shipped'));
  const last = await rig.write(20);
  await rig.arrived(last, second + 1);
  t.is(rig.shipper.status().replicas[1]?.state, 'needs-resync');
  rig.says('a', last);
  await rig.until('a is released', () => rig.journal.marks.lsn('replicated') === last);
});

test('nobody can be served, and then one can: he is sent what he lacks', async (t) => {
  const rig = await Rig.start(t);
  const first = await rig.write(300);
  await rig.arrived(first);
  rig.says('b', 10);
  await rig.release(first);
  // its disk is of an earlier day
  rig.says('a', 5);
  await rig.scheduler.runUntil(() => false, 5 * SECOND);
  await rig.replaceTopic();
  const last = await rig.write(20);
  await rig.until('it stands still', () => rig.shipper.status().state === 'needs-resync');
  await rig.scheduler.runUntil(() => false, 30 * SECOND);
  t.is(rig.log.topic('t').records.length, 0);
  rig.says('a', first);
  await rig.arrived(last, first + 1);
  t.regex(rig.shipper.status().reason, /^replica b: it lacks record 11,/);
});

test('of two required replicas the one that lags keeps the journal: nothing is passed over for it', async (t) => {
  const rig = await Rig.start(t, { bothRequired: true });
  const first = await rig.write(300);
  await rig.arrived(first);
  rig.says('a', first);
  rig.says('b', 10);
  await rig.scheduler.runUntil(() => false, 5 * SECOND);
  t.is(rig.journal.marks.lsn('replicated'), 10);
  rig.journal.recycleBelow(rig.journal.marks.address('shipped'));
  await rig.replaceTopic();
  const last = await rig.write(20);
  await rig.arrived(last, 11);
  t.is(rig.shipper.status().state, 'streaming');
});
