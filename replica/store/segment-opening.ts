import { hasCode } from '../../journal/base/errors.ts';
import type { DiskFile, Host } from '../../journal/host/host.ts';
import type { Lsn } from '../../journal/position.ts';
import { entryAt } from './frame-directory.ts';
import type { Damage } from './replica-state.ts';
import { sealedFooter } from './sealed-footer.ts';
import { type ActiveSegment, sealSegment } from './sealed-segment.ts';
import {
  isTemporarySegmentName,
  parseSegmentName,
  SEGMENT_HEADER_BYTES,
  type SegmentFooter,
  segmentName,
} from './segment-format.ts';
import type { FrameRef, SegmentInfo } from './segment-info.ts';
import { beginBehind, beginOfSegment, beginsBehindGap, cutTail, scanSegment } from './segment-recovery.ts';

/** What lies in a directory of segments, recovered; the caller syncs `dirty`. */
export interface OpenedSegments {
  readonly segments: SegmentInfo[];
  readonly active: ActiveSegment | undefined;
  /** Written and not synced. */
  readonly dirty: Set<DiskFile>;
  readonly damage: Damage[];
  readonly holes: FrameRef[];
  readonly droppedBytes: number;
}

interface OpenSegmentsOptions {
  readonly directory: string;
  readonly groupId: string;
  readonly durableLsn: Lsn;
}

/** See `SegmentStore.open`. */
export async function openSegments(host: Host, options: OpenSegmentsOptions): Promise<OpenedSegments> {
  const opening = new SegmentOpening(host, options);
  host.disk.makeDirectory(options.directory);
  const names = host.disk.list(options.directory);
  for (const name of names) if (isTemporarySegmentName(name)) host.disk.unlink(`${options.directory}/${name}`);
  const sequences = names.map(parseSegmentName);
  const known = sequences.filter((sequence) => sequence !== undefined);
  for (const [i, sequence] of known.entries()) await opening.open(sequence, known[i + 1]);
  return opening;
}

class SegmentOpening implements OpenedSegments {
  readonly #host: Host;
  readonly #options: OpenSegmentsOptions;
  /** Of the segment opened last frames above the durable mark may be missing. */
  #endIsLost = false;
  readonly segments: SegmentInfo[] = [];
  active: ActiveSegment | undefined;
  readonly dirty: Set<DiskFile> = new Set();
  readonly damage: Damage[] = [];
  readonly holes: FrameRef[] = [];
  droppedBytes = 0;

  constructor(host: Host, options: OpenSegmentsOptions) {
    this.#host = host;
    this.#options = options;
  }

