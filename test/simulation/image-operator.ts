import { TidemarkError } from '../../journal/base/errors.ts';
import { REPLICA_DIRECTORY } from './names.ts';
import type { ReplicaNode } from './replica-node.ts';
import type { SourceNode } from './source-node.ts';

const DIRECTORY = `${REPLICA_DIRECTORY}/standby`;

/**
 * Who reads why a standby image stands still, once nothing that is damaged comes back any more: moves it away when that
 * is said, and lets guests no longer wait for one that cannot be made.
 */
export async function tendImage(source: SourceNode, replica: ReplicaNode): Promise<void> {
  const { group, host } = replica;
  const status = await group?.status();
  const reason = status?.standby?.reason ?? '';
  const isRefused = status?.damage.some(({ fromLsn }) => status.refusalOf(fromLsn) !== '') === true;
  if (!replica.rotten || !isRefused || group !== replica.group) return;
  if (reason.includes(`move ${DIRECTORY} away`)) {
    for (const name of host?.disk.list(DIRECTORY) ?? []) host?.disk.unlink(`${DIRECTORY}/${name}`);
  }
  const degree = source.group?.degree;
  const policy = degree?.status.policy;
  if (policy?.ack !== 'applied' || !/needed for the copy/.test(reason)) return;
  await degree?.change({ ...policy, ack: 'replica' }, false).catch((error: unknown) => {
    if (!(error instanceof TidemarkError)) throw error;
  });
}
