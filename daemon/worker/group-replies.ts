import { TidemarkError } from '../../journal/base/errors.ts';
import type { GroupHost, Health } from './group-host.ts';
import type { Methods } from './rpc.ts';

/** What both roles do with the hosts of their groups. */

/** A data path reports four times a second; one that has been silent for this long is stuck. */
const STALLED_SECONDS = 5;
/** How long a status waits for the newest word of a data path before it shows the last. */
const FRESH_TIMEOUT_MS = 1000;

/** Throws not-found, naming those there are. */
export function findGroup<T extends { readonly group: string }>(groups: readonly T[], name: string): T {
  const found = groups.find(({ group }) => group === name);
  if (found !== undefined) return found;
  const known = groups.map(({ group }) => group).join(', ');
  throw new TidemarkError('not-found', `there is no group "${name}": this daemon has ${known}`);
}

export function isStalled(host: { readonly ageSeconds: number | null }): boolean {
  return (host.ageSeconds ?? 0) > STALLED_SECONDS;
}

export function healthReason(health: Extract<Health, { state: 'failed' }>): string {
  return `${health.error.message}${health.restarting ? ' (it is started again)' : ''}`;
}

/** Asks for the present status; a data path that gives no answer in time keeps its last. */
export async function fresh<Status, Protocol extends Methods<Protocol> & { status: { params: null; result: Status } }>(
  host: GroupHost<Protocol, Status>,
): Promise<void> {
  if (host.health.state !== 'running') return;
  try {
    host.accept(await host.rpc.call('status', null, FRESH_TIMEOUT_MS));
  } catch (error) {
    if (!(error instanceof TidemarkError)) throw error;
  }
}
