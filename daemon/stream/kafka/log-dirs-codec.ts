import { TidemarkError } from '../../../journal/base/errors.ts';
import { compactString, FlexibleReader } from './flexible-codec.ts';

/**
 * DescribeLogDirs request and response, version 2 (Kafka 2.6 to 4.x): what a topic takes on a broker's disks, which
 * kafkajs cannot ask. In the encoding of flexible-codec.ts.
 *
 * Request: header tags | topics: compact array of {name compact string, partitions compact int32[], tags} | tags
 * Response: header tags | throttleMs int32 | directories: compact array of {error int16, path compact string,
 *   topics: compact array of {name compact string, partitions: compact array of {index int32, bytes int64,
 *   offsetLag int64, future bool, tags}, tags}, tags} | tags
 */
export const LOG_DIRS_API_KEY = 35;
export const LOG_DIRS_API_VERSION = 2;

/** Asks for partition 0 of the topic. */
export function encodeLogDirsRequest(topic: string): Buffer {
  return Buffer.concat([Buffer.from([0, 2]), compactString(topic), Buffer.from([2, 0, 0, 0, 0]), Buffer.from([0, 0])]);
}

/**
 * Bytes that partition 0 of the topic takes on this broker. Undefined when the broker does not say: a user without
 * DESCRIBE on the cluster gets an empty list. A copy that is being moved between directories does not count.
 */
export function decodeLogDirsResponse(payload: Buffer, topic: string): number | undefined {
  const reader = new FlexibleReader(payload);
  reader.skipTags();
  reader.int32();
  let found: bigint | undefined;
  reader.array(() => {
    const error = reader.int16();
    reader.skipString();
    reader.array(() => {
      const name = reader.string();
      reader.array(() => {
        const index = reader.int32();
        const bytes = reader.int64();
        reader.int64();
        const future = reader.take(1)[0] !== 0;
        reader.skipTags();
        if (error === 0 && name === topic && index === 0 && !future) found = bytes;
      });
      reader.skipTags();
    });
    reader.skipTags();
  });
  reader.skipTags();
  if (found !== undefined && (found < 0n || found > BigInt(Number.MAX_SAFE_INTEGER))) {
    throw new TidemarkError('stream-unavailable', `the broker says that topic ${topic} takes ${found} bytes`);
  }
  return found === undefined ? undefined : Number(found);
}
