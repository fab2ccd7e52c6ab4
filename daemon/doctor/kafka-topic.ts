import { TidemarkError } from '../../journal/base/errors.ts';
import type { KafkaConfig } from '../config/config-types.ts';
import type { LogAdmin } from '../stream/kafka/log-ports.ts';
import { judgeFeedbackTopic, judgeFrameTopic } from '../stream/kafka/topic-policy.ts';
import { feedbackTopicOf, openKafka, topicPolicyOf } from '../stream-setup/kafka-setup.ts';
import type { DegreePolicy } from '../synchrony/degree-policy.ts';
import { examineBrokerTiming } from './broker-timing.ts';
import { type Finding, ok, problem, warning } from './finding.ts';

/**
 * Compares both topics of a group with what the promises need, and the brokers' timing with `degree` when its answers
 * wait for them. Nothing is made or changed.
 */
export async function examineTopic(subject: string, config: KafkaConfig, degree?: DegreePolicy): Promise<Finding[]> {
  const admin = (await openKafka(config, 'tidemark-doctor')).admin();
  const policy = topicPolicyOf(config);
  const findings: Finding[] = [];
  try {
    for (const name of [config.topic, feedbackTopicOf(config)]) {
      const topic = await admin.describe(name);
      if (topic === undefined) {
        const advice = 'make it, or set createTopic: true';
        findings.push(
          config.createTopic
            ? ok(subject, `topic ${name} will be made`)
            : problem(subject, `there is no topic ${name}`, advice),
        );
        continue;
      }
      const verdict = name === config.topic ? judgeFrameTopic(topic, policy) : undefined;
      const weaknesses = verdict?.weaknesses ?? judgeFeedbackTopic(topic, policy);
      for (const text of verdict?.warnings ?? []) findings.push(warning(subject, text, ''));
      for (const weakness of weaknesses) {
        const advice = 'kafka-configs.sh --alter --topic ..., or acceptWeakTopic: true to live with it';
        findings.push(problem(subject, `topic ${name}: ${weakness}`, advice));
      }
      if (weaknesses.length === 0) findings.push(ok(subject, `topic ${name} keeps what is promised`));
    }
    if (degree !== undefined && degree.ack !== 'local') findings.push(...(await examineTiming(subject, admin, degree)));
  } catch (error) {
    if (!(error instanceof TidemarkError)) throw error;
    findings.push(problem(subject, error.message, 'look at the brokers, TLS and SASL settings'));
  } finally {
    admin.close();
  }
  return findings;
}

/** The right to read a broker's settings is not needed for anything else. */
async function examineTiming(subject: string, admin: LogAdmin, degree: DegreePolicy): Promise<Finding[]> {
  try {
    return examineBrokerTiming(subject, await admin.brokerSettings(), degree);
  } catch (error) {
    if (!(error instanceof TidemarkError)) throw error;
    const advice =
      'allow DESCRIBE_CONFIGS on the cluster, or compare broker.session.timeout.ms with stallAfter by hand';
    return [warning(subject, `the brokers do not tell how long a dead one stops the stream: ${error.message}`, advice)];
  }
}
