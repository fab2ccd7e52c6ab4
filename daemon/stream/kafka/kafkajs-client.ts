import net from 'node:net';
import tls from 'node:tls';
import type { ISocketFactory, KafkaConfig, SASLOptions } from 'kafkajs';
import { hasCode, TidemarkError } from '../../../journal/base/errors.ts';
import { streamError } from './client-errors.ts';
import { type KafkaClientOptions, type KafkaTls } from './client-options.ts';
import { loadKafkaJs } from './kafkajs-patches.ts';

/**
 * kafkajs below its public surface: a cluster and its brokers, without its producer (which swaps concurrent sends:
 * tulios/kafkajs#598 and `utils/lock.js`), without its consumer (which jumps silently when an offset is gone) and
 * without its retries (which send again behind later sends). What is used of the internals is written out here.
 */
export interface KafkaBrokerConnection {
  readonly nodeId: number;
  readonly connectionPool: { send(request: KafkaRawRequest): Promise<unknown> };
  produce(request: {
    acks: -1;
    timeout: number;
    topicData: {
      topic: string;
      partitions: { partition: number; firstSequence: number; messages: KafkaMessage[] }[];
    }[];
  }): Promise<{ topics: { partitions: { baseOffset: string }[] }[] }>;
  fetch(request: {
    maxWaitTime: number;
    minBytes: number;
    maxBytes: number;
    isolationLevel: 0;
    topics: { topic: string; partitions: { partition: number; fetchOffset: string; maxBytes: number }[] }[];
  }): Promise<{ responses: { partitions: KafkaFetched[] }[] }>;
  listOffsets(request: {
    isolationLevel: 0;
    topics: { topic: string; partitions: { partition: number; timestamp: number }[] }[];
  }): Promise<{ responses: { partitions: { offset: string }[] }[] }>;
  createTopics(request: {
    topics: {
      topic: string;
      numPartitions: number;
      replicationFactor: number;
      configEntries: { name: string; value: string }[];
    }[];
    timeout: number;
  }): Promise<unknown>;
  describeConfigs(request: { resources: { type: number; name: string; configNames: string[] }[] }): Promise<{
    resources: { configEntries: { configName: string; configValue: string | null }[] }[];
  }>;
  deleteRecords(request: {
    topics: { topic: string; partitions: { partition: number; offset: string }[] }[];
  }): Promise<unknown>;
}

interface KafkaMessage {
  readonly key: string | null;
  readonly value: Uint8Array;
}

export interface KafkaFetched {
  readonly highWatermark: string;
  readonly messages: { readonly offset: string; readonly key: Buffer | null; readonly value: Buffer | null }[];
}

interface KafkaRawRequest {
  readonly request: {
    apiKey: number;
    apiVersion: number;
    apiName: string;
    encode(): Promise<{ buf: Buffer; buffer: Buffer }>;
  };
  readonly response: {
    decode(payload: Buffer): Promise<{ clientSideThrottleTime: number; payload: Buffer }>;
    parse(decoded: { payload: Buffer }): Promise<Buffer>;
  };
}

interface KafkaCluster {
  connect(): Promise<void>;
  addMultipleTargetTopics(topics: string[]): Promise<void>;
  findTopicPartitionMetadata(topic: string): { partitionId: number; leader: number }[];
  findBroker(node: { nodeId: string }): Promise<KafkaBrokerConnection>;
  findControllerBroker(): Promise<KafkaBrokerConnection>;
  refreshMetadata(): Promise<void>;
  disconnect(): Promise<void>;
}

const KEEP_ALIVE_MS = 10_000;
const CONNECT_TIMEOUT_MS = 5_000;
const REQUEST_TIMEOUT_MS = 10_000;
/** kafkajs's own request timer only cleans up behind ours, which are per call. */
const CLEAN_UP_MS = 150_000;

const kafkajs = loadKafkaJs();

/** One cluster's connections of one user: made when needed, dropped whole on any doubt. */
export class KafkaLink {
  readonly #options: KafkaClientOptions;
  readonly requestTimeoutMs: number;
  #brokers: string[];
  #cluster: KafkaCluster | undefined;
  #generation = new Generation();
  #connected = new Map<string, Promise<KafkaBrokerConnection>>();
  #closed = false;

  constructor(options: KafkaClientOptions) {
    if (options.brokers.length === 0) throw new TidemarkError('config-invalid', 'a Kafka stream needs a broker');
    this.#options = options;
    this.requestTimeoutMs = options.requestTimeoutMs ?? REQUEST_TIMEOUT_MS;
    this.#brokers = [...options.brokers];
    // Not every daemon of a site begins with the same broker.
    for (let turns = Math.floor(Math.random() * this.#brokers.length); turns > 0; turns--) this.#rotate();
  }

  /** The broker that leads partition 0 of the topic; undefined when there is no such topic. */
  leader(topic: string): Promise<KafkaBrokerConnection> {
    return this.#connect(`leader of ${topic}`, async (cluster) => {
      await cluster.addMultipleTargetTopics([topic]);
      const leader = cluster.findTopicPartitionMetadata(topic).find((partition) => partition.partitionId === 0)?.leader;
      if (leader === undefined || leader < 0) {
        throw new TidemarkError('stream-unavailable', `topic ${topic} has no leader now`);
      }
      return cluster.findBroker({ nodeId: String(leader) });
    });
  }

