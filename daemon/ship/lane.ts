import { assert } from '../../journal/base/assert.ts';
import { channel } from '../../journal/base/channels.ts';
import { type ErrorCode, TidemarkError } from '../../journal/base/errors.ts';
import type { BatchView } from '../../journal/batch-view.ts';
import type { Chain } from '../../journal/chain.ts';
import { FRAME_ENTRY_BYTES } from '../../journal/frame-codec.ts';
import { FrameSealer, type SealedFrame, type SealerOptions } from '../../journal/frame-sealer.ts';
import type { Clock, Timer } from '../../journal/host/host.ts';
import type { JournalReader } from '../../journal/journal-reader.ts';
import type { Marks } from '../../journal/marks.ts';
import type { JournalAddress, Lsn } from '../../journal/position.ts';
import { type JournalRecord, RecordKind } from '../../journal/record.ts';
import { decodeHeartbeat } from '../../journal/record-bodies.ts';
import type { FrameSink, ReplicaFeedback, SourceIdentity, StreamStatus } from '../../journal/stream.ts';
import type { ChainCheckpoints } from './chain-checkpoints.ts';
import { chainOver, type ShipJournal, walkStart } from './chain-walk.ts';

export interface LaneOptions {
  readonly journal: ShipJournal;
  readonly marks: Marks;
  readonly clock: Clock;
  readonly identity: SourceIdentity;
  readonly sealer: SealerOptions;
  /** How long a frame waits for more records while others are under way. */
  readonly lingerMs: number;
  readonly checkpoints: ChainCheckpoints;
  /** For a replica whose own frames are damaged. */
  readonly framesFrom: (fromLsn: Lsn) => AsyncIterable<Uint8Array>;
}

/** Why a lane stands still. */
export interface Halt {
  readonly code: ErrorCode;
  readonly reason: string;
}

export interface LaneEvents {
  onAccepted(): void;
  onFeedback(feedback: ReplicaFeedback): void;
  /** The chain after `lsn` is known now. */
  onChain(lsn: Lsn, chain: Chain): void;
  /** A heartbeat of this run was read. */
  onHeartbeat(lsn: Lsn, monotonicMs: number): void;
  /** What stands at this address of the journal cannot be read. */
  onDamage(address: JournalAddress): void;
  /** Halted, going on again, or another state of the stream. */
  onState(): void;
}

/** Bytes read in one turn of the event loop. */
const TURN_BYTES = 2 * 1024 * 1024;
/** After a read error that may pass by itself. */
const READ_RETRY_MS = 1000;

const frameChannel = channel('tidemark:ship:frame');
const seekChannel = channel('tidemark:ship:seek');

/**
 * One sink's way from the journal into the stream: read durable batches, seal, send. It stands on one thread and does a
 * bounded piece of work per turn, woken by the marks, the sink and its own timer.
 *
 * After a seek it first reads from the nearest checkpoint up to the position, for the chain, and only then seals.
 */
export class Lane {
  readonly sink: FrameSink;
  acceptedLsn: Lsn = 0;
  halt: Halt | undefined;
  readonly #options: LaneOptions;
  readonly #events: LaneEvents;
  #sealer: FrameSealer;
  #sealerEpoch: number;
  #reader: JournalReader | undefined;
  #batch: BatchView | undefined;
  #records: Iterator<JournalRecord> | undefined;
  #record: JournalRecord | undefined;
  /** LSN of the next record to be read. */
  #readLsn: Lsn = 0;
  #fromLsn: Lsn = 0;
  /** While reading up to `#fromLsn`: the chain so far. */
  #walking: Chain | undefined;
  #sentLsn: Lsn = 0;
  #filledSinceMs = 0;
  #timer: Timer | undefined;
  #closed = false;

  constructor(sink: FrameSink, options: LaneOptions, events: LaneEvents) {
    this.sink = sink;
    this.#options = options;
    this.#events = events;
    this.#sealerEpoch = options.identity.epoch;
    this.#sealer = new FrameSealer(options.identity, options.sealer);
  }

