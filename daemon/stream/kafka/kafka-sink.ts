import { assert } from '../../../journal/base/assert.ts';
import { TidemarkError } from '../../../journal/base/errors.ts';
import { type FrameView } from '../../../journal/frame-view.ts';
import { type Host, type Timer } from '../../../journal/host/host.ts';
import { type Lsn } from '../../../journal/position.ts';
import {
  type FrameSink,
  type FrameSinkEvents,
  type GoingOn,
  type OutgoingFrame,
  type ReplicaFeedback,
  type SourceIdentity,
  type StreamStatus,
} from '../../../journal/stream.ts';
import { FarSide } from './far-side.ts';
import { FeedbackReader } from './feedback-reader.ts';
import { FrameSender } from './frame-sender.ts';
import { type KafkaSinkOptions } from './kafka-sink-options.ts';
import {
  type LogAdmin,
  type LogBounds,
  type LogCluster,
  LogOutOfRange,
  type LogProducer,
  type LogReader,
} from './log-ports.ts';
import { ResendRequests } from './resend-requests.ts';
import { RetryDelay } from './retry-delay.ts';
import { decideSeek, heldByAll, lossOf, type Seek } from './seek-decision.ts';
import { SendWindow } from './send-window.ts';
import { ServedReplicas } from './served-replicas.ts';
import { checkSuccession, forkAt, readTail } from './stream-tail.ts';
import { TopicCap } from './topic-cap.ts';
import { prepareTopics } from './topic-setup.ts';
import { TopicTrimmer } from './topic-trimmer.ts';
import { withinTime } from './within-time.ts';

const WINDOW_BYTES = 16 * 1024 * 1024;
const WINDOW_FRAMES = 8;
const SEND_TIMEOUT_MS = 5_000;
const CHECK_INTERVAL_MS = 60_000;
const CAP_INTERVAL_MS = 10_000;
const RECHECK_MS = 30_000;
const FEEDBACK_WAIT_MS = 10_000;
const UNREGISTERED_MAX = 8;

/** What a person mends at the brokers: looked at again by itself. Everything else that stops needs a restart. */
const MENDED_ELSEWHERE: readonly string[] = ['stream-misconfigured', 'stream-refused', 'frame-foreign'];

/**
 * The source's end of a Kafka topic: one topic, one partition, one frame per record, in the order of the frames' own
 * LSNs. The topic's acknowledgement moves the window and nothing else; what the replicas hold is told by their states
 * on the feedback topic.
 *
 * One loop owns everything: connect (check both topics, find our place) - send until something fails - settle - again.
 */
export class KafkaSink implements FrameSink {
  readonly #host: Host;
  readonly #cluster: LogCluster;
  readonly #options: KafkaSinkOptions;
  readonly #admin: LogAdmin;
  readonly #reader: LogReader;
  readonly #producer: LogProducer;
  readonly #feedback: FeedbackReader;
  readonly #farSide: FarSide;
  readonly #trimmer: TopicTrimmer;
  #cap: TopicCap | undefined;
  readonly #window: SendWindow;
  readonly #sender: FrameSender;
  readonly #resends: ResendRequests;
  readonly #served: ServedReplicas;
  readonly #retry: RetryDelay;
  readonly #closing = Promise.withResolvers<void>();
  readonly #ending = new AbortController();
  #events: FrameSinkEvents | undefined;
  #running: Promise<void> | undefined;
  #status: StreamStatus = { state: 'connecting', reason: 'not started' };
  #finished = false;
  #closed = false;
  /** Where the topic stands by what it acknowledged; undefined before the first seek. */
  #acknowledged: { offset: bigint; topicId: string } | undefined;
  #acceptedLsn: Lsn = 0;
  #nextLsn: Lsn = 0;
  /** Why acknowledged frames are gone from the topic. */
  #lost: string | undefined;
  #requested: Seek | undefined;
  /** The last frame of the topic before the first that we send: both must mean the same records. */
  #tail: FrameView | undefined;
  #frameBytesMax = 0;
  #warnings: readonly string[] = [];
  /** Replicas that speak but are not registered (rule 21), as far as they are named in status. */
  readonly #unregistered = new Set<string>();
  #full = false;
  #check: Timer | undefined;

