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
import { type Scheduler } from '../simulation/scheduler.ts';

export interface Topic extends LogTopic {
  start: bigint;
  records: LogRecord[];
}

/**
 * A replicated log in simulated time, worse than Kafka: concurrent sends land in any order, a send that failed may have
 * been written or is written later, everything fails while the log is down, and topics are truncated and replaced.
 */
export class SimulatedLog implements LogCluster {
  readonly topics: Map<string, Topic> = new Map();
  /** Chance that a call fails, half of the time after its effect. */
  failures = 0;
  down = false;
  /** False: as for a user without the right to ask. */
  tellsSizes = true;
  readonly #scheduler: Scheduler;
  #made = 0;

  constructor(scheduler: Scheduler) {
    this.#scheduler = scheduler;
  }

  producer(name: string): LogProducer {
    const port = new Port(this, this.#scheduler);
    return {
      connect: () => port.call(() => this.topic(name)).then(() => undefined),
      send: (value, _timeoutMs, key = '') =>
        port.call(() => {
          const topic = this.topic(name);
          const offset = topic.start + BigInt(topic.records.length);
          topic.records.push({ offset, key, value: value.slice() });
          return { offset };
        }),
      reset: () => port.reset(),
      close: () => port.close(),
    };
  }

  reader(name: string): LogReader {
    const port = new Port(this, this.#scheduler);
    return {
      bounds: () => port.call(() => this.bounds(name)),
      read: (from, bytesMax, waitMs) =>
        port.call(() => this.#read(name, from, bytesMax), waitMs * 1000 * (this.#hasNext(name, from) ? 0 : 1)),
      reset: () => port.reset(),
      close: () => port.close(),
    };
  }

  admin(): LogAdmin {
    const port = new Port(this, this.#scheduler);
    return {
      describe: (name) => port.call(() => this.topics.get(name)),
      create: ({ topic, replicationFactor, configuration }) =>
        port.call(() => {
          if (this.topics.has(topic)) return;
          const topicId = (++this.#made).toString(16).padStart(32, '0');
          this.topics.set(topic, { topicId, partitions: 1, replicationFactor, configuration, start: 0n, records: [] });
        }),
      truncateBefore: (name, offset) => port.call(() => this.truncateBefore(name, offset)),
      storedBytes: (name) =>
        port.call(() => {
          const bytes = this.topic(name).records.reduce((sum, { value }) => sum + value.length, 0);
          return this.tellsSizes ? bytes : undefined;
        }),
      brokerSettings: () => port.call(() => new Map()),
      reset: () => port.reset(),
      close: () => port.close(),
    };
  }

  topic(name: string): Topic {
    const topic = this.topics.get(name);
    if (topic === undefined) throw new TidemarkError('stream-unavailable', `no topic ${name}`);
    return topic;
  }

  bounds(name: string): LogBounds | undefined {
    const topic = this.topics.get(name);
    return topic && { start: topic.start, end: topic.start + BigInt(topic.records.length), topicId: topic.topicId };
  }

  truncateBefore(name: string, offset: bigint): void {
    const topic = this.topic(name);
    const gone = Number(offset - topic.start);
    if (gone <= 0) return;
    topic.start = offset;
    topic.records = topic.records.slice(gone);
  }

  /** As after an unclean election: the newest records are gone. */
  loseEnd(name: string, count: number): void {
    this.topic(name).records.splice(-count);
  }

  #hasNext(name: string, from: bigint): boolean {
    const topic = this.topics.get(name);
    return topic !== undefined && from < topic.start + BigInt(topic.records.length);
  }

  #read(name: string, from: bigint, bytesMax: number): { records: LogRecord[]; end: bigint } {
    const topic = this.topic(name);
    const end = topic.start + BigInt(topic.records.length);
    if (from < topic.start || from > end) throw new LogOutOfRange(name, from);
    const records: LogRecord[] = [];
    let bytes = 0;
    for (const record of topic.records.slice(Number(from - topic.start))) {
      if (records.length > 0 && bytes + record.value.length > bytesMax) break;
      bytes += record.value.length;
      records.push({ ...record, value: record.value.slice() });
    }
    return { records, end };
  }
}

/** One client's connections: what was under way at a reset is answered with an error, whatever becomes of it. */
class Port {
  readonly #log: SimulatedLog;
  readonly #scheduler: Scheduler;
  readonly #underWay = new Set<(error: TidemarkError) => void>();
  #closed = false;

  constructor(log: SimulatedLog, scheduler: Scheduler) {
    this.#log = log;
    this.#scheduler = scheduler;
  }

  call<T>(effect: () => T, extraMicros = 0): Promise<T> {
    const { random } = this.#scheduler;
    return new Promise((resolve, reject) => {
      if (this.#closed) {
        reject(new TidemarkError('shutting-down', 'closed'));
        return;
      }
      this.#underWay.add(reject);
      const fails = random.chance(this.#log.failures);
      const written = !fails || random.chance(0.5);
      this.#scheduler.after(random.between(200, 20_000) + extraMicros, () => {
        let answer: () => void = () => reject(new TidemarkError('stream-unavailable', 'a simulated failure'));
        if (!this.#log.down && written) {
          try {
            const result = effect();
            if (!fails) answer = () => resolve(result);
          } catch (error) {
            answer = () => reject(error as TidemarkError);
          }
        }
        this.#scheduler.after(random.between(200, 20_000), () => {
          this.#underWay.delete(reject);
          answer();
        });
      });
    });
  }

  reset(): void {
    for (const reject of this.#underWay) reject(new TidemarkError('stream-unavailable', 'reset'));
    this.#underWay.clear();
  }

  close(): void {
    this.#closed = true;
    this.reset();
  }
}
