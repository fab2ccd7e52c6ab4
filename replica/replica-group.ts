import { assert } from '../journal/base/assert.ts';
import { TidemarkError } from '../journal/base/errors.ts';
import { CHAIN_START, chainString } from '../journal/chain.ts';
import type { DirectoryLock, Host } from '../journal/host/host.ts';
import type { JournalTime, Lsn } from '../journal/position.ts';
import type { FrameSource } from '../journal/stream.ts';
import { BaseImage } from './base/base-image.ts';
import { FloorMover } from './base/floor-mover.ts';
import { type Lease, Leases } from './base/leases.ts';
import { decideRetention, type RetentionDecision, type RetentionPolicy } from './base/retention-policy.ts';
import { type Catalog, type CatalogBookmark, CatalogBuilder, clipCatalog, EMPTY_CATALOG } from './catalog/catalog.ts';
import { rebuildFromSegments } from './index/rebuild.ts';
import { VersionIndex } from './index/version-index.ts';
import { RECEIVER_DEFAULTS, Receiver, type ReceiverOptions, type ReceiverStatus } from './receive/receiver.ts';
import { applyNote, controlNotes, RecordFeed } from './receive/record-feed.ts';
import { SpaceWatch } from './receive/space-watch.ts';
import { replicaChannel } from './replica-channels.ts';
import { type Choice, chooseTarget, type RestoreTarget } from './restore/restore-target.ts';
import { FrameReader } from './store/frame-reader.ts';
import { type DurablePosition, PositionMark } from './store/position-mark.ts';
import {
  type Damage,
  type OrphanBranch,
  type ReplicaState,
  readReplicaState,
  StateKeeper,
} from './store/replica-state.ts';
import { SegmentStore } from './store/segment-store.ts';
import { lastRecordAt, recordsAround } from './timeline/time-lookup.ts';
import { type Timeline, timelineOf } from './timeline/timeline.ts';
import { HistoryReader } from './view/history-reader.ts';
import { type GroupView, type OpenViewRequest, ViewManager } from './view/view-manager.ts';

export interface ReplicaGroupOptions {
  readonly directory: string;
  /** 32 hex digits. */
  readonly groupId: string;
  /** Name of this replica at the source. */
  readonly replica: string;
  readonly segmentBytes: number;
  readonly policy: RetentionPolicy;
  /** Never written into by frames (DESIGN rule 24). */
  readonly reserveBytes: number;
  readonly indexCacheBytesMax: number;
  readonly memtableEntries: number;
  readonly chunkCacheBytesMax: number;
  readonly layoutCacheBytesMax: number;
  readonly viewsMax: number;
  readonly receiver: Omit<ReceiverOptions, 'replica' | 'groupId'>;
}

export const REPLICA_DEFAULTS: Omit<ReplicaGroupOptions, 'directory' | 'groupId' | 'replica'> = {
  segmentBytes: 64 * 1024 * 1024,
  policy: { windowMs: 7 * 24 * 3600 * 1000, bytesMax: 0 },
  reserveBytes: 256 * 1024 * 1024,
  indexCacheBytesMax: 16 * 1024 * 1024,
  memtableEntries: 65_536,
  chunkCacheBytesMax: 64 * 1024 * 1024,
  layoutCacheBytesMax: 16 * 1024 * 1024,
  viewsMax: 64,
  receiver: RECEIVER_DEFAULTS,
};

