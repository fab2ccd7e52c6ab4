import { TidemarkError } from '../../journal/base/errors.ts';
import type { StretchAnchor } from '../../journal/damaged-stretch.ts';
import type { NeededPlace } from '../../journal/gone-files.ts';
import type { Host } from '../../journal/host/host.ts';
import type { JournalAddress, Lsn } from '../../journal/position.ts';
import { readStateFile, StateFields, type StatePlace, writeStateFile } from './state-file.ts';

/** Everything below `address`, up to record `lsn`, is synced in its backing: where the next start begins to replay. */
export interface Checkpoint {
  readonly address: JournalAddress;
  readonly lsn: Lsn;
}

/**
 * What a start needs to know. Reading begins at `checkpoint`, the first piece of the oldest request that was open; what
 * took effect below `applied` is in the backings and must not be applied again: of a request that closed between the two
 * the first pieces may lie below the checkpoint, and what it overwrote above it.
 */
export interface WrittenOut {
  readonly checkpoint: Checkpoint;
  readonly applied: Checkpoint;
}

/** Where batches begin that the write-out relies on. */
export function anchorsOf({ checkpoint, applied }: WrittenOut): StretchAnchor[] {
  return [checkpoint, applied].map(({ address, lsn }) => ({ address, lsn: lsn + 1 }));
}

const NAME = 'checkpoint.state';

export function readCheckpoint(host: Host, place: StatePlace): WrittenOut | undefined {
  const value = readStateFile(host, place, NAME);
  if (value === undefined) return undefined;
  const fields = new StateFields(`${place.directory}/${NAME}`, value);
  return {
    checkpoint: { address: fields.count('address'), lsn: fields.count('lsn') },
    applied: { address: fields.count('appliedAddress'), lsn: fields.count('appliedLsn') },
  };
}

/** Where a replay will begin: files are only used again below, so from there on all of them have to be there. */
export function neededPlace(host: Host, place: StatePlace): NeededPlace {
  const { address, lsn } = readCheckpoint(host, place)?.checkpoint ?? { address: 0, lsn: 0 };
  return { address, lsn: lsn + 1 };
}

/**
 * Where a replay begins. Throws `journal-damaged` when the journal begins behind it: files are only used again below the
 * checkpoint, so one that the disks still need is gone.
 */
export function replayFrom(
  host: Host,
  place: StatePlace,
  journal: { readonly oldestAddress: JournalAddress; readonly oldestLsn: Lsn },
): WrittenOut {
  const nothing = { address: 0, lsn: 0 };
  const writtenOut = readCheckpoint(host, place) ?? { checkpoint: nothing, applied: nothing };
  const { checkpoint } = writtenOut;
  if (journal.oldestAddress > checkpoint.address) {
    throw new TidemarkError(
      'journal-damaged',
      `the journal begins with record ${journal.oldestLsn}: files with records from ${checkpoint.lsn + 1} on, which the backings do not hold, are gone`,
    );
  }
  return writtenOut;
}

/** Durable when the promise resolves. */
export async function writeCheckpoint(host: Host, place: StatePlace, reached: WrittenOut): Promise<void> {
  const { applied, checkpoint } = reached;
  await writeStateFile(host, place, NAME, {
    ...checkpoint,
    appliedAddress: applied.address,
    appliedLsn: applied.lsn,
  });
}
