import { hasCode, TidemarkError } from '../../../journal/base/errors.ts';
import { delay, type Host } from '../../../journal/host/host.ts';
import { type ReplicaFeedback } from '../../../journal/stream.ts';
import { decodeFeedback } from './feedback-codec.ts';
import { LogOutOfRange, type LogReader } from './log-ports.ts';
import { RetryDelay } from './retry-delay.ts';

const READ_BYTES = 1024 * 1024;
const WAIT_MS = 500;
/** How often a feedback topic that was deleted and made again is looked for. */
const CHECK_MS = 60_000;

/**
 * Reads the replicas' newest states from the feedback topic, for ever: to the topic's end first, silently, then one
 * call per state that was read to the end, so that an old state is never taken for the present one (DESIGN rule 20).
 */
export class FeedbackReader {
  readonly #host: Host;
  readonly #reader: LogReader;
  readonly #groupId: string;
  readonly #states = new Map<string, ReplicaFeedback>();
  /** Read, and not known to be the newest yet; a turn that fails leaves them to the next, which goes on behind them. */
  #fresh = new Map<string, ReplicaFeedback>();
  #onFeedback: (feedback: ReplicaFeedback) => void = () => {};
  /** Who waits for the end; a turn that succeeds serves those that waited when it began. */
  readonly #waiting: (() => void)[] = [];
  #running = false;
  #closed = false;
  #topicId = '';
  #next = 0n;
  #lastCheckMs = 0;

  constructor(host: Host, reader: LogReader, groupId: string) {
    this.#host = host;
    this.#reader = reader;
    this.#groupId = groupId;
  }

  /** By replica name. */
  get states(): ReadonlyMap<string, ReplicaFeedback> {
    return this.#states;
  }

  /** From now on every newest state is handed over, the present ones first. */
  subscribe(onFeedback: (feedback: ReplicaFeedback) => void): void {
    for (const feedback of this.#states.values()) onFeedback(feedback);
    this.#onFeedback = onFeedback;
  }

  #start(): void {
    if (this.#running) return;
    this.#running = true;
    // The only rejections of `#run` are broken assumptions, which end the process.
    void this.#run();
  }

  /** Resolves when everything that stands in the topic now has been read. */
  async readToEnd(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#waiting.push(resolve);
      this.#start();
    });
  }

  /** The newest state of each of these; undefined: none was read. */
  statesOf(replicas: readonly string[]): (ReplicaFeedback | undefined)[] {
    return replicas.map((replica) => this.#states.get(replica));
  }

  /** Resolves when each of these has said something, or the time is over; while the topic cannot be read it does not. */
  async heard(replicas: readonly string[], timeoutMs: number): Promise<void> {
    const { clock } = this.#host;
    const began = clock.monotonicMs();
    while (this.statesOf(replicas).includes(undefined) && clock.monotonicMs() - began < timeoutMs) {
      await this.readToEnd();
    }
  }

  close(): void {
    this.#closed = true;
    this.#reader.close();
  }

  async #run(): Promise<void> {
    const retry = new RetryDelay(this.#host.clock, this.#host.random);
    while (!this.#closed) {
      try {
        await this.#follow();
        retry.reset();
      } catch (error) {
        if (!(error instanceof TidemarkError)) throw error;
        if (error instanceof LogOutOfRange) this.#topicId = '';
        else this.#reader.reset();
        if (!this.#closed && !hasCode(error, 'trimmed')) await retry.wait(error);
      }
    }
  }

  /** One turn: to the end as it is now, then hand over what is new. */
  async #follow(): Promise<void> {
    const waiting = this.#waiting.length;
    const now = this.#host.clock.monotonicMs();
    let end = 0n;
    if (this.#topicId === '' || now - this.#lastCheckMs > CHECK_MS) {
      const bounds = await this.#reader.bounds();
      if (bounds === undefined) {
        // No topic, no state; asked again soon.
        this.#served(waiting);
        await delay(this.#host.clock, WAIT_MS);
        return;
      }
      if (bounds.topicId !== this.#topicId || this.#next > bounds.end || this.#next < bounds.start) {
        this.#topicId = bounds.topicId;
        this.#next = bounds.start;
      }
      this.#lastCheckMs = now;
      end = bounds.end;
    }
    do {
      const answer = await this.#reader.read(this.#next, READ_BYTES, this.#next < end ? 0 : WAIT_MS);
      if (answer.end > end) end = answer.end;
      for (const record of answer.records) {
        this.#next = record.offset + 1n;
        const feedback = this.#unlessPast(decodeFeedback(record.key, record.value, this.#groupId));
        if (feedback !== undefined) this.#fresh.set(feedback.replica, feedback);
      }
      if (answer.records.length === 0 && this.#next < end) {
        throw new TidemarkError('stream-unavailable', `the broker gives no feedback at offset ${this.#next} of ${end}`);
      }
    } while (this.#next < end && !this.#closed);
    const fresh = this.#fresh;
    this.#fresh = new Map();
    for (const feedback of fresh.values()) {
      this.#states.set(feedback.replica, feedback);
      this.#onFeedback(feedback);
    }
    this.#served(waiting);
  }

  /** What was given up and got into the topic all the same stands behind what was sent after it. */
  #unlessPast(feedback: ReplicaFeedback | undefined): ReplicaFeedback | undefined {
    if (feedback?.sent === undefined) return feedback;
    const { sent: known } = this.#fresh.get(feedback.replica) ?? this.#states.get(feedback.replica) ?? {};
    return known?.run === feedback.sent.run && feedback.sent.sentMs < known.sentMs ? undefined : feedback;
  }

  #served(count: number): void {
    for (const resolve of this.#waiting.splice(0, count)) resolve();
  }
}
