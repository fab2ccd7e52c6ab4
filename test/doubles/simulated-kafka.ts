import { crc32 } from '@node-rs/crc32';
import {
  type LogAdmin,
  type LogBounds,
  type LogCluster,
  LogOutOfRange,
  type LogProducer,
  type LogReader,
  type LogRecord,
  type LogTopic,
} from '../../daemon/stream/kafka/log-ports.ts';
import { TidemarkError } from '../../journal/base/errors.ts';
import type { Scheduler } from '../simulation/scheduler.ts';
import type { SimulatedProcess } from './simulated-process.ts';

/** Which misbehaviour of clients' calls a run draws; probabilities per call. */
export interface KafkaFaults {
  /** Each way, uniform up to this: calls under way at once overtake one another. */
  readonly latencyMicrosMax: number;
  /** The request is lost: no effect, and an error at once or none at all until the client's bound. */
  readonly lostRequests: number;
  /** The request has its effect and the answer is lost. */
  readonly lostAnswers: number;
  /** A produce arrives after the client gave it up, even when its process is long dead. */
  readonly lateSends: number;
}

export const NO_KAFKA_FAULTS: KafkaFaults = { latencyMicrosMax: 2000, lostRequests: 0, lostAnswers: 0, lateSends: 0 };

/** A request that was given up arrives so late at most. */
export const LATE_MICROS_MAX = 30_000_000;
/** What the product's client gives every call but a produce, which names its own bound. */
const REQUEST_BOUND_MS = 5_000;

interface Topic extends LogTopic {
  start: bigint;
  records: LogRecord[];
  /** Reads that wait for a record; called, and forgotten, when anything about the topic changes. */
  readonly waiting: Set<() => void>;
}

/**
 * Kafka as seen through its client's ports, in simulated time: topics of one partition that outlive the processes that
 * use them, and everything that brokers do to them. A call that got no answer may have been, may yet be, or never was.
 */
export class SimulatedKafka {
  readonly scheduler: Scheduler;
  faults: KafkaFaults;
  readonly #topics: Map<string, Topic> = new Map();
  /** Requests that came while the brokers were frozen. */
  readonly #frozenRequests: (() => void)[] = [];
  #down = false;
  #frozen = false;
  /** Who cannot reach the brokers, though others can; it hears no answers either. */
  readonly cutOff: Set<SimulatedProcess> = new Set();
  #made = 0;

  constructor(scheduler: Scheduler, faults: KafkaFaults) {
    this.scheduler = scheduler;
    this.faults = faults;
  }

  /** As one process sees it: what it asked for may happen after its death, but it hears of nothing then. */
  cluster(process: SimulatedProcess): LogCluster {
    return {
      producer: (name) => this.#producer(new Port(this, process), name),
      reader: (name) => this.#reader(new Port(this, process), name),
      admin: () => this.#admin(new Port(this, process)),
    };
  }

  get down(): boolean {
    return this.#down;
  }

  /** While true every connection is refused. */
  set down(value: boolean) {
    this.#down = value;
  }

  /** While true the brokers take requests and do nothing; when it ends they do all of them, in any order. */
  set frozen(value: boolean) {
    this.#frozen = value;
    if (value) return;
    for (const request of this.#frozenRequests.splice(0)) {
      this.scheduler.after(this.scheduler.random.below(100_000), request);
    }
  }

