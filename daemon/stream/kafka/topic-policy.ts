import { type LogTopic } from './log-ports.ts';

/** What a group's topics must be like. The defaults of a careful site are 3 copies, of which 2 must have a record. */
export interface TopicPolicy {
  readonly replicationFactor: number;
  readonly minInsyncReplicas: number;
  /** A cap on purpose (DESIGN rule 21): what it drops is sent again from the journal. Absent: nothing expires. */
  readonly retentionBytes?: number;
  /** Topics that do not exist are made. */
  readonly create: boolean;
  /** Weaknesses are shown in status instead of refused (reliability.md H4). */
  readonly acceptWeak: boolean;
}

/** Room for a whole frame (4 MiB) and what Kafka puts around it, with a margin for larger frames to come. */
const MESSAGE_BYTES = 8 * 1024 * 1024;
/** The least that takes any frame of today's format. */
const MESSAGE_BYTES_MIN = 4 * 1024 * 1024 + 4096;
const SEGMENT_BYTES = 128 * 1024 * 1024;
/** Takes the largest message with room to spare. */
const SEGMENT_BYTES_MIN = 16 * 1024 * 1024;
const FEEDBACK_SEGMENT_BYTES = 4 * 1024 * 1024;
/** Kafka's "never by itself" for flush.messages. */
const NEVER = '9223372036854775807';

export function frameTopicConfiguration(policy: TopicPolicy): ReadonlyMap<string, string> {
  return new Map([
    ['cleanup.policy', 'delete'],
    ['retention.ms', '-1'],
    ['retention.bytes', String(policy.retentionBytes ?? -1)],
    ['unclean.leader.election.enable', 'false'],
    ['min.insync.replicas', String(policy.minInsyncReplicas)],
    ['max.message.bytes', String(MESSAGE_BYTES)],
    ['compression.type', 'producer'],
    ['message.timestamp.type', 'LogAppendTime'],
    ['segment.bytes', String(segmentBytes(policy))],
  ]);
}

/** Kafka deletes whole segments: under a cap they are an eighth of it, so that what was trimmed is not taken for full. */
function segmentBytes({ retentionBytes }: TopicPolicy): number {
  if (retentionBytes === undefined) return SEGMENT_BYTES;
  return Math.min(SEGMENT_BYTES, Math.max(SEGMENT_BYTES_MIN, Math.floor(retentionBytes / 8)));
}

/** State by key: compacted, and soon, because a start reads it whole. */
export function feedbackTopicConfiguration(policy: TopicPolicy): ReadonlyMap<string, string> {
  return new Map([
    ['cleanup.policy', 'compact'],
    ['unclean.leader.election.enable', 'false'],
    ['min.insync.replicas', String(policy.minInsyncReplicas)],
    ['message.timestamp.type', 'LogAppendTime'],
    ['segment.bytes', String(FEEDBACK_SEGMENT_BYTES)],
    ['segment.ms', '600000'],
    ['min.cleanable.dirty.ratio', '0.1'],
  ]);
}

export interface TopicVerdict {
  /** Each weakens a promise: setting, what it is, what it must be. */
  readonly weaknesses: readonly string[];
  /** True statements an operator must know. */
  readonly warnings: readonly string[];
  /** The longest frame that fits. */
  readonly frameBytesMax: number;
}

export function judgeFrameTopic(topic: LogTopic, policy: TopicPolicy): TopicVerdict {
  const weaknesses = judgeCopies(topic, policy);
  const expect = expectation(topic, weaknesses);
  expect('cleanup.policy', 'delete');
  expect('retention.ms', '-1');
  expect('retention.bytes', String(policy.retentionBytes ?? -1));
  expect('compression.type', 'producer', 'uncompressed');
  expect('message.timestamp.type', 'LogAppendTime');
  const messageBytes = Number(topic.configuration.get('max.message.bytes') ?? 0);
  if (messageBytes < MESSAGE_BYTES_MIN) {
    weaknesses.push(`max.message.bytes is ${messageBytes}, must be at least ${MESSAGE_BYTES_MIN} to take every frame`);
  }
  const warnings: string[] = [];
  if (topic.replicationFactor === 1 && topic.configuration.get('flush.messages') === NEVER) {
    warnings.push(
      'one broker: what it acknowledged lies in its page cache until flush.messages=1 is set on the topic; ' +
        'a power loss there is healed by sending again from the journal',
    );
  }
  if (policy.retentionBytes !== undefined) {
    warnings.push(
      `the topic keeps at most ${policy.retentionBytes} bytes; what it drops is sent again from the journal`,
    );
  }
  return { weaknesses, warnings, frameBytesMax: messageBytes - 1024 };
}

export function judgeFeedbackTopic(topic: LogTopic, policy: TopicPolicy): readonly string[] {
  const weaknesses = judgeCopies(topic, policy);
  expectation(topic, weaknesses)('cleanup.policy', 'compact');
  return weaknesses;
}

/** What any topic of ours needs: one order, enough copies, no leader that lost acknowledged records. */
function judgeCopies(topic: LogTopic, policy: TopicPolicy): string[] {
  const weaknesses: string[] = [];
  if (topic.partitions !== 1)
    weaknesses.push(`partitions is ${topic.partitions}, must be 1: order needs one partition`);
  if (topic.replicationFactor < policy.replicationFactor) {
    weaknesses.push(`replication factor is ${topic.replicationFactor}, must be at least ${policy.replicationFactor}`);
  }
  const inSync = Number(topic.configuration.get('min.insync.replicas') ?? 0);
  if (inSync < policy.minInsyncReplicas) {
    weaknesses.push(`min.insync.replicas is ${inSync}, must be at least ${policy.minInsyncReplicas}`);
  }
  if (inSync > topic.replicationFactor) {
    weaknesses.push(`min.insync.replicas is ${inSync} with ${topic.replicationFactor} copies: no write could succeed`);
  }
  expectation(topic, weaknesses)('unclean.leader.election.enable', 'false');
  return weaknesses;
}

function expectation(topic: LogTopic, weaknesses: string[]): (name: string, ...allowed: string[]) => void {
  return (name, ...allowed) => {
    const value = topic.configuration.get(name) ?? '';
    if (!allowed.includes(value))
      weaknesses.push(`${name} is ${value === '' ? 'empty' : value}, must be ${allowed.join(' or ')}`);
  };
}
