import { channel } from '../../journal/base/channels.ts';
import { TidemarkError } from '../../journal/base/errors.ts';
import type { BlockDevice } from '../../journal/block-device.ts';
import type { Host } from '../../journal/host/host.ts';
import { Journal } from '../../journal/journal.ts';
import type { Marks } from '../../journal/marks.ts';
import { RecordKind } from '../../journal/record.ts';
import { type BookmarkBody, encodeBookmark } from '../../journal/record-bodies.ts';
import { plainIdentity, writeStamp } from '../backing/backing-stamp.ts';
import type { NbdExport } from '../nbd/export.ts';
import { AckGate } from '../synchrony/ack-gate.ts';
import { DegreeKeeper } from '../synchrony/degree-keeper.ts';
import { DEGREE_TIMES, LOCAL_POLICY } from '../synchrony/degree-policy.ts';
import { ChangeMap } from './change-map.ts';
import { neededPlace, type WrittenOut } from './checkpoint.ts';
import { Destager, type DestageState } from './destager.ts';
import { GroupDetach } from './group-detach.ts';
import { admitVolumes, type OpenedVolume, type OpenedVolumes, recoverVolumes } from './group-open.ts';
import {
  DESTAGE_LAG_BYTES_MAX,
  DESTAGE_WINDOW_BYTES,
  FLUSH_AGE_MS,
  FLUSH_BYTES_MAX,
  type GroupOptions,
  HEARTBEAT_MS,
} from './group-options.ts';
import { GroupRetention } from './group-retention.ts';
import { GroupSeeding } from './group-seeding.ts';
import { groupState } from './group-state.ts';
import type { BookmarkPlaced, GroupState, GroupStatus, VolumeStatus } from './group-status.ts';
import { Heartbeats } from './heartbeats.ts';
import { GO_ON_BELOW } from './pacer.ts';
import type { ProtectedVolume, VolumeGroup } from './protected-volume.ts';
import { RemoteHold } from './remote-hold.ts';
import { SharedSync } from './shared-sync.ts';
import { HOLDER_PATIENCE, Throttle } from './throttle.ts';
import { UnreadableStretches } from './unreadable-stretches.ts';
import { VolumeExport } from './volume-export.ts';
import type { RegisteredVolume } from './volume-registry.ts';

const destageChannel = channel('tidemark:group:destage');

const BOOKMARK_NAME_LENGTH_MAX = 256;

/**
 * One protection group on its source: the journal, its volumes, and everything that moves their data on. Opening it
 * recovers what a crash left; see ARCHITECTURE.md for who advances which mark.
 */
export class ProtectedGroup {
  readonly journal: Journal;
  readonly #host: Host;
  readonly #options: GroupOptions;
  readonly #marks: Marks;
  readonly #syncs: SharedSync;
  readonly #throttle: Throttle;
  readonly #retention: GroupRetention;
  readonly #destager: Destager;
  readonly #opened: OpenedVolumes;
  readonly #changeMap: ChangeMap | undefined;
  readonly #unsubscribe: () => void;
  readonly #seeding: GroupSeeding;
  readonly #detaching: GroupDetach;
  readonly #remoteHold: RemoteHold;
  /** What guests' answers wait for beyond this host. */
  readonly degree: DegreeKeeper;
  /** What may not be read from the journal any more in this run. */
  readonly unreadable: UnreadableStretches;
  readonly #heartbeats: Heartbeats;
  #forgotten = 0;
  #closing: Promise<void> | undefined;

  /**
   * Recovers and opens. Rejects with what the journal's `open` and `begin` reject with, and `journal-damaged` (records
   * that a backing still needs cannot be read), `backing-changed`, `backing-not-empty`, `unsupported` (a resize),
   * `precondition-failed` (a volume of the journal is not among the options). Nothing stays open then but the backings.
   */
  static async open(host: Host, options: GroupOptions, marks: Marks): Promise<ProtectedGroup> {
    const needed = neededPlace(host, options.journal);
    const journal = await Journal.open(host, { ...options.journal, needed }, marks);
    try {
      return await openGroup(host, options, marks, journal);
    } catch (error) {
      await journal.close();
      throw error;
    }
  }

