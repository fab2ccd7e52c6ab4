import { hasCode } from '../../journal/base/errors.ts';
import type { Clock, Timer } from '../../journal/host/host.ts';
import type { Journal } from '../../journal/journal.ts';
import { RecordKind } from '../../journal/record.ts';
import { encodeHeartbeat, type HeartbeatBody } from '../../journal/record-bodies.ts';

/** The two clocks of a source, recorded again and again: a replica tells times from it, and how far it is behind. */
export class Heartbeats {
  readonly #clock: Clock;
  readonly #journal: Journal;
  readonly #everyMs: number;
  readonly #lease: () => HeartbeatBody['lease'];
  readonly #onBeat: () => void;
  #timer: Timer | undefined;

  /** `lease` is asked at each beat for the one that goes with it; `onBeat` is called behind each, written or not. */
  constructor(
    clock: Clock,
    journal: Journal,
    everyMs: number,
    lease: () => HeartbeatBody['lease'],
    onBeat: () => void,
  ) {
    this.#clock = clock;
    this.#journal = journal;
    this.#everyMs = everyMs;
    this.#lease = lease;
    this.#onBeat = onBeat;
  }

  /** The first beat comes after one interval. */
  start(): void {
    this.#timer = this.#clock.after(this.#everyMs, () => {
      this.#beat();
      this.#onBeat();
      this.start();
    });
  }

  stop(): void {
    this.#timer?.cancel();
  }

  #beat(): void {
    const lease = this.#lease();
    const time = { monotonicMs: this.#clock.monotonicMs(), wallMicros: this.#clock.wallMicros() };
    const body = encodeHeartbeat(lease === undefined ? time : { ...time, lease });
    try {
      this.#journal.append(RecordKind.heartbeat, { body });
    } catch (error) {
      // A group that cannot write says so by its state; the next beat tries again.
      if (!hasCode(error, 'journal-full') && !hasCode(error, 'journal-poisoned')) throw error;
    }
  }
}
