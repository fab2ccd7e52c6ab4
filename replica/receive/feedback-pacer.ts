import type { Clock, Timer } from '../../journal/host/host.ts';

/** Lets feedback go at once when the state changed, else after an interval or a number of bytes, whichever is first. */
export class FeedbackPacer {
  readonly #clock: Clock;
  readonly #intervalMs: number;
  readonly #bytesMax: number;
  readonly #send: () => void;
  #timer: Timer | undefined;
  #bytes = 0;
  #closed = false;
  #sentAtMs = Number.NEGATIVE_INFINITY;

  constructor(clock: Clock, intervalMs: number, bytesMax: number, send: () => void) {
    this.#clock = clock;
    this.#intervalMs = intervalMs;
    this.#bytesMax = bytesMax;
    this.#send = send;
  }

  now(): void {
    if (this.#closed) return;
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#bytes = 0;
    this.#sentAtMs = this.#clock.monotonicMs();
    this.#send();
  }

  /** So many more bytes are durable. `waited`: somebody waits for the word of it. */
  after(bytes: number, waited: boolean): void {
    this.#bytes += bytes;
    const waitMs = this.#sentAtMs + this.#intervalMs - this.#clock.monotonicMs();
    if (waited || this.#bytes >= this.#bytesMax || waitMs <= 0) this.now();
    else this.#timer ??= this.#clock.after(waitMs, () => this.now());
  }

  close(): void {
    this.#closed = true;
    this.#timer?.cancel();
  }
}
