import { TidemarkError } from '../../journal/base/errors.ts';
import type { Host, Timer } from '../../journal/host/host.ts';
import type { Lsn } from '../../journal/position.ts';
import type { Leases } from '../base/leases.ts';
import type { Catalog } from '../catalog/catalog.ts';
import { replicaChannel } from '../replica-channels.ts';
import type { FrameReader } from '../store/frame-reader.ts';
import type { SegmentStore } from '../store/segment-store.ts';
import type { HistoryReader } from '../view/history-reader.ts';
import { OrderedEffects } from './ordered-effects.ts';
import { copyVolumes } from './standby-copy.ts';
import { StandbyFiles } from './standby-files.ts';
import { lacksFile, readStamp, type StandbyStamp, type StandbyState, writeStamp } from './standby-stamp.ts';

/** `sync`: what is durable is applied at once, and the source may wait for it; `async`: once a second. */
export type ApplyMode = 'async' | 'sync';

export interface StandbyTimes {
  /** Between two rounds of `async`, and between two stamps while writing goes on. */
  readonly roundMs: number;
  /** Without a write for so long: the position is stamped as exact. */
  readonly settleMs: number;
  /** After an error. */
  readonly retryMs: number;
}

export const STANDBY_TIMES: StandbyTimes = { roundMs: 1_000, settleMs: 500, retryMs: 1_000 };

export interface StandbyParts {
  readonly groupId: string;
  /** Of the files and the stamp; nobody else's. */
  readonly directory: string;
  readonly mode: ApplyMode;
  readonly times: StandbyTimes;
  readonly store: SegmentStore;
  readonly frames: FrameReader;
  readonly history: HistoryReader;
  readonly leases: Leases;
  readonly catalog: () => Catalog;
  readonly headLsn: () => Lsn;
  readonly floorLsn: () => Lsn;
  /** What was durable here, with files that are gone, went up to here; 0: nothing is gone. */
  readonly lostToLsn: () => Lsn;
  /** Where a request began that is open at the head; the LSN behind the head when none is. */
  readonly openFromLsn: () => Lsn;
  /** More was applied and synced. */
  readonly onApplied: () => void;
}

export interface StandbyStatus {
  readonly mode: ApplyMode;
  readonly directory: string;
  /** Undefined until the stamp was read. */
  readonly state: StandbyState | undefined;
  /** Why it stands still; empty while it does not. */
  readonly reason: string;
  /** Written to the files, synced. */
  readonly appliedLsn: Lsn;
  /** Written to the files. */
  readonly writtenLsn: Lsn;
  /** While copying: bytes of all volumes that are there. */
  readonly copiedBytes: number;
}

const stateChannel = replicaChannel('tidemark:replica:standby');

/**
 * Plain raw files that follow the head of a group's history, for who wants disks that boot without this software. Writes
 * go in the order in which they took effect, one at a time, so that a kill leaves the disks as they were at one position.
 * What a kill or a power loss leaves is a mixture once writing begins anew behind the last stamp: it is stamped so first,
 * and until everything up to the head of that moment was written again.
 */
export class StandbyImage {
  readonly #host: Host;
  readonly #parts: StandbyParts;
  #files: StandbyFiles;
  #effects: OrderedEffects | undefined;
  #stamp: StandbyStamp | undefined;
  #stampedMs = 0;
  #writtenMs = 0;
  #appliedLsn: Lsn = 0;
  #writtenLsn: Lsn = 0;
  #reason = '';
  #release: (() => void) | undefined;
  #wake: (() => void) | undefined;
  #timer: Timer | undefined;
  #running: Promise<void> | undefined;
  #closing = false;

  constructor(host: Host, parts: StandbyParts) {
    this.#host = host;
    this.#parts = parts;
    this.#files = new StandbyFiles(host, parts.directory);
  }

  /** Goes on until `close`. What the surroundings do is tried again; anything else rejects. */
  start(): void {
    this.#running ??= this.#run();
  }

  /** Rejects with a mistake of the program; resolves when it was closed. */
  get running(): Promise<void> {
    return this.#running ?? Promise.resolve();
  }