  /** Use `open`. */
  constructor(parts: GroupParts) {
    this.journal = parts.journal;
    this.#host = parts.host;
    this.#options = parts.options;
    this.#marks = parts.marks;
    this.#syncs = parts.syncs;
    this.#throttle = parts.throttle;
    this.#retention = parts.retention;
    this.#destager = parts.destager;
    this.#opened = parts.opened;
    this.#changeMap = parts.changeMap;
    this.#remoteHold = parts.remoteHold;
    this.degree = parts.degree;
    this.unreadable = parts.unreadable;
    this.#unsubscribe = parts.marks.onMove(() => this.#onMove());
    const { groupName } = parts.options.journal;
    this.#detaching = new GroupDetach({ ...parts, place: parts.options.journal });
    this.#seeding = new GroupSeeding(parts.host, groupName, parts.journal, parts.opened, parts.degree.gate, () =>
      this.drain(),
    );
    for (const opened of this.#opened.volumes) {
      if (opened.registered.standing === 'seeding') this.#seeding.start(opened);
      else opened.volume.open();
    }
    this.#onMove();
    const { options } = parts;
    this.#heartbeats = new Heartbeats(
      parts.host.clock,
      parts.journal,
      options.heartbeatMs ?? HEARTBEAT_MS,
      () => parts.degree.lease(),
      () => {
        parts.journal.measureRoom();
        // Nothing moves in a journal that failed: who waits for room is let go, and told by the next answer.
        parts.throttle.recheck();
      },
    );
    this.#heartbeats.start();
  }

  /** `remote`: for guests that did not go down with this host, kept out after a power loss (rule 12). */
  exports(where: 'local' | 'remote'): NbdExport[] {
    return this.#opened.volumes.map(({ volume }) => {
      const held = where === 'remote' ? () => this.#heldBecause() : () => undefined;
      return new VolumeExport(volume, held);
    });
  }

  /** Resolves when no volume is being seeded any more; rejects with why one could not be. */
  async seeded(): Promise<void> {
    await this.#seeding.finished();
  }

  /** Remote guests may go on after a power loss: the operator has seen to it that none relies on lost writes. */
  async release(): Promise<void> {
    await this.#remoteHold.release();
  }

  /** Names this moment. Resolves when the bookmark is durable, which is when its LSN may be told (rule 1). */
  async bookmark(
    name: string,
    kind: BookmarkBody['kind'],
    extra: { note?: string; labels?: Record<string, string> } = {},
  ): Promise<BookmarkPlaced> {
    if (name === '' || name.length > BOOKMARK_NAME_LENGTH_MAX) {
      throw new TidemarkError('invalid-argument', `a bookmark's name has 1 to ${BOOKMARK_NAME_LENGTH_MAX} characters`);
    }
    const appended = this.journal.append(RecordKind.bookmark, { body: encodeBookmark({ name, kind, ...extra }) });
    await this.#syncs.sync();
    return { lsn: appended.firstLsn, time: appended.time };
  }

  /**
   * Gives a volume's disk back as a plain disk: drained, synced, stamped (rule 8), and closed. Rejects with
   * `precondition-failed` while clients use it, `shutting-down`, and when its backing fails meanwhile; then it stays
   * protected.
   */
  detach(name: string): Promise<void> {
    return this.#detaching.detach(name);
  }

  /** Always rejects with `unsupported`: the size of a protected volume is fixed. */
  resize(name: string): Promise<never> {
    const why = `volume ${name}: resizing a protected volume is not supported; detach it, resize the disk, protect it anew`;
    return Promise.reject(new TidemarkError('unsupported', why));
  }

  /** Resolves when all that was written so far is synced in the backings. */
  async drain(): Promise<void> {
    await this.#syncs.sync();
    await this.#destager.drainTo(this.journal.lastLsn);
  }

  /** Where the next start would begin: a journal that is mended must go on beginning a batch there. */
  get writtenOut(): WrittenOut {
    return this.#destager.writtenOut;
  }

  status(): GroupStatus {
    const { journal } = this;
    const [state, reason] = this.#state();
    const givenUp = this.#retention.givenUp;
    return {
      name: this.#options.journal.groupName,
      state,
      reason,
      headLsn: journal.lastLsn,
      durableLsn: this.#marks.lsn('durable'),
      checkpointLsn: this.#marks.lsn('checkpoint'),
      journalUsedBytes: journal.usedBytes,
      journalFreeBytes: journal.freeBytes,
      pressure: this.#opened.pressure(),
      destage: this.#destager.state,
      destagedBytes: this.#destager.destagedBytes,
      clientsHeldBack: this.#throttle.heldBack,
      heldForRoom: this.#throttle.heldBack > 0 && this.#retention.pressure(true) >= GO_ON_BELOW,
      remoteHeld: this.#remoteHold.held,
      ...(givenUp === undefined ? {} : { givenUp }),
      degree: this.degree.status,
      volumes: this.#opened.volumes.map(({ volume, registered }) => volumeStatus(volume, registered)),
    };
  }

  /** Stops in order: no new writes, what is under way is answered, backings stamped, the journal marked clean. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    for (const { volume } of this.#opened.volumes) volume.shut('shutting-down', 'the source is stopping');
    this.#heartbeats.stop();
    await this.#seeding.stop();
    await this.#detaching.stop();
    await this.degree.stop();
    if (this.journal.poisonedBy === undefined) await this.#syncs.sync().catch(ignoreOperatingError);
    this.#unsubscribe();
    await this.#retention.stop();
    await this.#destager.stop();
    for (const opened of this.#opened.volumes) {
      // A stamp that cannot be written stays dirty, which only says less.
      await this.#stampClean(opened).catch(ignoreOperatingError);
      await opened.backing.close();
    }
    await this.#changeMap?.close();
    await this.journal.close();
  }

  async #stampClean({ volume, registered, backing }: OpenedVolume): Promise<void> {
    const isKnown = this.journal.poisonedBy === undefined && this.#destager.state.reason === '';
    if (!isKnown || registered.standing !== 'protected') return;
    const identity = (await backing.identity?.()) ?? plainIdentity(volume.size);
    const { lsn } = this.#destager.applied;
    await writeStamp(this.#host, this.#options.journal, volume.id, { state: 'clean', lsn, identity });
  }

  /** Overlays forget before files are recycled: what an overlay names must still be there. */
  #onMove(): void {
    const applied = this.#marks.address('applied');
    if (applied !== this.#forgotten) {
      this.#forgotten = applied;
      for (const { volume } of this.#opened.volumes) volume.forgetBelow(applied);
    }
    this.#retention.onMove();
    this.#throttle.recheck();
  }

  #heldBecause(): string | undefined {
    if (!this.#remoteHold.held) return undefined;
    return 'this host lost power: remote guests are kept out until the group is released';
  }

  #state(): [GroupState, string] {
    if (this.#closing !== undefined) return ['closed', ''];
    const seeding = this.#opened.volumes.filter(({ registered }) => registered.standing === 'seeding');
    const names = seeding.map(({ volume }) => volume.name);
    return groupState(this.journal.poisonedBy, this.#destager.state, this.#retention, names);
  }
}

