import type { SeededRandom } from './seeded-random.ts';

/** What a group goes through in a run beside crashes: few of these per seed. */
export interface LifeOptions {
  /** Bytes of history the replica keeps: the floor moves up. 0: no bound. */
  readonly historyBytes: number;
  /** Views are held open and read again, some with scratch writes. */
  readonly views: boolean;
  readonly restores: boolean;
  /** The replica's disk fills up now and then. */
  readonly replicaFills: boolean;
  /** What the source does when its journal's budget is spent. */
  readonly outOfRoom: 'block' | 'stop-protecting';
  /** The first volume's disk is not empty at the first start. */
  readonly seeded: boolean;
  /** After a clean stop somebody writes to a disk while nobody holds it. */
  readonly changedOutside: boolean;
  /** A disk is given back as a plain one, and taken in again at a later start. */
  readonly detach: boolean;
}

export const CALM_LIFE: LifeOptions = {
  historyBytes: 0,
  views: false,
  restores: false,
  replicaFills: false,
  outOfRoom: 'block',
  seeded: false,
  changedOutside: false,
  detach: false,
};

export function drawLife(random: SeededRandom): LifeOptions {
  return {
    historyBytes: random.chance(0.25) ? random.pick([128, 512]) * 1024 : 0,
    views: random.chance(0.3),
    restores: random.chance(0.15),
    replicaFills: random.chance(0.15),
    outOfRoom: random.chance(0.2) ? 'stop-protecting' : 'block',
    seeded: random.chance(0.2),
    changedOutside: random.chance(0.2),
    detach: random.chance(0.2),
  };
}
