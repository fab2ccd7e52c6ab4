import { CHAIN_START, type Chain, chainString } from '../../journal/chain.ts';
import { FrameSealer, type SealRecord } from '../../journal/frame-sealer.ts';
import { FrameView } from '../../journal/frame-view.ts';
import type { Lsn } from '../../journal/position.ts';
import { RecordKind } from '../../journal/record.ts';
import type {
  FrameSink,
  FrameSource,
  OutgoingFrame,
  ReplicaFeedback,
  SourceIdentity,
  StreamStatus,
} from '../../journal/stream.ts';

const PATIENCE_MS = 30_000;

/** Lets a test wait for a condition: it is looked at again after every event, never by the clock. */
class Waiters {
  readonly #waiting = new Set<() => void>();

  until(what: string, condition: () => boolean): Promise<void> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting.delete(look);
        reject(new Error(`waited ${PATIENCE_MS} ms in vain until ${what}`));
      }, PATIENCE_MS);
      const look = (): void => {
        if (!condition()) return;
        clearTimeout(timer);
        this.#waiting.delete(look);
        resolve();
      };
      this.#waiting.add(look);
      look();
    });
  }

  wake(): void {
    for (const look of this.#waiting) look();
  }
}

/** Records that a test ships: what they hold follows from their LSN, so that any of them can be made again and checked. */
export class TestHistory {
  readonly groupId: string;
  readonly recordBytes: number;
  readonly #chains: Chain[] = [CHAIN_START];
  readonly #sealer: FrameSealer;

  constructor(groupId: string, recordBytes = 4096) {
    this.groupId = groupId;
    this.recordBytes = recordBytes;
    this.#sealer = this.#newSealer({ counter: 0, nonce: '0000000000000000' });
  }

  get lastLsn(): Lsn {
    return this.#chains.length - 1;
  }

  grow(records: number): void {
    for (let i = 0; i < records; i++) {
      this.#sealer.begin(this.#chains.length, this.#chains.at(-1)!);
      this.#sealer.add(this.record(this.#chains.length));
      this.#chains.push(this.#sealer.seal(0).chainAfter);
    }
  }

  record(lsn: Lsn): SealRecord {
    const payload = new Uint8Array(this.recordBytes);
    for (let i = 0; i < payload.length; i += 4) {
      const word = Math.imul(lsn * 31 + i, 2_654_435_761);
      payload[i] = word >>> 24;
      payload[i + 1] = word >>> 16;
    }
    return {
      kind: RecordKind.write,
      flags: 0,
      volume: 1,
      sector: lsn * 8,
      sectors: payload.length / 512,
      requestId: 0,
      time: 1_000_000 + lsn,
      lsn,
      payload,
    };
  }

  /** A frame that begins at `fromLsn`, of at most `count` records. */
  frame(fromLsn: Lsn, count: number, incarnation: SourceIdentity['incarnation']): OutgoingFrame {
    const sealer = this.#newSealer(incarnation);
    sealer.begin(fromLsn, this.#chains[fromLsn - 1]!);
    const end = Math.min(fromLsn + count, this.lastLsn + 1);
    for (let lsn = fromLsn; lsn < end && sealer.fits(this.recordBytes); lsn++) sealer.add(this.record(lsn));
    return sealer.seal(this.lastLsn);
  }

  chainAt(lsn: Lsn): string {
    return chainString(this.#chains[lsn]!);
  }

  #newSealer(incarnation: SourceIdentity['incarnation']): FrameSealer {
    return new FrameSealer(
      { groupId: this.groupId, epoch: 1, incarnation },
      { chunkBytes: 65_536, targetBytes: 2 * 1024 * 1024, compress: false },
    );
  }
}

/** A small shipper: sends what the history has, as far as the window goes. */
export class SourceEnd {
  readonly seeks: Lsn[] = [];
  readonly statuses: StreamStatus[] = [];
  readonly sink: FrameSink;
  /** Records of one frame. */
  frameRecords = 8;
  acceptedLsn: Lsn = 0;
  feedback: ReplicaFeedback | undefined;
  /** Most bytes that were ever sent and not accepted. */
  underWayMax = 0;
  sentBytes = 0;
  readonly #history: TestHistory;
  readonly #waiters = new Waiters();
  readonly #incarnation: SourceIdentity['incarnation'];
  #underWay: OutgoingFrame[] = [];
  #next: Lsn | undefined;
  #insideCall = false;