  get #lastLsn(): Lsn {
    return this.segments.at(-1)?.lastLsn ?? 0;
  }

  /** `following`: the sequence of the segment behind it; undefined for the newest. */
  async open(sequence: number, following: number | undefined): Promise<void> {
    const { durableLsn } = this.#options;
    const path = this.#path(sequence);
    const file = this.#host.disk.open(path, 'write');
    if (file.size() < SEGMENT_HEADER_BYTES) return this.#dropEmpty(file, path, 'shorter than its header');
    const footer = await sealedFooter(file, path);
    let firstLsn: Lsn;
    try {
      firstLsn = await beginOfSegment(file, { ...this.#options, sequence, heldLsn: this.#lastLsn, footer });
    } catch (error) {
      if (!hasCode(error, 'journal-damaged')) {
        await file.close();
        throw error;
      }
      return this.#dropEmpty(file, path, error.message);
    }
    const isBehindLoss = this.#endIsLost && firstLsn > this.#lastLsn + 1 && firstLsn > durableLsn;
    // A gap that the source declared is none of what was lost: what stands behind it may be kept.
    if (isBehindLoss && !(await beginsBehindGap(file, this.#lastLsn))) {
      // What it continues did not survive a power loss, and none of it was acknowledged.
      this.droppedBytes += file.size();
      this.#host.disk.unlink(path);
      return file.close();
    }
    // A footer that nobody proved durable may have reached the disk before the frames and the directory it speaks of.
    // The mark proves frames: of the segment that ends at the mark, the seal may have come later.
    if (footer !== undefined && footer.lastLsn < durableLsn) {
      const { lastLsn, firstTime, lastTime, openFromLsn } = footer;
      const bytes = file.size();
      this.segments.push({ sequence, firstLsn, lastLsn, bytes, firstTime, lastTime, openFromLsn, sealed: true });
      return file.close();
    }
    await this.#scan(file, sequence, firstLsn, footer, following);
  }

  async #scan(
    file: DiskFile,
    sequence: number,
    firstLsn: Lsn,
    footer: SegmentFooter | undefined,
    following: number | undefined,
  ): Promise<void> {
    const { groupId, durableLsn } = this.#options;
    const next =
      following === undefined ? undefined : await beginBehind(this.#host, this.#path(following), groupId, firstLsn);
    // A footer without proof tells what was written here, all the same.
    const lastWritten = next?.endLsn || footer?.lastLsn;
    const endLsn = Math.min(durableLsn, lastWritten ?? durableLsn);
    const scanned = await scanSegment(file, groupId, firstLsn, {
      durableLsn,
      endLsn: following !== undefined && lastWritten === undefined ? 0 : endLsn,
      followedBy: next?.firstLsn,
      framesEnd: footer?.directoryOffset,
    });
    const { directory, end, holes, endedByMark } = scanned;
    for (const offset of holes) this.holes.push({ segment: sequence, ...entryAt(directory, offset)! });
    const last = directory.count === 0 ? undefined : directory.entry(directory.count - 1);
    const lastLsn = last?.lastLsn ?? firstLsn - 1;
    const place = { directory: this.#options.directory, durableLsn: endLsn };
    const cut = await cutTail(this.#host, place, file, { sequence, lastLsn, ...scanned });
    if (cut.damage !== undefined) this.damage.push(cut.damage);
    this.droppedBytes += cut.droppedBytes;
    if (last === undefined && following === undefined && this.segments.length > 0 && firstLsn !== this.#lastLsn + 1) {
      // It holds nothing, and its header would stand for LSNs before it that are damaged.
      return this.#dropEmpty(file, file.path, `no frame at LSN ${firstLsn}`);
    }
    const isWhole = footer !== undefined && footer.lastLsn === lastLsn;
    this.#endIsLost = !isWhole;
    const active = { file, directory, end, endedByMark };
    const info = {
      sequence,
      firstLsn,
      lastLsn,
      bytes: end,
      firstTime: last === undefined ? 0 : directory.entry(0).firstTime,
      lastTime: last?.lastTime ?? 0,
      openFromLsn: firstLsn,
      sealed: false,
    };
    if (following === undefined) {
      this.active = active;
      this.dirty.add(file);
      this.segments.push(info);
    } else if (last === undefined) {
      // Its first frame never came to be: the next segment may begin elsewhere.
      this.#host.disk.unlink(file.path);
      await file.close();
    } else {
      // Its seal is not proven: seal again; how far back it was open, where nothing tells it, as far as before.
      const openFromLsn = isWhole ? footer.openFromLsn : (this.segments.at(-1)?.openFromLsn ?? firstLsn);
      this.dirty.add(file);
      this.segments.push(await sealSegment(active, info, openFromLsn));
    }
  }

  #path(sequence: number): string {
    return `${this.#options.directory}/${segmentName(sequence)}`;
  }

  async #dropEmpty(file: DiskFile, path: string, reason: string): Promise<void> {
    await file.close();
    this.#endIsLost = true;
    if (this.#lastLsn >= this.#options.durableLsn) return this.#host.disk.unlink(path);
    this.damage.push({ fromLsn: this.#lastLsn + 1, toLsn: this.#options.durableLsn, where: path, reason });
    this.#host.disk.rename(path, `${path}.damaged`);
  }
}
