import { channel } from '../../journal/base/channels.ts';
import { hasCode, TidemarkError } from '../../journal/base/errors.ts';
import type { Host, Timer } from '../../journal/host/host.ts';
import type { Lsn } from '../../journal/position.ts';
import { readStateFile, StateFields, type StatePlace, writeStateFile } from '../volume/state-file.ts';

/** What one replica had acknowledged, for the next start of the source. */
export interface Acknowledged {
  readonly name: string;
  /** As it said last, lower or higher than before. */
  readonly acknowledgedLsn: Lsn;
  /** It held this much before it lost data, and does not have it again; 0: it lost nothing. */
  readonly lostFromLsn: Lsn;
}

const NAME = 'replicas.state';
/** Between two writes: so much may be acknowledged unnoticed before a kill. */
const INTERVAL_MS = 1_000;

const stateFileChannel = channel('tidemark:ship:state-file');

/**
 * Empty when there is no file, and when it is damaged: that costs the alarm of a replica that lost data meanwhile, never
 * a record. Throws `journal-foreign`, `format-too-new`.
 */
export function readAcknowledged(host: Host, place: StatePlace): readonly Acknowledged[] {
  try {
    const value = readStateFile(host, place, NAME);
    if (value === undefined) return [];
    const path = `${place.directory}/${NAME}`;
    return new StateFields(path, value).list('replicas').map((entry) => {
      const one = new StateFields(path, entry);
      return {
        name: one.text('name'),
        acknowledgedLsn: one.count('acknowledgedLsn'),
        lostFromLsn: one.count('lostFromLsn'),
      };
    });
  } catch (error) {
    if (!hasCode(error, 'journal-damaged')) throw error;
    return [];
  }
}

/** Writes down what the replicas have acknowledged (rule 20), once for many acknowledgements. */
export class AcknowledgedFile {
  readonly #host: Host;
  readonly #place: StatePlace;
  readonly #group: string;
  readonly #read: () => readonly Acknowledged[];
  #written: string;
  #timer: Timer | undefined;
  #saving: Promise<void> | undefined;
  #closed = false;

  constructor(host: Host, place: StatePlace, group: string, read: () => readonly Acknowledged[]) {
    this.#host = host;
    this.#place = place;
    this.#group = group;
    this.#read = read;
    this.#written = JSON.stringify(read());
  }

  /** Something may have changed. */
  note(): void {
    if (this.#closed || this.#timer !== undefined || this.#saving !== undefined) return;
    this.#timer = this.#host.clock.after(INTERVAL_MS, () => {
      this.#timer = undefined;
      this.#saving = this.#save().finally(() => {
        this.#saving = undefined;
        if (JSON.stringify(this.#read()) !== this.#written) this.note();
      });
    });
  }

  /** Writes what is due and stops. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#timer?.cancel();
    await this.#saving;
    await this.#save();
  }

  async #save(): Promise<void> {
    const replicas = this.#read();
    const text = JSON.stringify(replicas);
    if (text === this.#written) return;
    try {
      await writeStateFile(this.#host, this.#place, NAME, { replicas });
      this.#written = text;
    } catch (error) {
      if (!(error instanceof TidemarkError)) throw error;
      stateFileChannel.publish({ group: this.#group, message: error.message });
    }
  }
}