  /** There may be more to apply. */
  wake(): void {
    this.#wake?.();
  }

  get status(): StandbyStatus {
    const { directory, mode } = this.#parts;
    return {
      mode,
      directory,
      state: this.#stamp?.state,
      reason: this.#reason,
      appliedLsn: this.#appliedLsn,
      writtenLsn: this.#writtenLsn,
      copiedBytes: Object.values(this.#stamp?.copied ?? {}).reduce((sum, bytes) => sum + bytes, 0),
    };
  }

  /** Stops after the write under way; what was written is synced and its position stamped. */
  async close(): Promise<void> {
    this.#closing = true;
    this.wake();
    await this.#running;
    this.#release?.();
  }

  async #run(): Promise<void> {
    while (!this.#closing) {
      try {
        await this.#begin();
        this.#say('');
        await this.#follow();
        await this.#settle();
      } catch (error) {
        if (!(error instanceof TidemarkError)) throw error;
        this.#say(`${error.code}: ${error.message}${this.#wayOn(error.code)}`);
        if (!this.#closing) await this.#pause(this.#parts.times.retryMs);
      } finally {
        await this.#files.close();
        this.#files = new StandbyFiles(this.#host, this.#parts.directory);
        this.#effects = undefined;
      }
    }
  }

  /** From whatever stands in the directory to files that are the disks at one position. */
  async #begin(): Promise<void> {
    const { directory, groupId, store, frames } = this.#parts;
    this.#host.disk.makeDirectory(directory);
    this.#stamp = await readStamp(this.#host.disk, directory, groupId);
    // records that aged out meanwhile stand in the base; those of requests that were open at the floor are kept beside it
    if (this.#stamp !== undefined && this.#canGoOn(this.#stamp)) this.#hold(this.#stamp.lsn);
    else await this.#stampAnew();
    const began = this.#stamp?.state;
    if (this.#stamp?.state === 'copying') await this.#copy(this.#stamp);
    const { lsn, readFromLsn } = this.#stamp as StandbyStamp;
    this.#writtenLsn = lsn;
    this.#appliedLsn = lsn;
    this.#effects = new OrderedEffects(store, frames, readFromLsn, lsn);
    if (began === 'settled') return;
    // how far the run before came no stamp of a point says: as far as history that is gone since
    const wroteToLsn = began === 'applying' ? this.#parts.lostToLsn() : (this.#stamp?.settleToLsn ?? 0);
    const settleToLsn = Math.max(this.#parts.headLsn(), wroteToLsn);
    if (lsn < settleToLsn) {
      await this.#write({ state: 'settling', settleToLsn });
      await this.#applyTo(settleToLsn);
      await this.#files.sync();
      if (this.#writtenLsn < settleToLsn) {
        throw new TidemarkError('shutting-down', `records up to ${settleToLsn} are still to be applied`);
      }
    }
    this.#applied();
    await this.#write(this.#position('applying'));
  }

  #canGoOn(stamp: StandbyStamp): boolean {
    const { floorLsn, headLsn, directory } = this.#parts;
    // a copy goes on with blocks of the head: they are older than it where the newest history is gone
    const isBehind = stamp.state === 'copying' && stamp.lsn > headLsn();
    return stamp.lsn >= floorLsn() && !isBehind && !lacksFile(this.#host.disk, directory, stamp);
  }

  /** Nothing here can be gone on from. Files of volumes, all of which must be known, are begun again; no others touched. */
  async #stampAnew(): Promise<void> {
    const { directory } = this.#parts;
    const isOurs = this.#stamp !== undefined;
    this.#stamp = undefined;
    this.#writtenLsn = 0;
    this.#appliedLsn = 0;
    const lsn = this.#parts.headLsn();
    const readFromLsn = Math.min(this.#parts.openFromLsn(), lsn + 1);
    this.#hold(lsn);
    this.#parts.history.refuseUncertain(lsn);
    const volumes = this.#volumesAt(lsn);
    for (const { file } of isOurs ? [] : volumes) {
      if (!this.#host.disk.exists(`${directory}/${file}`)) continue;
      throw new TidemarkError('target-exists', `${directory}/${file} is there, and no stamp of ours: move it away`);
    }
    this.#stamp = {
      format: 1,
      groupId: this.#parts.groupId,
      state: 'copying',
      lsn,
      readFromLsn,
      settleToLsn: lsn,
      copied: {},
      bootId: this.#host.bootId,
      volumes,
    };
    await writeStamp(this.#host.disk, directory, this.#stamp);
  }

  /** Blocks of any position behind the stamp's will do: what was written since is written again. */
  async #copy(stamp: StandbyStamp): Promise<void> {
    const atLsn = this.#parts.headLsn();
    const settleToLsn = Math.max(atLsn, stamp.settleToLsn);
    // also when it is the same: the name of a stamp that was read may not be durable, and another calls the files a point
    await this.#write({ settleToLsn });
    await copyVolumes({
      files: this.#files,
      history: this.#parts.history,
      volumes: stamp.volumes,
      atLsn,
      copied: stamp.copied,
      isStopped: () => this.#closing,
      onProgress: async (copied) => {
        await this.#files.sync();
        await this.#write({ copied: { ...this.#stamp?.copied, ...copied } });
      },
    });
    await this.#files.sync();
    await this.#write({ state: 'settling', settleToLsn });
  }

  async #follow(): Promise<void> {
    const { mode, times } = this.#parts;
    while (!this.#closing) {
      const goal = this.#parts.headLsn();
      const hasMore = this.#writtenLsn < goal;
      if (hasMore) {
        await this.#applyTo(goal);
        await this.#files.sync();
        this.#applied();
      }
      // heartbeats come all the time and change no disk
      const isIdle = this.#nowMs - this.#writtenMs >= times.settleMs;
      const isDue = hasMore && this.#nowMs - this.#stampedMs >= times.roundMs;
      if (isIdle) await this.#settle();
      else if (isDue && this.#stamp?.state === 'applying') await this.#write(this.#position('applying'));
      if (mode === 'async') await this.#pause(times.roundMs);
      else await this.#pause(times.settleMs, true);
    }
  }

  async #applyTo(toLsn: Lsn): Promise<void> {
    const effects = this.#effects as OrderedEffects;
    const before = this.#stamp as StandbyStamp;
    // a kill leaves any position from the stamp's on: what is no point at one of them is called none before
    const volumes = this.#volumesAt(toLsn, before.lsn);
    const stamped = new Map(before.volumes.map(({ id, unsettled }) => [id, unsettled]));
    for (const volume of volumes) await this.#files.open(volume, stamped.has(volume.id));
    const isNews = volumes.some(({ id, unsettled }) => unsettled !== stamped.get(id));
    if (volumes.length !== before.volumes.length || (isNews && before.state === 'applying'))
      await this.#write({ volumes });
    const begun = { state: 'applying', bootId: this.#host.bootId, volumes } as const;
    let isReading = true;
    try {
      for await (const changes of effects.upTo(toLsn)) {
        isReading = false;
        for (const change of changes) {
          if (this.#stamp?.state === 'settled') await this.#write(begun);
          await this.#files.apply(change);
          this.#writtenMs = this.#nowMs;
          this.#writtenLsn = Math.max(this.#writtenLsn, change.lsn - 1);
        }
        this.#writtenLsn = Math.max(this.#writtenLsn, effects.lsn);
        isReading = true;
        // between two frames all that was open is known
        if (this.#closing) return;
      }
    } catch (error) {
      if (isReading && error instanceof TidemarkError) await this.#keepWritten();
      throw error;
    }
  }

  /**
   * What comes next cannot be read, perhaps for long: the image is stamped with what it holds, so that the tries that
   * follow do not write it again, nor call it a mixture for that.
   */
  async #keepWritten(): Promise<void> {
    await this.#files.sync();
    this.#applied();
    const { state, lsn, settleToLsn } = this.#stamp as StandbyStamp;
    if (state === 'applying') await this.#settle();
    else if (state === 'settling' && lsn < this.#appliedLsn) {
      await this.#write({ ...this.#position('settling'), settleToLsn });
    }
  }

  /** What was written is synced. */
  #applied(): void {
    if (this.#appliedLsn === this.#writtenLsn) return;
    this.#appliedLsn = this.#writtenLsn;
    this.#parts.onApplied();
  }

  /** The files are exactly the disks at the position that was written last. */
  async #settle(): Promise<void> {
    if (this.#stamp?.state !== 'applying') return;
    await this.#files.sync();
    this.#applied();
    await this.#write(this.#position('settled'));
  }

  #position(state: StandbyState): Partial<StandbyStamp> {
    const lsn = this.#appliedLsn;
    const readFromLsn = this.#effects?.readFromLsn ?? lsn + 1;
    const volumes = this.#volumesAt(lsn);
    return { state, lsn, readFromLsn, settleToLsn: 0, copied: {}, bootId: this.#host.bootId, volumes };
  }

  async #write(edit: Partial<StandbyStamp>): Promise<void> {
    const before = this.#stamp as StandbyStamp;
    const stamp = { ...before, ...edit };
    await writeStamp(this.#host.disk, this.#parts.directory, stamp);
    this.#stamp = stamp;
    this.#stampedMs = this.#nowMs;
    if (stamp.lsn !== before.lsn) this.#hold(stamp.lsn);
    if (stamp.state !== before.state) {
      stateChannel.publish({ group: this.#parts.groupId, state: stamp.state, lsn: stamp.lsn, reason: '' });
    }
  }

  /** The floor does not pass what is read next. */
  #hold(lsn: Lsn): void {
    const release = this.#parts.leases.take(lsn, 'reader', 'the standby image');
    this.#release?.();
    this.#release = release;
  }

  /** `unsettled`: at some position from `fromLsn` to `lsn`. What was said stays while what tells of it may be damaged. */
  #volumesAt(lsn: Lsn, fromLsn = lsn): StandbyStamp['volumes'] {
    const before = this.#stamp?.volumes ?? [];
    const told = this.#parts
      .catalog()
      .volumes.filter(({ addedLsn }) => addedLsn <= lsn)
      .map((volume) => {
        const { id, name, sizes, unsettled } = volume;
        const open = unsettled.find((one) => one.fromLsn <= lsn && (one.toLsn === 0 || fromLsn < one.toLsn));
        const said = this.#parts.history.isCertain(lsn) ? undefined : before.find((one) => one.id === id);
        const sizeBytes = sizes.at(-1)?.size ?? 0;
        return { id, name, file: `${name}.raw`, sizeBytes, unsettled: open?.reason ?? said?.unsettled ?? '' };
      });
    return [...told, ...before.filter(({ id }) => !told.some((one) => one.id === id))];
  }

  /** What a person does about history that cannot be read, beside waiting for it. */
  #wayOn(code: string): string {
    if (code !== 'frame-damaged' && code !== 'journal-damaged') return '';
    const { directory } = this.#parts;
    if (this.#effects !== undefined) {
      return `; needed behind LSN ${this.#effects.lsn}: when nobody has it any more, move ${directory} away, and the image is begun anew`;
    }
    return code === 'frame-damaged' ? '; needed for the copy: when nobody has it any more, seed a new replica' : '';
  }

  #say(reason: string): void {
    if (reason === this.#reason) return;
    this.#reason = reason;
    const { groupId: group } = this.#parts;
    stateChannel.publish({ group, state: this.#stamp?.state ?? '', lsn: this.#appliedLsn, reason });
  }

  get #nowMs(): number {
    return this.#host.clock.monotonicMs();
  }

  /** So long, or until there is something to do when `mayWake`. */
  #pause(ms: number, mayWake = false): Promise<void> {
    if (mayWake && this.#writtenLsn < this.#parts.headLsn()) return Promise.resolve();
    return new Promise((resolve) => {
      const end = (): void => {
        this.#timer?.cancel();
        this.#wake = undefined;
        resolve();
      };
      this.#timer = this.#host.clock.after(ms, end);
      this.#wake = (): void => {
        if (mayWake || this.#closing) end();
      };
      if (this.#closing) end();
    });
  }
}
