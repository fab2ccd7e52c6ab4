import type { Host } from '../../journal/host/host.ts';
import type { FrameSink } from '../../journal/stream.ts';
import type { SourceGroupConfig } from '../config/config-types.ts';
import { DirectSink } from '../stream/direct/direct-sink.ts';
import { TcpDialer } from '../stream/direct/tcp-wire.ts';
import { feedbackTopicOf, openKafka, topicPolicyOf } from '../stream-setup/kafka-setup.ts';
import { dialerTls } from '../stream-setup/read-pem.ts';

/** How the sinks of a group are called for an operator, in their order. */
export function streamNames({ stream: { direct, kafka } }: SourceGroupConfig): string[] {
  if (kafka !== null) return [`topic ${kafka.topic}`];
  return (direct?.replicas ?? []).map(({ name }) => `replica ${name}`);
}

/** For each sink, in their order, whether somebody reads from it whom the source has to wait for. */
export function requiredSinks({ stream: { direct, kafka }, replicas }: SourceGroupConfig): boolean[] {
  if (kafka !== null) return [true];
  const required = new Set(replicas.filter((replica) => replica.required).map(({ name }) => name));
  return (direct?.replicas ?? []).map(({ name }) => required.has(name));
}

/**
 * Makes the source's ends of a group's stream: one sink per replica over direct, one for the topic over Kafka. A sink is
 * opened once, so that settling and shipping each get sinks of their own. Rejects with config-invalid.
 */
export async function sinkFactory(host: Host, config: SourceGroupConfig, groupId: string): Promise<() => FrameSink[]> {
  const { direct, kafka } = config.stream;
  if (kafka !== null) {
    const { KafkaSink } = await import('../stream/kafka/kafka-sink.ts');
    const cluster = await openKafka(kafka, `tidemark-source-${config.name}`);
    const options = {
      groupId,
      topic: kafka.topic,
      feedbackTopic: feedbackTopicOf(kafka),
      replicas: config.replicas.map(({ name }) => name),
      policy: topicPolicyOf(kafka),
    };
    return () => [new KafkaSink(host, cluster, options)];
  }
  const dialers = await Promise.all(
    (direct?.replicas ?? []).map(async ({ name, connect, tls }) => ({
      replica: name,
      dialer: new TcpDialer(connect.host, connect.port, tls === null ? undefined : await dialerTls(tls)),
    })),
  );
  return () => dialers.map((options) => new DirectSink(host, options));
}
