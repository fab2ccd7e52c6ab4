import { hasCode } from '../../journal/base/errors.ts';
import type { Host } from '../../journal/host/host.ts';
import type { JournalAddress, Lsn } from '../../journal/position.ts';
import { readStateFile, StateFields, type StatePlace, writeStateFile } from '../volume/state-file.ts';

/** Records that are damaged in the journal and that nobody holds any more. */
export interface GivenStretch {
  readonly fromLsn: Lsn;
  readonly toLsn: Lsn;
  /** Where the damage begins. */
  readonly address: JournalAddress;
}

/** What an operator has decided to do without; carried out by the next start (give-up.ts). */
export interface GivenWord {
  readonly stretches: readonly GivenStretch[];
  /** His words, for the timeline. */
  readonly reason: string;
}

const NAME = 'give-up.state';

/** Undefined when nothing is given up, and when the file is damaged: the operator is asked again, nothing is lost by that. */
export function readGivenWord(host: Host, place: StatePlace): GivenWord | undefined {
  try {
    const value = readStateFile(host, place, NAME);
    if (value === undefined) return undefined;
    const path = `${place.directory}/${NAME}`;
    const fields = new StateFields(path, value);
    const stretches = fields.list('stretches').map((entry) => {
      const one = new StateFields(path, entry);
      return { fromLsn: one.count('fromLsn'), toLsn: one.count('toLsn'), address: one.count('address') };
    });
    return { stretches, reason: fields.text('reason') };
  } catch (error) {
    if (!hasCode(error, 'journal-damaged')) throw error;
    return undefined;
  }
}

/** Durable when it resolves; replaces what was said before. */
export async function writeGivenWord(host: Host, place: StatePlace, word: GivenWord): Promise<void> {
  await writeStateFile(host, place, NAME, word);
}

/** It was carried out, or is needed no more. */
export async function dropGivenWord(host: Host, { directory }: StatePlace): Promise<void> {
  host.disk.unlink(`${directory}/${NAME}`);
  await host.disk.syncDirectory(directory);
}