  /** A request reaches the brokers. */
  arrive(request: () => void): void {
    if (this.#frozen) this.#frozenRequests.push(request);
    else request();
  }

  bounds(name: string): LogBounds | undefined {
    const topic = this.#topics.get(name);
    return topic && { start: topic.start, end: endOf(topic), topicId: topic.topicId };
  }

  /** As after an unclean election: the newest records, acknowledged or not, are gone and their offsets are given again. */
  loseEnd(name: string, count: number): void {
    const topic = this.#topics.get(name);
    topic?.records.splice(Math.max(0, topic.records.length - count));
    this.#changed(topic);
  }

  /** Retention, or somebody's DeleteRecords: everything below the offset is gone. */
  expireBefore(name: string, offset: bigint): void {
    const topic = this.#topics.get(name);
    if (topic === undefined || offset <= topic.start) return;
    topic.records = topic.records.slice(Number(offset - topic.start));
    topic.start = offset;
    this.#changed(topic);
  }

  /** The topic is deleted; whoever may makes it anew, with other offsets. */
  delete(name: string): void {
    const topic = this.#topics.get(name);
    this.#topics.delete(name);
    this.#changed(topic);
  }

  /** Somebody else writes: a record that was there before once more, or rubbish. */
  inject(name: string, pick: (records: readonly LogRecord[]) => Pick<LogRecord, 'key' | 'value'> | undefined): void {
    const topic = this.#topics.get(name);
    const record = topic && pick(topic.records);
    if (topic !== undefined && record !== undefined) this.#append(topic, record.key, record.value);
  }

  #append(topic: Topic, key: string, value: Uint8Array): bigint {
    const offset = endOf(topic);
    topic.records.push({ offset, key, value: value.slice() });
    this.scheduler.trace('append', Number(offset), value.length, crc32(value));
    this.#changed(topic);
    return offset;
  }