  constructor(sink: FrameSink, history: TestHistory, run = 1) {
    this.sink = sink;
    this.#history = history;
    this.#incarnation = { counter: run, nonce: run.toString(16).padStart(16, '0') };
    this.#call(() => {
      sink.open(
        { groupId: history.groupId, groupName: 'contract', epoch: 1, incarnation: this.#incarnation, frameVersion: 1 },
        {
          onSeek: (fromLsn) =>
            this.#event(() => {
              this.seeks.push(fromLsn);
              this.#next = fromLsn;
              this.#underWay = [];
            }),
          onReady: () => this.#event(() => undefined),
          onAccepted: (lsn) =>
            this.#event(() => {
              this.acceptedLsn = Math.max(this.acceptedLsn, lsn);
              this.#underWay = this.#underWay.filter((frame) => frame.lastLsn > lsn);
            }),
          onFeedback: (feedback) =>
            this.#event(() => {
              this.feedback = feedback;
            }),
          onStatus: (status) => this.#event(() => this.statuses.push(status)),
        },
      );
    });
  }

  /** Sends what the window takes. */
  pump(): void {
    while (this.#next !== undefined && this.#next <= this.#history.lastLsn && this.sink.windowBytes > 0) {
      const frame = this.#history.frame(this.#next, this.frameRecords, this.#incarnation);
      this.#next = frame.lastLsn + 1;
      this.#underWay.push(frame);
      this.sentBytes += frame.bytes.length;
      const underWay = this.#underWay.reduce((sum, one) => sum + one.bytes.length, 0);
      this.underWayMax = Math.max(this.underWayMax, underWay);
      this.#call(() => this.sink.send(frame));
    }
  }

  until(what: string, condition: () => boolean): Promise<void> {
    return this.#waiters.until(what, condition);
  }

  close(): Promise<void> {
    this.#next = undefined;
    return this.sink.close();
  }

  #call(run: () => void): void {
    this.#insideCall = true;
    run();
    this.#insideCall = false;
  }

  #event(run: () => void): void {
    if (this.#insideCall) throw new Error('a callback came inside a call to the sink');
    run();
    this.pump();
    this.#waiters.wake();
  }
}

/** What a replica keeps across restarts. */
export class ReplicaState {
  durableLsn: Lsn = 0;
  resumeOffset = '';
  /** Frames in the order they were taken. */
  frames: FrameView[] = [];
}

/** A small receiver: verifies, sorts by position, keeps in memory, feeds back after every frame. */
export class ReplicaEnd {
  readonly state: ReplicaState;
  readonly source: FrameSource;
  readonly lost: string[] = [];
  readonly statuses: StreamStatus[] = [];
  frames = 0;
  bytes = 0;
  repeats = 0;
  /** Frames that reach this far are not taken, as if they had been damaged on the way; the last one of them is noted. */
  refusesFrom: Lsn = Number.POSITIVE_INFINITY;
  refusedLsn: Lsn = 0;
  readonly #history: TestHistory;
  readonly #name: string;
  readonly #waiters = new Waiters();
  readonly #early = new Map<Lsn, FrameView>();
  #closed = false;
  #missingFrom: Lsn = 0;