  constructor(host: Host, cluster: LogCluster, options: KafkaSinkOptions) {
    this.#host = host;
    this.#cluster = cluster;
    this.#options = options;
    this.#admin = cluster.admin();
    this.#reader = cluster.reader(options.topic);
    this.#producer = cluster.producer(options.topic);
    this.#feedback = new FeedbackReader(host, cluster.reader(options.feedbackTopic), options.groupId);
    this.#farSide = new FarSide(host, cluster, options.topic, options.groupId, this.#feedback);
    this.#trimmer = new TopicTrimmer(host.clock, cluster.admin(), options.topic, options.replicas);
    this.#window = new SendWindow(options.windowBytes ?? WINDOW_BYTES, options.windowFrames ?? WINDOW_FRAMES);
    const timeoutMs = options.sendTimeoutMs ?? SEND_TIMEOUT_MS;
    this.#sender = new FrameSender(host.clock, this.#producer, this.#window, timeoutMs, (lsn, offset) =>
      this.#accepted(lsn, offset),
    );
    this.#resends = new ResendRequests(host.clock, options.replicas);
    this.#served = new ServedReplicas(options.replicas);
    this.#retry = new RetryDelay(host.clock, host.random);
  }

  open(identity: SourceIdentity, events: FrameSinkEvents): void {
    assert(this.#running === undefined && !this.#closed, 'a sink is opened once');
    assert(identity.groupId === this.#options.groupId, 'a sink serves the group it was made for');
    this.#events = events;
    const { topic, policy, checkIntervalMs = CAP_INTERVAL_MS } = this.#options;
    if (policy.retentionBytes !== undefined) {
      const intervalMs = Math.min(CAP_INTERVAL_MS, checkIntervalMs);
      this.#cap = new TopicCap(this.#host.clock, this.#cluster, topic, policy.retentionBytes, intervalMs);
    }
    this.#running = this.#run(identity, events);
  }

  get windowBytes(): number {
    if (this.#acknowledged === undefined || this.#finished || this.#closed) return 0;
    return this.#window.empty ? Math.max(1, this.#window.roomBytes) : this.#window.roomBytes;
  }

  /** Throws `invalid-argument` for a frame that is larger than the topic takes. */
  send(frame: OutgoingFrame): void {
    if (this.#finished || this.#closed) return;
    assert(this.#acknowledged !== undefined, 'frames come after the first seek');
    assert(
      frame.firstLsn <= this.#nextLsn && frame.lastLsn >= this.#nextLsn,
      `frame ${frame.firstLsn}-${frame.lastLsn} does not follow on, ${this.#nextLsn} is next`,
    );
    if (frame.bytes.length > this.#frameBytesMax) {
      throw new TidemarkError(
        'invalid-argument',
        `a frame of ${frame.bytes.length} bytes is larger than topic ${this.#options.topic} takes: ${this.#frameBytesMax}`,
      );
    }
    this.#checkTail(frame);
    if (this.#finished) return;
    this.#window.add(frame);
    this.#cap?.sent(frame.bytes.length);
    this.#nextLsn = frame.lastLsn + 1;
    this.#full = this.windowBytes <= 0;
    this.#sender.wake();
  }

  goOn(lowestLsn: Lsn): GoingOn | undefined {
    const going = this.#served.goOn(lowestLsn, this.#feedback.statesOf(this.#options.replicas));
    if (going === undefined) return undefined;
    this.#tail = this.#served.tail;
    this.#nextLsn = going.fromLsn;
    return going;
  }

  async settle(timeoutMs: number): Promise<{ highestLsn: Lsn }> {
    const giveUp = new AbortController();
    const asking = this.#farSide.highestLsn(AbortSignal.any([giveUp.signal, this.#ending.signal]));
    try {
      const late = `Kafka did not say within ${timeoutMs} ms what it holds`;
      return { highestLsn: await this.#bounded(timeoutMs, late, asking) };
    } finally {
      giveUp.abort();
    }
  }

  fetch(fromLsn: Lsn, signal: AbortSignal, writtenBy?: number): AsyncIterable<Uint8Array> {
    return this.#farSide.frames(fromLsn, AbortSignal.any([signal, this.#ending.signal]), writtenBy);
  }

  #bounded<T>(timeoutMs: number, late: string, asking: Promise<T>): Promise<T> {
    return withinTime(this.#host.clock, { timeoutMs, late, closing: this.#closing.promise }, asking);
  }

  trim(lsn: Lsn): void {
    if (!this.#closed) this.#trimmer.allow(lsn);
  }

  status(): StreamStatus {
    return this.#cap === undefined ? this.#status : { ...this.#status, topic: this.#cap.status };
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#closing.resolve();
    this.#ending.abort();
    this.#check?.cancel();
    this.#sender.fail(new TidemarkError('shutting-down', 'the stream is being closed'));
    this.#feedback.close();
    this.#trimmer.close();
    this.#cap?.close();
    this.#admin.close();
    this.#reader.close();
    this.#producer.close();
    await this.#running;
  }

  async #run(identity: SourceIdentity, events: FrameSinkEvents): Promise<void> {
    // No callback comes inside a call.
    await Promise.resolve();
    this.#setStatus({ state: 'connecting', reason: `connecting to topic ${this.#options.topic}` });
    this.#feedback.subscribe((feedback) => this.#onFeedback(feedback, events));
    while (!this.#closed) {
      try {
        this.#warnings = await this.#connect(identity, events);
        this.#retry.reset();
        this.#streaming();
        this.#scheduleCheck();
        await this.#sender.run();
      } catch (error) {
        if (!(error instanceof TidemarkError)) throw error;
        if (this.#closed) return;
        await this.#recover(error);
        if (this.#finished) return;
      }
    }
  }

  async #recover(error: TidemarkError): Promise<void> {
    this.#check?.cancel();
    const { code, message: reason } = error;
    if (code === 'gap' || error instanceof LogOutOfRange) {
      // Our own decision to begin elsewhere, or a topic truncated while it was read: the connections are well.
      this.#setStatus({ state: 'retrying', reason, code });
      return;
    }
    for (const port of [this.#producer, this.#reader, this.#admin]) port.reset();
    if (error.next === 'retry') {
      this.#setStatus({ state: 'retrying', reason, code });
      await Promise.race([this.#retry.wait(error), this.#closing.promise]);
      return;
    }
    this.#finished = !MENDED_ELSEWHERE.includes(code);
    this.#setStatus({ state: 'stopped', reason, code });
    if (this.#finished) return;
    const recheck = Promise.withResolvers<void>();
    const timer = this.#host.clock.after(this.#options.recheckMs ?? RECHECK_MS, recheck.resolve);
    await Promise.race([recheck.promise, this.#closing.promise]);
    timer.cancel();
  }

  /** Ends with a connected producer and a window whose base follows on what the topic holds. */
  async #connect(identity: SourceIdentity, events: FrameSinkEvents): Promise<readonly string[]> {
    const prepared = await prepareTopics(this.#admin, this.#options, this.#options.policy);
    this.#frameBytesMax = prepared.frameBytesMax;
    const bounds = await this.#reader.bounds();
    if (bounds === undefined) throw new TidemarkError('stream-unavailable', `topic ${this.#options.topic} went away`);
    if (this.#acknowledged !== undefined) this.#lost ??= lossOf(this.#options.topic, this.#acknowledged, bounds);
    if (this.#acknowledged === undefined || this.#lost !== undefined || this.#requested !== undefined) {
      await this.#seek(bounds, identity, events);
    }
    await this.#producer.connect();
    return prepared.warnings;
  }

  async #seek(bounds: LogBounds, identity: SourceIdentity, events: FrameSinkEvents): Promise<void> {
    const late = `topic ${this.#options.feedbackTopic} cannot be read to its end`;
    await this.#bounded(FEEDBACK_WAIT_MS, late, this.#feedback.readToEnd());
    const seen = this.#feedback.statesOf(this.#options.replicas).filter((feedback) => feedback !== undefined);
    const tail = await readTail(this.#reader, bounds, identity.groupId, seen);
    if (tail.last === undefined && identity.incarnation.counter > 1) await this.#hearReplicas();
    checkSuccession(tail, identity);
    this.#tail = this.#requested === undefined ? tail.last : undefined;
    const input = {
      bounds,
      tailLsn: tail.last?.lastLsn ?? 0,
      requested: this.#requested,
      lost: this.#lost,
      acceptedLsn: this.#acceptedLsn,
      replicas: this.#feedback.statesOf(this.#options.replicas),
    };
    const seek = decideSeek(input);
    this.#served.sought(input, tail.last);
    this.#requested = undefined;
    this.#lost = undefined;
    this.#window.clear();
    this.#full = false;
    this.#acknowledged = { offset: bounds.end - 1n, topicId: bounds.topicId };
    this.#trimmer.acknowledged(bounds.end - 1n, bounds.topicId);
    this.#nextLsn = seek.fromLsn;
    events.onSeek(seek.fromLsn, seek.reason);
  }

  /** Neither topic tells what a replica holds, which is not nothing because of that: it repeats what it holds. */
  async #hearReplicas(): Promise<void> {
    const { replicas, feedbackTopic } = this.#options;
    const unheard = replicas.filter((replica) => !this.#feedback.states.has(replica));
    if (unheard.length === 0) return;
    const reason = `what replica ${unheard.join(', ')} holds is unknown: waiting until it says so`;
    this.#setStatus({ state: 'connecting', reason });
    const late = `topic ${feedbackTopic} cannot be read to its end`;
    await this.#bounded(2 * FEEDBACK_WAIT_MS, late, this.#feedback.heard(unheard, FEEDBACK_WAIT_MS));
  }

  /** When the records before this frame are not the ones the topic holds, it leads to a seek or ends everything. */
  #checkTail(frame: OutgoingFrame): void {
    const fork = this.#tail === undefined ? undefined : forkAt(this.#tail, frame);
    this.#tail = undefined;
    if (fork === undefined) return;
    if (fork.code === 'gap') {
      const fromLsn = heldByAll(this.#feedback.statesOf(this.#options.replicas)) + 1;
      this.#requested = { fromLsn, reason: fork.message, isForked: true };
    } else this.#finished = true;
    this.#sender.fail(fork);
  }

  #accepted(lastLsn: Lsn, offset: bigint): void {
    const acknowledged = this.#acknowledged;
    if (acknowledged === undefined || this.#lost !== undefined) return;
    if (offset <= acknowledged.offset) {
      this.#lost = `topic ${this.#options.topic} was replaced or truncated: it gave offset ${offset} after ${acknowledged.offset}`;
      this.#sender.fail(new TidemarkError('gap', this.#lost));
      return;
    }
    acknowledged.offset = offset;
    this.#trimmer.acknowledged(offset, acknowledged.topicId);
    this.#acceptedLsn = lastLsn;
    this.#events?.onAccepted(lastLsn);
    if (this.#full && this.windowBytes > 0) {
      this.#full = false;
      this.#events?.onReady();
    }
  }

  #streaming(): void {
    const unregistered = [...this.#unregistered].map(
      (replica) => `replica ${replica} is not registered: frames may be deleted before it has read them`,
    );
    this.#setStatus({ state: 'streaming', reason: [...this.#warnings, ...unregistered].join('; ') });
  }

  #onFeedback(feedback: ReplicaFeedback, events: FrameSinkEvents): void {
    if (!this.#options.replicas.includes(feedback.replica) && this.#unregistered.size < UNREGISTERED_MAX) {
      this.#unregistered.add(feedback.replica);
      if (this.#status.state === 'streaming') this.#streaming();
    }
    this.#trimmer.note(feedback);
    events.onFeedback(feedback);
    if (this.#acknowledged === undefined) return;
    const seek =
      this.#resends.asks(feedback, this.#nextLsn) ??
      this.#served.comesBack(this.#feedback.statesOf(this.#options.replicas));
    if (seek === undefined) return;
    this.#requested = seek;
    this.#sender.fail(new TidemarkError('gap', seek.reason));
  }

  #scheduleCheck(): void {
    this.#check?.cancel();
    this.#check = this.#host.clock.after(this.#options.checkIntervalMs ?? CHECK_INTERVAL_MS, () => {
      // The only rejections of `#compare` are broken assumptions, which end the process.
      void this.#compare();
    });
  }

  async #compare(): Promise<void> {
    try {
      const { topic, feedbackTopic } = this.#options;
      // What is acknowledged while the broker answers is not in its answer yet, and not lost.
      const before = this.#acknowledged && { ...this.#acknowledged };
      const bounds = await this.#reader.bounds();
      const feedback = await this.#admin.describe(feedbackTopic);
      if (this.#closed || this.#status.state !== 'streaming') return;
      this.#lost ??= bounds === undefined ? `topic ${topic} was deleted` : before && lossOf(topic, before, bounds);
      // Replicas only write to the feedback topic: when it is gone, it is for us to make it again.
      const gone = this.#lost ?? (feedback === undefined ? `topic ${feedbackTopic} was deleted` : undefined);
      if (gone === undefined) this.#scheduleCheck();
      else this.#sender.fail(new TidemarkError('gap', gone));
    } catch (error) {
      if (!(error instanceof TidemarkError)) throw error;
      if (!this.#closed) this.#sender.fail(error);
    }
  }

  #setStatus(status: StreamStatus): void {
    const { state, reason, code } = this.#status;
    if (state === status.state && reason === status.reason && code === status.code) return;
    this.#status = status;
    this.#events?.onStatus(status);
  }
}
