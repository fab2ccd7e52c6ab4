import { assert } from '../../journal/base/assert.ts';
import { hasCode, TidemarkError } from '../../journal/base/errors.ts';
import type { DiskFile, Host } from '../../journal/host/host.ts';
import type { JournalTime, Lsn } from '../../journal/position.ts';
import { readFully, writeFully } from './file-io.ts';
import { FrameDirectory } from './frame-directory.ts';
import type { Damage } from './replica-state.ts';
import { type ActiveSegment, directoryOf, sealSegment } from './sealed-segment.ts';
import { encodeSegmentHeader, SEGMENT_BYTES_MAX, SEGMENT_HEADER_BYTES, segmentName } from './segment-format.ts';
import type { AppendFrame, FrameRef, SegmentInfo } from './segment-info.ts';
import { type OpenedSegments, openSegments } from './segment-opening.ts';
import { evictOldest, SharedFile } from './shared-file.ts';

export interface SegmentStoreOptions {
  readonly directory: string;
  readonly groupId: string;
  /** A segment is sealed once it is this long. */
  readonly segmentBytes: number;
  /** Proven durable before: damage at or below is damage, above it is a torn tail. */
  readonly durableLsn: Lsn;
}

const OPEN_FILES_MAX = 64;
const DIRECTORIES_MAX = 64;

/** The replica's journal: frames as they came, in files of bounded size. One writer; any number of readers. */
export class SegmentStore {
  readonly #host: Host;
  readonly #options: SegmentStoreOptions;
  #segments: SegmentInfo[];
  #active: ActiveSegment | undefined;
  /** Written since the last sync: sealed files and the active one. */
  readonly #dirty: Set<DiskFile>;
  #directoryDirty = false;
  /** Readers' descriptors, least lately used first: never the writer's, which ends with its segment. */
  readonly #files = new Map<number, SharedFile>();
  readonly #directories = new Map<number, FrameDirectory>();
  readonly damage: readonly Damage[];
  /** Stretches between whole frames of a segment that was scanned at the opening; they count as frames. */
  readonly holes: readonly FrameRef[];
  /** Bytes above the durable mark that were cut off when the store was opened. */
  readonly droppedBytes: number;

  private constructor(host: Host, options: SegmentStoreOptions, opened: OpenedSegments) {
    assert(options.segmentBytes <= SEGMENT_BYTES_MAX, 'a segment stays below 4 GiB');
    this.#host = host;
    this.#options = options;
    this.#segments = opened.segments;
    this.#active = opened.active;
    this.#dirty = opened.dirty;
    this.damage = opened.damage;
    this.holes = opened.holes;
    this.droppedBytes = opened.droppedBytes;
  }

  /**
   * Opens what is there: footers of sealed segments are read, an unsealed one is scanned (segment-recovery.ts). What is
   * cut off at or below the durable mark goes to `quarantine/` and into `damage`. Throws `journal-foreign`,
   * `format-too-new`.
   */
  static async open(host: Host, options: SegmentStoreOptions): Promise<SegmentStore> {
    const store = new SegmentStore(host, options, await openSegments(host, options));
    // A start that was killed may have made the newest one: its name is not durable by being seen.
    store.#directoryDirty = true;
    await store.sync();
    return store;
  }

  get segments(): readonly SegmentInfo[] {
    return this.#segments;
  }

  /** The newest LSN held; 0 when empty. */
  get lastLsn(): Lsn {
    return this.#segments.at(-1)?.lastLsn ?? 0;
  }

  get oldestLsn(): Lsn {
    return this.#segments[0]?.firstLsn ?? 0;
  }

  get bytes(): number {
    return this.#segments.reduce((sum, segment) => sum + segment.bytes, 0);
  }

  /** Another frame would make the active segment longer than it should be. */
  get wantsSeal(): boolean {
    return this.#active !== undefined && this.#active.end >= this.#options.segmentBytes;
  }