  constructor(source: FrameSource, history: TestHistory, name: string, state: ReplicaState = new ReplicaState()) {
    this.source = source;
    this.state = state;
    this.#history = history;
    this.#name = name;
    source.open(
      {
        replica: name,
        groupId: history.groupId,
        durableLsn: state.durableLsn,
        resumeOffset: state.resumeOffset,
        frameVersion: 1,
        framesFrom: (fromLsn) => this.#framesFrom(fromLsn),
      },
      {
        onFrame: (bytes, offset) => this.#onFrame(bytes, offset),
        onLost: (reason) => {
          this.lost.push(reason);
          this.askAgain(this.state.durableLsn + 1);
        },
        onStatus: (status) => {
          this.statuses.push(status);
          this.#waiters.wake();
        },
      },
    );
    this.#feedBack();
  }

  get durableLsn(): Lsn {
    return this.state.durableLsn;
  }

  /** Tells the source that everything from `lsn` on must come again. */
  askAgain(lsn: Lsn): void {
    this.#missingFrom = lsn;
    this.#feedBack();
  }

  /** Forgets everything above `lsn`, as a replica does whose disk was put back to an older state. */
  static cut(state: ReplicaState, lsn: Lsn): ReplicaState {
    const kept = new ReplicaState();
    kept.frames = state.frames.filter((frame) => frame.lastLsn <= lsn);
    kept.durableLsn = kept.frames.at(-1)?.lastLsn ?? 0;
    return kept;
  }

  until(what: string, condition: () => boolean): Promise<void> {
    return this.#waiters.until(what, condition);
  }

  untilDurable(lsn: Lsn): Promise<void> {
    return this.until(`record ${lsn} is durable`, () => this.durableLsn >= lsn);
  }

  close(): Promise<void> {
    this.#closed = true;
    return this.source.close();
  }

  #onFrame(bytes: Uint8Array, offset: string): void {
    if (this.#closed) throw new Error('a frame came after close');
    this.frames++;
    this.bytes += bytes.length;
    // The stream may use its buffer again: what is kept is copied.
    const view = FrameView.open(bytes.slice());
    view.verifyPayload();
    if (view.lastLsn >= this.refusesFrom) {
      this.refusedLsn = view.lastLsn;
      this.#waiters.wake();
      return;
    }
    if (view.lastLsn <= this.durableLsn) this.repeats++;
    else if (view.firstLsn > this.durableLsn + 1) this.#early.set(view.firstLsn, view);
    else this.#take(view, offset);
    for (const [firstLsn, early] of this.#early) {
      if (firstLsn > this.durableLsn + 1) continue;
      this.#early.delete(firstLsn);
      if (early.lastLsn > this.durableLsn) this.#take(early, offset);
    }
    if (this.#early.size > 64) throw new Error('frames come too far out of order');
    this.#feedBack();
    this.#waiters.wake();
  }

  #take(view: FrameView, offset: string): void {
    if (this.#history.chainAt(view.lastLsn) !== chainString(view.chainAfter)) throw new Error('not what was sent');
    this.state.frames.push(view);
    this.state.durableLsn = view.lastLsn;
    if (this.#early.size === 0) this.state.resumeOffset = offset;
    if (this.#missingFrom <= view.lastLsn) this.#missingFrom = 0;
  }

  async *#framesFrom(fromLsn: Lsn): AsyncIterable<Uint8Array> {
    for (const frame of this.state.frames) if (frame.lastLsn >= fromLsn) yield frame.bytes;
  }

  #feedBack(): void {
    if (this.#closed) return;
    this.source.feedback({
      replica: this.#name,
      groupId: this.#history.groupId,
      epoch: 1,
      incarnation: this.state.frames.at(-1)?.incarnation.counter ?? 0,
      durableLsn: this.durableLsn,
      chain: this.#history.chainAt(this.durableLsn),
      state: 'receiving',
      reason: '',
      missingFrom: this.#missingFrom,
      heartbeatMs: 0,
      resumeOffset: this.state.resumeOffset,
    });
  }
}
