import type { DegreePolicy } from './degree-policy.ts';

interface PolicyFault {
  /** As the configuration calls it. */
  readonly key: 'stallAfter';
  readonly message: string;
}

/** A replica has to hear of the lease several times before it ends. */
const HEARTBEATS_IN_A_LEASE = 4;

/** Why a group cannot have this policy; empty: it can. */
export function policyFaults({ ack, stallAfterMs }: DegreePolicy, heartbeatMs: number): readonly PolicyFault[] {
  const faults: PolicyFault[] = [];
  if (ack !== 'local' && stallAfterMs < HEARTBEATS_IN_A_LEASE * heartbeatMs) {
    const message = `must be at least ${HEARTBEATS_IN_A_LEASE} times heartbeat: an idle far side shows once in each that it is there`;
    faults.push({ key: 'stallAfter', message });
  }
  return faults;
}