/** A snapshot for `status`: plain data. Times are journal time in microseconds, 0: there is none. */
export interface ReplicaGroupStatus {
  readonly groupId: string;
  readonly replica: string;
  readonly floorLsn: Lsn;
  readonly floorTime: JournalTime;
  readonly headLsn: Lsn;
  readonly headTime: JournalTime;
  readonly windowMs: number;
  readonly segments: number;
  readonly segmentBytes: number;
  readonly baseBytes: number;
  readonly index: ReturnType<VersionIndex['status']> & { readonly mergeFailure: string };
  readonly spaceLevel: number;
  readonly freeBytes: number;
  readonly receiver: ReceiverStatus;
  readonly volumes: readonly {
    readonly id: number;
    readonly name: string;
    readonly size: number;
    readonly unsettled: string;
  }[];
  /** By this machine's wall clock since the newest heartbeat's journal time; absent: none came yet. "At least". */
  readonly heartbeatAgeMs: number | undefined;
  readonly views: readonly { readonly id: number; readonly lsn: Lsn; readonly owner: string }[];
  readonly leases: readonly Lease[];
  readonly orphans: readonly OrphanBranch[];
  readonly damage: readonly Damage[];
}

const damageChannel = replicaChannel('tidemark:replica:damage');
const NO_INCARNATION = { counter: 0, nonce: '0'.repeat(16) };

/** All that a replica holds of one group: opens it, recovers it, receives into it, shows any point of it. */
export class ReplicaGroup {
  readonly #host: Host;
  readonly #options: ReplicaGroupOptions;
  readonly #lock: DirectoryLock;
  readonly #store: SegmentStore;
  readonly #index: VersionIndex;
  readonly #mark: PositionMark;
  readonly #keeper: StateKeeper;
  readonly #catalog: CatalogBuilder;
  readonly #frames: FrameReader;
  readonly #feed: RecordFeed;
  readonly #bases = new Map<number, Promise<BaseImage>>();
  readonly #space: SpaceWatch;
  readonly #receiver: Receiver;
  readonly #mover: FloorMover;
  readonly leases: Leases = new Leases();
  readonly history: HistoryReader;
  readonly views: ViewManager;
  #savedCatalogAt: Lsn;
  #closed = false;

