import { type TopicPolicy } from './topic-policy.ts';

export interface KafkaSinkOptions {
  /** 32 hex digits. */
  readonly groupId: string;
  readonly topic: string;
  readonly feedbackTopic: string;
  /** Registered replicas by name (rule 20): what they hold decides what may be trimmed and what is sent again. */
  readonly replicas: readonly string[];
  readonly policy: TopicPolicy;
  /** Frames the sink holds, in bytes; default 16 MiB. */
  readonly windowBytes?: number;
  /** Frames under way at once; default 8. */
  readonly windowFrames?: number;
  /** How long an answer to a frame may take at first; grows on a slow line. Default 5000. */
  readonly sendTimeoutMs?: number;
  /** How often the topic is compared with what it acknowledged; default 60000. */
  readonly checkIntervalMs?: number;
  /** How often a refused configuration is looked at again; default 30000. */
  readonly recheckMs?: number;
}