/** What a group is made of; put together by `openGroup`. */
interface GroupParts {
  readonly host: Host;
  readonly options: GroupOptions;
  readonly marks: Marks;
  readonly journal: Journal;
  readonly syncs: SharedSync;
  readonly throttle: Throttle;
  readonly retention: GroupRetention;
  readonly destager: Destager;
  readonly opened: OpenedVolumes;
  readonly changeMap: ChangeMap | undefined;
  readonly remoteHold: RemoteHold;
  readonly degree: DegreeKeeper;
  readonly unreadable: UnreadableStretches;
}

/** The order matters: what is known is checked before anything is written, and replayed before anything is served. */
async function openGroup(host: Host, options: GroupOptions, marks: Marks, journal: Journal): Promise<ProtectedGroup> {
  const { groupName, fileBytes, budgetBytes } = options.journal;
  const opened: OpenedVolumes = recoverVolumes(host, options, marks, journal);
  const targets: ReadonlyMap<number, BlockDevice> = opened.targets;
  const destager = new Destager(host, journal, marks, targets, opened.writtenOut, {
    place: options.journal,
    windowBytes: options.destageWindowBytes ?? DESTAGE_WINDOW_BYTES,
    flushBytes: options.flushBytes ?? Math.min(FLUSH_BYTES_MAX, budgetBytes / 8),
    flushAgeMs: options.flushAgeMs ?? FLUSH_AGE_MS,
    pressure: () => opened.pressure(),
    lagBytesMax: Math.min(DESTAGE_LAG_BYTES_MAX, (budgetBytes * 3) / 8),
    // Only what is durable may stand in for it: of what a power loss takes away the older bytes have to be there.
    isOverwritten: ({ volume, sector, sectors, stamp }) =>
      opened.byId(volume)?.overlay.isNewer(sector, sector + sectors, stamp, marks.address('durable')) === true,
    onState: ({ state, reason, code, address }: DestageState) => {
      destageChannel.publish({ group: groupName, state, reason, code: code ?? '' });
      if (address !== undefined) options.onUnreadable?.(address);
    },
  });
  let changeMap: ChangeMap | undefined;
  try {
    const syncs = new SharedSync(journal);
    let retention: GroupRetention | undefined;
    const throttle = new Throttle(
      host.clock,
      {
        pressure: () => opened.pressure(),
        pressureWithoutOpen: () => opened.pressure(false),
        checkpoint: () => marks.address('checkpoint'),
        drained: () => retention?.releasedBelow ?? 0,
      },
      options.holderPatience ?? HOLDER_PATIENCE,
    );
    let requestId = 0;
    const unreadable = new UnreadableStretches();
    const gate = new AckGate(host.clock);
    const shared: VolumeGroup = {
      journal,
      unreadable,
      syncs,
      throttle,
      gate,
      nextRequestId: () => {
        requestId = (requestId % 0xffff_ffff) + 1;
        return requestId;
      },
      abandonRequest: (id) => {
        // A write that failed may stand in the journal whole, the closing record with it: the next start decides.
        if (journal.poisonedBy !== undefined) return;
        const incarnation = journal.incarnation?.counter ?? 0;
        destager.abandonRequest(id, { incarnation, lastLsn: journal.lastLsn });
      },
    };
    await opened.verify(shared);
    const policy = options.afterPowerLoss ?? 'hold-remote';
    const remoteHold = await RemoteHold.open(host, options.journal, journal.report, policy);
    // What the far side gives back becomes part of the journal, so it comes before the journal is replayed.
    const settled = await options.settle?.(journal, () => opened.seedAllAnew());
    opened.assertReadable();
    await journal.begin(settled);
    destager.start();
    await opened.replay((lsn) => destager.drainTo(lsn));
    await admitVolumes(options, journal, opened, shared);
    if (options.outOfRoom === 'stop-protecting') {
      changeMap = await ChangeMap.open(host, options.journal, opened.registry.all);
    }
    const { beforeGivingUp, outOfRoom } = options;
    const limits = { fileBytes, budgetBytes, outOfRoom };
    const calls = { beforeGivingUp, onGivenUp: () => throttle.recheck() };
    retention = new GroupRetention(journal, marks, { group: groupName, ...limits, changeMap, ...calls });
    opened.journalPressure = (openHolds) => retention?.pressure(openHolds) ?? 0;
    opened.hasRoomForSeed = (bytes) => retention?.hasRoomForSeed(bytes) ?? true;
    const { journal: place, degree: configured = LOCAL_POLICY, degreeTimes: times = DEGREE_TIMES } = options;
    const degree = await DegreeKeeper.open({ host, journal, place, group: groupName, gate, configured, times });
    return new ProtectedGroup({
      host,
      options,
      marks,
      journal,
      syncs,
      throttle,
      retention,
      destager,
      opened,
      changeMap,
      remoteHold,
      degree,
      unreadable,
    });
  } catch (error) {
    await destager.stop();
    await changeMap?.close();
    throw error;
  }
}

function volumeStatus(volume: ProtectedVolume, registered: RegisteredVolume): VolumeStatus {
  const { id, name, size, clients } = volume;
  const seeding = registered.standing === 'seeding';
  return {
    id,
    name,
    size,
    state: seeding ? 'seeding' : volume.refusal === undefined ? 'open' : 'shut',
    reason: volume.refusalReason,
    clients,
    overlayBytes: volume.overlay.bytes,
    ...(seeding ? { seededBytes: registered.seededBytes } : {}),
  };
}

function ignoreOperatingError(error: unknown): void {
  if (!(error instanceof TidemarkError)) throw error;
}