  #changed(topic: Topic | undefined): void {
    if (topic === undefined) return;
    const waiting = [...topic.waiting];
    topic.waiting.clear();
    for (const wake of waiting) wake();
  }

  #find(name: string): Topic {
    const topic = this.#topics.get(name);
    if (topic === undefined) throw new TidemarkError('stream-unavailable', `no topic ${name}`);
    return topic;
  }

  #producer(port: Port, name: string): LogProducer {
    return {
      connect: () => port.call(() => this.#find(name)).then(() => undefined),
      send: (value, timeoutMs, key = '') => {
        const append = (): { offset: bigint } => ({ offset: this.#append(this.#find(name), key, value) });
        return port.call(append, timeoutMs, this.scheduler.random.chance(this.faults.lateSends));
      },
      reset: () => port.reset(),
      close: () => port.close(),
    };
  }

  #reader(port: Port, name: string): LogReader {
    return {
      bounds: () => port.call(() => this.bounds(name)),
      read: (from, bytesMax, waitMs) => {
        const read = (): { records: LogRecord[]; end: bigint } => this.#read(name, from, bytesMax);
        return port.poll(read, waitMs, (wake) => this.#wait(name, from, wake));
      },
      reset: () => port.reset(),
      close: () => port.close(),
    };
  }

  #admin(port: Port): LogAdmin {
    return {
      describe: (name) => port.call(() => this.#topics.get(name)),
      create: ({ topic, replicationFactor, configuration }) =>
        port.call(() => {
          if (this.#topics.has(topic)) return;
          const topicId = (++this.#made).toString(16).padStart(32, '0');
          const records: LogRecord[] = [];
          const made = { topicId, partitions: 1, replicationFactor, configuration, start: 0n, records };
          this.#topics.set(topic, { ...made, waiting: new Set() });
        }),
      truncateBefore: (name, offset) => port.call(() => this.expireBefore(name, offset)),
      storedBytes: (name) =>
        port.call(() => this.#topics.get(name)?.records.reduce((sum, { value }) => sum + value.length, 0)),
      brokerSettings: () => port.call(() => new Map()),
      reset: () => port.reset(),
      close: () => port.close(),
    };
  }

  /** Calls `wake` when there is something to say at this offset; false: there is now. */
  #wait(name: string, from: bigint, wake: () => void): boolean {
    const topic = this.#topics.get(name);
    if (topic === undefined || from !== endOf(topic)) return false;
    topic.waiting.add(wake);
    return true;
  }

  #read(name: string, from: bigint, bytesMax: number): { records: LogRecord[]; end: bigint } {
    const topic = this.#find(name);
    const end = endOf(topic);
    if (from < topic.start || from > end) throw new LogOutOfRange(name, from);
    const records: LogRecord[] = [];
    let bytes = 0;
    for (let index = Number(from - topic.start); index < topic.records.length; index++) {
      const record = topic.records[index] as LogRecord;
      if (records.length > 0 && bytes + record.value.length > bytesMax) break;
      bytes += record.value.length;
      records.push({ ...record, value: record.value.slice() });
    }
    this.scheduler.trace(`fetch ${name}`, Number(from), records.length, bytes);
    return { records, end };
  }
}

function endOf(topic: Topic): bigint {
  return topic.start + BigInt(topic.records.length);
}

/** One client's connections: what was under way at a reset is answered with an error, whatever becomes of it. */
class Port {
  readonly #kafka: SimulatedKafka;
  readonly #process: SimulatedProcess;
  readonly #underWay = new Set<(why: string) => void>();
  #closed = false;

  constructor(kafka: SimulatedKafka, process: SimulatedProcess) {
    this.#kafka = kafka;
    this.#process = process;
  }

  call<T>(effect: () => T, boundMs = REQUEST_BOUND_MS, late = false): Promise<T> {
    return this.#ask(boundMs, late, (answer) => answer(effect));
  }

  /** Answers at once, or when `wait` says that something changed, or when the time is over. */
  poll<T>(effect: () => T, waitMs: number, wait: (wake: () => void) => boolean): Promise<T> {
    return this.#ask(REQUEST_BOUND_MS + waitMs, false, (answer) => {
      const wake = (): void => {
        timer.cancel();
        answer(effect);
      };
      const timer = this.#kafka.scheduler.after(waitMs * 1000, () => answer(effect));
      if (waitMs === 0 || !wait(wake)) wake();
    });
  }

  #ask<T>(boundMs: number, late: boolean, serve: (answer: (effect: () => T) => void) => void): Promise<T> {
    const { scheduler, faults } = this.#kafka;
    const { random } = scheduler;
    return new Promise((resolve, reject) => {
      let settled = false;
      const settle = (how: () => void): void => {
        if (settled) return;
        settled = true;
        bound.cancel();
        this.#underWay.delete(fail);
        scheduler.trace('Kafka answers');
        if (this.#process.alive) how();
      };
      const fail = (why: string): void =>
        settle(() => reject(new TidemarkError('stream-unavailable', `Kafka, simulated: ${why}`)));
      const bound = scheduler.after(boundMs * 1000, () => fail('no answer in time'));
      if (this.#closed) {
        settle(() => reject(new TidemarkError('shutting-down', 'closed')));
        return;
      }
      this.#underWay.add(fail);
      const lostRequest = random.chance(faults.lostRequests);
      const lostAnswer = !lostRequest && random.chance(faults.lostAnswers);
      const breaks = (lostRequest || lostAnswer) && random.chance(0.7);
      const travel = late ? boundMs * 1000 + random.below(LATE_MICROS_MAX) : this.#latency();
      scheduler.after(travel, () => {
        if (this.#kafka.down || this.#kafka.cutOff.has(this.#process)) {
          fail('connection refused');
          return;
        }
        if (breaks) scheduler.after(this.#latency(), () => fail('connection closed'));
        if (lostRequest) return;
        this.#kafka.arrive(() => {
          serve((effect) => {
            let how: () => void;
            try {
              const result = effect();
              how = () => resolve(result);
            } catch (error) {
              how = () => reject(error as Error);
            }
            if (!lostAnswer) scheduler.after(this.#latency(), () => settle(how));
          });
        });
      });
    });
  }

  #latency(): number {
    return this.#kafka.scheduler.random.between(1, this.#kafka.faults.latencyMicrosMax);
  }

  reset(): void {
    for (const fail of this.#underWay) fail('reset');
  }

  close(): void {
    this.#closed = true;
    this.reset();
  }
}
