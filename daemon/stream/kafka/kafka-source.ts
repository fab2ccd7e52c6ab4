import { assert } from '../../../journal/base/assert.ts';
import { TidemarkError } from '../../../journal/base/errors.ts';
import { type Host } from '../../../journal/host/host.ts';
import { type Lsn } from '../../../journal/position.ts';
import {
  type FrameSource,
  type FrameSourceEvents,
  type FrameSourceStart,
  type ReplicaFeedback,
  type StreamStatus,
} from '../../../journal/stream.ts';
import { FeedbackWriter } from './feedback-writer.ts';
import { type LogBounds, type LogCluster, LogOutOfRange, type LogReader, type LogRecord } from './log-ports.ts';
import { PatientReader } from './patient-reader.ts';
import { RetryDelay } from './retry-delay.ts';
import { framesFrom } from './stream-history.ts';
import { formatStreamOffset, parseStreamOffset } from './stream-offset.ts';

export interface KafkaSourceOptions {
  readonly topic: string;
  readonly feedbackTopic: string;
  /** Bytes of one read; two of them may be in memory. Default 8 MiB. */
  readonly readBytes?: number;
  /** How long a read waits for a frame; default 500. */
  readonly waitMs?: number;
  /** How often the topic's bounds and identity are compared with our position; default 60000. */
  readonly checkIntervalMs?: number;
}

const READ_BYTES = 8 * 1024 * 1024;
const WAIT_MS = 500;
const CHECK_INTERVAL_MS = 60_000;
/** The last state gets so long to leave when the replica stops. */
const FAREWELL_MS = 2_000;
/** Reads that bring nothing although the log goes on, before the connection is doubted. */
const EMPTY_READS_MAX = 3;

/**
 * The replica's end of a Kafka topic. Reads from where the replica's own durable state says, by direct fetches: no
 * consumer group, no committed offset, no reset policy. Whatever shows that the topic no longer continues there - an
 * offset out of range, another topic id, an end below our position - is told by `onLost` before anything else is read.
 */
export class KafkaSource implements FrameSource {
  readonly #host: Host;
  readonly #options: KafkaSourceOptions;
  readonly #cluster: LogCluster;
  readonly #reader: LogReader;
  readonly #feedback: FeedbackWriter;
  readonly #closing = Promise.withResolvers<void>();
  #events: FrameSourceEvents | undefined;
  #running: Promise<void> | undefined;
  #status: StreamStatus = { state: 'connecting', reason: 'not started' };
  #closed = false;
  #groupId = '';
  #paused = false;
  #resumed = Promise.withResolvers<void>();
  /** The next offset to deliver; undefined: wherever the topic begins. */
  #position: { next: bigint; topicId: string } | undefined;
  #checkedMs = 0;
  #emptyReads = 0;

  constructor(host: Host, cluster: LogCluster, options: KafkaSourceOptions) {
    this.#host = host;
    this.#options = options;
    this.#cluster = cluster;
    this.#reader = cluster.reader(options.topic);
    this.#feedback = new FeedbackWriter(host, cluster.producer(options.feedbackTopic));
  }

