import { TidemarkError } from '../../journal/base/errors.ts';
import type { BatchView } from '../../journal/batch-view.ts';
import type { Chain } from '../../journal/chain.ts';
import { FRAME_ENTRY_BYTES } from '../../journal/frame-codec.ts';
import { FrameSealer, type SealedFrame, type SealerOptions } from '../../journal/frame-sealer.ts';
import type { JournalReader } from '../../journal/journal-reader.ts';
import type { JournalAddress, Lsn } from '../../journal/position.ts';
import { type JournalRecord, RecordKind } from '../../journal/record.ts';
import { decodeHeartbeat } from '../../journal/record-bodies.ts';
import type { SourceIdentity } from '../../journal/stream.ts';
import { chainOver } from './chain-walk.ts';

/** Where reading goes on: a batch of the journal, the record in it or behind it that comes next, and the chain before that. */
export interface SealPlace {
  readonly address: JournalAddress;
  readonly nextLsn: Lsn;
  readonly chain: Chain;
}

/** One piece of work: read on from a place, seal what is there. Says all that there is to know, so that anybody can do it. */
export interface SealJob {
  readonly place: SealPlace;
  /** Records below are only read for the chain. */
  readonly fromLsn: Lsn;
  /** The durable mark: nothing at or behind it is read (DESIGN rule 3). */
  readonly limit: JournalAddress;
  readonly durableLsn: Lsn;
  /** The job ends when its frames are so long together, ... */
  readonly frameBytesMax: number;
  /** ... or when so many bytes were read. */
  readonly readBytesMax: number;
  /** At the limit, what does not fill a frame is sealed, too. */
  readonly flush: boolean;
}

/** A place that was passed, for the checkpoints of the chain: the end of a batch, or where a file begins. */
export interface PassedPlace {
  readonly beginsFile: boolean;
  readonly lsn: Lsn;
  readonly chain: Chain;
  readonly address: JournalAddress;
}

/** What a job gives, in pieces: each as soon as it is there. */
export interface SealPart {
  /** Behind the last record that was sealed, or read for the chain: where the next job begins. */
  readonly place: SealPlace;
  readonly frame?: SealedFrame;
  /** `fromLsn` was reached. */
  readonly begun: boolean;
  readonly passed: readonly PassedPlace[];
  /** Heartbeats of this run that were read. */
  readonly heartbeats: readonly { readonly lsn: Lsn; readonly monotonicMs: number }[];
  readonly last: boolean;
  /** With the last part: the journal cannot be read at record `readLsn`. */
  readonly error?: TidemarkError;
  readonly readLsn: Lsn;
  /** With the last part: a bound of the job ended it, not its limit. */
  readonly more: boolean;
}

/**
 * Reads durable batches and seals them into frames, on whichever thread it stands. It remembers where it is, and what it has
 * collected for a frame that is not full: a job that begins there goes on with it, any other begins anew.
 */
export class FrameMaker {
  readonly #openReader: (from: JournalAddress) => JournalReader;
  readonly #fileBytes: number;
  readonly #identity: SourceIdentity;
  readonly #options: SealerOptions;
  readonly #memoryFor: ((bytes: number) => Uint8Array | undefined) | undefined;
  #sealer: FrameSealer;
  #sealerEpoch: number;
  #reader: JournalReader | undefined;
  #batch: BatchView | undefined;
  #records: Iterator<JournalRecord> | undefined;
  #record: JournalRecord | undefined;
  /** LSN of the next record to be read; 0: not known before the first batch. */
  #readLsn: Lsn = 0;
  /** Where the frame at hand begins. */
  #place: SealPlace | undefined;
  /** While reading for the chain alone: the chain so far. */
  #walking: Chain | undefined;
  #fileOfBatch = -1;
  #passed: PassedPlace[] = [];
  #batchEnd: PassedPlace | undefined;
  #heartbeats: { lsn: Lsn; monotonicMs: number }[] = [];

