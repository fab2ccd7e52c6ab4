import { channel } from '../../journal/base/channels.ts';
import type { ErrorCode, TidemarkError } from '../../journal/base/errors.ts';
import type { Chain } from '../../journal/chain.ts';
import type { SealedFrame } from '../../journal/frame-sealer.ts';
import type { Clock, Timer } from '../../journal/host/host.ts';
import type { Marks } from '../../journal/marks.ts';
import type { JournalAddress, Lsn } from '../../journal/position.ts';
import type { FrameSink, GoingOn, ReplicaFeedback, SourceIdentity, StreamStatus } from '../../journal/stream.ts';
import type { ChainCheckpoints } from './chain-checkpoints.ts';
import { lowestStart, type ShipJournal, walkStart } from './chain-walk.ts';
import type { PassedPlace, SealJob, SealPart, SealPlace } from './frame-maker.ts';
import type { SealRunner } from './seal-runner.ts';
import { type ShipDelay, ShipPace } from './ship-pace.ts';

export interface LaneOptions {
  readonly journal: ShipJournal;
  readonly marks: Marks;
  readonly clock: Clock;
  readonly identity: SourceIdentity;
  /** Does the reading and the sealing. */
  readonly sealing: SealRunner;
  /** A frame takes about so many bytes of the journal. */
  readonly frameBytes: number;
  /** Between two frames that are not full; the first after a pause leaves at once. */
  readonly lingerMs: number;
  readonly delay: ShipDelay;
  /** Answers to guests wait for the far side: then nothing is put off. */
  readonly isAwaited: () => boolean;
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

/** Between two frames that are not full when somebody waits for them: what comes in one turn goes together. */
const AWAITED_LINGER_MS = 1;
/** After a read error that may pass by itself. */
const READ_RETRY_MS = 1000;

const frameChannel = channel('tidemark:ship:frame');
const seekChannel = channel('tidemark:ship:seek');

/**
 * One sink's way from the journal into the stream. It stands on the group's thread and says when what is read and sealed;
 * who does that (frame-maker.ts) may stand on another. What comes of one job is waited for before the next begins, and
 * what comes after a seek is passed over.
 *
 * After a seek it first has the journal read from the nearest checkpoint up to the position, for the chain, and only then
 * sealed.
 */
export class Lane {
  readonly sink: FrameSink;
  acceptedLsn: Lsn = 0;
  halt: Halt | undefined;
  /** Readers of the stream that cannot be served, while others are. */
  unserved: GoingOn['unserved'] = [];
  readonly #options: LaneOptions;
  readonly #events: LaneEvents;
  /** Behind what was sealed; undefined: nothing is to be sent. */
  #place: SealPlace | undefined;
  #fromLsn: Lsn = 0;
  /** Under way: parts of any other are not wanted any more. */
  #job: SealJob | undefined;
  /** Sealed, and waiting for room in the stream's window: what one job gives at most. */
  #sealed: SealedFrame[] = [];
  #sentLsn: Lsn = 0;
  readonly #pace: ShipPace;
  /** Busy guests have the machine until then. */
  #restUntilMs = Number.NEGATIVE_INFINITY;
  /** When a frame that was not full left last. */
  #lingeredMs = Number.NEGATIVE_INFINITY;
  /** A job has read on to here: what it left does not fill a frame. */
  #readTo: JournalAddress = 0;
  /** A job has sealed everything up to here. */
  #sealedTo: JournalAddress = 0;
  #timer: Timer | undefined;
  #wakesAtMs = 0;
  #closed = false;