  open(start: FrameSourceStart, events: FrameSourceEvents): void {
    assert(this.#running === undefined && !this.#closed, 'a source is opened once');
    this.#events = events;
    this.#groupId = start.groupId;
    const resume = parseStreamOffset(start.resumeOffset);
    this.#position = resume === undefined ? undefined : { next: resume.offset, topicId: resume.topicId };
    this.#running = this.#run();
  }

  pause(): void {
    if (this.#paused) return;
    this.#paused = true;
    this.#resumed = Promise.withResolvers<void>();
  }

  resume(): void {
    this.#paused = false;
    this.#resumed.resolve();
  }

  /** What the topic still holds. */
  async *fetch(fromLsn: Lsn, signal: AbortSignal): AsyncGenerator<Uint8Array> {
    const closing = new AbortController();
    void this.#closing.promise.then(() => closing.abort());
    const giveUp = AbortSignal.any([signal, closing.signal]);
    const reader = new PatientReader(this.#host, this.#cluster.reader(this.#options.topic), giveUp);
    try {
      yield* framesFrom(reader, this.#groupId, fromLsn, {}, giveUp);
    } finally {
      reader.close();
    }
  }

  feedback(feedback: ReplicaFeedback): void {
    if (!this.#closed) this.#feedback.send(feedback);
  }

  status(): StreamStatus {
    return this.#status;
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#closing.resolve();
    this.#reader.close();
    await this.#feedback.close(FAREWELL_MS);
    await this.#running;
  }

  async #run(): Promise<void> {
    // No callback comes inside a call.
    await Promise.resolve();
    this.#setStatus({ state: 'connecting', reason: `connecting to topic ${this.#options.topic}` });
    const retry = new RetryDelay(this.#host.clock, this.#host.random);
    while (!this.#closed) {
      try {
        await this.#compare();
        this.#setStatus({ state: 'streaming', reason: '' });
        retry.reset();
        await this.#stream();
      } catch (error) {
        if (!(error instanceof TidemarkError)) throw error;
        // Out of range: compared again at once, which says what happened.
        if (this.#closed || error instanceof LogOutOfRange) continue;
        this.#reader.reset();
        const state = error.next === 'retry' ? 'retrying' : 'stopped';
        this.#setStatus({ state, reason: error.message, code: error.code });
        await Promise.race([retry.wait(error), this.#closing.promise]);
      }
    }
  }

  /** Reads and delivers, one read ahead, until something fails. */
  async #stream(): Promise<void> {
    let ahead = this.#read();
    while (!this.#closed) {
      const batch = await ahead;
      const checkDue = this.#nowMs() - this.#checkedMs > (this.#options.checkIntervalMs ?? CHECK_INTERVAL_MS);
      // What was read behind a loss is not what stands at the new position.
      if (checkDue && !(await this.#compare())) return;
      const last = batch.at(-1);
      const position = this.#position;
      assert(position !== undefined, 'a position stands before the first read');
      ahead = this.#read(last === undefined ? position.next : last.offset + 1n);
      // Its failure is looked at when its turn comes.
      ahead.catch(() => {});
      await this.#deliver(batch, position);
    }
  }

  async #read(from: bigint = this.#position?.next ?? 0n): Promise<LogRecord[]> {
    const { records, end } = await this.#reader.read(
      from,
      this.#options.readBytes ?? READ_BYTES,
      this.#options.waitMs ?? WAIT_MS,
    );
    this.#emptyReads = records.length === 0 && end > from ? this.#emptyReads + 1 : 0;
    if (this.#emptyReads >= EMPTY_READS_MAX) {
      this.#emptyReads = 0;
      throw new TidemarkError('stream-unavailable', `no frame at offset ${from}, though the topic goes on to ${end}`);
    }
    return records;
  }

  async #deliver(batch: readonly LogRecord[], position: { next: bigint; topicId: string }): Promise<void> {
    for (const { offset, value } of batch) {
      while (this.#paused && !this.#closed) await Promise.race([this.#resumed.promise, this.#closing.promise]);
      if (this.#closed) return;
      position.next = offset + 1n;
      this.#events?.onFrame(value, formatStreamOffset({ offset, topicId: position.topicId }));
    }
  }

  /** Compares our position with the topic as it is; false when it had to be moved, which `onLost` has told. */
  async #compare(): Promise<boolean> {
    const bounds = await this.#reader.bounds();
    if (bounds === undefined) {
      throw new TidemarkError('stream-unavailable', `topic ${this.#options.topic} does not exist`);
    }
    this.#checkedMs = this.#nowMs();
    const position = this.#position;
    if (position === undefined) {
      this.#position = { next: bounds.start, topicId: bounds.topicId };
      return true;
    }
    const loss = lossOf(position, bounds);
    if (loss === undefined || this.#closed) return true;
    // What a shorter log still has was read already; a longer or a new one is read from its beginning.
    const shortened = position.topicId === bounds.topicId && position.next > bounds.end;
    const next = shortened ? bounds.end : bounds.start;
    this.#position = { next, topicId: bounds.topicId };
    const reason = `topic ${this.#options.topic} ${loss}`;
    this.#setStatus({ state: 'retrying', reason, code: 'needs-resync' });
    this.#events?.onLost(reason, formatStreamOffset({ offset: bounds.start, topicId: bounds.topicId }));
    return false;
  }

  #nowMs(): number {
    return this.#host.clock.monotonicMs();
  }

  #setStatus(status: StreamStatus): void {
    const { state, reason, code } = this.#status;
    if (state === status.state && reason === status.reason && code === status.code) return;
    this.#status = status;
    this.#events?.onStatus(status);
  }
}

function lossOf(position: { next: bigint; topicId: string }, bounds: LogBounds): string | undefined {
  if (bounds.topicId !== position.topicId) return 'was deleted and made again';
  if (position.next < bounds.start) return `was truncated: it begins at ${bounds.start}, we stand at ${position.next}`;
  if (position.next > bounds.end) return `lost its end: it ends at ${bounds.end}, we stand at ${position.next}`;
  return undefined;
}
