import { TidemarkError } from '../../../journal/base/errors.ts';
import { type Host, type Timer } from '../../../journal/host/host.ts';
import { type ReplicaFeedback } from '../../../journal/stream.ts';
import { encodeFeedback, feedbackKey } from './feedback-codec.ts';
import { type LogProducer } from './log-ports.ts';
import { RetryDelay } from './retry-delay.ts';

const SEND_TIMEOUT_MS = 5_000;
/** The state is repeated this often: heals a feedback topic that was lost, and tells "idle" from "gone". */
const REPEAT_MS = 60_000;

/** Writes a replica's newest state to the feedback topic; what is replaced before it left is never sent. */
export class FeedbackWriter {
  readonly #host: Host;
  readonly #producer: LogProducer;
  readonly #retry: RetryDelay;
  #newest: ReplicaFeedback | undefined;
  #waiting = false;
  #sending = false;
  #closed = false;
  #repeat: Timer | undefined;
  #drained: PromiseWithResolvers<void> = Promise.withResolvers<void>();

  constructor(host: Host, producer: LogProducer) {
    this.#host = host;
    this.#producer = producer;
    this.#retry = new RetryDelay(host.clock, host.random);
  }

  send(feedback: ReplicaFeedback): void {
    this.#newest = feedback;
    this.#waiting = true;
    // The only rejections of `#drain` are broken assumptions, which end the process.
    if (!this.#sending) void this.#drain();
  }

  /** Gives the last state a moment to leave. */
  async close(timeoutMs: number): Promise<void> {
    if (this.#waiting || this.#sending) {
      await Promise.race([
        this.#drained.promise,
        new Promise<void>((resolve) => {
          this.#host.clock.after(timeoutMs, resolve);
        }),
      ]);
    }
    this.#closed = true;
    this.#repeat?.cancel();
    this.#producer.close();
  }

  async #drain(): Promise<void> {
    this.#sending = true;
    this.#drained = Promise.withResolvers<void>();
    this.#repeat?.cancel();
    while (this.#waiting && !this.#closed) {
      const feedback = this.#newest;
      if (feedback === undefined) break;
      this.#waiting = false;
      try {
        const key = feedbackKey(feedback.groupId, feedback.replica);
        await this.#producer.send(encodeFeedback(feedback), SEND_TIMEOUT_MS, key);
        this.#retry.reset();
      } catch (error) {
        if (!(error instanceof TidemarkError)) throw error;
        this.#waiting = true;
        this.#producer.reset();
        await this.#retry.wait(error);
      }
    }
    this.#sending = false;
    this.#drained.resolve();
    if (this.#closed) return;
    this.#repeat = this.#host.clock.after(REPEAT_MS, () => {
      if (this.#newest !== undefined) this.send(this.#newest);
    });
  }
}
