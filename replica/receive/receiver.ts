import { hasCode, TidemarkError } from '../../journal/base/errors.ts';
import { chainString, parseChain, sameChain } from '../../journal/chain.ts';
import { FrameView } from '../../journal/frame-view.ts';
import type { Host } from '../../journal/host/host.ts';
import type { Lsn } from '../../journal/position.ts';
import type { FrameSource, ReplicaFeedback } from '../../journal/stream.ts';
import { replicaChannel } from '../replica-channels.ts';
import { declaresGap } from '../store/declared-gap.ts';
import type { DurablePosition } from '../store/position-mark.ts';
import type { Halt, OrphanBranch } from '../store/replica-state.ts';
import { type ArrivedFrame, EarlyFrames } from './early-frames.ts';
import { FeedbackPacer } from './feedback-pacer.ts';
import { judgeFork, judgeTwin, refuseStale, repeatsHeld } from './frame-checks.ts';
import { commitGroup } from './group-commit.ts';
import type { ReceiverOptions, ReceiverParts, ReceiverStatus } from './receiver-parts.ts';
import { feedbackOf, receiverState, startOf } from './receiver-state.ts';
import { type ControlNote, controlNotes } from './record-feed.ts';

const syncChannel = replicaChannel('tidemark:replica:sync');
const rejectedChannel = replicaChannel('tidemark:replica:rejected');
const haltedChannel = replicaChannel('tidemark:replica:halted');
const fullChannel = replicaChannel('tidemark:replica:full');

/**
 * Takes frames from the stream: verify, check that they continue what is held, append, sync in groups, then
 * acknowledge. Nothing is acknowledged, indexed for views or told to anybody before it is durable. One frame at a time
 * goes through `#take`; syncs run beside it. A frame that cannot be taken never changes what is held.
 */
export class Receiver {
  readonly #host: Host;
  readonly #options: ReceiverOptions;
  readonly #parts: ReceiverParts;
  readonly #early: EarlyFrames;
  readonly #feedback: FeedbackPacer;
  #queue: ArrivedFrame[] = [];
  #queuedBytes = 0;
  #paused = false;
  #source: FrameSource | undefined;
  #pumping: Promise<void> | undefined;
  #syncing: Promise<void> | undefined;
  #syncTimer = false;
  #closing = false;

  /** What is appended, durable or not yet. */
  #head: DurablePosition;
  #durable: DurablePosition;
  #openFromLsn: Lsn;
  #unsyncedBytes = 0;
  #unsyncedFrames = 0;
  readonly #notes: ControlNote[] = [];
  #missingFrom: Lsn = 0;
  #full = '';
  #failed = '';
  #lost = '';
  #duplicates = 0;
  #rejected = 0;
  #lastRejection = '';
  readonly #durableListeners = new Set<(lsn: Lsn) => void>();