  constructor(sink: FrameSink, options: LaneOptions, events: LaneEvents) {
    this.sink = sink;
    this.#options = options;
    this.#events = events;
    this.#pace = new ShipPace(options.clock, options.marks, options.delay);
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

  /** Sends what was sealed, and has more sealed when that is due. */
  pump(): void {
    if (this.#closed || this.#place === undefined) return;
    this.#pace.note();
    this.#send();
    if (this.#place === undefined || this.#job !== undefined || this.#sealed.length > 0) return;
    const job = this.#due(this.#place);
    if (job !== undefined) this.#start(job);
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#forget();
    await Promise.all([this.sink.close(), this.#options.sealing.close()]);
  }

  /** The next job, when it is time for one; else a timer or whatever moves next asks again. */
  #due(place: SealPlace): SealJob | undefined {
    const { marks, clock, frameBytes, lingerMs, sealing } = this.#options;
    const [limit, durableLsn] = [marks.address('durable'), marks.lsn('durable')];
    const job = { place, fromLsn: this.#fromLsn, limit, durableLsn, readBytesMax: sealing.jobBytes };
    const isWalking = place.nextLsn < this.#fromLsn;
    if (durableLsn < place.nextLsn || limit === this.#sealedTo) return undefined;
    const { windowBytes } = this.sink;
    if (!isWalking && windowBytes <= 0) return undefined;
    const frameBytesMax = Math.max(1, windowBytes);
    const nowMs = clock.monotonicMs();
    const isAwaited = this.#options.isAwaited();
    if (this.#restUntilMs > nowMs && !isWalking && !isAwaited) return this.#wakeAt(this.#restUntilMs, nowMs);
    const fillsFrame = limit - place.address >= frameBytes && limit > this.#readTo;
    if (isWalking || fillsFrame) return { ...job, frameBytesMax, flush: false };
    const lingerUntilMs = this.#lingeredMs + (isAwaited ? AWAITED_LINGER_MS : lingerMs);
    if (lingerUntilMs > nowMs) return this.#wakeAt(lingerUntilMs, nowMs);
    this.#lingeredMs = nowMs;
    return { ...job, frameBytesMax, flush: true };
  }

  #start(job: SealJob): void {
    this.#job = job;
    const { clock } = this.#options;
    const beganMs = clock.monotonicMs();
    let isWithin = true;
    this.#options.sealing.run(job, (part) => {
      if (this.#job !== job) {
        part.frame?.release?.();
        return false;
      }
      this.#take(part);
      // a part that was the end of all may have begun another job by itself
      if (this.#job !== job) return false;
      if (!part.last) return true;
      this.#job = undefined;
      const nowMs = clock.monotonicMs();
      this.#restUntilMs = nowMs + this.#pace.restMs(nowMs - beganMs, part.place.address);
      if (part.error !== undefined) this.#onReadError(part.error, part.readLsn);
      else if (!part.more) this.#ended(job);
      // on this thread the guests are to have their turn first
      else if (isWithin) this.#wakeIn(0);
      else this.pump();
      return false;
    });
    isWithin = false;
  }

  #ended(job: SealJob): void {
    this.#readTo = job.limit;
    if (job.flush) this.#sealedTo = job.limit;
    this.pump();
  }

  #take(part: SealPart): void {
    this.#place = part.place;
    for (const place of part.passed) this.#note(place);
    for (const { lsn, monotonicMs } of part.heartbeats) this.#events.onHeartbeat(lsn, monotonicMs);
    if (part.begun) this.#events.onChain(this.#fromLsn - 1, part.place.chain);
    if (part.frame === undefined) return;
    if (this.#place === undefined) {
      part.frame.release?.();
      return;
    }
    this.#sealed.push(part.frame);
    this.#send();
  }

  #note({ beginsFile, lsn, chain, address }: PassedPlace): void {
    const { checkpoints } = this.#options;
    if (beginsFile) checkpoints.noteFileStart({ lsn, chain, address });
    else checkpoints.note({ lsn, chain, address });
  }

  #send(): void {
    while (this.sink.windowBytes > 0) {
      const frame = this.#sealed.shift();
      if (frame === undefined) return;
      this.#sentLsn = frame.lastLsn;
      this.#events.onChain(frame.lastLsn, frame.chainAfter);
      // A replica's chain may have turned out to be another one just now.
      if (this.#place === undefined) {
        frame.release?.();
        return;
      }
      this.#publish(frame);
      this.sink.send(frame);
    }
  }

  #onSeek(fromLsn: Lsn, reason: string): void {
    if (this.#closed) return;
    this.#forget();
    this.halt = undefined;
    this.unserved = this.unserved.filter((one) => one.fromLsn < fromLsn);
    this.#begin(fromLsn, reason);
  }

  #begin(fromLsn: Lsn, reason: string): void {
    seekChannel.publish({ group: this.#options.identity.groupName, fromLsn, reason });
    this.#fromLsn = fromLsn;
    this.#sentLsn = fromLsn - 1;
    const { journal, marks } = this.#options;
    const durableLsn = marks.lsn('durable');
    if (fromLsn > durableLsn + 1) {
      const held = `the far side holds records up to ${fromLsn - 1}, this journal only up to ${durableLsn}`;
      this.stop({ code: 'needs-resync', reason: held });
      return;
    }
    if (fromLsn < journal.oldestLsn) {
      const gone = `the far side needs record ${fromLsn}, the oldest in this journal is ${journal.oldestLsn}`;
      this.#stepOver(gone);
      return;
    }
    this.acceptedLsn = Math.min(this.acceptedLsn, fromLsn - 1);
    this.#position(fromLsn);
    this.#events.onState();
    this.pump();
  }

  /** The journal has what comes next no more: of those who read one stream it goes on for the ones that do not lack it. */
  #stepOver(reason: string): void {
    const { journal, checkpoints } = this.#options;
    this.#forget();
    const lowestLsn = lowestStart(journal, checkpoints);
    const going = lowestLsn === undefined ? undefined : this.sink.goOn?.(lowestLsn);
    this.unserved = going?.unserved ?? [];
    if (going !== undefined) {
      this.#begin(going.fromLsn, reason);
      return;
    }
    this.acceptedLsn = Math.min(this.acceptedLsn, this.#sentLsn);
    this.stop({ code: 'needs-resync', reason });
  }

  #position(fromLsn: Lsn): void {
    const { journal, checkpoints } = this.#options;
    const start = walkStart(journal, checkpoints, fromLsn - 1);
    if (start === undefined) {
      const lost = `the chain at record ${fromLsn} is not known: ship.state is missing or damaged`;
      this.#stepOver(lost);
      return;
    }
    this.#place = { address: start.address, nextLsn: start.lsn + 1, chain: start.chain };
    if (this.#place.nextLsn === fromLsn) this.#events.onChain(fromLsn - 1, start.chain);
  }

  #onAccepted(lsn: Lsn): void {
    if (this.#closed || lsn <= this.acceptedLsn) return;
    this.acceptedLsn = lsn;
    this.#events.onAccepted();
  }

  #onReadError(error: TidemarkError, readLsn: Lsn): void {
    if (error.code === 'trimmed') {
      const { oldestLsn } = this.#options.journal;
      const reason = `record ${readLsn} was dropped before the far side had it; the oldest is ${oldestLsn}`;
      this.#stepOver(reason);
    } else if (error.code === 'journal-damaged') {
      this.stop({ code: 'journal-damaged', reason: `record ${readLsn}: ${error.message}` });
      const address = error.details['address'];
      if (typeof address === 'number') this.#events.onDamage(address);
    } else if (error.next === 'retry') {
      this.#wakeIn(READ_RETRY_MS);
    } else {
      this.stop({ code: error.code, reason: error.message });
    }
  }

  /** Lets go of the position, and of what was sealed. */
  #forget(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#place = undefined;
    this.#job = undefined;
    for (const frame of this.#sealed) frame.release?.();
    this.#sealed = [];
    this.#readTo = 0;
    this.#sealedTo = 0;
  }

  #wakeIn(ms: number): void {
    const nowMs = this.#options.clock.monotonicMs();
    this.#wakeAt(nowMs + ms, nowMs);
  }

  /** A guest that syncs each write moves the marks thousands of times a second: a timer that is right is left alone. */
  #wakeAt(atMs: number, nowMs: number): undefined {
    if (this.#timer !== undefined && this.#wakesAtMs === atMs) return;
    this.#timer?.cancel();
    this.#wakesAtMs = atMs;
    this.#timer = this.#options.clock.after(Math.max(0, atMs - nowMs), () => {
      this.#timer = undefined;
      this.pump();
    });
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
