import { TidemarkError } from '../../../journal/base/errors.ts';
import { protocolErrorType, streamError } from './client-errors.ts';
import { type KafkaClientOptions } from './client-options.ts';
import { type KafkaBrokerConnection, type KafkaFetched, KafkaLink } from './kafkajs-client.ts';
import {
  decodeLogDirsResponse,
  encodeLogDirsRequest,
  LOG_DIRS_API_KEY,
  LOG_DIRS_API_VERSION,
} from './log-dirs-codec.ts';
import {
  type LogAdmin,
  type LogBounds,
  type LogCluster,
  LogOutOfRange,
  type LogProducer,
  type LogReader,
  type LogRecord,
  type LogTopic,
  type LogTopicSpec,
} from './log-ports.ts';
import {
  decodeMetadataResponse,
  encodeMetadataRequest,
  METADATA_API_KEY,
  METADATA_API_VERSION,
  type TopicMetadata,
} from './metadata-codec.ts';

/** ListOffsets' names for the two ends of a log. */
const LATEST = -1;
const EARLIEST = -2;
/** DescribeConfigs' number for a topic. */
const TOPIC_RESOURCE = 2;
const BROKER_RESOURCE = 4;
/** A long poll is answered after its wait at the latest; more than this beyond it, and the broker hangs. */
const POLL_GRACE_MS = 5_000;

/** Kafka as a `LogCluster`. Each port has connections of its own, so that a reset of one disturbs no other. */
export class KafkaLog implements LogCluster {
  readonly #options: KafkaClientOptions;

  constructor(options: KafkaClientOptions) {
    this.#options = options;
  }

