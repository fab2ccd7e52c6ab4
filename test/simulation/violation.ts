/** The promises a run is checked against; letters and numbers are those of DURABILITY.md. */
export type Invariant =
  /** After a kill every acknowledged write is read back. */
  | 'D1'
  /** After a power loss every flushed write survives, and what survives is a prefix of the order. */
  | 'D2'
  /** A read never returns bytes older than the newest acknowledged write. */
  | 'D6'
  /** What is in the journal is what was asked for, in that order and exact to the byte: zeroes and trims like writes. */
  | 'D8'
  /** The replica is an exact prefix of the order, across all volumes. */
  | 'P1'
  /** One position never has two contents. */
  | 'P2'
  /** No gap is stepped over or left open: what is durable at the source arrives when faults stop. */
  | 'P3'
  /** What the replica called durable it still holds after any crash. */
  | 'P5'
  /** A view at one position never changes. */
  | 'V1'
  /** A bookmark that was told is there. */
  | 'B1'
  /** The program goes on by itself when faults stop. */
  | 'L1'
  /** Nothing throws where nobody catches. */
  | 'X1';

/** A broken promise: ends the run. */
export class Violation extends Error {
  readonly invariant: Invariant;

  constructor(invariant: Invariant, message: string) {
    super(`${invariant}: ${message}`);
    this.name = 'Violation';
    this.invariant = invariant;
  }
}

export function must(invariant: Invariant, holds: boolean, message: () => string): asserts holds {
  if (!holds) throw new Violation(invariant, message());
}
