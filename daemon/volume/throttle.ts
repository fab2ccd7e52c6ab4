import type { Clock } from '../../journal/host/host.ts';
import type { ReplyPort } from '../nbd/export.ts';
import { Pacer } from './pacer.ts';

/**
 * Holds clients back when the group's memory or journal fills up, gradually at first: their connections are paused,
 * nothing is queued here. Works by what the group measures, at every window of writes.
 */
export class Throttle {
  readonly #clock: Clock;
  readonly #pressure: () => number;
  readonly #drained: () => number;
  readonly #pacer = new Pacer();
  readonly #stopped: Set<ReplyPort> = new Set();
  readonly #paused: Set<ReplyPort> = new Set();

  /** `drained`: bytes carried away so far, counted from any origin. */
  constructor(clock: Clock, pressure: () => number, drained: () => number) {
    this.#clock = clock;
    this.#pressure = pressure;
    this.#drained = drained;
  }

  /** Clients that take no writes now, for status. */
  get heldBack(): number {
    return this.#stopped.size;
  }

  /** A client wrote `bytes`; it may be paused until there is room, or for a moment. */
  charge(client: ReplyPort, bytes: number): void {
    const pressure = this.#pressure();
    const nowMs = this.#clock.monotonicMs();
    this.#pacer.observe(this.#drained(), pressure, nowMs);
    if (this.#paused.has(client)) return;
    if (this.#pacer.mustStop(pressure)) {
      this.#paused.add(client);
      this.#stopped.add(client);
      client.pause();
      return;
    }
    const delayMs = this.#pacer.delayMs(bytes, pressure, nowMs);
    if (delayMs === 0) return;
    this.#paused.add(client);
    client.pause();
    this.#clock.after(delayMs, () => this.#resume(client));
  }

  /** Room was made: who had to stop may go on if it is enough. */
  recheck(): void {
    if (this.#stopped.size === 0 || this.#pacer.mustStop(this.#pressure())) return;
    for (const client of this.#stopped) {
      this.#stopped.delete(client);
      this.#resume(client);
    }
  }

  /** The client is gone. */
  forget(client: ReplyPort): void {
    this.#stopped.delete(client);
    this.#paused.delete(client);
  }

  #resume(client: ReplyPort): void {
    if (this.#stopped.has(client)) return;
    if (this.#paused.delete(client)) client.resume();
  }
}