  producer(topic: string): LogProducer {
    return new KafkaProducer(new KafkaLink(this.#options), topic);
  }

  reader(topic: string): LogReader {
    return new KafkaReader(new KafkaLink(this.#options), topic);
  }

  admin(): LogAdmin {
    return new KafkaAdmin(new KafkaLink(this.#options));
  }
}

class KafkaProducer implements LogProducer {
  readonly #link: KafkaLink;
  readonly #topic: string;
  /** Each send starts in a macrotask of its own, one behind the other: no await inside kafkajs can then swap two. */
  #turn: Promise<void> = Promise.resolve();

  constructor(link: KafkaLink, topic: string) {
    this.#link = link;
    this.#topic = topic;
  }

  async connect(): Promise<void> {
    await this.#link.leader(this.#topic);
  }

  async send(value: Uint8Array, timeoutMs: number, key?: string): Promise<{ offset: bigint }> {
    const leader = this.#link.leader(this.#topic);
    const turn = this.#turn;
    this.#turn = Promise.allSettled([turn, leader]).then(nextMacrotask);
    await turn;
    const broker = await leader;
    const messages = [{ key: key ?? null, value: asBuffer(value) }];
    const produced = await this.#link.bounded(
      `producing to ${this.#topic}`,
      timeoutMs,
      broker.produce({
        acks: -1,
        timeout: timeoutMs,
        topicData: [{ topic: this.#topic, partitions: [{ partition: 0, firstSequence: 0, messages }] }],
      }),
    );
    const offset = produced.topics[0]?.partitions[0]?.baseOffset;
    if (offset === undefined)
      throw new TidemarkError('stream-unavailable', 'the broker acknowledged without an offset');
    return { offset: BigInt(offset) };
  }

  reset(): void {
    this.#turn = Promise.resolve();
    this.#link.reset();
  }

  close(): void {
    this.#link.close();
  }
}

class KafkaReader implements LogReader {
  readonly #link: KafkaLink;
  readonly #topic: string;

  constructor(link: KafkaLink, topic: string) {
    this.#link = link;
    this.#topic = topic;
  }

  async bounds(): Promise<LogBounds | undefined> {
    const topic = await topicMetadata(this.#link, this.#topic);
    if (topic === undefined) return undefined;
    const start = await this.#offset(EARLIEST);
    const end = await this.#offset(LATEST);
    return { start, end, topicId: topic.topicId };
  }

  async #offset(timestamp: number): Promise<bigint> {
    const broker = await this.#link.leader(this.#topic);
    const listed = await this.#link.bounded(
      `asking for the bounds of ${this.#topic}`,
      this.#link.requestTimeoutMs,
      broker.listOffsets({
        isolationLevel: 0,
        topics: [{ topic: this.#topic, partitions: [{ partition: 0, timestamp }] }],
      }),
    );
    return BigInt(listed.responses[0]?.partitions[0]?.offset ?? '0');
  }

  async read(from: bigint, bytesMax: number, waitMs: number): Promise<{ records: LogRecord[]; end: bigint }> {
    const broker = await this.#link.leader(this.#topic);
    const partition = { partition: 0, fetchOffset: String(from), maxBytes: bytesMax };
    const fetching = broker.fetch({
      maxWaitTime: waitMs,
      minBytes: 1,
      maxBytes: bytesMax,
      isolationLevel: 0,
      topics: [{ topic: this.#topic, partitions: [partition] }],
    });
    const outOfRange = fetching.catch((error: unknown) => {
      if (protocolErrorType(error) === 'OFFSET_OUT_OF_RANGE') throw new LogOutOfRange(this.#topic, from);
      throw error;
    });
    const fetched = await this.#link.bounded(`reading ${this.#topic}`, waitMs + POLL_GRACE_MS, outOfRange);
    return recordsFrom(fetched.responses[0]?.partitions[0], from);
  }

  reset(): void {
    this.#link.reset();
  }

  close(): void {
    this.#link.close();
  }
}

/** A batch is returned whole even when the offset asked for lies inside it; values are slices of the whole response. */
function recordsFrom(fetched: KafkaFetched | undefined, from: bigint): { records: LogRecord[]; end: bigint } {
  const records: LogRecord[] = [];
  for (const message of fetched?.messages ?? []) {
    const offset = BigInt(message.offset);
    if (offset < from) continue;
    const value = message.value === null ? new Uint8Array(0) : Uint8Array.from(message.value);
    records.push({ offset, key: message.key?.toString('utf8') ?? '', value });
  }
  return { records, end: BigInt(fetched?.highWatermark ?? '0') };
}

class KafkaAdmin implements LogAdmin {
  readonly #link: KafkaLink;

  constructor(link: KafkaLink) {
    this.#link = link;
  }

  async describe(topic: string): Promise<LogTopic | undefined> {
    const found = await topicMetadata(this.#link, topic);
    if (found === undefined) return undefined;
    const broker = await this.#link.controller();
    const described = await this.#link.bounded(
      `describing the configuration of ${topic}`,
      this.#link.requestTimeoutMs,
      broker.describeConfigs({ resources: [{ type: TOPIC_RESOURCE, name: topic, configNames: [] }] }),
    );
    const configuration = new Map<string, string>();
    for (const entry of described.resources[0]?.configEntries ?? []) {
      configuration.set(entry.configName, entry.configValue ?? '');
    }
    return { ...found, configuration };
  }

  async create(spec: LogTopicSpec): Promise<void> {
    const broker = await this.#link.controller();
    const configEntries = [...spec.configuration].map(([name, value]) => ({ name, value }));
    const { topic, replicationFactor } = spec;
    const timeout = this.#link.requestTimeoutMs;
    try {
      await this.#link.bounded(
        `creating topic ${topic}`,
        timeout,
        broker.createTopics({ topics: [{ topic, numPartitions: 1, replicationFactor, configEntries }], timeout }),
      );
    } catch (error) {
      if (protocolErrorType((error as Error).cause) !== 'TOPIC_ALREADY_EXISTS') throw error;
    }
  }

  async truncateBefore(topic: string, offset: bigint): Promise<void> {
    const broker = await this.#link.leader(topic);
    await this.#link.bounded(
      `deleting the records of ${topic} before offset ${offset}`,
      this.#link.requestTimeoutMs,
      broker.deleteRecords({ topics: [{ topic, partitions: [{ partition: 0, offset: String(offset) }] }] }),
    );
  }

  async storedBytes(topic: string): Promise<number | undefined> {
    const broker = await this.#link.leader(topic);
    const doing = `asking what topic ${topic} takes on disk`;
    const api = { apiKey: LOG_DIRS_API_KEY, apiVersion: LOG_DIRS_API_VERSION, apiName: 'DescribeLogDirs' };
    const response = await askRaw(this.#link, broker, doing, api, encodeLogDirsRequest(topic));
    return decodeLogDirsResponse(response, topic);
  }

  async brokerSettings(): Promise<ReadonlyMap<string, string>> {
    const broker = await this.#link.controller();
    const described = await this.#link.bounded(
      'describing the configuration of a broker',
      this.#link.requestTimeoutMs,
      broker.describeConfigs({ resources: [{ type: BROKER_RESOURCE, name: String(broker.nodeId), configNames: [] }] }),
    );
    const entries = described.resources[0]?.configEntries ?? [];
    return new Map(entries.map(({ configName, configValue }) => [configName, configValue ?? '']));
  }

  reset(): void {
    this.#link.reset();
  }

  close(): void {
    this.#link.close();
  }
}

async function topicMetadata(link: KafkaLink, topic: string): Promise<TopicMetadata | undefined> {
  const broker = await link.controller();
  const api = { apiKey: METADATA_API_KEY, apiVersion: METADATA_API_VERSION, apiName: 'Metadata' };
  const response = await askRaw(link, broker, `describing topic ${topic}`, api, encodeMetadataRequest(topic));
  return decodeMetadataResponse(response, topic);
}

/** A request that kafkajs does not have, over its connection; the response is without its header's correlation id. */
async function askRaw(
  link: KafkaLink,
  broker: KafkaBrokerConnection,
  doing: string,
  api: { readonly apiKey: number; readonly apiVersion: number; readonly apiName: string },
  bytes: Buffer,
): Promise<Buffer> {
  const response = await link.bounded(
    doing,
    link.requestTimeoutMs,
    broker.connectionPool.send({
      request: { ...api, encode: () => Promise.resolve({ buf: bytes, buffer: bytes }) },
      response: {
        decode: (payload) => Promise.resolve({ clientSideThrottleTime: 0, payload }),
        parse: ({ payload }) => Promise.resolve(payload),
      },
    }),
  );
  if (!Buffer.isBuffer(response)) throw streamError(new Error(`not a response to ${api.apiName}`), doing);
  return response;
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function nextMacrotask(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve);
  });
}
