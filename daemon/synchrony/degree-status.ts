import type { Lsn } from '../../journal/position.ts';
import type { DegreeState } from './degree-machine.ts';
import type { BrokenStretch, DegreePolicy } from './degree-policy.ts';

/** A plain snapshot of a group's degree of synchrony. */
export interface DegreeStatus {
  readonly policy: DegreePolicy;
  readonly configured: DegreePolicy;
  /** Will be in force when no replica relies on the present one any more. */
  readonly next: DegreePolicy | undefined;
  readonly state: DegreeState;
  readonly reason: string;
  /** The record that began this state. */
  readonly sinceLsn: Lsn;
  /** What the policy promises is so now; null: it promises nothing. */
  readonly holds: boolean | null;
  /** 0: no stretch without the far side is open. */
  readonly brokenFromLsn: Lsn;
  /** Stretches that are over, the newest last. */
  readonly stretches: readonly BrokenStretch[];
  /** Answers that wait for the far side. */
  readonly waiting: number;
  /** Clients that take no writes until the far side has more. */
  readonly heldBack: number;
  /** Guests' bytes the far side lacks; null: not counted, because nothing waits for it. */
  readonly unshippedBytes: number | null;
  /** What they may be; 0: there is no bound; null: nothing waits. */
  readonly unshippedBytesBound: number | null;
}
