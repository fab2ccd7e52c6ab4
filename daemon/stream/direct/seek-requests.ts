import type { Clock } from '../../../journal/host/host.ts';
import type { Lsn } from '../../../journal/position.ts';
import type { ReplicaFeedback } from '../../../journal/stream.ts';

/** How long a replica may go on asking for what just came to it again before it gets it once more. */
const GRACE_MS = 1000;

/**
 * When a replica's state means that frames must be sent again, or need not be sent. The state is repeated with every
 * feedback while the frames are on their way, so one wish is answered once; again only when the replica still has it a
 * while after it took what was sent for it.
 */
export class SeekRequests {
  readonly #clock: Clock;
  #durableLsn: Lsn = 0;
  #answered: { lsn: Lsn; takenMs: number | undefined } | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** A new connection starts from what the replica says it holds. */
  reset(durableLsn: Lsn): void {
    this.#durableLsn = durableLsn;
    this.#answered = undefined;
  }

  /** The replica took the first frame sent since the last seek. */
  taken(): void {
    if (this.#answered !== undefined) this.#answered.takenMs ??= this.#clock.monotonicMs();
  }

  /** Where to seek to for this state; undefined: go on. `nextLsn`: what would be sent next. */
  decide(feedback: ReplicaFeedback, nextLsn: Lsn): { fromLsn: Lsn; reason: string } | undefined {
    const wentBack = feedback.durableLsn < this.#durableLsn;
    this.#durableLsn = feedback.durableLsn;
    if (feedback.durableLsn >= nextLsn) {
      // What came over the connection before became durable after the welcome. The journal may have let go of it by now.
      const fromLsn = feedback.durableLsn + 1;
      return this.#answer(fromLsn, `the replica holds everything up to ${feedback.durableLsn} already`);
    }
    if (wentBack && feedback.durableLsn + 1 < nextLsn) {
      const fromLsn =
        feedback.missingFrom > 0 ? Math.min(feedback.missingFrom, feedback.durableLsn + 1) : feedback.durableLsn + 1;
      return this.#answer(fromLsn, `the replica went back to ${feedback.durableLsn}`);
    }
    const wanted = feedback.missingFrom;
    if (wanted === 0) {
      this.#answered = undefined;
      return undefined;
    }
    if (wanted >= nextLsn) return undefined;
    if (this.#answered?.lsn === wanted) {
      const { takenMs } = this.#answered;
      if (takenMs === undefined || this.#clock.monotonicMs() - takenMs < GRACE_MS) return undefined;
    }
    return this.#answer(wanted, `the replica misses records from ${wanted} on: ${feedback.reason}`);
  }

  #answer(fromLsn: Lsn, reason: string): { fromLsn: Lsn; reason: string } {
    this.#answered = { lsn: fromLsn, takenMs: undefined };
    return { fromLsn, reason };
  }
}
