import type { Clock } from '../../journal/host/host.ts';
import type { JournalAddress } from '../../journal/position.ts';
import type { ReplyPort } from '../nbd/export.ts';
import { Pacer } from './pacer.ts';

/** How long others wait for a client that holds all of the room by a request that has not arrived whole. */
export interface HolderPatience {
  /** When nothing more of it arrives. */
  readonly silentMs: number;
  /** When it goes on. */
  readonly slowMs: number;
}

/** A busy hypervisor is silent for a second or two, and a lost connection may be an error to its guest. */
export const HOLDER_PATIENCE: HolderPatience = { silentMs: 3000, slowMs: 30_000 };

/** A request of which more is to come. */
interface OpenRequest {
  /** The batch in which it began. */
  readonly at: JournalAddress;
  /** When its newest piece came. */
  readonly grewAtMs: number;
}

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
  readonly #patience: HolderPatience;
  readonly #pacer = new Pacer();
  /** With the batch in which a request of theirs began that is still arriving. */
  readonly #stopped: Map<ReplyPort, JournalAddress | undefined> = new Map();
  readonly #paused: Set<ReplyPort> = new Set();
  readonly #open: Map<ReplyPort, OpenRequest> = new Map();
  /** Since when open requests alone make others wait. */
  #waitingSinceMs: number | undefined;

  constructor(clock: Clock, gauges: ThrottleGauges, patience: HolderPatience) {
    this.#patience = patience;
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
    if (openAt !== undefined) this.#open.set(client, { at: openAt, grewAtMs: nowMs });
    else if (this.#open.size > 0) this.#open.delete(client);
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
   * Something moved, or time passed: who had to stop may go on if there is room enough. So may who has begun the request
   * that alone holds the room: its other pieces never come from a client that is stopped, and all would wait for them. If
   * they do not come then either, its connection is closed: the request has no effect, and the others go on.
   */
  recheck(): void {
    if (this.#stopped.size === 0) {
      this.#waitingSinceMs = undefined;
      return;
    }
    if (!this.#pacer.mustStop(this.#gauges.pressure())) {
      this.#waitingSinceMs = undefined;
      for (const client of this.#stopped.keys()) this.#letGo(client);
    } else if (this.#pacer.mayGoOn(this.#gauges.pressureWithoutOpen())) {
      const checkpoint = this.#gauges.checkpoint();
      for (const [client, openAt] of this.#stopped) if (openAt === checkpoint) this.#letGo(client);
      this.#closeWhoHolds(checkpoint);
    } else {
      this.#waitingSinceMs = undefined;
    }
  }

  /** The client is gone. */
  forget(client: ReplyPort): void {
    this.#stopped.delete(client);
    this.#paused.delete(client);
    this.#open.delete(client);
  }

  #closeWhoHolds(checkpoint: JournalAddress): void {
    const nowMs = this.#clock.monotonicMs();
    this.#waitingSinceMs ??= nowMs;
    const since = this.#waitingSinceMs;
    const { silentMs, slowMs } = this.#patience;
    for (const [client, { at, grewAtMs }] of this.#open) {
      if (at !== checkpoint) continue;
      if (nowMs - Math.max(grewAtMs, since) < silentMs && nowMs - since < slowMs) continue;
      this.#waitingSinceMs = undefined;
      client.close('a request that stopped in the middle holds all of the journal, and others wait for it');
    }
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
