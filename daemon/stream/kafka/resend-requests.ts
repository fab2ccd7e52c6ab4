import { type Clock } from '../../../journal/host/host.ts';
import { type Lsn } from '../../../journal/position.ts';
import { type ReplicaFeedback } from '../../../journal/stream.ts';
import { type Seek } from './seek-decision.ts';

const FIRST_PATIENCE_MS = 10_000;
const LAST_PATIENCE_MS = 300_000;

/**
 * Which states of registered replicas ask for frames again, or show that frames need not be sent. A state is repeated until it changes, and a replica hours
 * behind takes its time to reach what was sent again: one request is answered once, and again only when it still stands
 * after a patience that doubles.
 */
export class ResendRequests {
  readonly #clock: Clock;
  readonly #replicas: ReadonlySet<string>;
  readonly #durable = new Map<string, Lsn>();
  readonly #answered = new Map<string, { missingFrom: Lsn; atMs: number; patienceMs: number }>();

  constructor(clock: Clock, replicas: readonly string[]) {
    this.#clock = clock;
    this.#replicas = new Set(replicas);
  }

  /** What every registered replica said last that it holds. */
  get heldLsn(): Lsn {
    return Math.min(...[...this.#replicas].map((replica) => this.#durable.get(replica) ?? 0));
  }

  /** `nextLsn` is what would be sent next: nothing from there on can be missing yet. */
  asks(feedback: ReplicaFeedback, nextLsn: Lsn): Seek | undefined {
    const { replica, durableLsn, missingFrom } = feedback;
    if (!this.#replicas.has(replica)) return undefined;
    const before = this.#durable.get(replica) ?? 0;
    this.#durable.set(replica, durableLsn);
    const heldLsn = this.heldLsn;
    if (heldLsn >= nextLsn) {
      // An old state was taken for the newest: a feedback topic lost its end, or the answer to it came late.
      return { fromLsn: heldLsn + 1, reason: `every replica holds everything up to ${heldLsn} already` };
    }
    if (durableLsn < before && durableLsn + 1 < nextLsn) {
      const fromLsn = missingFrom > 0 ? Math.min(missingFrom, durableLsn + 1) : durableLsn + 1;
      return { fromLsn, reason: `replica ${replica} lost data: it held ${before}, now ${durableLsn}` };
    }
    if (missingFrom === 0 || missingFrom >= nextLsn) {
      this.#answered.delete(replica);
      return undefined;
    }
    const nowMs = this.#clock.monotonicMs();
    const last = this.#answered.get(replica);
    const repeated = last?.missingFrom === missingFrom;
    if (last !== undefined && repeated && nowMs - last.atMs < last.patienceMs) return undefined;
    const patienceMs =
      last !== undefined && repeated ? Math.min(LAST_PATIENCE_MS, last.patienceMs * 2) : FIRST_PATIENCE_MS;
    this.#answered.set(replica, { missingFrom, atMs: nowMs, patienceMs });
    return { fromLsn: missingFrom, reason: `replica ${replica} misses ${missingFrom}` };
  }
}