  /**
   * Appends a frame verbatim; durable after the next `sync`. A failed or short write is taken back whole and thrown
   * (`no-space`, `device-failed`): the store stands where it stood.
   */
  async append(bytes: Uint8Array, frame: AppendFrame): Promise<{ segment: number; offset: number }> {
    const active = this.#active ?? (await this.#startSegment(frame));
    const offset = active.end;
    try {
      await writeFully(active.file, bytes, offset);
    } catch (error) {
      active.file.truncate(offset);
      throw error;
    }
    active.directory.push({ ...frame, offset, bytes: bytes.length });
    active.end += bytes.length;
    this.#dirty.add(active.file);
    const info = this.#segments.at(-1);
    assert(info !== undefined, 'an active segment is listed');
    this.#segments[this.#segments.length - 1] = {
      ...info,
      lastLsn: frame.lastLsn,
      bytes: active.end,
      firstTime: info.firstTime === 0 ? frame.firstTime : info.firstTime,
      lastTime: frame.lastTime,
    };
    return { segment: info.sequence, offset };
  }

  /** Ends the active segment; the next frame begins another. `openFromLsn`: see segment-format.ts. */
  async seal(openFromLsn: Lsn): Promise<void> {
    const active = this.#active;
    const info = this.#segments.at(-1);
    if (active === undefined || info === undefined) return;
    if (active.directory.count === 0) {
      // Its first frame never came to be: the next segment may begin elsewhere.
      this.#active = undefined;
      this.#dirty.delete(active.file);
      this.#segments.pop();
      this.#host.disk.unlink(this.#path(info.sequence));
      return active.file.close();
    }
    const sealed = await sealSegment(active, info, openFromLsn);
    // The list may be another one by now: retention removes segments beside this. The newest is the newest still.
    this.#segments[this.#segments.length - 1] = sealed;
    this.#directories.set(info.sequence, active.directory);
    this.#dirty.add(active.file);
    this.#active = undefined;
  }

  /** Everything appended before the call is durable when it resolves. `sync-failed` poisons the store's owner. */
  async sync(): Promise<void> {
    const files = [...this.#dirty];
    this.#dirty.clear();
    if (this.#directoryDirty) {
      this.#directoryDirty = false;
      await this.#host.disk.syncDirectory(this.#options.directory);
    }
    for (const file of files) {
      await file.dataSync();
      // A sealed segment is written no more; readers open it anew. What it got during this sync is the next one's.
      if (file !== this.#active?.file && !this.#dirty.has(file)) await file.close();
    }
  }

  /** The frame that holds `lsn`. Throws `trimmed` below what is held, `not-found` above. */
  async find(lsn: Lsn): Promise<FrameRef> {
    const info = this.#segmentAt((segment) => segment.lastLsn >= lsn);
    if (info === undefined)
      throw new TidemarkError('not-found', `LSN ${lsn} has not arrived, the newest is ${this.lastLsn}`);
    if (lsn < info.firstLsn)
      throw new TidemarkError('trimmed', `LSN ${lsn} is not held, the oldest is ${this.oldestLsn}`);
    const directory = await this.directory(info);
    return { segment: info.sequence, ...directory.entry(directory.atLsn(lsn)) };
  }

  /** The first frame whose last record is at or behind `time`; nothing when all history is older. */
  async findTime(time: JournalTime): Promise<FrameRef | undefined> {
    const info = this.#segmentAt((segment) => segment.lastTime >= time);
    if (info === undefined) return undefined;
    const directory = await this.directory(info);
    if (directory.count === 0) {
      throw new TidemarkError('journal-damaged', `${this.#path(info.sequence)}: nothing of its frames can be read`);
    }
    // No frame tells the time of a damaged end: that it is the one, its segment does.
    const index = Math.min(directory.atTime(time), directory.count - 1);
    return { segment: info.sequence, ...directory.entry(index) };
  }

  /** Frames that hold LSNs of [fromLsn, toLsn], in order. */
  async *frames(fromLsn: Lsn, toLsn: Lsn): AsyncGenerator<FrameRef> {
    let next = fromLsn;
    while (next <= toLsn) {
      const info = this.#segmentAt((segment) => segment.lastLsn >= next);
      if (info === undefined) return;
      const directory = await this.directory(info);
      if (directory.count === 0) return;
      for (let i = directory.atLsn(next); i < directory.count; i += 1) {
        const entry = directory.entry(i);
        if (entry.firstLsn > toLsn) return;
        yield { segment: info.sequence, ...entry };
        next = entry.lastLsn + 1;
      }
    }
  }

  async directory(info: SegmentInfo): Promise<FrameDirectory> {
    if (!info.sealed && this.#active !== undefined) return this.#active.directory;
    const cached = this.#directories.get(info.sequence);
    if (cached !== undefined) {
      this.#directories.delete(info.sequence);
      this.#directories.set(info.sequence, cached);
      return cached;
    }
    const { groupId } = this.#options;
    const directory = await this.#reading(info.sequence, (file) => directoryOf(file, groupId, info));
    this.#directories.set(info.sequence, directory);
    evictOldest(this.#directories, DIRECTORIES_MAX);
    return directory;
  }

  /** Bytes of a segment. Throws `trimmed` when it has gone below the floor, `journal-damaged` when it is gone otherwise. */
  async read(sequence: number, position: number, into: Uint8Array): Promise<void> {
    await this.#reading(sequence, (file) => readFully(file, into, position));
  }

  /** As `read` when the segment is open and the bytes are in memory; false: ask `read`. */
  readNow(sequence: number, position: number, into: Uint8Array): boolean {
    return this.#files.get(sequence)?.readNow(into, position) ?? false;
  }

  /** Deletes sealed segments whose every record is below `lsn`. */
  async removeBelow(lsn: Lsn): Promise<void> {
    const going = this.#segments.filter((segment) => segment.sealed && segment.lastLsn < lsn);
    if (going.length === 0) return;
    this.#segments = this.#segments.filter((segment) => !going.includes(segment));
    for (const { sequence } of going) {
      const shared = this.#files.get(sequence);
      this.#files.delete(sequence);
      this.#directories.delete(sequence);
      this.#host.disk.unlink(this.#path(sequence));
      await shared?.retire();
    }
    await this.#host.disk.syncDirectory(this.#options.directory);
  }

  async close(): Promise<void> {
    for (const shared of this.#files.values()) await shared.retire();
    this.#files.clear();
    for (const file of this.#dirty) await file.close();
    await this.#active?.file.close();
    this.#active = undefined;
  }

  #segmentAt(accept: (segment: SegmentInfo) => boolean): SegmentInfo | undefined {
    let low = 0;
    let high = this.#segments.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const segment = this.#segments[middle];
      if (segment !== undefined && accept(segment)) high = middle;
      else low = middle + 1;
    }
    return this.#segments[low];
  }

  async #reading<T>(sequence: number, use: (file: DiskFile) => Promise<T>): Promise<T> {
    let shared = this.#files.get(sequence);
    if (shared === undefined) {
      try {
        shared = new SharedFile(this.#host.disk.open(this.#path(sequence), 'read'));
      } catch (error) {
        if (hasCode(error, 'not-found')) {
          if (this.#segments.some((segment) => segment.sequence === sequence)) {
            throw new TidemarkError('journal-damaged', `segment ${sequence} is gone, and nobody removed it`);
          }
          throw new TidemarkError('trimmed', `segment ${sequence} is gone: the floor has moved past it`);
        }
        throw error;
      }
    }
    this.#files.delete(sequence);
    this.#files.set(sequence, shared);
    void evictOldest(this.#files, OPEN_FILES_MAX)?.retire();
    return shared.use((file) =>
      use(file).catch((error: unknown) => {
        // An error of the medium that passes is no damage; what is called so is asked for again from far away.
        if (!hasCode(error, 'device-failed')) throw error;
        return use(file);
      }),
    );
  }

  #path(sequence: number): string {
    return `${this.#options.directory}/${segmentName(sequence)}`;
  }

  async #startSegment(frame: AppendFrame): Promise<ActiveSegment> {
    const sequence = (this.#segments.at(-1)?.sequence ?? 0) + 1;
    const { groupId } = this.#options;
    // A leftover of a start that failed for want of space.
    this.#host.disk.unlink(this.#path(sequence));
    const file = this.#host.disk.open(this.#path(sequence), 'create');
    try {
      await writeFully(file, encodeSegmentHeader({ groupId, sequence, firstLsn: frame.firstLsn }), 0);
    } catch (error) {
      await file.close();
      this.#host.disk.unlink(this.#path(sequence));
      throw error;
    }
    this.#directoryDirty = true;
    this.#active = { file, directory: new FrameDirectory(), end: SEGMENT_HEADER_BYTES };
    this.#segments.push({
      sequence,
      firstLsn: frame.firstLsn,
      lastLsn: frame.firstLsn - 1,
      bytes: SEGMENT_HEADER_BYTES,
      firstTime: 0,
      lastTime: 0,
      openFromLsn: frame.firstLsn,
      sealed: false,
    });
    return this.#active;
  }
}
