import { channel } from '../../journal/base/channels.ts';
import { TidemarkError } from '../../journal/base/errors.ts';
import type { Journal } from '../../journal/journal.ts';
import type { Marks } from '../../journal/marks.ts';
import { type JournalAddress, type Lsn, SECTOR_BYTES } from '../../journal/position.ts';
import { changesVolume, type JournalRecord, RecordFlag, RecordKind } from '../../journal/record.ts';
import { encodeGap } from '../../journal/record-bodies.ts';
import { PAYLOAD_BYTES_MAX } from '../nbd/protocol.ts';
import type { ChainAtEnd, ChangeMap, GivenUp } from './change-map.ts';
import type { OutOfRoomPolicy } from './group-options.ts';
import { nextHealthyBatch } from './healthy-batches.ts';
import { GO_ON_BELOW } from './pacer.ts';

const roomChannel = channel('tidemark:group:room');
const gapChannel = channel('tidemark:group:unprotected');

/** Parts of the budget at which somebody should look. */
const LEVELS_PERCENT = [50, 80, 95] as const;
/** History is given up from this part of the budget on, a file at a time. */
const GIVE_UP_FROM = 0.8;
/** Kept free for windows that were read already when writers are stopped. */
const RESERVE_BYTES_MAX = 8 * 1024 * 1024;
const GAP_REASON = 'the journal was full and the stream had not taken it';

/** A request arrives from its first sector to its last, and is never longer. */
const REQUEST_SECTORS_MAX = PAYLOAD_BYTES_MAX / SECTOR_BYTES;

export interface RetentionOptions {
  readonly group: string;
  readonly fileBytes: number;
  readonly budgetBytes: number;
  readonly outOfRoom: OutOfRoomPolicy;
  /** Present with the policy `stop-protecting`. */
  readonly changeMap: ChangeMap | undefined;
  /** See `GroupOptions.beforeGivingUp`. */
  readonly beforeGivingUp?: ((end: JournalAddress) => Promise<ChainAtEnd | undefined>) | undefined;
  /** Guests that wait for room are to be looked at again. */
  readonly onGivenUp: () => void;
}

/**
 * Decides which journal files may be used again: those that every backing holds synced and every required replica
 * durably. When the second never comes the policy decides. To stop protecting, a file's extents go into the durable
 * change map first, then the file is given free, then a GAP record tells the timeline (DESIGN rule 13).
 */
export class GroupRetention {
  readonly #journal: Journal;
  readonly #marks: Marks;
  readonly #options: RetentionOptions;
  #level = 0;
  #givingUp: Promise<void> | undefined;
  /** Up to where GAP records of this run say what was given up. */
  #toldLsn: Lsn = 0;
  #failure: TidemarkError | undefined;
  #stopped = false;

  constructor(journal: Journal, marks: Marks, options: RetentionOptions) {
    this.#journal = journal;
    this.#marks = marks;
    this.#options = options;
  }

  get givenUp(): GivenUp | undefined {
    return this.#options.changeMap?.givenUp;
  }

  /** Why history could not be given up; the guest waits until it can. */
  get failure(): TidemarkError | undefined {
    return this.#failure;
  }

  /** What writers have to wait for: everything below it is no longer needed. */
  get releasedBelow(): JournalAddress {
    return this.#releasedBelow(this.#marks.address('checkpoint'));
  }

  /**
   * Part of the budget that is taken by what writers have to wait for. `openHolds`: a request that is still arriving holds
   * the checkpoint, as it does; else what would be taken without it.
   */
  pressure(openHolds: boolean): number {
    const writtenOut = this.#marks.address(openHolds ? 'checkpoint' : 'applied');
    const part = this.#part(this.#releasedBelow(writtenOut));
    if (!openHolds) return part;
    // What may be given up holds nobody, until guests are faster than the disk that has to note it: it takes room till then.
    const whole = this.#part(Math.min(writtenOut, this.#shippedOrGivenUp));
    return whole >= GO_ON_BELOW ? whole : part;
  }

