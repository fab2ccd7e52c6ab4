import type { ErrorCode } from '../../journal/base/errors.ts';
import { chainString, sameChain } from '../../journal/chain.ts';
import { FrameView } from '../../journal/frame-view.ts';
import type { Lsn } from '../../journal/position.ts';
import type {
  FrameSink,
  FrameSinkEvents,
  OutgoingFrame,
  ReplicaFeedback,
  SourceIdentity,
  StreamStatus,
} from '../../journal/stream.ts';

/** A stream and a replica in memory, played by the test: it decides when frames are accepted, durable, wanted again. */
export class MemorySink implements FrameSink {
  readonly frames: FrameView[] = [];
  windowBytes: number = 1 << 30;
  trimmedLsn: Lsn = 0;
  identity: SourceIdentity | undefined;
  /** What a settle answers; undefined: nobody answers. */
  farLsn: Lsn | undefined;
  farFrames: Uint8Array[] = [];
  fetches = 0;
  closed = false;
  #events: FrameSinkEvents | undefined;
  #nextLsn: Lsn = 0;
  #status: StreamStatus = { state: 'connecting', reason: '' };
  #waiting: { lastLsn: Lsn; resolve: () => void }[] = [];

  open(identity: SourceIdentity, events: FrameSinkEvents): void {
    this.identity = identity;
    this.#events = events;
  }

  send(frame: OutgoingFrame): void {
    if (this.closed) throw new Error('sent after close');
    if (frame.firstLsn !== this.#nextLsn) throw new Error(`frame ${frame.firstLsn} at ${this.#nextLsn}`);
    const view = FrameView.open(frame.bytes);
    view.verifyPayload();
    const before = this.frames.findLast((one) => one.lastLsn === view.firstLsn - 1);
    if (before !== undefined && !sameChain(before.chainAfter, view.chainBefore)) throw new Error('the chain broke');
    this.frames.push(view);
    this.#nextLsn = frame.lastLsn + 1;
    this.#waiting = this.#waiting.filter(({ lastLsn, resolve }) => {
      if (lastLsn >= this.#nextLsn) return true;
      resolve();
      return false;
    });
  }

  settle(): Promise<{ highestLsn: Lsn }> {
    return Promise.resolve({ highestLsn: this.farLsn ?? 0 });
  }

  async *fetch(): AsyncIterable<Uint8Array> {
    this.fetches++;
    yield* this.farFrames;
  }

  trim(lsn: Lsn): void {
    this.trimmedLsn = lsn;
  }

  status(): StreamStatus {
    return this.#status;
  }

  close(): Promise<void> {
    this.closed = true;
    return Promise.resolve();
  }

  /** Resolves when the frame that ends with `lsn` or later was sent. */
  sent(lsn: Lsn): Promise<void> {
    if (this.#nextLsn > lsn) return Promise.resolve();
    return new Promise((resolve, reject) => {
      // The product's timers do not keep the process alive, this one does.
      const timer = setTimeout(() => reject(new Error(`record ${lsn} was not sent within 30 s`)), 30_000);
      this.#waiting.push({
        lastLsn: lsn,
        resolve: () => {
          clearTimeout(timer);
          resolve();
        },
      });
    });
  }

  seek(fromLsn: Lsn): void {
    this.#nextLsn = fromLsn;
    this.#status = { state: 'streaming', reason: '' };
    this.#events!.onSeek(fromLsn, 'by the test');
  }

  stop(code: ErrorCode, reason: string): void {
    this.#status = { state: 'stopped', reason, code };
    this.#events!.onStatus(this.#status);
  }

  accept(lsn: Lsn): void {
    this.#events!.onAccepted(lsn);
  }

  openWindow(bytes: number): void {
    this.windowBytes = bytes;
    this.#events!.onReady();
  }

  /** The chain at the end of the frame that ends with `lsn`. */
  chainAt(lsn: Lsn): string {
    if (lsn === 0) return '0'.repeat(16);
    const frame = this.frames.findLast((one) => one.firstLsn <= lsn && one.lastLsn >= lsn);
    if (frame === undefined) throw new Error(`record ${lsn} was never sent`);
    return chainString(frame.chainAt(lsn));
  }

  hold(durableLsn: Lsn, edit: Partial<ReplicaFeedback> = {}): void {
    this.#events!.onFeedback({
      replica: 'dr1',
      groupId: this.identity!.groupId,
      epoch: this.identity!.epoch,
      incarnation: this.identity!.incarnation.counter,
      durableLsn,
      chain: edit.chain ?? this.chainAt(durableLsn),
      state: 'receiving',
      reason: '',
      missingFrom: 0,
      heartbeatMs: 0,
      resumeOffset: '',
      ...edit,
    });
  }
}