  constructor(
    openReader: (from: JournalAddress) => JournalReader,
    fileBytes: number,
    identity: SourceIdentity,
    options: SealerOptions,
    memoryFor?: (bytes: number) => Uint8Array | undefined,
  ) {
    this.#openReader = openReader;
    this.#fileBytes = fileBytes;
    this.#identity = identity;
    this.#options = options;
    this.#memoryFor = memoryFor;
    this.#sealerEpoch = identity.epoch;
    this.#sealer = new FrameSealer(identity, options);
  }

  /** Parts in order; whoever stops taking them has the next job begin where the last one taken ended. */
  *run(job: SealJob): Generator<SealPart, void, undefined> {
    try {
      if (!this.#goesOn(job)) this.#begin(job);
      yield* this.#make(job);
    } catch (error) {
      if (!(error instanceof TidemarkError)) throw error;
      // what stands before damage is whole, and may be all that is left of it some day
      if (error.code === 'journal-damaged' && this.#walking === undefined && this.#sealer.recordCount > 0) {
        yield this.#seal(job);
      }
      yield { ...this.#part(job.place, true), error };
      this.forget();
    }
  }

  /** Lets go of the place and of the files. */
  forget(): void {
    void this.#reader?.close();
    this.#reader = undefined;
    this.#place = undefined;
  }

  #goesOn({ place, fromLsn }: SealJob): boolean {
    if (this.#place?.address !== place.address || this.#place.nextLsn !== place.nextLsn) return false;
    return (this.#walking !== undefined) === place.nextLsn < fromLsn;
  }

  #begin({ place, fromLsn }: SealJob): void {
    this.forget();
    this.#readLsn = place.nextLsn;
    this.#reader = this.#openReader(place.address);
    this.#batch = undefined;
    this.#records = undefined;
    this.#record = undefined;
    this.#passed = [];
    this.#batchEnd = undefined;
    this.#heartbeats = [];
    this.#fileOfBatch = -1;
    this.#place = place;
    this.#walking = place.nextLsn < fromLsn ? place.chain : undefined;
    this.#sealer.begin(place.nextLsn, place.chain);
  }

  *#make(job: SealJob): Generator<SealPart, void, undefined> {
    let readBytes = 0;
    let frameBytes = 0;
    for (let record = this.#peek(job.limit); record !== undefined; record = this.#peek(job.limit)) {
      if (readBytes >= job.readBytesMax || frameBytes >= job.frameBytesMax) {
        yield { ...this.#part(job.place, true), more: true };
        return;
      }
      readBytes += FRAME_ENTRY_BYTES + record.payload.length;
      if (this.#walking !== undefined) {
        if (this.#walkOver(record, job.fromLsn)) yield { ...this.#part(job.place, false), begun: true };
        continue;
      }
      const isOtherEpoch = this.#batch!.epoch !== this.#sealerEpoch;
      if (this.#sealer.recordCount > 0 && (isOtherEpoch || !this.#sealer.fits(record.payload.length))) {
        const part = this.#seal(job);
        frameBytes += part.frame?.bytes.length ?? 0;
        yield part;
        continue;
      }
      if (isOtherEpoch) this.#enterEpoch(record);
      this.#add(record);
    }
    if (job.flush && this.#walking === undefined && this.#sealer.recordCount > 0) yield this.#seal(job);
    yield this.#part(job.place, true);
  }

  /** The next record below the limit; never one above it. */
  #peek(limit: JournalAddress): JournalRecord | undefined {
    while (this.#record === undefined) {
      const result = this.#records?.next();
      if (result?.done === false) {
        // a place may lie in the middle of a batch
        if (result.value.lsn < this.#readLsn) continue;
        this.#record = result.value;
        break;
      }
      if (this.#records !== undefined) this.#noteBatchEnd();
      this.#records = undefined;
      const isFirst = this.#batch === undefined;
      const batch = this.#reader!.next(limit);
      if (batch === undefined) return undefined;
      this.#batch = batch;
      const { firstLsn, lastLsn, address } = batch;
      const isNext = isFirst ? firstLsn <= this.#readLsn && this.#readLsn <= lastLsn + 1 : firstLsn === this.#readLsn;
      if (!isNext) {
        throw new TidemarkError('journal-damaged', `record ${firstLsn} instead of ${this.#readLsn} at ${address}`);
      }
      this.#noteFileStart(address);
      this.#records = batch[Symbol.iterator]();
    }
    return this.#record;
  }

  /** True: the record before `fromLsn` was passed. */
  #walkOver(record: JournalRecord, fromLsn: Lsn): boolean {
    this.#walking = chainOver(this.#walking!, record, this.#batch!.time);
    this.#consumed();
    if (this.#readLsn < fromLsn) return false;
    this.#sealer.begin(fromLsn, this.#walking);
    this.#walking = undefined;
    return true;
  }

  #enterEpoch(record: JournalRecord): void {
    const { chain } = this.#sealer;
    this.#sealerEpoch = this.#batch!.epoch;
    this.#sealer = new FrameSealer({ ...this.#identity, epoch: this.#sealerEpoch }, this.#options);
    this.#sealer.begin(record.lsn, chain);
  }

  #add(record: JournalRecord): void {
    const { time, incarnation } = this.#batch!;
    this.#sealer.add({ ...record, time });
    if (record.kind === RecordKind.heartbeat && incarnation === this.#identity.incarnation.counter) {
      this.#heartbeats.push({ lsn: record.lsn, monotonicMs: decodeHeartbeat(record.payload).monotonicMs });
    }
    this.#consumed();
  }

  #consumed(): void {
    this.#record = undefined;
    this.#readLsn++;
  }

  #seal(job: SealJob): SealPart {
    const frame = this.#sealer.seal(job.durableLsn, this.#memoryFor);
    return { ...this.#part(job.place, false), frame };
  }

  /** Nothing is collected: what comes next begins here. */
  #moveOn(reader: JournalReader): void {
    const address = this.#records === undefined ? reader.address : this.#batch!.address;
    this.#place = { address, nextLsn: this.#readLsn, chain: this.#chainRead };
  }

  #part(from: SealPlace, last: boolean): SealPart {
    if (this.#batchEnd !== undefined) this.#passed.push(this.#batchEnd);
    const isEmpty = this.#walking !== undefined || this.#sealer.recordCount === 0;
    if (this.#reader !== undefined && isEmpty) this.#moveOn(this.#reader);
    const part = {
      place: this.#place ?? from,
      begun: false,
      passed: this.#passed,
      heartbeats: this.#heartbeats,
      last,
      readLsn: this.#readLsn,
      more: false,
    };
    this.#batchEnd = undefined;
    this.#passed = [];
    this.#heartbeats = [];
    return part;
  }

  /** Only the newest is told with each part: those between are closer together than checkpoints are. */
  #noteBatchEnd(): void {
    const { address } = this.#reader!;
    this.#batchEnd = { beginsFile: false, lsn: this.#readLsn - 1, chain: this.#chainRead, address };
  }

  /** `address`: of the batch that is read next. */
  #noteFileStart(address: JournalAddress): void {
    const start = address - (address % this.#fileBytes);
    if (start === this.#fileOfBatch) return;
    this.#fileOfBatch = start;
    if (this.#batchEnd !== undefined) this.#passed.push(this.#batchEnd);
    this.#batchEnd = undefined;
    // in the middle of a batch nothing is known of its beginning
    if (this.#batch!.firstLsn !== this.#readLsn) return;
    this.#passed.push({ beginsFile: true, lsn: this.#readLsn - 1, chain: this.#chainRead, address: start });
  }

  /** The chain after what was read so far. */
  get #chainRead(): Chain {
    return this.#walking ?? this.#sealer.chain;
  }
}
