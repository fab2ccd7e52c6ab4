import { hasCode, TidemarkError } from '../../journal/base/errors.ts';
import { chainString, parseChain, sameChain } from '../../journal/chain.ts';
import { FRAME_VERSION } from '../../journal/frame-codec.ts';
import { FrameView } from '../../journal/frame-view.ts';
import type { Host } from '../../journal/host/host.ts';
import type { Epoch, Lsn } from '../../journal/position.ts';
import { RecordKind } from '../../journal/record.ts';
import { decodeGap, decodeIncarnation } from '../../journal/record-bodies.ts';
import type { FrameSource, Incarnation, ReplicaFeedback, StreamStatus } from '../../journal/stream.ts';
import type { CatalogBuilder } from '../catalog/catalog.ts';
import type { VersionIndex } from '../index/version-index.ts';
import { replicaChannel } from '../replica-channels.ts';
import type { FrameReader } from '../store/frame-reader.ts';
import type { DurablePosition, PositionMark } from '../store/position-mark.ts';
import type { Halt, StateKeeper } from '../store/replica-state.ts';
import type { SegmentStore } from '../store/segment-store.ts';
import { type ArrivedFrame, EarlyFrames } from './early-frames.ts';
import { FeedbackPacer } from './feedback-pacer.ts';
import { applyNote, type ControlNote, controlNotes, type RecordFeed } from './record-feed.ts';
import type { SpaceWatch } from './space-watch.ts';

export interface ReceiverOptions {
  readonly replica: string;
  readonly groupId: string;
  /** Frames waiting to be taken; above it the stream is paused. */
  readonly queueBytesMax: number;
  /** Frames held because one before them is missing. */
  readonly earlyBytesMax: number;
  readonly earlyFramesMax: number;
  /** A group is synced at the latest after so many bytes, or so long after its first frame; at once when idle. */
  readonly syncBytes: number;
  readonly syncDelayMs: number;
  readonly feedbackIntervalMs: number;
  readonly feedbackBytes: number;
  /** How often a full replica looks whether space has come back. */
  readonly spaceProbeMs: number;
}

export const RECEIVER_DEFAULTS: Omit<ReceiverOptions, 'replica' | 'groupId'> = {
  queueBytesMax: 16 * 1024 * 1024,
  earlyBytesMax: 16 * 1024 * 1024,
  earlyFramesMax: 256,
  syncBytes: 8 * 1024 * 1024,
  syncDelayMs: 20,
  feedbackIntervalMs: 250,
  feedbackBytes: 8 * 1024 * 1024,
  spaceProbeMs: 1000,
};

/** What the receiver works on; all of one group, opened and recovered. */
export interface ReceiverParts {
  readonly store: SegmentStore;
  readonly frames: FrameReader;
  readonly index: VersionIndex;
  readonly feed: RecordFeed;
  readonly catalog: CatalogBuilder;
  readonly mark: PositionMark;
  readonly keeper: StateKeeper;
  readonly space: SpaceWatch;
  /** Frames of ours from an LSN on, for a source that lost them. */
  readonly framesFrom: (fromLsn: Lsn) => AsyncIterable<Uint8Array>;
}

