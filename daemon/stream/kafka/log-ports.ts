import { TidemarkError } from '../../../journal/base/errors.ts';

/**
 * What the stream needs from a replicated log: one topic, one partition, records at offsets. Nothing of a client
 * library leaks through, so that a simulated log can stand in for Kafka, and another client for kafkajs.
 *
 * Every call has a bound in time of its own and fails with a `TidemarkError`: `stream-unavailable` (trying again may
 * help), `stream-refused` (authentication or authorization) or `stream-misconfigured` (the log will never take it).
 * After `stream-unavailable` the caller must `reset` before it relies on order again.
 */
export interface LogCluster {
  producer(topic: string): LogProducer;
  reader(topic: string): LogReader;
  admin(): LogAdmin;
}

interface LogPort {
  /** Drops every socket, so that everything outstanding settles at once; the next call begins with another broker. */
  reset(): void;
  close(): void;
}

export interface LogProducer extends LogPort {
  /** Connects, so that the first sends stand in order behind a warm connection. */
  connect(): Promise<void>;
  /**
   * One value = one record = one batch, acknowledged by all in-sync replicas (acks=-1), written once per call: never
   * sent again by the client itself. Sends leave in call order. A rejection means unknown, not absent. The bytes must
   * not change before the promise settles.
   */
  send(value: Uint8Array, timeoutMs: number, key?: string): Promise<{ readonly offset: bigint }>;
}

export interface LogBounds {
  /** Offset of the oldest record that is still there. */
  readonly start: bigint;
  /** Offset that the next record will get. */
  readonly end: bigint;
  /** Changes when the topic is deleted and made again (32 hex digits). */
  readonly topicId: string;
}

export interface LogRecord {
  readonly offset: bigint;
  readonly key: string;
  /** Owns its memory; empty when the record is a tombstone. */
  readonly value: Uint8Array;
}

export interface LogReader extends LogPort {
  /** Undefined when there is no such topic. */
  bounds(): Promise<LogBounds | undefined>;
  /**
   * The records from this offset on, up to about `bytesMax` (at least one whole record); waits up to `waitMs` for the
   * first. Throws `LogOutOfRange` when the offset is no longer, or not yet, in the log. Never jumps.
   */
  read(
    from: bigint,
    bytesMax: number,
    waitMs: number,
  ): Promise<{ readonly records: LogRecord[]; readonly end: bigint }>;
}

export interface LogTopic {
  readonly topicId: string;
  readonly partitions: number;
  readonly replicationFactor: number;
  /** Effective values by name, as the broker states them. */
  readonly configuration: ReadonlyMap<string, string>;
}

export interface LogTopicSpec {
  readonly topic: string;
  readonly replicationFactor: number;
  readonly configuration: ReadonlyMap<string, string>;
}

export interface LogAdmin extends LogPort {
  /** Undefined when there is no such topic. */
  describe(topic: string): Promise<LogTopic | undefined>;
  /** One partition. A topic that exists already is no error. */
  create(spec: LogTopicSpec): Promise<void>;
  /** Everything below the offset may go; the log's start moves there. */
  truncateBefore(topic: string, offset: bigint): Promise<void>;
  /** Bytes the topic takes on its leader's disks; undefined when the log does not say, which may be for lack of a right. */
  storedBytes(topic: string): Promise<number | undefined>;
  /** Effective settings of the broker that answers, by name; rejects with `stream-refused` for lack of a right. */
  brokerSettings(): Promise<ReadonlyMap<string, string>>;
}

/** The offset asked for is below the log's start or above its end: what stood there is gone, or never was. */
export class LogOutOfRange extends TidemarkError {
  constructor(topic: string, offset: bigint) {
    super('trimmed', `offset ${offset} is not in topic ${topic}`, { details: { topic, offset: String(offset) } });
    this.name = 'LogOutOfRange';
  }
}
