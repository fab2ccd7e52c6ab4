import type { Clock } from '../../journal/host/host.ts';
import type { JournalAddress } from '../../journal/position.ts';
import type { ReplyPort } from '../nbd/export.ts';
import { Pacer } from './pacer.ts';

/** What a group measures. */
export interface ThrottleGauges {
  /** 0: there is room; 1: a bound is reached. */
  pressure(): number;
  /** What it would be if no request were open whose pieces are still arriving. */
  pressureWithoutOpen(): number;
  /** The batch of the oldest open request, when that is what holds room. */
  checkpoint(): JournalAddress;
  /** Bytes carried away so far, counted from any origin. */
  drained(): number;
}

/**
 * Holds clients back when the group's memory or journal fills up, gradually at first: their connections are paused,
 * nothing is queued here. Works by what the group measures, at every window of writes.
 */
export class Throttle {
  readonly #clock: Clock;
  readonly #gauges: ThrottleGauges;
  readonly #pacer = new Pacer();
  /** With the batch in which a request of theirs began that is still arriving. */
  readonly #stopped: Map<ReplyPort, JournalAddress | undefined> = new Map();
  readonly #paused: Set<ReplyPort> = new Set();

  constructor(clock: Clock, gauges: ThrottleGauges) {
    this.#clock = clock;
    this.#gauges = gauges;
  }

  /** Clients that take no writes now, for status. */
  get heldBack(): number {
    return this.#stopped.size;
  }

  /**
   * A client wrote `bytes`; it may be paused until there is room, or for a moment. `openAt`: the batch in which a request
   * of its began that has not arrived whole.
   */
  charge(client: ReplyPort, bytes: number, openAt?: JournalAddress): void {
    const pressure = this.#gauges.pressure();
    const nowMs = this.#clock.monotonicMs();
    this.#pacer.observe(this.#gauges.drained(), pressure, nowMs);
    if (this.#paused.has(client)) return;
    if (this.#pacer.mustStop(pressure)) {
      this.#paused.add(client);
      this.#stopped.set(client, openAt);
      client.pause();
      return;
    }
    const delayMs = this.#pacer.delayMs(bytes, pressure, nowMs);
    if (delayMs === 0) return;
    this.#paused.add(client);
    client.pause();
    this.#clock.after(delayMs, () => this.#resume(client));
  }

  /**
   * Something moved: who had to stop may go on if there is room enough. So may who has begun the request that alone holds
   * the room: its other pieces never come from a client that is stopped, and all would wait for them.
   */
  recheck(): void {
    if (this.#stopped.size === 0) return;
    if (!this.#pacer.mustStop(this.#gauges.pressure())) {
      for (const client of this.#stopped.keys()) this.#letGo(client);
    } else if (this.#pacer.mayGoOn(this.#gauges.pressureWithoutOpen())) {
      const checkpoint = this.#gauges.checkpoint();
      for (const [client, openAt] of this.#stopped) if (openAt === checkpoint) this.#letGo(client);
    }
  }

  /** The client is gone. */
  forget(client: ReplyPort): void {
    this.#stopped.delete(client);
    this.#paused.delete(client);
  }

  #letGo(client: ReplyPort): void {
    this.#stopped.delete(client);
    this.#resume(client);
  }

  #resume(client: ReplyPort): void {
    if (this.#stopped.has(client)) return;
    if (this.#paused.delete(client)) client.resume();
  }
}
