import type { Host } from '../../journal/host/host.ts';
import type { FrameSource } from '../../journal/stream.ts';
import type { ReplicaStreamConfig } from '../config/config-types.ts';
import { DirectListener } from '../stream/direct/direct-listener.ts';
import { TcpListener } from '../stream/direct/tcp-wire.ts';
import { feedbackTopicOf, openKafka } from '../stream-setup/kafka-setup.ts';
import { listenerTls } from '../stream-setup/read-pem.ts';

/** The replica's end of a configured stream. One source at a time; the one before must be closed. */
export interface ReplicaStream {
  readonly kind: 'direct' | 'kafka';
  /** Where a source connects; null over Kafka. */
  readonly listen: string | null;
  /** `groupId` null: not known yet. */
  source(groupName: string, groupId: string | null): FrameSource;
  close(): Promise<void>;
}

/** Rejects with stream-misconfigured when the address cannot be taken, config-invalid when a file cannot be read. */
export async function openReplicaStream(
  host: Host,
  config: ReplicaStreamConfig,
  clientId: string,
): Promise<ReplicaStream> {
  if (config.kafka !== null) {
    const { KafkaSource } = await import('../stream/kafka/kafka-source.ts');
    const { kafka } = config;
    const cluster = await openKafka(kafka, clientId);
    const options = { topic: kafka.topic, feedbackTopic: feedbackTopicOf(kafka) };
    return {
      kind: 'kafka',
      listen: null,
      source: () => new KafkaSource(host, cluster, options),
      close: () => Promise.resolve(),
    };
  }
  const { listen, tls } = config.direct ?? { listen: { host: '127.0.0.1', port: 0 }, tls: null };
  const tcp = new TcpListener(listen.host, listen.port, tls === null ? undefined : await listenerTls(tls));
  const listener = new DirectListener(host.clock, { listener: tcp });
  const address = await listener.listen();
  return {
    kind: 'direct',
    listen: address,
    source: (groupName, groupId) => listener.source({ groupName, groupId }),
    close: () => listener.close(),
  };
}