  constructor(host: Host, parts: ReceiverParts, position: DurablePosition, options: ReceiverOptions) {
    this.#host = host;
    this.#parts = parts;
    this.#options = options;
    this.#head = position;
    this.#durable = position;
    this.#openFromLsn = parts.feed.openFromLsn;
    this.#early = new EarlyFrames(options.earlyBytesMax, options.earlyFramesMax);
    this.#feedback = new FeedbackPacer(host.clock, options.feedbackIntervalMs, options.feedbackBytes, () => {
      const damagedFrom = this.#parts.damagedFrom();
      const said = feedbackOf(this.#options, this.#durable, this.#state(), this.#missingFrom, damagedFrom);
      const sent = this.#parts.promise.nameState();
      const appliedLsn = this.#parts.appliedLsn();
      this.#source?.feedback({ ...said, ...(sent && { sent }), ...(appliedLsn !== undefined && { appliedLsn }) });
    });
  }

  /** Begins to take frames. */
  start(source: FrameSource): void {
    this.#source = source;
    source.open(startOf(this.#options, this.#durable, this.#parts.framesFrom), {
      onFrame: (bytes, streamOffset) => {
        this.#onFrame({ bytes, streamOffset });
      },
      onLost: (reason) => {
        this.#lost = reason;
        this.#missing();
      },
      onStatus: () => undefined,
    });
    this.#feedback.now();
  }

  status(): ReceiverStatus {
    const { state, reason } = this.#state();
    return {
      state,
      reason,
      lost: this.#lost,
      headLsn: this.#head.durableLsn,
      durable: this.#durable,
      openFromLsn: this.#openFromLsn,
      missingFrom: this.#missingFrom,
      earlyFrames: this.#early.count,
      queuedBytes: this.#queuedBytes,
      duplicates: this.#duplicates,
      rejected: this.#rejected,
      lastRejection: this.#lastRejection,
      stream: this.#source?.status(),
    };
  }

  /** Something other than the position has changed that the source is told. */
  tell(): void {
    if (this.#source !== undefined && !this.#closing) this.#feedback.now();
  }

  /** Called with every new durable LSN; returns the unsubscribe. */
  onDurable(run: (lsn: Lsn) => void): () => void {
    this.#durableListeners.add(run);
    return () => this.#durableListeners.delete(run);
  }

  /** Waits until everything that came has been taken (or refused) and synced. */
  async idle(): Promise<void> {
    while (this.#pumping !== undefined || this.#syncing !== undefined) {
      await this.#pumping;
      await this.#syncing;
    }
  }

  async close(): Promise<void> {
    this.#closing = true;
    this.#feedback.close();
    await this.#source?.close();
    await this.idle();
    if (this.#unsyncedFrames > 0) this.#sync();
    await this.#syncing;
  }

  #onFrame(frame: ArrivedFrame): void {
    if (this.#closing || this.#parts.keeper.state.halt !== undefined || this.#failed !== '') return;
    this.#queue.push(frame);
    this.#queuedBytes += frame.bytes.length;
    this.#pace();
    this.#pump();
  }

  #pace(): void {
    const paused = this.#full !== '' || this.#queuedBytes > this.#options.queueBytesMax;
    if (paused === this.#paused) return;
    this.#paused = paused;
    if (paused) this.#source?.pause();
    else this.#source?.resume();
  }

  #pump(): void {
    if (this.#pumping !== undefined || this.#full !== '' || this.#closing) return;
    this.#pumping = this.#takeAll()
      .catch((error: unknown) => this.#fail(error))
      .finally(() => {
        this.#pumping = undefined;
        this.#syncSoon();
        // One may have come between the last look at the queue and here.
        if (this.#queue.length > 0) this.#pump();
      });
  }

  async #takeAll(): Promise<void> {
    for (;;) {
      const frame = this.#early.take(this.#head.durableLsn + 1) ?? this.#queue[0];
      const halted = this.#closing || this.#failed !== '' || this.#parts.keeper.state.halt !== undefined;
      if (frame === undefined || halted) break;
      try {
        await this.#take(frame);
      } catch (error) {
        if (!(error instanceof TidemarkError)) throw error;
        if (hasCode(error, 'no-space')) {
          // It stays first in the queue; an early one is sent again or held again.
          this.#becomeFull(error.message);
          if (frame !== this.#queue[0]) this.#early.hold(this.#head.durableLsn + 1, frame);
          return;
        }
        await this.#refuse(error);
      }
      if (frame === this.#queue[0]) {
        this.#queue.shift();
        this.#queuedBytes -= frame.bytes.length;
      }
      this.#pace();
      if (this.#unsyncedBytes >= this.#options.syncBytes) this.#sync();
    }
    if (this.#parts.keeper.state.halt !== undefined || this.#failed !== '') this.#drop();
  }

  async #take(arrived: ArrivedFrame): Promise<void> {
    const { index } = this.#parts;
    if (index.memtableFull) await index.rotate(this.#parts.feed.openFromLsn);
    const frame = FrameView.open(arrived.bytes);
    if (frame.groupId !== this.#options.groupId) {
      throw new TidemarkError('frame-foreign', `a frame of group ${frame.groupId} came in the stream of this group`);
    }
    const held = this.#head.durableLsn;
    if (frame.lastLsn <= held) return this.#takeRepeated(frame, arrived);
    refuseStale(frame, this.#head);
    const twin = judgeTwin(frame, this.#head);
    if (twin !== undefined) return this.#halt(twin);
    if (frame.firstLsn > held + 1) {
      if (!declaresGap(frame, held)) {
        this.#early.hold(frame.firstLsn, arrived);
        this.#missing();
        return;
      }
      await this.#parts.store.seal(this.#parts.feed.openFromLsn);
    } else if (!sameChain(frame.chainAt(held), parseChain(this.#head.chain))) {
      return this.#fork(frame);
    }
    frame.verifyChunks();
    await this.#append(frame, arrived);
  }

  async #append(frame: FrameView, arrived: ArrivedFrame): Promise<void> {
    const { store, space, feed, index } = this.#parts;
    if (frame.bytes.length > space.freeBytes) {
      throw new TidemarkError('no-space', `${space.freeBytes} bytes are left above the reserve`);
    }
    const firstLsn = Math.max(frame.firstLsn, this.#head.durableLsn + 1);
    const notes = await controlNotes(frame.layout, firstLsn, this.#head.durableLsn, (i) => frame.payloadOf(i));
    if (store.wantsSeal) await store.seal(feed.openFromLsn);
    const at = await store.append(frame.bytes, {
      firstLsn,
      lastLsn: frame.lastLsn,
      firstTime: frame.record(firstLsn - frame.firstLsn).time,
      lastTime: frame.lastTime,
      records: frame.recordCount,
    });
    try {
      feed.feed(frame.layout, firstLsn, at, index, index.durableLsn);
    } catch (error) {
      // It is appended but cannot be shown: nothing may come behind it.
      return this.#fail(error);
    }
    index.advance(frame.lastLsn);
    this.#notes.push(...notes);
    const higher = frame.incarnation.counter > this.#head.incarnation.counter || this.#head.durableLsn === 0;
    this.#head = {
      durableLsn: frame.lastLsn,
      chain: chainString(frame.chainAfter),
      epoch: Math.max(frame.epoch, this.#head.epoch),
      incarnation: higher ? frame.incarnation : this.#head.incarnation,
      resumeOffset: this.#resumeOffset(arrived),
      heartbeatMs: this.#head.heartbeatMs,
    };
    if (this.#missingFrom !== 0 && this.#early.count === 0) this.#missingFrom = 0;
    else if (this.#missingFrom !== 0) this.#missingFrom = frame.lastLsn + 1;
    this.#lost = '';
    this.#unsyncedBytes += frame.bytes.length;
    this.#unsyncedFrames += 1;
  }

  /** While early frames are held in memory only, the stream must be read again from before them. */
  #resumeOffset(arrived: ArrivedFrame): string {
    return this.#early.count > 0 || arrived.streamOffset === '' ? this.#head.resumeOffset : arrived.streamOffset;
  }

  /** All of it is held already: a repeat when its records are ours (rule 17), else a fork. */
  async #takeRepeated(frame: FrameView, arrived: ArrivedFrame): Promise<void> {
    this.#duplicates += 1;
    if (!(await repeatsHeld(frame, this.#parts.store, this.#parts.frames))) return this.#fork(frame);
    this.#head = { ...this.#head, resumeOffset: this.#resumeOffset(arrived) };
  }

  /** The frame and what is held say different things about one LSN. */
  async #fork(frame: FrameView): Promise<void> {
    const { halt, orphan } = judgeFork(frame, this.#head);
    // What is held is made durable first: a surplus is kept as a branch of its own.
    do {
      this.#sync();
      await this.#syncing;
    } while (this.#unsyncedFrames > 0 && this.#failed === '');
    await this.#halt(halt, orphan);
  }

  async #halt(halt: Halt, orphan?: OrphanBranch): Promise<void> {
    await this.#parts.keeper.update((state) => ({
      halt,
      orphans: orphan === undefined ? state.orphans : [...state.orphans, orphan],
    }));
    haltedChannel.publish({ group: this.#options.groupId, ...halt });
    this.#drop();
    this.#feedback.now();
  }

  #drop(): void {
    this.#queue = [];
    this.#queuedBytes = 0;
    this.#early.clear();
  }

  async #refuse(error: TidemarkError): Promise<void> {
    if (error.code === 'upgrade-replica-first') {
      return this.#halt({ state: 'upgrade-required', reason: error.message });
    }
    if (['device-failed', 'sync-failed', 'short-write'].includes(error.code)) return this.#fail(error);
    this.#rejected += 1;
    this.#lastRejection = `${error.code}: ${error.message}`;
    rejectedChannel.publish({ group: this.#options.groupId, code: error.code, message: error.message });
    // Whatever it was, the frame that comes next has not come.
    if (error.code === 'frame-damaged' || error.code === 'journal-damaged') this.#missing();
  }

  /** The disk failed: nothing more is taken until the replica is opened again and has written its tail anew. */
  #fail(error: unknown): void {
    if (!(error instanceof TidemarkError)) throw error;
    this.#failed = `${error.code}: ${error.message}`;
    haltedChannel.publish({ group: this.#options.groupId, state: 'stopped', reason: this.#failed });
    this.#drop();
    this.#source?.pause();
    this.#feedback.now();
  }

  #missing(): void {
    const from = this.#head.durableLsn + 1;
    if (this.#missingFrom === from && this.#lost === '') return;
    this.#missingFrom = from;
    this.#feedback.now();
  }

  #becomeFull(reason: string): void {
    if (this.#full === '') fullChannel.publish({ group: this.#options.groupId, full: true, reason });
    this.#full = reason;
    this.#pace();
    this.#parts.space.check();
    this.#feedback.now();
    this.#host.clock.after(this.#options.spaceProbeMs, () => {
      if (this.#closing || this.#full === '') return;
      const next = this.#queue[0];
      if (this.#parts.space.freeBytes <= (next?.bytes.length ?? 0)) {
        this.#becomeFull(this.#full);
        return;
      }
      this.#full = '';
      fullChannel.publish({ group: this.#options.groupId, full: false, reason: '' });
      this.#pace();
      this.#feedback.now();
      this.#pump();
    });
  }

  /** Idle: at once. Busy: when the oldest unsynced frame is old enough. */
  #syncSoon(): void {
    if (this.#unsyncedFrames === 0 && this.#head.resumeOffset === this.#durable.resumeOffset) return;
    if (this.#queue.length === 0 || this.#full !== '') {
      this.#sync();
      return;
    }
    if (this.#syncTimer) return;
    this.#syncTimer = true;
    this.#host.clock.after(this.#options.syncDelayMs, () => {
      this.#syncTimer = false;
      if (!this.#closing) this.#sync();
    });
  }

  #sync(): void {
    if (this.#syncing !== undefined || this.#failed !== '') return;
    this.#syncing = this.#syncGroup()
      .catch((error: unknown) => this.#fail(error))
      .finally(() => {
        this.#syncing = undefined;
        if (this.#unsyncedFrames > 0 && this.#failed === '') this.#sync();
      });
  }

  async #syncGroup(): Promise<void> {
    const { openFromLsn } = this.#parts.feed;
    const [bytes, frames] = [this.#unsyncedBytes, this.#unsyncedFrames];
    this.#unsyncedBytes = 0;
    this.#unsyncedFrames = 0;
    const began = this.#host.clock.monotonicMs();
    const durable = await commitGroup(this.#parts, this.#head, this.#notes);
    this.#durable = durable;
    this.#openFromLsn = openFromLsn;
    this.#head = { ...this.#head, heartbeatMs: durable.heartbeatMs };
    const durationMs = this.#host.clock.monotonicMs() - began;
    syncChannel.publish({ group: this.#options.groupId, durableLsn: durable.durableLsn, bytes, frames, durationMs });
    this.#parts.space.check();
    this.#feedback.after(bytes, this.#parts.promise.isWaitedFor);
    for (const run of this.#durableListeners) run(durable.durableLsn);
  }

  #state(): Pick<ReplicaFeedback, 'state' | 'reason'> {
    return receiverState({
      failed: this.#failed,
      halt: this.#parts.keeper.state.halt,
      full: this.#full,
      lost: this.#lost,
      missingFrom: this.#missingFrom,
    });
  }
}
