import { hasCode, TidemarkError } from '../../journal/base/errors.ts';
import { FRAME_BYTES_MAX, FRAME_HEADER_BYTES, readFrameHeader } from '../../journal/frame-codec.ts';
import { FrameView } from '../../journal/frame-view.ts';
import type { DiskFile, Host } from '../../journal/host/host.ts';
import type { JournalTime, Lsn } from '../../journal/position.ts';
import { readFully, writeFully } from './file-io.ts';
import { FrameDirectory } from './frame-directory.ts';
import { sealedFooter } from './sealed-segment.ts';
import { decodeSegmentHeader, encodeSegmentHeader, SEGMENT_HEADER_BYTES, segmentBegins } from './segment-format.ts';

const FRAME_MAGIC = 'TMF1';

export interface ScannedSegment {
  readonly directory: FrameDirectory;
  /** Entries of the directory that stand for damage between whole frames, by their offset. */
  readonly holes: readonly number[];
  /** Behind the last whole frame. */
  readonly end: number;
  /** Why the scan ended before the file did; empty when it did not. */
  readonly stoppedBy: string;
}

/**
 * The first LSN of a segment behind records up to `heldLsn`. A header that is damaged is written again when proven
 * records stand behind it: the footer, or else the first frame, says the same. Throws as `segmentBegins`.
 */
export async function beginOfSegment(
  file: DiskFile,
  place: {
    readonly groupId: string;
    readonly sequence: number;
    readonly heldLsn: Lsn;
    readonly durableLsn: Lsn;
  },
): Promise<Lsn> {
  const { groupId, sequence, heldLsn, durableLsn } = place;
  const page = Buffer.alloc(SEGMENT_HEADER_BYTES);
  await readFully(file, page, 0);
  try {
    return segmentBegins(page, file.path, groupId, heldLsn);
  } catch (error) {
    if (!hasCode(error, 'journal-damaged') || isWholeHeader(page)) throw error;
    const firstLsn = await beginByContent(file, groupId, heldLsn);
    if (firstLsn === undefined || firstLsn > durableLsn) throw error;
    await writeFully(file, encodeSegmentHeader({ groupId, sequence, firstLsn }), 0);
    await file.dataSync();
    return firstLsn;
  }
}

function isWholeHeader(page: Buffer): boolean {
  try {
    decodeSegmentHeader(page, '');
    return true;
  } catch {
    return false;
  }
}

async function beginByContent(file: DiskFile, groupId: string, heldLsn: Lsn): Promise<Lsn | undefined> {
  const size = file.size();
  const buffer = Buffer.allocUnsafeSlow(Math.max(FRAME_HEADER_BYTES, Math.min(FRAME_BYTES_MAX, size)));
  try {
    const frame = await readFrame(file, buffer, SEGMENT_HEADER_BYTES, size);
    const footer = await sealedFooter(file, file.path);
    const firstLsn = footer?.firstLsn ?? Math.max(frame.firstLsn, heldLsn + 1);
    const fits = frame.groupId === groupId && frame.firstLsn <= firstLsn && firstLsn <= frame.lastLsn;
    return fits && firstLsn > heldLsn ? firstLsn : undefined;
  } catch (error) {
    if (!hasCode(error, 'frame-damaged') && !hasCode(error, 'journal-damaged')) throw error;
    return undefined;
  }
}

/**
 * Reads an unsealed segment frame by frame and checks every byte of it. Frames whose last LSN is above `durableLsn`
 * are written again in place: they may be in the page cache only, and after a failed sync the cache may show what the
 * disk never took. The caller syncs. Throws `format-too-new` as `upgrade-replica-first`.
 */
