import type { Lsn } from '../../journal/position.ts';

/** Who holds the floor, and why. */
export interface Lease {
  readonly id: number;
  readonly lsn: Lsn;
  readonly kind: 'view' | 'restore' | 'pin' | 'reader';
  /** For a person: "view 3 of vm1", "restore to /x". */
  readonly owner: string;
}

/** Positions in use: the floor never goes past one. Held in memory; what must survive a restart is taken again then. */
export class Leases {
  readonly #leases = new Map<number, Lease>();
  #lastId = 0;

  /** Holds everything that `lsn` needs until the returned function is called. */
  take(lsn: Lsn, kind: Lease['kind'], owner: string): () => void {
    this.#lastId += 1;
    const id = this.#lastId;
    this.#leases.set(id, { id, lsn, kind, owner });
    return () => {
      this.#leases.delete(id);
    };
  }

  list(): Lease[] {
    return [...this.#leases.values()];
  }

  /** The highest floor that hurts nobody. */
  get lowestLsn(): Lsn {
    let lowest = Number.MAX_SAFE_INTEGER;
    for (const lease of this.#leases.values()) lowest = Math.min(lowest, lease.lsn);
    return lowest;
  }
}