  /** False: with `bytes` more history would be given up. A seed waits for that, or it would push out its own beginning. */
  hasRoomForSeed(bytes: number): boolean {
    if (this.#options.outOfRoom !== 'stop-protecting') return true;
    // the end of a file that is too short for them stays empty
    return this.#part(this.#shippedOrGivenUp, 2 * bytes) < GIVE_UP_FROM;
  }

  /** To be called after any mark moved, when the overlays have forgotten what they must. */
  onMove(): void {
    if (this.#stopped) return;
    this.#recycle();
    this.#noteLevel(this.#part(Math.min(this.#marks.address('checkpoint'), this.#shippedOrGivenUp)));
    if (this.#options.changeMap === undefined || this.#givingUp !== undefined) return;
    if (!this.#mustGiveUp() && !this.#mustAnnounce()) return;
    this.#givingUp = this.#giveUp(this.#options.changeMap).finally(() => {
      this.#givingUp = undefined;
      this.#options.onGivenUp();
      // What moved meanwhile was passed over, and guests that wait move nothing.
      if (this.#failure === undefined) this.onMove();
    });
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#givingUp;
  }

  #releasedBelow(writtenOut: JournalAddress): JournalAddress {
    if (this.#options.outOfRoom === 'stop-protecting' && this.#failure === undefined) return writtenOut;
    return Math.min(writtenOut, this.#shippedOrGivenUp);
  }

  get #shippedOrGivenUp(): JournalAddress {
    return Math.max(this.#marks.address('shipped'), this.givenUp?.address ?? 0);
  }

  #recycle(): void {
    this.#journal.recycleBelow(Math.min(this.#marks.address('checkpoint'), this.#shippedOrGivenUp));
  }

  #part(heldFrom: JournalAddress, moreBytes = 0): number {
    const { fileBytes } = this.#options;
    // a file system that is smaller than the budget, or filled by others, is the budget
    const roomBytes = Math.min(this.#options.budgetBytes, this.#journal.usedBytes + this.#journal.freeBytes);
    const usable = roomBytes - Math.min(RESERVE_BYTES_MAX, roomBytes / 8);
    const from = Math.max(heldFrom, this.#journal.oldestAddress);
    return Math.max(0, this.#journal.endAddress + moreBytes - fileBytes * Math.floor(from / fileBytes)) / usable;
  }

  #mustGiveUp(): boolean {
    if (this.#part(this.#shippedOrGivenUp) < GIVE_UP_FROM) return false;
    return this.#fileEnd(this.#from) <= this.#marks.address('checkpoint');
  }

  get #from(): JournalAddress {
    return Math.max(this.#shippedOrGivenUp, this.#journal.oldestAddress);
  }

  #fileEnd(address: JournalAddress): JournalAddress {
    const { fileBytes } = this.#options;
    return fileBytes * (Math.floor(address / fileBytes) + 1);
  }

  async #giveUp(map: ChangeMap): Promise<void> {
    try {
      while (!this.#stopped && this.#mustGiveUp()) await this.#giveUpFile(map);
      await this.#announce(map);
      this.#failure = undefined;
    } catch (error) {
      if (!(error instanceof TidemarkError)) throw error;
      this.#failure = error;
    }
  }

  async #giveUpFile(map: ChangeMap): Promise<void> {
    const before = map.givenUp;
    const from = this.#from;
    const end = this.#fileEnd(from);
    // What lies between was taken by every required replica, and so was what had been given up before it: the map knows
    // nothing of the records between, and a new stretch begins.
    const isClosed = before !== undefined && from > before.address;
    let firstLsn: Lsn = isClosed ? 0 : (before?.fromLsn ?? 0);
    let lastLsn: Lsn = before?.toLsn ?? 0;
    const reader = this.#journal.reader(from);
    try {
      for (let batch = nextHealthyBatch(reader, end); batch !== undefined; batch = nextHealthyBatch(reader, end)) {
        for (const record of batch) {
          if (changesVolume(record.kind)) markChange(map, record);
        }
        if (firstLsn === 0) firstLsn = batch.firstLsn;
        lastLsn = Math.max(lastLsn, batch.lastLsn);
      }
    } finally {
      await reader.close();
    }
    const known = await this.#options.beforeGivingUp?.(end);
    const atEnd = known && { end: { lsn: known.lsn, chain: known.chain } };
    const announcedLsn = before?.announcedLsn ?? 0;
    await map.save({ fromLsn: firstLsn, toLsn: lastLsn, address: end, announcedLsn, ...atEnd });
    this.#recycle();
    gapChannel.publish({ group: this.#options.group, fromLsn: firstLsn, toLsn: lastLsn, reason: GAP_REASON });
  }

  #mustAnnounce(): boolean {
    const { givenUp } = this;
    return givenUp !== undefined && givenUp.announcedLsn < givenUp.toLsn;
  }

  /** The record comes after the room it needs; a crash in between only makes it come at the next start. */
  async #announce(map: ChangeMap): Promise<void> {
    const { givenUp } = map;
    if (givenUp === undefined || !this.#mustAnnounce()) return;
    const { fromLsn, toLsn } = givenUp;
    // one record, however often its place cannot be kept
    if (this.#toldLsn < toLsn) {
      this.#journal.append(RecordKind.gap, { body: encodeGap({ fromLsn, toLsn, reason: GAP_REASON }) });
      await this.#journal.sync();
      this.#toldLsn = toLsn;
    }
    await map.save({ ...givenUp, announcedLsn: toLsn });
  }

  #noteLevel(part: number): void {
    const level = LEVELS_PERCENT.filter((percent) => part * 100 >= percent).length;
    if (level === this.#level) return;
    const { group, outOfRoom, budgetBytes } = this.#options;
    const percent = LEVELS_PERCENT[Math.max(level, this.#level) - 1] ?? 0;
    roomChannel.publish({ group, percent, above: level > this.#level, budgetBytes, outOfRoom });
    this.#level = level;
  }
}

/**
 * What takes effect with this record. The first pieces of the request that it closes may stand before the stretch, where
 * replicas took them and the journal has let go of them: everything they can have covered is marked.
 */
function markChange(map: ChangeMap, { flags, volume, sector, sectors }: JournalRecord): void {
  const end = sector + sectors;
  const from = (flags & RecordFlag.closes) === 0 ? sector : Math.max(0, end - REQUEST_SECTORS_MAX);
  map.mark(volume, from, end - from);
}
