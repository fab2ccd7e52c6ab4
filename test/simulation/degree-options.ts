import { type DegreePolicy, LOCAL_POLICY } from '../../daemon/synchrony/degree-policy.ts';
import type { SeededRandom } from './seeded-random.ts';

/** What the guests of a run wait for beyond their own host. */
export interface DegreeOptions {
  readonly policy: DegreePolicy;
  /** An operator changes it now and then. */
  readonly changes: boolean;
  readonly heartbeatMs: number;
}

export const ALONE: DegreeOptions = { policy: LOCAL_POLICY, changes: false, heartbeatMs: 1_000 };

/** A run lasts seconds: what takes tens of them in life is drawn shorter. */
export function drawDegree(random: SeededRandom, blockMay: boolean): DegreeOptions {
  if (random.chance(0.6)) return ALONE;
  return { policy: drawPolicy(random, blockMay), changes: random.chance(0.3), heartbeatMs: random.pick([50, 200]) };
}

/** `blockMay`: nothing in the run can keep the far side from coming back, or a guest would wait for ever. */
export function drawPolicy(random: SeededRandom, blockMay: boolean): DegreePolicy {
  const onStall = random.pick(['degrade', 'degrade', 'degrade', 'block', 'fail'] as const);
  return {
    ack: random.pick(['stream', 'replica', 'replica', 'applied', 'local']),
    ackAt: random.pick(['flush', 'flush', 'write']),
    onStall: onStall === 'block' && !blockMay ? 'degrade' : onStall,
    stallAfterMs: random.pick([800, 2_000]),
    unshippedBytesMax: random.pick([64, 1024, 65_536]) * 1024,
  };
}
