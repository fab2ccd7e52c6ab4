import { DirectListener } from '../../daemon/stream/direct/direct-listener.ts';
import { DirectSink } from '../../daemon/stream/direct/direct-sink.ts';
import { KafkaSink } from '../../daemon/stream/kafka/kafka-sink.ts';
import { KafkaSource } from '../../daemon/stream/kafka/kafka-source.ts';
import type { Host } from '../../journal/host/host.ts';
import type { FrameSink, FrameSource } from '../../journal/stream.ts';
import type { SimulatedKafka } from '../doubles/simulated-kafka.ts';
import type { SimulatedNetwork } from '../doubles/simulated-network.ts';
import type { SimulatedProcess } from '../doubles/simulated-process.ts';
import { FEEDBACK_TOPIC, GROUP_ID, GROUP_NAME, type ReplicaPlace, TOPIC } from './names.ts';
import type { StreamOptions } from './stream-options.ts';

const POLICY = { replicationFactor: 3, minInsyncReplicas: 2, create: true, acceptWeak: false };
/** A run lasts seconds: what the product does once a minute is done more often. */
const CHECK_INTERVAL_MS = 5_000;

/** Both ends of the stream of a run, as the product has them: over the simulated network, or over simulated Kafka. */
export class Streams {
  readonly #options: StreamOptions;
  readonly #network: SimulatedNetwork;
  readonly #kafka: SimulatedKafka;
  readonly #replicas: readonly ReplicaPlace[];

  constructor(
    options: StreamOptions,
    network: SimulatedNetwork,
    kafka: SimulatedKafka,
    replicas: readonly ReplicaPlace[],
  ) {
    this.#options = options;
    this.#network = network;
    this.#kafka = kafka;
    this.#replicas = replicas;
  }

  get replicas(): readonly ReplicaPlace[] {
    return this.#replicas;
  }

  /** Of the source's ends, whether somebody has to be waited for there. */
  get requiredSinks(): boolean[] {
    return this.#options.kind === 'kafka' ? [true] : this.#replicas.map(({ required }) => required);
  }

  /** Of the source's ends, for a person. */
  get names(): string[] {
    return this.#options.kind === 'kafka' ? [`topic ${TOPIC}`] : this.#replicas.map(({ name }) => `replica ${name}`);
  }

  /** The source's ends: one per replica, or one for the topic. */
  sinks(host: Host, process: SimulatedProcess): FrameSink[] {
    const options = this.#options;
    if (options.kind === 'direct') {
      return this.#replicas.map(
        ({ name, address }) => new DirectSink(host, { replica: name, dialer: this.#network.dialer(process, address) }),
      );
    }
    const replicas = this.#replicas.map(({ name }) => name);
    const topics = { topic: TOPIC, feedbackTopic: FEEDBACK_TOPIC };
    const { windowBytes } = options;
    const sink = new KafkaSink(host, this.#kafka.cluster(process), {
      ...topics,
      groupId: GROUP_ID,
      replicas,
      policy: POLICY,
      windowBytes,
      checkIntervalMs: CHECK_INTERVAL_MS,
    });
    return [sink];
  }

  /** A replica's end, and how it is let go. */
  async source(
    host: Host,
    process: SimulatedProcess,
    replica: ReplicaPlace,
  ): Promise<{ readonly source: FrameSource; close(): Promise<void> }> {
    if (this.#options.kind === 'direct') {
      const listener = new DirectListener(host.clock, { listener: this.#network.listener(process, replica.address) });
      await listener.listen();
      const source = listener.source({ groupName: GROUP_NAME, groupId: GROUP_ID });
      return { source, close: () => listener.close() };
    }
    const { readBytes } = this.#options;
    const source = new KafkaSource(host, this.#kafka.cluster(process), {
      topic: TOPIC,
      feedbackTopic: FEEDBACK_TOPIC,
      readBytes,
      checkIntervalMs: CHECK_INTERVAL_MS,
    });
    return { source, close: () => Promise.resolve() };
  }
}
