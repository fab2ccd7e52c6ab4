import { TidemarkError } from '../../journal/base/errors.ts';
import type { SourceGroupConfig } from '../config/config-types.ts';
import type { DegreeRequest } from '../control/degree-api.ts';
import type { DegreePolicy } from '../synchrony/degree-policy.ts';
import type { DegreeStatus } from '../synchrony/degree-status.ts';
import { policyFaults } from '../synchrony/policy-faults.ts';

/** What an operator asks for; what he does not name stays as it is, or will be soon. Throws `invalid-argument`. */
export function policyOf(
  status: DegreeStatus,
  { ack, ackAt, onStall, stallAfterMs, unshippedBytesMax, toConfiguration }: Omit<DegreeRequest, 'dryRun'>,
  { heartbeatMs }: Pick<SourceGroupConfig, 'heartbeatMs'>,
): DegreePolicy {
  const base = toConfiguration === true ? status.configured : (status.next ?? status.policy);
  const policy: DegreePolicy = {
    ack: ack ?? base.ack,
    ackAt: ackAt ?? base.ackAt,
    onStall: onStall ?? base.onStall,
    stallAfterMs: stallAfterMs ?? base.stallAfterMs,
    unshippedBytesMax: unshippedBytesMax ?? base.unshippedBytesMax,
  };
  const [fault] = policyFaults(policy, heartbeatMs);
  if (fault === undefined) return policy;
  throw new TidemarkError('invalid-argument', `${fault.key} ${fault.message}`);
}
