import type { Clock } from '../../journal/host/host.ts';
import type { Marks } from '../../journal/marks.ts';
import type { JournalAddress } from '../../journal/position.ts';
import { GuestLoad, restMs } from '../volume/guest-load.ts';

/** How far shipping may be put off while guests write fast, whatever the far side could take. */
export interface ShipDelay {
  /** What is durable here is sealed this much later at most. */
  readonly ms: number;
  /** ... or when so many bytes of the journal wait. */
  readonly bytes: number;
}

/** Two seconds of writes are what a site may lose by this alone; half a GiB is what fits a small journal. */
export const SHIP_DELAY: ShipDelay = { ms: 2000, bytes: 512 * 1024 * 1024 };

/** Between two notes of the durable mark; how exactly the age of what waits is known. */
const NOTE_MS = 50;
/** Shipping never rests longer than this part of the time. */
const SHARE_MIN = 0.05;

/**
 * Leaves the machine to busy guests: the share of the time that sealing takes grows with what waits, from little to all of
 * it when a bound of the delay is reached. So a burst is shipped when it is over, and a load that lasts at its own rate.
 */
export class ShipPace {
  readonly #clock: Clock;
  readonly #marks: Marks;
  readonly #delay: ShipDelay;
  readonly #load = new GuestLoad();
  /** What was durable when; bounded, because older notes are dropped when the delay is over. */
  #notes: { readonly atMs: number; readonly address: JournalAddress }[] = [];

  constructor(clock: Clock, marks: Marks, delay: ShipDelay) {
    this.#clock = clock;
    this.#marks = marks;
    this.#delay = delay;
  }

  /** To be called whenever the durable mark moved. */
  note(): void {
    const atMs = this.#clock.monotonicMs();
    const last = this.#notes.at(-1);
    if (last !== undefined && atMs - last.atMs < NOTE_MS) return;
    this.#notes.push({ atMs, address: this.#marks.address('durable') });
    // the oldest but one is older than any delay: nothing hangs on the oldest
    while (this.#notes.length > 1 && atMs - this.#notes[1]!.atMs > this.#delay.ms) this.#notes.shift();
  }

  /** How long to rest after `workMs` of sealing that has come to `place`. */
  restMs(workMs: number, place: JournalAddress): number {
    const nowMs = this.#clock.monotonicMs();
    if (!this.#load.isBusy(this.#marks.address('written'), nowMs)) return 0;
    const waitingBytes = this.#marks.address('durable') - place;
    const oldest = this.#notes.find(({ address }) => address > place);
    const waitedMs = oldest === undefined ? 0 : nowMs - oldest.atMs;
    const { ms, bytes } = this.#delay;
    const behind = Math.max(ms === 0 ? 1 : waitedMs / ms, bytes === 0 ? 1 : waitingBytes / bytes);
    return restMs(workMs, Math.max(SHARE_MIN, behind));
  }
}