export interface ReceiverStatus {
  readonly state: ReplicaFeedback['state'];
  readonly reason: string;
  readonly headLsn: Lsn;
  readonly durable: DurablePosition;
  readonly missingFrom: Lsn;
  readonly earlyFrames: number;
  readonly queuedBytes: number;
  readonly duplicates: number;
  readonly rejected: number;
  readonly lastRejection: string;
  readonly stream: StreamStatus | undefined;
}

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
    this.#early = new EarlyFrames(options.earlyBytesMax, options.earlyFramesMax);
    this.#feedback = new FeedbackPacer(host.clock, options.feedbackIntervalMs, options.feedbackBytes, () => {
      this.#source?.feedback(this.#feedbackNow());
    });
  }

  /** Begins to take frames. */
  start(source: FrameSource): void {
    this.#source = source;
    const { replica, groupId } = this.#options;
    source.open(
      {
        replica,
        groupId,
        durableLsn: this.#durable.durableLsn,
        resumeOffset: this.#durable.resumeOffset,
        frameVersion: FRAME_VERSION,
        framesFrom: this.#parts.framesFrom,
      },
      {
        onFrame: (bytes, streamOffset) => {
          this.#onFrame({ bytes, streamOffset });
        },
        onLost: (reason) => {
          this.#lost = reason;
          this.#missing();
        },
        onStatus: () => undefined,
      },
    );
    this.#feedback.now();
  }

  status(): ReceiverStatus {
    const { state, reason } = this.#state();
    return {
      state,
      reason,
      headLsn: this.#head.durableLsn,
      durable: this.#durable,
      missingFrom: this.#missingFrom,
      earlyFrames: this.#early.count,
      queuedBytes: this.#queuedBytes,
      duplicates: this.#duplicates,
      rejected: this.#rejected,
      lastRejection: this.#lastRejection,
      stream: this.#source?.status(),
    };
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
    this.#pumping = this.#takeAll().finally(() => {
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
    this.#refuseStale(frame);
    const seen = this.#head.incarnation;
    if (held > 0 && frame.incarnation.counter === seen.counter && frame.incarnation.nonce !== seen.nonce) {
      return this.#halt({
        state: 'diverged',
        reason: `two sources call themselves start ${seen.counter}: ${seen.nonce} and ${frame.incarnation.nonce}`,
      });
    }
    if (frame.firstLsn > held + 1) {
      if (!this.#declaresGap(frame)) {
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
    const notes = await controlNotes(frame.layout, firstLsn, (i) => frame.payloadOf(i));
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
      if (!(error instanceof TidemarkError)) throw error;
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
    if (frame.lastLsn >= this.#parts.store.oldestLsn) {
      const ref = await this.#parts.store.find(frame.lastLsn);
      const layout = await this.#parts.frames.layout(ref.segment, ref.offset);
      if (!sameChain(layout.chainAt(frame.lastLsn), frame.chainAfter)) return this.#fork(frame);
    }
    this.#head = { ...this.#head, resumeOffset: this.#resumeOffset(arrived) };
  }

  #refuseStale(frame: FrameView): void {
    const seen = this.#head.incarnation;
    if (frame.incarnation.counter < seen.counter) {
      throw new TidemarkError(
        'stale-incarnation',
        `a frame of source start ${frame.incarnation.counter} after one of ${seen.counter}: a source that was replaced still sends`,
      );
    }
    if (frame.epoch < this.#head.epoch) {
      throw new TidemarkError('stale-epoch', `a frame of epoch ${frame.epoch} after one of ${this.#head.epoch}`);
    }
  }

  /** The records in between were given up by the source, which says so in the first record behind them. */
  #declaresGap(frame: FrameView): boolean {
    if (frame.record(0).kind !== RecordKind.gap) return false;
    const gap = decodeGap(frame.payloadOf(0));
    return gap.fromLsn <= this.#head.durableLsn + 1 && gap.toLsn === frame.firstLsn - 1;
  }

  /** The frame and what is held say different things about one LSN. */
  async #fork(frame: FrameView): Promise<void> {
    const seen = this.#head.incarnation;
    const held = this.#head.durableLsn;
    this.#refuseStale(frame);
    if (frame.incarnation.counter === seen.counter) {
      return this.#halt({
        state: 'diverged',
        reason: `LSN ${frame.firstLsn}-${Math.min(frame.lastLsn, held)} came again with other records, from source start ${seen.counter}`,
      });
    }
    const sourceLsn = cutOf(frame) ?? frame.firstLsn - 1;
    const reason = `the source goes on from ${frame.epoch}:${sourceLsn} (start ${frame.incarnation.counter}), the replica holds ${this.#head.epoch}:${held} (start ${seen.counter})`;
    // What is held is made durable first: the surplus is kept as a branch of its own.
    this.#sync();
    await this.#syncing;
    await this.#halt({ state: 'needs-resync', reason }, { sourceLsn, toLsn: held, incarnation: seen.counter, reason });
  }

  async #halt(halt: Halt, orphan?: { sourceLsn: Lsn; toLsn: Lsn; incarnation: number; reason: string }): Promise<void> {
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
      await this.#halt({ state: 'upgrade-required', reason: error.message });
      return;
    }
    if (['device-failed', 'sync-failed', 'short-write'].includes(error.code)) {
      this.#fail(error);
      return;
    }
    this.#rejected += 1;
    this.#lastRejection = `${error.code}: ${error.message}`;
    rejectedChannel.publish({ group: this.#options.groupId, code: error.code, message: error.message });
    // Whatever it was, the frame that comes next has not come.
    if (error.code === 'frame-damaged' || error.code === 'journal-damaged') this.#missing();
  }

  /** The disk failed: nothing more is taken until the replica is opened again and has written its tail anew. */
  #fail(error: TidemarkError): void {
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
      this.#sync();
    });
  }

  #sync(): void {
    if (this.#syncing !== undefined || this.#failed !== '') return;
    this.#syncing = this.#syncGroup()
      .catch((error: unknown) => {
        if (!(error instanceof TidemarkError)) throw error;
        this.#fail(error);
      })
      .finally(() => {
        this.#syncing = undefined;
        if (this.#unsyncedFrames > 0 && this.#failed === '') this.#sync();
      });
  }

  async #syncGroup(): Promise<void> {
    const { store, mark, catalog, space } = this.#parts;
    const head = this.#head;
    const bytes = this.#unsyncedBytes;
    const frames = this.#unsyncedFrames;
    this.#unsyncedBytes = 0;
    this.#unsyncedFrames = 0;
    const began = this.#host.clock.monotonicMs();
    await Promise.all([store.sync(), mark.sync()]);
    const durable = this.#noteUpTo(catalog, head);
    await mark.write(durable);
    this.#durable = durable;
    this.#head = { ...this.#head, heartbeatMs: durable.heartbeatMs };
    const durationMs = this.#host.clock.monotonicMs() - began;
    syncChannel.publish({ group: this.#options.groupId, durableLsn: durable.durableLsn, bytes, frames, durationMs });
    space.check();
    this.#feedback.after(bytes);
    for (const run of this.#durableListeners) run(durable.durableLsn);
    if (this.#queue.length === 0) await mark.sync();
  }

  /** Control records become known to the catalog when they are durable, not before (rule 1). */
  #noteUpTo(catalog: CatalogBuilder, head: DurablePosition): DurablePosition {
    let count = 0;
    for (const note of this.#notes) {
      if (note.lsn > head.durableLsn) break;
      if (note.lsn > catalog.upToLsn) applyNote(catalog, note);
      count += 1;
    }
    this.#notes.splice(0, count);
    catalog.advance(head.durableLsn);
    return { ...head, heartbeatMs: catalog.heartbeat?.monotonicMs ?? head.heartbeatMs };
  }

  #state(): { state: ReplicaFeedback['state']; reason: string } {
    const { halt } = this.#parts.keeper.state;
    if (this.#failed !== '') return { state: 'stopped', reason: this.#failed };
    if (halt !== undefined) return halt;
    if (this.#full !== '') return { state: 'replica-full', reason: this.#full };
    if (this.#lost !== '') return { state: 'receiving', reason: `the stream lost frames: ${this.#lost}` };
    if (this.#missingFrom !== 0) return { state: 'receiving', reason: `waiting for LSN ${this.#missingFrom}` };
    return { state: 'receiving', reason: '' };
  }

  #feedbackNow(): ReplicaFeedback {
    const { replica, groupId } = this.#options;
    const epoch: Epoch = this.#durable.epoch;
    const incarnation: Incarnation = this.#durable.incarnation;
    return {
      replica,
      groupId,
      epoch,
      incarnation: incarnation.counter,
      durableLsn: this.#durable.durableLsn,
      chain: this.#durable.chain,
      ...this.#state(),
      missingFrom: this.#missingFrom,
      heartbeatMs: this.#durable.heartbeatMs,
      resumeOffset: this.#durable.resumeOffset,
    };
  }
}

/** Where the source says it cut its journal; nothing when the frame does not hold that record. */
function cutOf(frame: FrameView): Lsn | undefined {
  for (let i = 0; i < frame.recordCount; i += 1) {
    if (frame.record(i).kind === RecordKind.incarnation) return decodeIncarnation(frame.payloadOf(i)).cutAfterLsn;
  }
  return undefined;
}
