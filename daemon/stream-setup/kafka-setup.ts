import type { KafkaConfig } from '../config/config-types.ts';
import type { LogCluster } from '../stream/kafka/log-ports.ts';
import type { TopicPolicy } from '../stream/kafka/topic-policy.ts';
import { readConfigured } from './read-pem.ts';

/** The cluster of a configuration. The Kafka client is loaded here, so that nobody else pays for it. */
export async function openKafka(config: KafkaConfig, clientId: string): Promise<LogCluster> {
  const { KafkaLog } = await import('../stream/kafka/kafka-log.ts');
  const { tls, sasl } = config;
  const pem = async (name: string, path: string | null): Promise<object> =>
    path === null ? {} : { [name]: await readConfigured(path) };
  return new KafkaLog({
    brokers: config.brokers,
    clientId,
    ...(tls === null
      ? {}
      : {
          tls: {
            ...(await pem('ca', tls.authorities)),
            ...(await pem('cert', tls.certificate)),
            ...(await pem('key', tls.key)),
            ...(tls.serverName === null ? {} : { servername: tls.serverName }),
          },
        }),
    ...(sasl === null
      ? {}
      : {
          sasl: {
            mechanism: sasl.mechanism,
            username: sasl.username,
            password: (await readConfigured(sasl.passwordFile)).trimEnd(),
          },
        }),
  });
}

export function feedbackTopicOf(config: KafkaConfig): string {
  return config.feedbackTopic ?? `${config.topic}.feedback`;
}

export function topicPolicyOf(config: KafkaConfig): TopicPolicy {
  return {
    replicationFactor: config.replicationFactor,
    minInsyncReplicas: config.minInsyncReplicas,
    ...(config.retentionBytes === null ? {} : { retentionBytes: config.retentionBytes }),
    create: config.createTopic,
    acceptWeak: config.acceptWeakTopic,
  };
}
