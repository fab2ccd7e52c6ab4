import type { Host } from '../../journal/host/host.ts';
import type { JournalAddress, Lsn } from '../../journal/position.ts';
import { readStateFile, StateFields, writeStateFile } from './state-file.ts';

/** Everything below `address`, up to record `lsn`, is synced in its backing: where the next start begins to replay. */
export interface Checkpoint {
  readonly address: JournalAddress;
  readonly lsn: Lsn;
}

const NAME = 'checkpoint.state';

export function readCheckpoint(host: Host, directory: string): Checkpoint | undefined {
  const path = `${directory}/${NAME}`;
  const value = readStateFile(host, path);
  if (value === undefined) return undefined;
  const fields = new StateFields(path, value);
  return { address: fields.count('address'), lsn: fields.count('lsn') };
}

/** Durable when the promise resolves. */
export async function writeCheckpoint(host: Host, directory: string, checkpoint: Checkpoint): Promise<void> {
  await writeStateFile(host, directory, NAME, checkpoint);
}
