import { channel } from '../../journal/base/channels.ts';
import { TidemarkError } from '../../journal/base/errors.ts';
import type { Host, Timer } from '../../journal/host/host.ts';
import type { Marks } from '../../journal/marks.ts';
import type { JournalAddress, Lsn } from '../../journal/position.ts';
import type { ChainCheckpoint, ChainCheckpoints } from './chain-checkpoints.ts';
import { chainAtFileEnd, type ShipJournal } from './chain-walk.ts';
import { saveShipState } from './ship-state.ts';

/** Between two writes of ship.state. */
const INTERVAL_MS = 500;

const releasedChannel = channel('tidemark:ship:released');
const stateFileChannel = channel('tidemark:ship:state-file');

/**
 * Moves the `shipped` mark: whole batches that every required replica holds. The chain at the new place is made durable
 * first, for what lies below may be overwritten as soon as the mark has moved.
 */
export class Release {
  readonly #host: Host;
  readonly #directory: string;
  readonly #group: { readonly id: string; readonly name: string };
  readonly #journal: ShipJournal;
  readonly #marks: Marks;
  readonly #checkpoints: ChainCheckpoints;
  #timer: Timer | undefined;
  #saving: Promise<void> | undefined;
  #turn: Promise<void> = Promise.resolve();
  #released: ChainCheckpoint | undefined;
  /** Where history that was given up ends. */
  #givenUp: ChainCheckpoint | undefined;
  #lsn: Lsn = 0;
  #closed = false;

  constructor(
    host: Host,
    directory: string,
    group: { readonly id: string; readonly name: string },
    journal: ShipJournal,
    marks: Marks,
    checkpoints: ChainCheckpoints,
  ) {
    this.#host = host;
    this.#directory = directory;
    this.#group = group;
    this.#journal = journal;
    this.#marks = marks;
    this.#checkpoints = checkpoints;
  }

  /** Everything up to `lsn` is held by every required replica, and no more: it may go back. Many calls become one write. */
  upTo(lsn: Lsn): void {
    this.#lsn = lsn;
    if (this.#timer === undefined && this.#saving === undefined && !this.#closed && this.#hasWork()) {
      this.#timer = this.#host.clock.after(INTERVAL_MS, () => this.#start());
    }
  }

  /**
   * The journal below this end of a file is given up: a replica that stands right there goes on when the chain is known.
   * Undefined when it cannot be told: then such a replica needs a resync. The caller makes it durable, for ship.state has
   * no room of its own on a full file system.
   */
  async keepChainAt(end: JournalAddress): Promise<ChainCheckpoint | undefined> {
    const { id } = this.#group;
    let checkpoint: ChainCheckpoint | undefined;
    try {
      checkpoint = await chainAtFileEnd(this.#journal, this.#checkpoints, end);
      if (checkpoint === undefined) return undefined;
      const found = checkpoint;
      await this.#inTurn(() => {
        this.#checkpoints.keep(found);
        if (this.#givenUp !== undefined) this.#checkpoints.unpin(this.#givenUp);
        this.#givenUp = found;
        return saveShipState(this.#host.disk, this.#directory, id, this.#checkpoints.list);
      });
    } catch (error) {
      if (!(error instanceof TidemarkError)) throw error;
      stateFileChannel.publish({ group: this.#group.name, message: error.message });
    }
    return checkpoint;
  }

  /** Writes what is due and stops. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#timer?.cancel();
    await this.#saving;
    await this.#inTurn(async () => {
      if (this.#hasWork()) await this.#save();
    });
  }

  #hasWork(): boolean {
    const checkpoint = this.#checkpoints.before(this.#lsn);
    return checkpoint !== undefined && checkpoint.address > this.#marks.address('shipped');
  }

  #start(): void {
    this.#timer = undefined;
    this.#saving = this.#inTurn(() => this.#save()).finally(() => {
      this.#saving = undefined;
      this.upTo(this.#lsn);
    });
  }

  /** One write of the file at a time. */
  #inTurn(run: () => Promise<void>): Promise<void> {
    const done = this.#turn.then(run);
    this.#turn = done.catch(() => undefined);
    return done;
  }

  async #save(): Promise<void> {
    const checkpoint = this.#checkpoints.before(this.#lsn);
    if (checkpoint === undefined || !this.#hasWork()) return;
    this.#checkpoints.pin(checkpoint);
    this.#checkpoints.dropBelow(Math.min(this.#journal.oldestAddress, checkpoint.address));
    try {
      await saveShipState(this.#host.disk, this.#directory, this.#group.id, this.#checkpoints.list);
    } catch (error) {
      if (!(error instanceof TidemarkError)) throw error;
      stateFileChannel.publish({ group: this.#group.name, message: error.message });
      return;
    }
    if (checkpoint.lsn > this.#lsn) {
      // a replica lost data meanwhile
      this.#checkpoints.unpin(checkpoint);
      return;
    }
    if (this.#released !== undefined && this.#released !== checkpoint) this.#checkpoints.unpin(this.#released);
    this.#released = checkpoint;
    this.#checkpoints.releasedAnew();
    this.#marks.advanceAddress('shipped', Math.max(checkpoint.address, this.#marks.address('shipped')));
    releasedChannel.publish({ group: this.#group.name, lsn: checkpoint.lsn, address: checkpoint.address });
  }
}
