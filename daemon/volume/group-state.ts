import type { DestageState } from './destager.ts';
import type { GroupRetention } from './group-retention.ts';
import type { GroupState } from './group-status.ts';

/**
 * The worst that is true of an open group, and why: a journal that failed, a disk that fails, history given up, seeds
 * under way (of the volumes named in `seeding`).
 */
export function groupState(
  poisonedBy: string | undefined,
  { state, reason }: DestageState,
  { failure, givenUp }: Pick<GroupRetention, 'failure' | 'givenUp'>,
  seeding: readonly string[],
): [GroupState, string] {
  if (poisonedBy !== undefined) return ['failed', `the journal failed: ${poisonedBy}`];
  if (state === 'retrying' || state === 'failed') return ['backing-failed', reason];
  if (failure !== undefined) return ['failed', `history cannot be given up: ${failure.message}`];
  if (givenUp !== undefined) return ['unprotected', `history from ${givenUp.fromLsn} to ${givenUp.toLsn} was given up`];
  if (seeding.length > 0) return ['seeding', seeding.join(', ')];
  return ['protecting', ''];
}