  controller(): Promise<KafkaBrokerConnection> {
    return this.#connect('controller', async (cluster) => {
      await cluster.refreshMetadata();
      return cluster.findControllerBroker();
    });
  }

  /** Runs one request within its time; on any failure the caller resets. */
  async bounded<T>(doing: string, timeoutMs: number, request: Promise<T>): Promise<T> {
    let timer: NodeJS.Timeout | undefined;
    const expired = new Promise<never>((_resolve, reject) => {
      timer = setTimeout(() => {
        reject(new TidemarkError('stream-unavailable', `Kafka, ${doing}: no answer within ${timeoutMs} ms`));
      }, timeoutMs);
    });
    try {
      return await Promise.race([request, expired]);
    } catch (error) {
      throw streamError(error, doing);
    } finally {
      clearTimeout(timer);
    }
  }

  reset(): void {
    this.#connected = new Map();
    this.#dropConnections();
  }

  close(): void {
    this.#closed = true;
    this.reset();
  }

  #dropConnections(): void {
    const ended = this.#generation;
    this.#generation = new Generation();
    this.#cluster = undefined;
    this.#rotate();
    ended.end();
  }

  #rotate(): void {
    const first = this.#brokers.shift();
    if (first !== undefined) this.#brokers.push(first);
  }

  #connect(
    what: string,
    find: (cluster: KafkaCluster) => Promise<KafkaBrokerConnection>,
  ): Promise<KafkaBrokerConnection> {
    if (this.#closed) return Promise.reject(new TidemarkError('shutting-down', 'the Kafka client is closed'));
    let broker = this.#connected.get(what);
    if (broker === undefined) {
      broker = this.#connectByAny(what, find);
      this.#connected.set(what, broker);
    }
    return broker;
  }

  /** Asks one broker of the list after the other: any of them knows the whole cluster. */
  async #connectByAny(
    what: string,
    find: (cluster: KafkaCluster) => Promise<KafkaBrokerConnection>,
  ): Promise<KafkaBrokerConnection> {
    const connected = this.#connected;
    for (let left = this.#brokers.length; ; left--) {
      this.#cluster ??= this.#newCluster();
      const cluster = this.#cluster;
      const doing = `connecting to the ${what} by ${this.#brokers[0] ?? ''}`;
      const connecting = cluster.connect().then(() => find(cluster));
      try {
        return await this.bounded(doing, this.#options.connectTimeoutMs ?? CONNECT_TIMEOUT_MS, connecting);
      } catch (error) {
        const abandoned = connected !== this.#connected;
        if (abandoned || left <= 1 || !hasCode(error, 'stream-unavailable')) throw error;
        if (cluster === this.#cluster) this.#dropConnections();
      }
    }
  }

  #newCluster(): KafkaCluster {
    const { tls: secure, sasl } = this.#options;
    const connectTimeoutMs = this.#options.connectTimeoutMs ?? CONNECT_TIMEOUT_MS;
    const configuration: KafkaConfig = {
      brokers: this.#brokers,
      clientId: this.#options.clientId,
      logLevel: kafkajs.logLevel.NOTHING,
      connectionTimeout: connectTimeoutMs,
      authenticationTimeout: connectTimeoutMs,
      requestTimeout: CLEAN_UP_MS,
      retry: { retries: 0 },
      socketFactory: this.#socketFactory(secure),
      ...(secure === undefined ? {} : { ssl: {} }),
      ...(sasl === undefined ? {} : { sasl: sasl as SASLOptions }),
    };
    const client = new kafkajs.Kafka(configuration);
    const create = Object.getOwnPropertySymbols(client).find((symbol) => String(symbol).includes('createCluster'));
    if (create === undefined) throw new TidemarkError('unsupported', 'this version of kafkajs cannot be used');
    const build = (client as unknown as Record<symbol, (options: object) => KafkaCluster>)[create];
    if (build === undefined) throw new TidemarkError('unsupported', 'this version of kafkajs cannot be used');
    return build({ metadataMaxAge: 300_000, allowAutoTopicCreation: false, maxInFlightRequests: null });
  }

  #socketFactory(secure: KafkaTls | undefined): ISocketFactory {
    const generation = this.#generation;
    return ({ host, port, onConnect }) => {
      const socket =
        secure === undefined
          ? net.connect({ host, port }, onConnect)
          : tls.connect({ host, port, ...tlsOptions(secure, host) }, onConnect);
      socket.setNoDelay(true);
      socket.setKeepAlive(true, KEEP_ALIVE_MS);
      generation.add(socket);
      return socket;
    };
  }
}

/** The sockets between two resets, also those that a dropped cluster still opens after its end. */
class Generation {
  readonly #sockets = new Set<net.Socket>();
  #ended = false;

  add(socket: net.Socket): void {
    if (this.#ended) {
      setImmediate(endSocket, socket);
      return;
    }
    this.#sockets.add(socket);
    socket.once('close', () => this.#sockets.delete(socket));
  }

  end(): void {
    this.#ended = true;
    for (const socket of this.#sockets) endSocket(socket);
  }
}

/** With an error, so that kafkajs rejects what waits for an answer: its own disconnect would wait for the answers. */
function endSocket(socket: net.Socket): void {
  socket.destroy(new Error('connection ended by this side'));
}

function tlsOptions(secure: KafkaTls, host: string): tls.ConnectionOptions {
  const servername = secure.servername ?? (net.isIP(host) === 0 ? host : undefined);
  return {
    minVersion: 'TLSv1.2',
    ...(secure.ca === undefined ? {} : { ca: secure.ca }),
    ...(secure.cert === undefined ? {} : { cert: secure.cert }),
    ...(secure.key === undefined ? {} : { key: secure.key }),
    ...(servername === undefined ? {} : { servername }),
  };
}
