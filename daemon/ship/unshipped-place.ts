import { hasCode } from '../../journal/base/errors.ts';
import { FileReads } from '../../journal/file-reads.ts';
import type { NeededPlace } from '../../journal/gone-files.ts';
import type { Host } from '../../journal/host/host.ts';
import type { StatePlace } from '../volume/state-file.ts';
import { readAcknowledged } from './acknowledged.ts';
import type { RegisteredReplica } from './replica-registry.ts';
import { loadShipState } from './ship-state.ts';

/**
 * From where on a required replica still needs the journal, for as much as that is certain: what was acknowledged in the
 * last second before a kill is not written down, so the place may have been given free since. It was not while its own
 * file stands there: files are given free oldest first. Undefined: nobody can tell.
 */
export async function unshippedPlace(
  host: Host,
  place: StatePlace,
  fileBytes: number,
  replicas: readonly RegisteredReplica[],
): Promise<NeededPlace | undefined> {
  const said = new Map(readAcknowledged(host, place).map(({ name, acknowledgedLsn }) => [name, acknowledgedLsn]));
  const held = replicas.filter(({ required }) => required).map(({ name }) => said.get(name) ?? 0);
  const heldLsn = Math.min(...held);
  const checkpoints = await loadShipState(host.disk, place.directory, place.groupId).catch((error: unknown) => {
    if (!hasCode(error, 'journal-damaged')) throw error;
    return [];
  });
  const { address, lsn } = checkpoints.findLast((one) => one.lsn <= heldLsn) ?? { address: 0, lsn: 0 };
  const sequence = Math.floor(address / fileBytes);
  const reads = new FileReads(host.disk, place.directory);
  try {
    const header = reads.header(sequence);
    if (typeof header === 'string' || header.sequence !== sequence || header.groupId !== place.groupId)
      return undefined;
    return { address, lsn: lsn + 1 };
  } finally {
    await reads.close();
  }
}
