import { TidemarkError } from '../journal/base/errors.ts';
import type { DirectoryLock, Host } from '../journal/host/host.ts';
import type { JournalTime, Lsn } from '../journal/position.ts';
import type { FrameSource } from '../journal/stream.ts';
import type { BaseImage } from './base/base-image.ts';
import { BaseImages } from './base/base-images.ts';
import { FloorMover } from './base/floor-mover.ts';
import { Leases } from './base/leases.ts';
import { decideRetention, type RetentionDecision } from './base/retention-policy.ts';
import type { Catalog, CatalogBookmark, CatalogBuilder } from './catalog/catalog.ts';
import type { VersionIndex } from './index/version-index.ts';
import { PromiseOfSource, type RpoClaim } from './receive/promise-of-source.ts';
import { Receiver } from './receive/receiver.ts';
import type { RecordFeed } from './receive/record-feed.ts';
import { SpaceWatch } from './receive/space-watch.ts';
import type { DamageBook } from './repair/damage-book.ts';
import { FrameRepair } from './repair/frame-repair.ts';
import type { ReplicaGroupStatus } from './replica-group-status.ts';
import type { ReplicaGroupOptions } from './replica-options.ts';
import { ignoreOperatingError, type RecoveredGroup, recoverGroup } from './replica-recovery.ts';
import { type Choice, chooseTarget, type RestoreTarget } from './restore/restore-target.ts';
import { type ApplyMode, StandbyImage } from './standby/standby-image.ts';
import { entryAt } from './store/frame-directory.ts';
import { DAMAGE, type FrameReader } from './store/frame-reader.ts';
import type { PositionMark } from './store/position-mark.ts';
import type { StateKeeper } from './store/replica-state.ts';
import type { SegmentStore } from './store/segment-store.ts';
import { lastRecordAt, recordsAround } from './timeline/time-lookup.ts';
import { type Timeline, timelineOf } from './timeline/timeline.ts';
import { HistoryReader } from './view/history-reader.ts';
import { type GroupView, type OpenViewRequest, ViewManager } from './view/view-manager.ts';

export { REPLICA_DEFAULTS, type ReplicaGroupOptions } from './replica-options.ts';

function ignoreDamage(error: unknown): void {
  if (!(error instanceof TidemarkError) || !DAMAGE.includes(error.code)) throw error;
}

/** All that a replica holds of one group: opens it, recovers it, receives into it, shows any point of it. */
export class ReplicaGroup {
  readonly #host: Host;
  readonly #options: ReplicaGroupOptions;
  readonly #lock: DirectoryLock;
  readonly #store: SegmentStore;
  readonly #index: VersionIndex;
  readonly #mark: PositionMark;
  readonly #keeper: StateKeeper;
  readonly #book: DamageBook;
  readonly #repair: FrameRepair;
  readonly #catalog: CatalogBuilder;
  readonly #frames: FrameReader;
  readonly #feed: RecordFeed;
  readonly #bases: BaseImages;
  readonly #space: SpaceWatch;
  readonly #promise: PromiseOfSource;
  readonly #receiver: Receiver;
  readonly #standby: StandbyImage | undefined;
  readonly #mover: FloorMover;
  readonly leases: Leases = new Leases();
  readonly history: HistoryReader;
  readonly views: ViewManager;
  #savedCatalogAt: Lsn;
  #retaining: Promise<RetentionDecision> | undefined;
  #closed = false;