  open(): void {
    this.sink.open(this.#options.identity, {
      onSeek: (fromLsn, reason) => this.#onSeek(fromLsn, reason),
      framesFrom: (fromLsn) => this.#options.framesFrom(fromLsn),
      onReady: () => this.pump(),
      onAccepted: (lsn) => this.#onAccepted(lsn),
      onFeedback: (feedback) => {
        if (!this.#closed) this.#events.onFeedback(feedback);
      },
      onStatus: () => {
        if (!this.#closed) this.#events.onState();
      },
    });
  }

  get stream(): StreamStatus {
    return this.sink.status();
  }

  /** Stops sending until the sink seeks again. */
  stop(halt: Halt): void {
    this.halt = halt;
    this.#forget();
    this.#events.onState();
  }

  /** The journal was mended: a lane that stood at the damage goes on behind what it has sent. */
  resume(): void {
    if (this.#closed || this.halt?.code !== 'journal-damaged') return;
    this.halt = undefined;
    this.#fromLsn = this.#sentLsn + 1;
    this.#position(this.#fromLsn);
    this.#events.onState();
    this.pump();
  }

  /** Reads, seals and sends what it can in one turn. */
  pump(): void {
    if (this.#closed || this.#reader === undefined) return;
    this.#timer?.cancel();
    try {
      this.#turn();
    } catch (error) {
      this.#onReadError(error);
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#forget();
    await this.sink.close();
  }

  #turn(): void {
    let room = TURN_BYTES;
    while (room > 0 && this.#reader !== undefined) {
      const record = this.#peek();
      if (record === undefined) {
        if (this.#walking === undefined) this.#sendIfDue();
        return;
      }
      room -= FRAME_ENTRY_BYTES + record.payload.length;
      if (this.#walking !== undefined) this.#walkOver(record);
      else if (!this.#take(record)) return;
    }
    if (this.#reader !== undefined) this.#wakeIn(0);
  }

  /** The next record at or below the durable mark; never one above (DESIGN rule 3). */
  #peek(): JournalRecord | undefined {
    while (this.#record === undefined) {
      const result = this.#records?.next();
      if (result?.done === false) {
        this.#record = result.value;
        break;
      }
      if (this.#records !== undefined) this.#noteBatchEnd();
      this.#records = undefined;
      this.#batch = this.#reader!.next(this.#options.marks.address('durable'));
      if (this.#batch === undefined) return undefined;
      if (this.#batch.firstLsn !== this.#readLsn) {
        const { firstLsn, address } = this.#batch;
        throw new TidemarkError('journal-damaged', `record ${firstLsn} instead of ${this.#readLsn} at ${address}`);
      }
      this.#noteFileStart(this.#batch.address);
      this.#records = this.#batch[Symbol.iterator]();
    }
    return this.#record;
  }

  #consumed(): void {
    this.#record = undefined;
    this.#readLsn++;
  }

  #noteBatchEnd(): void {
    this.#options.checkpoints.note({ ...this.#chainRead(), address: this.#reader!.address });
  }

  /** `address`: of the batch that is read next. */
  #noteFileStart(address: JournalAddress): void {
    const { checkpoints, journal } = this.#options;
    checkpoints.noteFileStart({ ...this.#chainRead(), address: address - (address % journal.fileBytes) });
  }

  /** The chain after what was read so far. */
  #chainRead(): { lsn: Lsn; chain: Chain } {
    return { lsn: this.#readLsn - 1, chain: this.#walking ?? this.#sealer.chain };
  }

  #walkOver(record: JournalRecord): void {
    this.#walking = chainOver(this.#walking!, record, this.#batch!.time);
    this.#consumed();
    if (this.#readLsn === this.#fromLsn) this.#begin(this.#walking);
  }

  #begin(chain: Chain): void {
    this.#walking = undefined;
    this.#sealer.begin(this.#fromLsn, chain);
    this.#events.onChain(this.#fromLsn - 1, chain);
  }

  /** False: the window is full, the record waits. */
  #take(record: JournalRecord): boolean {
    const batch = this.#batch!;
    if (batch.epoch !== this.#sealerEpoch) {
      if (!this.#flush()) return false;
      const { chain } = this.#sealer;
      this.#sealerEpoch = batch.epoch;
      this.#sealer = new FrameSealer({ ...this.#options.identity, epoch: batch.epoch }, this.#options.sealer);
      this.#sealer.begin(record.lsn, chain);
    }
    if (!this.#sealer.fits(record.payload.length) && !this.#flush()) return false;
    if (this.#sealer.recordCount === 0) this.#filledSinceMs = this.#options.clock.monotonicMs();
    this.#sealer.add({ ...record, time: batch.time });
    if (record.kind === RecordKind.heartbeat && batch.incarnation === this.#options.identity.incarnation.counter) {
      this.#events.onHeartbeat(record.lsn, decodeHeartbeat(record.payload).monotonicMs);
    }
    this.#consumed();
    return true;
  }

  /** All that is durable was read: send at once when nothing is under way, else when the linger time is over. */
  #sendIfDue(): void {
    if (this.#sealer.recordCount === 0) return;
    const waitedMs = this.#options.clock.monotonicMs() - this.#filledSinceMs;
    if (this.acceptedLsn >= this.#sentLsn || waitedMs >= this.#options.lingerMs) this.#flush();
    else this.#wakeIn(this.#options.lingerMs - waitedMs);
  }

  #flush(): boolean {
    if (this.#sealer.recordCount === 0) return true;
    if (this.sink.windowBytes <= 0) return false;
    const frame = this.#sealer.seal(this.#options.marks.lsn('durable'));
    this.#sentLsn = frame.lastLsn;
    this.#events.onChain(frame.lastLsn, frame.chainAfter);
    // A replica's chain may have turned out to be another one just now.
    if (this.#reader === undefined) return false;
    this.#publish(frame);
    this.sink.send(frame);
    return true;
  }

  #onSeek(fromLsn: Lsn, reason: string): void {
    if (this.#closed) return;
    this.#forget();
    this.halt = undefined;
    seekChannel.publish({ group: this.#options.identity.groupName, fromLsn, reason });
    this.#fromLsn = fromLsn;
    this.#sentLsn = fromLsn - 1;
    this.acceptedLsn = Math.min(this.acceptedLsn, fromLsn - 1);
    const { journal, marks } = this.#options;
    const durableLsn = marks.lsn('durable');
    if (fromLsn > durableLsn + 1) {
      const held = `the far side holds records up to ${fromLsn - 1}, this journal only up to ${durableLsn}`;
      this.stop({ code: 'needs-resync', reason: held });
      return;
    }
    if (fromLsn < journal.oldestLsn) {
      const gone = `the far side needs record ${fromLsn}, the oldest in this journal is ${journal.oldestLsn}`;
      this.stop({ code: 'needs-resync', reason: gone });
      return;
    }
    this.#position(fromLsn);
    this.#events.onState();
    this.pump();
  }

  #position(fromLsn: Lsn): void {
    const { journal, checkpoints } = this.#options;
    const start = walkStart(journal, checkpoints, fromLsn - 1);
    if (start === undefined) {
      const lost = `the chain at record ${fromLsn} is not known: ship.state is missing or damaged`;
      this.stop({ code: 'needs-resync', reason: lost });
      return;
    }
    try {
      this.#reader = journal.reader(start.address);
    } catch (error) {
      this.#onReadError(error);
      return;
    }
    this.#readLsn = start.lsn + 1;
    this.#walking = start.chain;
    if (this.#readLsn === fromLsn) this.#begin(start.chain);
  }

  #onAccepted(lsn: Lsn): void {
    if (this.#closed || lsn <= this.acceptedLsn) return;
    this.acceptedLsn = lsn;
    this.#events.onAccepted();
    if (this.#sealer.recordCount > 0) this.pump();
  }

  #onReadError(error: unknown): void {
    if (!(error instanceof TidemarkError)) throw error;
    if (error.code === 'trimmed') {
      const { oldestLsn } = this.#options.journal;
      const reason = `record ${this.#readLsn} was dropped before the far side had it; the oldest is ${oldestLsn}`;
      this.stop({ code: 'needs-resync', reason });
    } else if (error.code === 'journal-damaged') {
      // what stands before the damage is whole, and may be all that is left of it some day
      if (this.#reader !== undefined && this.#walking === undefined) this.#flush();
      if (this.halt !== undefined) return;
      this.stop({ code: 'journal-damaged', reason: `record ${this.#readLsn}: ${error.message}` });
      const address = error.details['address'];
      if (typeof address === 'number') this.#events.onDamage(address);
    } else if (error.next === 'retry') {
      this.#wakeIn(READ_RETRY_MS);
    } else {
      this.stop({ code: error.code, reason: error.message });
    }
  }

  /** Lets go of the position; the sealer's content is forgotten with it. */
  #forget(): void {
    this.#timer?.cancel();
    void this.#reader?.close();
    this.#reader = undefined;
    this.#records = undefined;
    this.#record = undefined;
    this.#batch = undefined;
  }

  #wakeIn(ms: number): void {
    assert(ms >= 0, 'timers go forward');
    this.#timer?.cancel();
    this.#timer = this.#options.clock.after(ms, () => this.pump());
  }

  #publish(frame: SealedFrame): void {
    if (!frameChannel.hasSubscribers) return;
    frameChannel.publish({
      group: this.#options.identity.groupName,
      records: frame.recordCount,
      plainBytes: frame.payloadPlainBytes,
      storedBytes: frame.bytes.length,
    });
  }
}
