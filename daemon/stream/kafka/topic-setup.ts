import { TidemarkError } from '../../../journal/base/errors.ts';
import { type LogAdmin, type LogTopic } from './log-ports.ts';
import {
  feedbackTopicConfiguration,
  frameTopicConfiguration,
  judgeFeedbackTopic,
  judgeFrameTopic,
  type TopicPolicy,
} from './topic-policy.ts';

export interface TopicNames {
  readonly topic: string;
  readonly feedbackTopic: string;
}

export interface PreparedTopics {
  /** Of the frames' topic. */
  readonly topicId: string;
  readonly frameBytesMax: number;
  readonly warnings: readonly string[];
}

/**
 * Makes the topics when that is allowed, and refuses with `stream-misconfigured` those whose configuration weakens a
 * promise, naming each setting, what it is and what it must be.
 */
export async function prepareTopics(admin: LogAdmin, names: TopicNames, policy: TopicPolicy): Promise<PreparedTopics> {
  const frames = await findOrCreate(admin, names.topic, policy, frameTopicConfiguration(policy));
  const feedback = await findOrCreate(admin, names.feedbackTopic, policy, feedbackTopicConfiguration(policy));
  const verdict = judgeFrameTopic(frames, policy);
  const weaknesses = [
    ...verdict.weaknesses.map((weakness) => `topic ${names.topic}: ${weakness}`),
    ...judgeFeedbackTopic(feedback, policy).map((weakness) => `topic ${names.feedbackTopic}: ${weakness}`),
  ];
  if (weaknesses.length > 0 && !policy.acceptWeak) {
    throw new TidemarkError('stream-misconfigured', weaknesses.join('; '));
  }
  const accepted = weaknesses.map((weakness) => `accepted although it weakens a promise: ${weakness}`);
  return {
    topicId: frames.topicId,
    frameBytesMax: verdict.frameBytesMax,
    warnings: [...accepted, ...verdict.warnings],
  };
}

async function findOrCreate(
  admin: LogAdmin,
  topic: string,
  policy: TopicPolicy,
  configuration: ReadonlyMap<string, string>,
): Promise<LogTopic> {
  const found = await admin.describe(topic);
  if (found !== undefined) return found;
  if (!policy.create) {
    throw new TidemarkError('stream-misconfigured', `topic ${topic} does not exist and may not be created`);
  }
  await admin.create({ topic, replicationFactor: policy.replicationFactor, configuration });
  const made = await admin.describe(topic);
  // The broker that was asked may not have heard of it yet.
  if (made === undefined) throw new TidemarkError('stream-unavailable', `topic ${topic} is being created`);
  return made;
}
