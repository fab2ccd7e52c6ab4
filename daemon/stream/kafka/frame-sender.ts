import { TidemarkError } from '../../../journal/base/errors.ts';
import { type Clock } from '../../../journal/host/host.ts';
import { type Lsn } from '../../../journal/position.ts';
import { type OutgoingFrame } from '../../../journal/stream.ts';
import { type LogProducer } from './log-ports.ts';
import { type SendWindow } from './send-window.ts';

/** After a failure, what is under way may still be answered for so long before its connections are dropped. */
const SETTLE_MS = 1_000;
const TIMEOUT_MAX_MS = 120_000;

/**
 * Moves the window's frames into the log until something fails. A failure settles everything that is under way (a frame
 * without an answer is unknown: it may be in the log or not), drops the connections, rewinds the window and rejects;
 * the caller connects again and calls `run` again, which sends from the window's base.
 */
export class FrameSender {
  readonly #clock: Clock;
  readonly #producer: LogProducer;
  readonly #window: SendWindow;
  readonly #timeoutMinMs: number;
  readonly #onPrefix: (lastLsn: Lsn, offset: bigint) => void;
  /** A slow line must not be taken for a dead one for ever: doubled by every timeout, shrinks with every answer. */
  #timeoutMs: number;
  readonly #underWay = new Set<Promise<void>>();
  #failure: TidemarkError | undefined;
  #wake: () => void = () => {};

  constructor(
    clock: Clock,
    producer: LogProducer,
    window: SendWindow,
    timeoutMs: number,
    onPrefix: (lastLsn: Lsn, offset: bigint) => void,
  ) {
    this.#clock = clock;
    this.#producer = producer;
    this.#window = window;
    this.#timeoutMinMs = timeoutMs;
    this.#timeoutMs = timeoutMs;
    this.#onPrefix = onPrefix;
  }

  /** There is something new to send. */
  wake(): void {
    this.#wake();
  }

  /** Stops the present `run`, or the next one, for a reason from outside. */
  fail(error: TidemarkError): void {
    this.#failure ??= error;
    this.#wake();
  }

  async run(): Promise<never> {
    for (let failure = this.#failure; ; failure = this.#failure) {
      if (failure !== undefined) {
        await this.#settle();
        this.#failure = undefined;
        throw failure;
      }
      const frame = this.#window.next();
      if (frame === undefined) {
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      } else {
        this.#send(frame);
      }
    }
  }

  #send(frame: OutgoingFrame): void {
    const startedMs = this.#clock.monotonicMs();
    const sending = this.#producer.send(frame.bytes, this.#timeoutMs).then(
      ({ offset }) => {
        this.#underWay.delete(sending);
        const tookMs = this.#clock.monotonicMs() - startedMs;
        this.#timeoutMs = Math.max(this.#timeoutMinMs, Math.min(TIMEOUT_MAX_MS, 4 * tookMs), this.#timeoutMs * 0.98);
        if (this.#failure !== undefined) return;
        for (const done of this.#window.acknowledge(frame, offset)) this.#onPrefix(done.lastLsn, done.offset);
        this.#wake();
      },
      (error: unknown) => {
        this.#underWay.delete(sending);
        if (!(error instanceof TidemarkError)) throw error;
        if (this.#clock.monotonicMs() - startedMs >= this.#timeoutMs) {
          this.#timeoutMs = Math.min(TIMEOUT_MAX_MS, this.#timeoutMs * 2);
        }
        this.fail(error);
      },
    );
    this.#underWay.add(sending);
  }

  async #settle(): Promise<void> {
    const settled = Promise.all(this.#underWay);
    const patience = Promise.withResolvers<void>();
    const timer = this.#clock.after(SETTLE_MS, patience.resolve);
    await Promise.race([settled, patience.promise]);
    timer.cancel();
    this.#producer.reset();
    await settled;
    this.#window.rewind();
  }
}
