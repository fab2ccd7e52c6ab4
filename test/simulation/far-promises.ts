import type { Lsn } from '../../journal/position.ts';
import type { DegreeChangeBody } from '../../journal/record-bodies.ts';
import type { RpoClaim } from '../../replica/receive/promise-of-source.ts';
import { must } from './violation.ts';

/** What the check needs of a run. */
export interface FarView {
  /** The newest statement of the degree in the journal, read to its end, up to this LSN; and where it stands. */
  degree(upToLsn?: Lsn): (DegreeChangeBody & { readonly lsn: Lsn }) | undefined;
  /** What the source's journal holds durably; undefined: it is down. */
  sourceDurableLsn(): Lsn | undefined;
  /** What every required replica has called durable, and applied to its standby image. */
  replicaDurableLsn(): Lsn;
  replicaAppliedLsn(): Lsn;
  /** What each replica says, required or not, and what it has called durable; undefined: it is down. */
  claims(): readonly { readonly claim: RpoClaim | undefined; readonly durableLsn: Lsn }[];
}

/**
 * P6, from outside: who was answered while the journal says that answers wait for the replica has his records there; who
 * was answered without it stands behind a durable record that says so; and a replica that says nothing is missing is right.
 */
export class FarPromises {
  readonly #view: FarView;
  /** The newest record that was answered: by any answer, by one to FLUSH or FUA. */
  #newest: { write: Lsn; flush: Lsn } = { write: 0, flush: 0 };
  /** Answers that the replica held, those without it, and claims looked at. */
  held = 0;
  beyond = 0;
  claims = 0;

  constructor(view: FarView) {
    this.#view = view;
  }

  answered(lsn: Lsn, durable: boolean): void {
    this.#newest.write = Math.max(this.#newest.write, lsn);
    if (durable) this.#newest.flush = Math.max(this.#newest.flush, lsn);
    const degree = this.#view.degree();
    const isOurs = degree?.ack === 'replica' || degree?.ack === 'applied';
    if (!isOurs || (degree.ackAt === 'flush' && !durable)) return;
    const heldLsn = this.#heldLsn(degree.ack);
    if (lsn <= heldLsn) {
      if (degree.to !== 'degraded') this.held++;
      return;
    }
    this.beyond++;
    const { to, lsn: atLsn, brokenFromLsn = 0 } = degree;
    must('P6', to === 'degraded', () => `LSN ${lsn} is answered ${to}, the replica holds ${heldLsn}`);
    const named = brokenFromLsn > 0 && brokenFromLsn <= lsn;
    must('P6', named, () => `LSN ${lsn} is answered without the replica, named is from ${brokenFromLsn} on`);
    const stated = this.#view.degree(this.#view.sourceDurableLsn() ?? 0);
    // until then the old promise is kept, and it may be one that a plain write does not wait for
    const isHeld = stated !== undefined && lsn <= this.#heldLsn(stated.ack);
    const asPromised = isHeld || stated?.ack === 'stream' || (stated?.ackAt === 'flush' && !durable);
    const isDurable = stated === undefined || stated.to === 'degraded' || stated.to === 'off' || asPromised;
    must('P6', isDurable, () => `LSN ${lsn} is answered before the record ${atLsn} is durable that says so`);
    this.checkClaim();
  }

  #heldLsn(ack: string | undefined): Lsn {
    return ack === 'applied' ? this.#view.replicaAppliedLsn() : this.#view.replicaDurableLsn();
  }

  /** What was cut is given again. */
  recovered(survivedLsn: Lsn): void {
    const { write, flush } = this.#newest;
    this.#newest = { write: Math.min(write, survivedLsn), flush: Math.min(flush, survivedLsn) };
  }

  checkClaim(): void {
    for (const { claim, durableLsn } of this.#view.claims()) {
      if (claim?.rpo !== 'zero') continue;
      this.claims++;
      const newest = claim.promise.endsWith('write') ? this.#newest.write : this.#newest.flush;
      must('P6', newest <= durableLsn, () => {
        return `the replica says RPO 0 (${claim.promise}) at LSN ${durableLsn}, a guest was answered up to ${newest}`;
      });
    }
  }
}
