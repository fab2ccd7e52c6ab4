import { TidemarkError } from '../../../journal/base/errors.ts';
import { compactString, FlexibleReader } from './flexible-codec.ts';

/**
 * Metadata request and response, version 10 (KIP-516): the oldest that carries the topic id, which kafkajs (version 6)
 * does not ask for. Big endian; "compact" lengths are unsigned varints, one more than the length; every structure ends
 * with a tag section, which is empty in a request and skipped in a response.
 *
 * Request: header tags | topics: compact array of {id 16 bytes, name compact nullable string, tags}
 *   | allowAutoTopicCreation bool | cluster operations bool | topic operations bool | tags
 * Response: header tags | throttleMs int32 | brokers: compact array of {node int32, host compact string, port int32,
 *   rack compact nullable string, tags} | cluster id compact nullable string | controller int32
 *   | topics: compact array of {error int16, name compact string, id 16 bytes, internal bool,
 *   partitions: compact array of {error int16, index int32, leader int32, leaderEpoch int32, replicas int32[],
 *   inSync int32[], offline int32[], tags}, operations int32, tags} | cluster operations int32 | tags
 */
export const METADATA_API_KEY = 3;
export const METADATA_API_VERSION = 10;

/** Error codes: a topic that does not exist; one that this user may not see. */
const UNKNOWN_TOPIC = 3;
const TOPIC_AUTHORIZATION_FAILED = 29;

export interface TopicMetadata {
  readonly topicId: string;
  readonly partitions: number;
  readonly replicationFactor: number;
}

export function encodeMetadataRequest(topic: string): Buffer {
  return Buffer.concat([Buffer.from([0, 2]), Buffer.alloc(16), compactString(topic), Buffer.from([0, 0, 0, 0, 0])]);
}

/** Undefined when the topic does not exist; throws `stream-refused` without the right, else `stream-unavailable`. */
export function decodeMetadataResponse(payload: Buffer, topic: string): TopicMetadata | undefined {
  const reader = new FlexibleReader(payload);
  reader.skipTags();
  reader.int32();
  reader.array(() => {
    reader.int32();
    reader.skipString();
    reader.int32();
    reader.skipString();
    reader.skipTags();
  });
  reader.skipString();
  reader.int32();
  let found: TopicMetadata | undefined;
  let failure = 0;
  reader.array(() => {
    const error = reader.int16();
    reader.skipString();
    const topicId = reader.take(16).toString('hex');
    reader.take(1);
    let replicationFactor = 0;
    const partitions = reader.array(() => {
      reader.take(2 + 4 + 4 + 4);
      const replicas = reader.array(() => reader.int32());
      replicationFactor = replicationFactor === 0 ? replicas : Math.min(replicationFactor, replicas);
      reader.array(() => reader.int32());
      reader.array(() => reader.int32());
      reader.skipTags();
    });
    reader.int32();
    reader.skipTags();
    if (error === 0) found = { topicId, partitions, replicationFactor };
    else failure = error;
  });
  if (failure === TOPIC_AUTHORIZATION_FAILED) {
    throw new TidemarkError('stream-refused', `this user has no right to describe topic ${topic}`);
  }
  if (failure !== 0 && failure !== UNKNOWN_TOPIC) {
    throw new TidemarkError('stream-unavailable', `the broker cannot describe topic ${topic}: error code ${failure}`);
  }
  return found;
}