  private constructor(
    host: Host,
    options: ReplicaGroupOptions,
    lock: DirectoryLock,
    opened: {
      store: SegmentStore;
      index: VersionIndex;
      mark: PositionMark;
      keeper: StateKeeper;
      catalog: CatalogBuilder;
      frames: FrameReader;
      feed: RecordFeed;
      position: DurablePosition;
    },
  ) {
    this.#host = host;
    this.#options = options;
    this.#lock = lock;
    this.#store = opened.store;
    this.#index = opened.index;
    this.#mark = opened.mark;
    this.#keeper = opened.keeper;
    this.#catalog = opened.catalog;
    this.#frames = opened.frames;
    this.#feed = opened.feed;
    this.#savedCatalogAt = opened.keeper.state.catalog.upToLsn;
    const base = (volume: number): Promise<BaseImage> => this.#base(volume);
    this.history = new HistoryReader(opened.index, opened.frames, base);
    this.#space = new SpaceWatch(host, options.groupId, options.directory, options.reserveBytes, () =>
      this.#usedBytes(),
    );
    this.#mover = new FloorMover(host, {
      store: opened.store,
      frames: opened.frames,
      index: opened.index,
      catalog: opened.catalog,
      keeper: opened.keeper,
      leases: this.leases,
      base,
    });
    this.views = new ViewManager(
      host,
      {
        history: this.history,
        leases: this.leases,
        catalog: () => this.#catalog.snapshot(),
        range: () => ({ floorLsn: this.#keeper.state.floorIntentLsn, headLsn: this.headLsn }),
      },
      { scratchDirectory: `${options.directory}/scratch`, viewsMax: options.viewsMax },
    );
    this.#receiver = new Receiver(
      host,
      { ...opened, space: this.#space, framesFrom: (fromLsn) => this.framesFrom(fromLsn) },
      opened.position,
      { ...options.receiver, replica: options.replica, groupId: options.groupId },
    );
  }

  /**
   * Opens the group's directory, made when it is missing, and recovers it. Throws `journal-locked`, `journal-foreign`,
   * `journal-damaged`, `format-too-new`.
   */
  static async open(host: Host, options: ReplicaGroupOptions): Promise<ReplicaGroup> {
    host.disk.makeDirectory(options.directory);
    const lock = host.disk.lockDirectory(options.directory);
    try {
      const group = await ReplicaGroup.#open(host, options, lock);
      await group.#mover.resume();
      return group;
    } catch (error) {
      lock.release();
      throw error;
    }
  }

  static async #open(host: Host, options: ReplicaGroupOptions, lock: DirectoryLock): Promise<ReplicaGroup> {
    const { directory, groupId } = options;
    const mark = await PositionMark.open(host, directory, groupId);
    const proven = mark.initial?.durableLsn ?? 0;
    const state = (await readReplicaState(host, directory, groupId)) ?? freshState(groupId);
    const keeper = new StateKeeper(host, directory, state);
    const store = await SegmentStore.open(host, {
      directory: `${directory}/segments`,
      groupId,
      segmentBytes: options.segmentBytes,
      durableLsn: proven,
    });
    if (store.damage.length > 0) {
      await keeper.update((before) => ({ damage: [...before.damage, ...store.damage] }));
      for (const damage of store.damage) damageChannel.publish({ group: groupId, ...damage });
    }
    const frames = new FrameReader(store, {
      chunkBytesMax: options.chunkCacheBytesMax,
      layoutBytesMax: options.layoutCacheBytesMax,
    });
    const headLsn = Math.max(store.lastLsn, state.floorLsn);
    const index = await VersionIndex.open(
      host,
      {
        directory: `${directory}/index`,
        groupId,
        floorLsn: state.floorLsn,
        headLsn,
        cacheBytesMax: options.indexCacheBytesMax,
        memtableEntries: options.memtableEntries,
      },
      rebuildFromSegments(store, frames, options.memtableEntries),
    );
    for (const gap of index.gaps()) await index.fill(gap);
    const catalog = new CatalogBuilder(clipCatalog(state.catalog, headLsn));
    const feed = await feedTail(store, frames, index, catalog);
    const position = await positionOf(store, frames, mark.initial, catalog, headLsn);
    await mark.write(position);
    return new ReplicaGroup(host, options, lock, { store, index, mark, keeper, catalog, frames, feed, position });
  }

  /** The newest durable LSN: the newest point. */
  get headLsn(): Lsn {
    return this.#receiver.status().durable.durableLsn;
  }

  /** The oldest point. */
  get floorLsn(): Lsn {
    return this.#keeper.state.floorIntentLsn;
  }

  get catalog(): Catalog {
    return this.#catalog.snapshot();
  }

  /** Begins to receive. */
  start(source: FrameSource): void {
    this.#receiver.start(source);
  }

  onDurable(run: (lsn: Lsn) => void): () => void {
    return this.#receiver.onDurable(run);
  }

  /** Waits until what came has been taken and synced. */
  idle(): Promise<void> {
    return this.#receiver.idle();
  }

  openView(request: OpenViewRequest): GroupView {
    return this.views.open(request);
  }

  bookmarks(): readonly CatalogBookmark[] {
    return this.#catalog.snapshot().bookmarks;
  }

  /** The position a restore target stands for, and its neighbours in time. Throws `not-found`, `trimmed`. */
  async resolve(target: RestoreTarget): Promise<Choice> {
    const headLsn = this.headLsn;
    const floorLsn = this.floorLsn;
    return chooseTarget(target, {
      floorLsn,
      headLsn,
      epoch: this.#receiver.status().durable.epoch,
      bookmarks: this.bookmarks(),
      nowMicros: this.#host.clock.wallMicros(),
      lastAt: (time) => lastRecordAt(this.#store, this.#frames, time, floorLsn, headLsn),
      around: (lsn) => recordsAround(this.#store, this.#frames, lsn, floorLsn, headLsn),
    });
  }

  /** Writes per interval, bookmarks, gaps and other events. Microseconds; `toTime` is not included. */
  points(fromTime: JournalTime, toTime: JournalTime, intervalMicros: number): Promise<Timeline> {
    return timelineOf(
      this.#store,
      this.#frames,
      this.#catalog.snapshot(),
      this.headLsn,
      fromTime,
      toTime,
      intervalMicros,
    );
  }

  /** What retention would do now: for `--dry-run` and `points`. */
  retention(): RetentionDecision {
    const now = this.#store.segments.at(-1)?.lastTime ?? 0;
    return decideRetention(this.#store.segments, this.leases.list(), this.#options.policy, this.floorLsn, now);
  }

  /** Does what `retention` says; saves what was learnt meanwhile. The caller decides when. */
  async retain(): Promise<RetentionDecision> {
    const decision = this.retention();
    if (decision.floorLsn > this.floorLsn && decision.floorLsn <= this.headLsn)
      await this.#mover.move(decision.floorLsn);
    await this.saveCatalog();
    return decision;
  }

  /** Shortens the next start: the catalog as of the newest durable record. */
  async saveCatalog(): Promise<void> {
    const catalog = this.#catalog.snapshot();
    if (catalog.upToLsn === this.#savedCatalogAt) return;
    await this.#keeper.update(() => ({ catalog }));
    this.#savedCatalogAt = catalog.upToLsn;
  }

  /** Frames as they came, from the one that holds `fromLsn`, up to the newest durable one. */
  async *framesFrom(fromLsn: Lsn): AsyncGenerator<Uint8Array> {
    const release = this.leases.take(fromLsn, 'reader', 'frames for the source');
    try {
      const headLsn = this.headLsn;
      if (fromLsn > headLsn) return;
      await this.#store.find(fromLsn);
      for await (const frame of this.#store.frames(fromLsn, headLsn)) {
        const bytes = new Uint8Array(frame.bytes);
        await this.#store.read(frame.segment, frame.offset, bytes);
        yield bytes;
      }
    } finally {
      release();
    }
  }

  async status(): Promise<ReplicaGroupStatus> {
    const receiver = this.#receiver.status();
    const catalog = this.#catalog.snapshot();
    const state = this.#keeper.state;
    const segments = this.#store.segments;
    let baseBytes = 0;
    for (const base of this.#bases.values()) baseBytes += (await base).dataBytes;
    const wallMicros = this.#host.clock.wallMicros();
    return {
      groupId: this.#options.groupId,
      replica: this.#options.replica,
      floorLsn: this.floorLsn,
      floorTime: segments[0]?.firstTime ?? 0,
      headLsn: this.headLsn,
      headTime: segments.at(-1)?.lastTime ?? 0,
      windowMs: this.#options.policy.windowMs,
      segments: segments.length,
      segmentBytes: this.#store.bytes,
      baseBytes,
      index: { ...this.#index.status(), mergeFailure: this.#index.mergeFailure },
      spaceLevel: this.#space.level,
      freeBytes: this.#space.freeBytes,
      receiver,
      volumes: catalog.volumes.map((volume) => ({
        id: volume.id,
        name: volume.name,
        size: volume.sizes.at(-1)?.size ?? 0,
        unsettled: volume.unsettled.find((stretch) => stretch.toLsn === 0)?.reason ?? '',
      })),
      heartbeatAgeMs:
        catalog.heartbeat === undefined ? undefined : Math.max(0, (wallMicros - catalog.heartbeat.time) / 1000),
      views: this.views.list().map(({ id, lsn, owner }) => ({ id, lsn, owner })),
      leases: this.leases.list(),
      orphans: state.orphans,
      damage: state.damage,
    };
  }

  /** Stops receiving, closes views, saves, releases the directory. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#receiver.close();
    await this.views.closeAll();
    try {
      await this.saveCatalog();
      await this.#index.rotate(this.#feed.openFromLsn);
      await this.#index.settled();
      await this.#mark.sync();
    } catch (error) {
      // A full disk: the next start reads more of the segments, nothing is lost.
      if (!(error instanceof TidemarkError)) throw error;
    } finally {
      await this.#index.close();
      await this.#store.close();
      await this.#mark.close();
      for (const base of this.#bases.values()) await (await base).close();
      this.#lock.release();
    }
  }

  #base(volume: number): Promise<BaseImage> {
    let base = this.#bases.get(volume);
    if (base === undefined) {
      base = BaseImage.open(this.#host, `${this.#options.directory}/base`, volume);
      this.#bases.set(volume, base);
    }
    return base;
  }

  #usedBytes(): number {
    return this.#store.bytes + this.#index.status().runBytes;
  }
}

function freshState(groupId: string): ReplicaState {
  return {
    groupId,
    floorLsn: 0,
    floorIntentLsn: 0,
    oldestNeededLsn: 1,
    halt: undefined,
    orphans: [],
    damage: [],
    catalog: EMPTY_CATALOG,
  };
}

/** Reads again what neither index runs nor the saved catalog cover. */
async function feedTail(
  store: SegmentStore,
  frames: FrameReader,
  index: VersionIndex,
  catalog: CatalogBuilder,
): Promise<RecordFeed> {
  const from = Math.max(Math.min(index.feedFromLsn, catalog.upToLsn + 1), store.oldestLsn, 1);
  const feed = new RecordFeed(from - 1);
  for await (const frame of store.frames(from, store.lastLsn)) {
    const layout = await frames.layout(frame.segment, frame.offset);
    feed.feed(layout, frame.firstLsn, frame, index, index.durableLsn);
    if (frame.lastLsn > index.durableLsn) index.advance(frame.lastLsn);
    if (index.memtableFull) await index.rotate(feed.openFromLsn);
    if (frame.lastLsn <= catalog.upToLsn) continue;
    const notes = await controlNotes(layout, frame.firstLsn, async (i) => {
      const record = layout.record(i);
      const body = new Uint8Array(record.payloadBytes);
      await frames.read(frame.segment, frame.offset, record.payloadOffset, body);
      return body;
    });
    for (const note of notes) if (note.lsn > catalog.upToLsn) applyNote(catalog, note);
    catalog.advance(frame.lastLsn);
  }
  await index.settled();
  return feed;
}

/** Where receiving goes on. What the segments say wins over the mark, which may be one group behind. */
async function positionOf(
  store: SegmentStore,
  frames: FrameReader,
  mark: DurablePosition | undefined,
  catalog: CatalogBuilder,
  headLsn: Lsn,
): Promise<DurablePosition> {
  const heartbeatMs = catalog.heartbeat?.monotonicMs ?? 0;
  const resumeOffset = mark !== undefined && mark.durableLsn <= headLsn ? mark.resumeOffset : '';
  if (store.lastLsn === headLsn && headLsn > 0) {
    const ref = await store.find(headLsn);
    const { header } = await frames.layout(ref.segment, ref.offset);
    const seen = mark?.incarnation ?? NO_INCARNATION;
    return {
      durableLsn: headLsn,
      chain: chainString(header.chainAfter),
      epoch: Math.max(header.epoch, mark?.epoch ?? 0),
      incarnation: header.incarnation.counter >= seen.counter ? header.incarnation : seen,
      resumeOffset,
      heartbeatMs,
    };
  }
  if (mark !== undefined && mark.durableLsn === headLsn) return { ...mark, heartbeatMs };
  assert(headLsn === 0, 'a floor without segments has a mark');
  return {
    durableLsn: 0,
    chain: chainString(CHAIN_START),
    epoch: mark?.epoch ?? 0,
    incarnation: mark?.incarnation ?? NO_INCARNATION,
    resumeOffset,
    heartbeatMs,
  };
}