  private constructor(host: Host, options: ReplicaGroupOptions, lock: DirectoryLock, opened: RecoveredGroup) {
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
    this.#bases = new BaseImages(host, { directory: `${options.directory}/base`, groupId: options.groupId });
    const base = (volume: number): Promise<BaseImage> => this.#bases.of(volume);
    this.#book = opened.book;
    this.history = new HistoryReader(opened.index, opened.frames, base, () => opened.book.unindexedFrom);
    opened.frames.onDamage = (segment, offset, reason) => void this.#damaged(segment, offset, reason);
    this.#repair = new FrameRepair(host, {
      groupId: options.groupId,
      directory: `${options.directory}/segments`,
      segmentBytes: options.segmentBytes,
      store: opened.store,
      frames: opened.frames,
      book: opened.book,
      repaired: opened.repaired,
      room: () => this.#space.freeBytes,
      durable: () => this.#receiver.status().durable,
      onReopen: () => options.onReopen?.(),
      onAsked: () => this.#receiver.tell(),
    });
    const usedBytes = (): number => this.#store.bytes + this.#index.status().runBytes;
    this.#space = new SpaceWatch(host, options.groupId, options.directory, options.reserveBytes, usedBytes);
    this.#mover = new FloorMover(host, {
      store: opened.store,
      frames: opened.frames,
      index: opened.index,
      catalog: opened.catalog,
      keeper: opened.keeper,
      leases: this.leases,
      book: opened.book,
      repaired: opened.repaired,
      base,
      refuseUncertain: (lsn) => this.history.refuseUncertain(lsn),
    });
    this.views = new ViewManager(
      host,
      {
        history: this.history,
        leases: this.leases,
        catalog: () => this.#catalog.snapshot(),
        range: () => ({ floorLsn: this.floorLsn, headLsn: this.headLsn }),
      },
      { scratchDirectory: `${options.directory}/scratch`, viewsMax: options.viewsMax },
    );
    this.#promise = new PromiseOfSource(host, options.replica, () => opened.catalog.promise);
    this.#receiver = new Receiver(
      host,
      {
        ...opened,
        space: this.#space,
        promise: this.#promise,
        appliedLsn: () => (options.apply === 'sync' ? this.#standby?.status.appliedLsn : undefined),
        framesFrom: (fromLsn) => this.framesFrom(fromLsn),
        damagedFrom: () => this.#repair.askingFrom,
      },
      opened.position,
      { ...options.receiver, replica: options.replica, groupId: options.groupId },
    );
    this.#standby = options.apply === 'off' ? undefined : this.#standbyOf(host, options, opened, options.apply);
  }

  /**
   * Opens the group's directory, made when it is missing, and recovers it. Throws `journal-locked`, `journal-foreign`,
   * `journal-damaged`, `format-too-new`.
   */
  static async open(host: Host, options: ReplicaGroupOptions): Promise<ReplicaGroup> {
    host.disk.makeDirectory(options.directory);
    const lock = host.disk.lockDirectory(options.directory);
    try {
      const group = new ReplicaGroup(host, options, lock, await recoverGroup(host, options));
      // what is damaged does not keep the rest from being shown: the move is done when it was put back
      await group.#resumeMove().catch(ignoreDamage);
      return group;
    } catch (error) {
      lock.release();
      throw error;
    }
  }

  /** The newest durable LSN: the newest point. */
  get headLsn(): Lsn {
    return this.#receiver.status().durable.durableLsn;
  }

  /** The oldest point. */
  get floorLsn(): Lsn {
    return Math.max(this.#keeper.state.floorIntentLsn, this.#mover.movingTo);
  }

  get catalog(): Catalog {
    return this.#catalog.snapshot();
  }

  /** What would be lost if the source were gone now. */
  get rpoClaim(): RpoClaim {
    return this.#promise.claim(this.headLsn, this.#book.open.length > 0);
  }

  /** Begins to receive. */
  start(source: FrameSource): void {
    this.#receiver.onDurable(() => this.#standby?.wake());
    this.#standby?.start();
    this.#receiver.onDurable((lsn) => void this.#book.arrived(lsn).catch(ignoreOperatingError));
    this.#receiver.start(source);
    this.#repair.start(source);
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
      [...this.#book.open, ...this.#book.gone],
      this.headLsn,
      fromTime,
      toTime,
      intervalMicros,
    );
  }

  /** What retention would do now: for `--dry-run` and `points`. */
  retention(): RetentionDecision {
    const { segments } = this.#store;
    const { heartbeat, unvouched } = this.#catalog;
    // What came after the newest heartbeat is vouched for by the next one.
    const now = heartbeat?.time ?? segments.at(-1)?.lastTime ?? 0;
    return decideRetention(segments, this.leases.list(), this.#options.policy, this.floorLsn, now, unvouched);
  }

  /** Does what `retention` says; saves what was learnt meanwhile. The caller decides when; two calls at once are one. */
  retain(): Promise<RetentionDecision> {
    this.#retaining ??= this.#retain().finally(() => {
      this.#retaining = undefined;
    });
    return this.#retaining;
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
        yield (await this.#frames.whole(frame)).bytes;
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
    const baseBytes = await this.#bases.dataBytes();
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
      standby: this.#standby?.status,
      leases: this.leases.list(),
      orphans: state.orphans,
      damage: state.damage.filter((damage) => !('repaired' in damage)),
      refusalOf: (fromLsn) => this.#repair.refusalOf(fromLsn),
    };
  }

  /** Stops receiving, closes views, saves, releases the directory. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#repair.close();
    // Nothing more is taken while what retention has begun is done to its end, which may take its time.
    await this.#receiver.close();
    await this.#standby?.close();
    await this.#retaining?.catch(() => undefined);
    await this.#repair.settled();
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
      await this.#bases.close();
      this.#lock.release();
    }
  }

  async #retain(): Promise<RetentionDecision> {
    const { floorLsn, floorIntentLsn } = this.#keeper.state;
    if (floorIntentLsn > floorLsn) await this.#resumeMove();
    const decision = this.retention();
    const certain = decision.floorLsn < (this.#book.unindexedFrom ?? Number.POSITIVE_INFINITY);
    if (certain && decision.floorLsn > this.floorLsn && decision.floorLsn <= this.headLsn) {
      await this.#mover.move(decision.floorLsn);
    }
    await this.saveCatalog();
    return decision;
  }

  async #resumeMove(): Promise<void> {
    const { floorIntentLsn } = this.#keeper.state;
    if (floorIntentLsn < (this.#book.unindexedFrom ?? Number.POSITIVE_INFINITY)) await this.#mover.resume();
  }

  async #damaged(segment: number, offset: number, reason: string): Promise<void> {
    const info = this.#store.segments.find(({ sequence }) => sequence === segment);
    if (info === undefined) return;
    try {
      const entry = entryAt(await this.#store.directory(info), offset);
      if (entry !== undefined) await this.#book.note({ segment, ...entry }, false, reason);
    } catch (error) {
      ignoreOperatingError(error);
    }
  }

  #standbyOf(host: Host, options: ReplicaGroupOptions, opened: RecoveredGroup, mode: ApplyMode): StandbyImage {
    const { groupId, directory, standbyTimes: times } = options;
    return new StandbyImage(host, {
      groupId,
      directory: `${directory}/standby`,
      mode,
      times,
      store: opened.store,
      frames: opened.frames,
      history: this.history,
      leases: this.leases,
      catalog: () => this.catalog,
      headLsn: () => this.headLsn,
      floorLsn: () => this.floorLsn,
      lostToLsn: () => Math.max(0, ...this.#keeper.state.damage.map(({ toLsn }) => toLsn)),
      openFromLsn: () => this.#receiver.status().openFromLsn,
      onApplied: () => {
        if (mode === 'sync' && this.#promise.waitsForApplied) this.#receiver.tell();
      },
    });
  }
}