export async function scanSegment(
  file: DiskFile,
  groupId: string,
  firstLsn: Lsn,
  durableLsn: Lsn,
): Promise<ScannedSegment> {
  const directory = new FrameDirectory();
  const size = file.size();
  const buffer = Buffer.allocUnsafeSlow(Math.max(FRAME_HEADER_BYTES, Math.min(FRAME_BYTES_MAX, size)));
  let at = SEGMENT_HEADER_BYTES;
  let nextLsn = firstLsn;
  let stoppedBy = '';
  const holes: number[] = [];
  while (at < size) {
    try {
      const frame = await readFrame(file, buffer, at, size);
      if (frame.groupId !== groupId) throw new TidemarkError('frame-foreign', `of group ${frame.groupId}`);
      if (frame.firstLsn > nextLsn || frame.lastLsn < nextLsn) {
        // A gap that the source declared begins a segment of its own, so inside one there is none.
        throw new TidemarkError('gap', `LSN ${frame.firstLsn} follows ${nextLsn - 1}`);
      }
      if (frame.lastLsn > durableLsn) await writeFully(file, frame.bytes, at);
      directory.push({
        firstLsn: nextLsn,
        lastLsn: frame.lastLsn,
        offset: at,
        bytes: frame.bytes.length,
        records: frame.recordCount,
        firstTime: frame.record(nextLsn - frame.firstLsn).time,
        lastTime: frame.lastTime,
      });
      nextLsn = frame.lastLsn + 1;
      at += frame.bytes.length;
    } catch (error) {
      if (!(error instanceof TidemarkError) || error.code === 'upgrade-replica-first') throw error;
      if (!['frame-damaged', 'frame-foreign', 'gap', 'journal-damaged'].includes(error.code)) throw error;
      const behind = nextLsn <= durableLsn ? await nextWholeFrame(file, buffer, groupId, at, size, nextLsn) : undefined;
      if (behind === undefined) {
        stoppedBy = `byte ${at} of ${file.path}: ${error.message}`;
        break;
      }
      const before = directory.count === 0 ? undefined : directory.entry(directory.count - 1);
      holes.push(at);
      directory.push({
        firstLsn: nextLsn,
        lastLsn: behind.firstLsn - 1,
        offset: at,
        bytes: behind.at - at,
        records: behind.firstLsn - nextLsn,
        firstTime: before?.lastTime ?? behind.time,
        lastTime: behind.time,
      });
      nextLsn = behind.firstLsn;
      at = behind.at;
    }
  }
  return { directory, holes, end: at, stoppedBy };
}

/** What was acknowledged and stands behind damage is kept: the next whole frame, at most one frame's length away. */
async function nextWholeFrame(
  file: DiskFile,
  buffer: Buffer,
  groupId: string,
  from: number,
  size: number,
  nextLsn: Lsn,
): Promise<{ readonly at: number; readonly firstLsn: Lsn; readonly time: JournalTime } | undefined> {
  const window = Buffer.alloc(Math.min(FRAME_BYTES_MAX + FRAME_HEADER_BYTES, size - from));
  await readFully(file, window, from);
  for (
    let hit = window.indexOf(FRAME_MAGIC, 1, 'latin1');
    hit >= 0;
    hit = window.indexOf(FRAME_MAGIC, hit + 1, 'latin1')
  ) {
    try {
      const frame = await readFrame(file, buffer, from + hit, size);
      if (frame.groupId !== groupId || frame.firstLsn <= nextLsn) continue;
      return { at: from + hit, firstLsn: frame.firstLsn, time: frame.firstTime };
    } catch (error) {
      if (!(error instanceof TidemarkError) || error.code === 'upgrade-replica-first') throw error;
    }
  }
  return undefined;
}

async function readFrame(file: DiskFile, buffer: Buffer, at: number, size: number): Promise<FrameView> {
  if (size - at < FRAME_HEADER_BYTES) throw new TidemarkError('frame-damaged', 'a frame header is cut off');
  const header = buffer.subarray(0, FRAME_HEADER_BYTES);
  await readFully(file, header, at);
  const { frameBytes } = readFrameHeader(header);
  if (frameBytes > size - at) throw new TidemarkError('frame-damaged', 'a frame is cut off');
  const bytes = buffer.subarray(0, frameBytes);
  await readFully(file, bytes, at);
  const frame = FrameView.open(bytes);
  frame.verifyChunks();
  return frame;
}

/** Copies bytes [from, to) of a segment into `quarantine/`, so that nothing that was acknowledged is thrown away; returns the copy's path. */
export async function quarantineTail(
  host: Host,
  directory: string,
  file: DiskFile,
  name: string,
  from: number,
  to: number,
): Promise<string> {
  const quarantine = `${directory}/quarantine`;
  host.disk.makeDirectory(quarantine);
  const path = `${quarantine}/${name}`;
  host.disk.unlink(path);
  const copy = host.disk.open(path, 'create');
  const buffer = Buffer.alloc(1024 * 1024);
  for (let at = from; at < to; at += buffer.length) {
    const part = buffer.subarray(0, Math.min(buffer.length, to - at));
    await readFully(file, part, at);
    await writeFully(copy, part, at - from);
  }
  await copy.dataSync();
  await copy.close();
  await host.disk.syncDirectory(quarantine);
  return path;
}
