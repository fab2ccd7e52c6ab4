import type { Lsn } from '../../journal/position.ts';
import type { StateName } from '../../journal/record-bodies.ts';
import type { DegreeState } from './degree-machine.ts';
import type { AckDegree } from './degree-policy.ts';

/** How far the replicas are, as the shipper knows it now; a position may go back. */
export interface FarSide {
  /** Reached at every required replica. */
  reachedLsn(ack: Exclude<AckDegree, 'local'>): Lsn;
  /** A required replica that is heard, and has no standby image applied in step. */
  readonly withoutImage: string | undefined;
  /** A required replica lost what it had acknowledged and does not have it again. */
  readonly lost: boolean;
  /** The states of required replicas taken last; `takenMs` on the monotonic clock here. */
  readonly heard: readonly { readonly replica: string; readonly sent: StateName; readonly takenMs: number }[];
}

export const NOBODY: FarSide = { reachedLsn: () => 0, withoutImage: undefined, lost: false, heard: [] };

/** Why the degree `applied` is where it is, for a person: an image may stand still at a replica that holds everything. */
export function imageReason(far: FarSide, state: DegreeState, reason: string): string {
  if (far.withoutImage !== undefined) {
    return `replica ${far.withoutImage} has no standby image that is applied in step: set apply: sync there`;
  }
  if (state === 'off' || state === 'in-sync' || far.reachedLsn('applied') >= far.reachedLsn('replica')) return reason;
  return `${reason}; a standby image is behind what its replica holds: status there says why`;
}
