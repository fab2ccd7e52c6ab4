import { channel } from '../../journal/base/channels.ts';
import { type ErrorCode, TidemarkError } from '../../journal/base/errors.ts';
import { delay, type Host } from '../../journal/host/host.ts';
import type { Journal } from '../../journal/journal.ts';
import { RecordKind } from '../../journal/record.ts';
import type { AckGate } from '../synchrony/ack-gate.ts';
import { type OpenedVolume, type OpenedVolumes, volumeAddedBody } from './group-open.ts';
import { SEED_BYTES_MAX, seedVolume } from './seeding.ts';

const seedingChannel = channel('tidemark:group:seeding');

/** A seed leaves the last part of the budget, and of what may be on its way, to the guests of the other volumes. */
const HELD_FROM_PRESSURE = 0.85;
const POLL_MS = 50;
const RETRY_MS = 1_000;
const STATE_FILE_FAILED: ReadonlySet<ErrorCode> = new Set(['sync-failed', 'short-write']);

/**
 * Seeds the volumes of a group that need it, in the background, and opens each when all of it is in the journal. A
 * backing that fails meanwhile is tried again from the place that was reached.
 */
export class GroupSeeding {
  readonly #host: Host;
  readonly #group: string;
  readonly #journal: Journal;
  readonly #opened: OpenedVolumes;
  readonly #gate: AckGate;
  readonly #abort = new AbortController();
  readonly #drain: () => Promise<void>;
  readonly #running: Promise<void>[] = [];

  /** `drain`: resolves when all that was written so far is synced in the backings. */
  constructor(
    host: Host,
    group: string,
    journal: Journal,
    opened: OpenedVolumes,
    gate: AckGate,
    drain: () => Promise<void>,
  ) {
    this.#drain = drain;
    this.#gate = gate;
    this.#host = host;
    this.#group = group;
    this.#journal = journal;
    this.#opened = opened;
  }

  start(opened: OpenedVolume): void {
    const { volume } = opened;
    volume.shut('precondition-failed', 'the volume is being seeded');
    const running = this.#run(opened);
    this.#running.push(running);
    running.catch((error: unknown) => {
      if (!(error instanceof TidemarkError)) throw error;
      volume.shut('precondition-failed', `seeding failed: ${error.message}`);
    });
  }

  /** Resolves when every volume is open; rejects with why one could not be seeded. */
  async finished(): Promise<void> {
    await Promise.all(this.#running);
  }

  /** Interrupts what runs; it goes on at the next start. */
  async stop(): Promise<void> {
    this.#abort.abort();
    await Promise.allSettled(this.#running);
  }

  async #run(opened: OpenedVolume): Promise<void> {
    const { volume, registered } = opened;
    for (let seeded = false; ; ) {
      try {
        if (registered.reseedFromLsn === 0) await this.#beginAnew(opened);
        if (!seeded) await this.#seed(opened);
        seeded = true;
        await this.#opened.protect(volume, registered);
        break;
      } catch (error) {
        if (!this.#mayTryAgain(error)) throw error;
        volume.shut('precondition-failed', `seeding waits: ${error.message}`);
        await delay(this.#host.clock, RETRY_MS);
      }
    }
    if (!this.#abort.signal.aborted) volume.open();
    this.#tell(opened, true);
  }

  /** With a journal that is well what failed is the disk that is read, or a state file, which is made anew each time. */
  #mayTryAgain(error: unknown): error is TidemarkError {
    if (!(error instanceof TidemarkError) || this.#abort.signal.aborted) return false;
    return error.next === 'retry' || (STATE_FILE_FAILED.has(error.code) && this.#journal.poisonedBy === undefined);
  }

  /**
   * Behind a gap: what the journal holds for the disk is written out first, for the disk is what is journalled. The volume
   * is told to history again, which may have lost that, too.
   */
  async #beginAnew({ volume, registered }: OpenedVolume): Promise<void> {
    await Promise.race([this.#drain(), this.#interrupted()]);
    const fromLsn = this.#journal.lastLsn + 1;
    this.#journal.append(RecordKind.volumeAdded, { body: volumeAddedBody(registered, 'seeded') });
    await this.#journal.sync();
    registered.seededBytes = 0;
    registered.reseedFromLsn = fromLsn;
    await this.#opened.beginSeeding(volume);
  }

  async #seed(opened: OpenedVolume): Promise<void> {
    const { volume, registered } = opened;
    await seedVolume({
      journal: this.#journal,
      volume: volume.id,
      device: volume.backing,
      from: registered.seededBytes,
      anew: registered.reseedFromLsn !== undefined,
      signal: this.#abort.signal,
      room: (wasRefused) => this.#room(wasRefused),
      onAppended: (lsn, bytes) => this.#gate.shipping(lsn, bytes),
      onProgress: async (bytes) => {
        registered.seededBytes = bytes;
        await this.#opened.registry.save();
        this.#tell(opened, false);
      },
    });
  }

  /** Never resolves. */
  #interrupted(): Promise<never> {
    return new Promise((_, reject) => {
      const interrupt = (): void => reject(new TidemarkError('shutting-down', 'seeding was interrupted'));
      if (this.#abort.signal.aborted) interrupt();
      else this.#abort.signal.addEventListener('abort', interrupt, { once: true });
    });
  }

  async #room(wasRefused: boolean): Promise<void> {
    if (wasRefused) await delay(this.#host.clock, POLL_MS);
    const pressure = (): number => Math.max(this.#opened.pressure(), this.#gate.pressure);
    const mustWait = (): boolean => pressure() >= HELD_FROM_PRESSURE || !this.#opened.hasRoomForSeed(SEED_BYTES_MAX);
    while (mustWait() && !this.#abort.signal.aborted) await delay(this.#host.clock, POLL_MS);
    if (this.#abort.signal.aborted) throw new TidemarkError('shutting-down', 'seeding was interrupted');
  }

  #tell({ volume, registered }: OpenedVolume, done: boolean): void {
    const { seededBytes } = registered;
    const totalBytes = volume.size;
    seedingChannel.publish({ group: this.#group, volume: volume.name, seededBytes, totalBytes, done });
  }
}
