import { hasCode, TidemarkError } from '../../journal/base/errors.ts';
import { FRAME_BYTES_MAX, FRAME_HEADER_BYTES, FRAME_RECORDS_MAX, readFrameHeader } from '../../journal/frame-codec.ts';
import { FrameView } from '../../journal/frame-view.ts';
import type { DiskFile, Host } from '../../journal/host/host.ts';
import type { JournalTime, Lsn } from '../../journal/position.ts';
import { declaresGap, gapBefore } from './declared-gap.ts';
import { readFully, writeFully } from './file-io.ts';
import { FrameDirectory } from './frame-directory.ts';
import type { Damage } from './replica-state.ts';
import {
  decodeSegmentHeader,
  encodeSegmentHeader,
  SEGMENT_HEADER_BYTES,
  type SegmentFooter,
  segmentBegins,
  segmentName,
} from './segment-format.ts';

const FRAME_MAGIC = 'TMF1';

export interface ScannedSegment {
  readonly directory: FrameDirectory;
  /** Entries of the directory that stand for damage between whole frames, by their offset. */
  readonly holes: readonly number[];
  /** Behind the last whole frame. */
  readonly end: number;
  /** Why the scan ended before the file did; empty when it did not. */
  readonly stoppedBy: string;
  /** The last entry is a hole, and nothing in the file tells the LSN it goes up to. */
  readonly endedByMark: boolean;
}

/** What is known of a segment from outside of its frames. */
export interface SegmentBounds {
  /** The newest LSN that was acknowledged, in whatever segment. */
  readonly durableLsn: Lsn;
  /** The newest LSN that was acknowledged and stands in this segment; 0: unknown. */
  readonly endLsn: Lsn;
  /** Where the segment behind this one begins; absent: none does, or it does not say. */
  readonly followedBy?: Lsn | undefined;
  /** Where its footer says that its frames end, bytes. */
  readonly framesEnd?: number | undefined;
}

/**
 * The first LSN of a segment behind records up to `heldLsn`. A header that is damaged is written again when proven
 * records stand behind it: the footer, or else the first frame, says the same. So is one that a proven footer
 * contradicts, as a misdirected write leaves it. One of a segment that begins above the durable mark is written again in
 * place; the caller syncs. Throws as `segmentBegins`.
 */
export async function beginOfSegment(
  file: DiskFile,
  place: {
    readonly groupId: string;
    readonly sequence: number;
    readonly heldLsn: Lsn;
    readonly durableLsn: Lsn;
    readonly footer: SegmentFooter | undefined;
  },
): Promise<Lsn> {
  const { groupId, sequence, heldLsn, durableLsn, footer } = place;
  const provenFooter = footer !== undefined && footer.lastLsn < durableLsn ? footer : undefined;
  const page = Buffer.alloc(SEGMENT_HEADER_BYTES);
  await readFully(file, page, 0);
  let isContradicted = false;
  try {
    const firstLsn = segmentBegins(page, file.path, groupId, heldLsn);
    isContradicted = provenFooter !== undefined && provenFooter.firstLsn !== firstLsn;
    if (isContradicted) {
      const said = `it begins at LSN ${firstLsn}, its footer says ${provenFooter?.firstLsn}`;
      throw new TidemarkError('journal-damaged', `${file.path}: ${said}`);
    }
    // Nothing proves it, as with the frames: after a failed sync the disk may not have it, and no later sync brings it.
    if (firstLsn > durableLsn) await writeFully(file, page, 0);
    return firstLsn;
  } catch (error) {
    if (!hasCode(error, 'journal-damaged') || (isWholeHeader(page) && !isContradicted)) throw error;
    const firstLsn = await beginByContent(file, groupId, heldLsn, footer);
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

/** By the footer and the header of the first frame, each under a checksum of its own; the frame itself may be damaged. */
async function beginByContent(
  file: DiskFile,
  groupId: string,
  heldLsn: Lsn,
  footer: SegmentFooter | undefined,
): Promise<Lsn | undefined> {
  const header = Buffer.alloc(FRAME_HEADER_BYTES);
  if (file.size() < SEGMENT_HEADER_BYTES + header.length) return undefined;
  await readFully(file, header, SEGMENT_HEADER_BYTES);
  const frame = headerOrNothing(header, groupId);
  const firstLsn = footer?.firstLsn ?? (frame === undefined ? 0 : Math.max(frame.firstLsn, heldLsn + 1));
  const fits = frame === undefined || (frame.firstLsn <= firstLsn && firstLsn < frame.firstLsn + frame.recordCount);
  return fits && firstLsn > heldLsn ? firstLsn : undefined;
}

/**
 * Reads an unsealed segment frame by frame and checks every byte of it. Frames whose last LSN is above `durableLsn`
 * are written again in place: they may be in the page cache only, and after a failed sync the cache may show what the
 * disk never took. The caller syncs. `endLsn` is the newest LSN that was acknowledged and stands in this segment: what
 * cannot be read at its end, in bytes that are there, is a hole up to there. Throws `format-too-new` as
 * `upgrade-replica-first`.
 */
export async function scanSegment(
  file: DiskFile,
  groupId: string,
  firstLsn: Lsn,
  bounds: SegmentBounds,
): Promise<ScannedSegment> {
  const { durableLsn, endLsn, followedBy = durableLsn + 1, framesEnd = 0 } = bounds;
  const directory = new FrameDirectory();
  const size = file.size();
  const buffer = Buffer.allocUnsafeSlow(Math.max(FRAME_HEADER_BYTES, Math.min(FRAME_BYTES_MAX, size)));
  let at = SEGMENT_HEADER_BYTES;
  let nextLsn = firstLsn;
  let stoppedBy = '';
  let endedByMark = false;
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
      endedByMark = false;
    } catch (error) {
      if (!(error instanceof TidemarkError) || error.code === 'upgrade-replica-first') throw error;
      if (!['frame-damaged', 'frame-foreign', 'gap', 'journal-damaged'].includes(error.code)) throw error;
      const where = { file, buffer, groupId, at, size, nextLsn };
      const behind =
        nextLsn > durableLsn
          ? undefined
          : ((await byOwnHeader(where, Math.min(durableLsn, followedBy - 1))) ??
            (await nextFrame(where, durableLsn, endLsn)) ??
            acknowledgedEnd(at, framesEnd > at ? framesEnd : size, nextLsn, endLsn));
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
        records: behind.records ?? behind.firstLsn - nextLsn,
        guessed: behind.records === undefined,
        firstTime: before?.lastTime ?? behind.time,
        lastTime: Math.max(before?.lastTime ?? 0, behind.time),
      });
      nextLsn = behind.firstLsn;
      at = behind.at;
      endedByMark = behind.byMark === true;
    }
  }
  return { directory, holes, end: at, stoppedBy, endedByMark };
}

/** Where damage ends: what goes on there, and how many records the damaged frame held when its header says so. */
interface Behind {
  readonly at: number;
  readonly firstLsn: Lsn;
  readonly time: JournalTime;
  readonly records?: number;
  /** The mark alone says so. */
  readonly byMark?: true;
}

interface DamagedPlace {
  readonly file: DiskFile;
  readonly buffer: Buffer;
  readonly groupId: string;
  readonly at: number;
  readonly size: number;
  readonly nextLsn: Lsn;
}

/**
 * The header is whole and only what stands behind it is damaged: then the hole is this frame, and no other. One that goes
 * beyond `endLsn` was cut there by an earlier start, and its last records have come again behind it.
 */
async function byOwnHeader(place: DamagedPlace, endLsn: Lsn): Promise<Behind | undefined> {
  const { file, buffer, groupId, at, size, nextLsn } = place;
  if (size - at < FRAME_HEADER_BYTES) return undefined;
  const bytes = buffer.subarray(0, FRAME_HEADER_BYTES);
  await readFully(file, bytes, at);
  const header = headerOrNothing(bytes, groupId);
  if (header === undefined) return undefined;
  const { firstLsn, recordCount, frameBytes, lastTime } = header;
  const lastLsn = firstLsn + recordCount - 1;
  if (firstLsn > nextLsn || lastLsn < nextLsn || lastLsn > endLsn || at + frameBytes > size) return undefined;
  return { at: at + frameBytes, firstLsn: lastLsn + 1, time: lastTime, records: recordCount };
}

function headerOrNothing(bytes: Uint8Array, groupId: string): ReturnType<typeof readFrameHeader> | undefined {
  try {
    const header = readFrameHeader(bytes);
    return header.groupId === groupId ? header : undefined;
  } catch (error) {
    if (!(error instanceof TidemarkError) || error.code === 'upgrade-replica-first') throw error;
    return undefined;
  }
}

/** As far as one frame can give it back, the end counts as a frame that is damaged; more than that has to come again. */
function acknowledgedEnd(at: number, size: number, nextLsn: Lsn, endLsn: Lsn): Behind | undefined {
  if (nextLsn > endLsn || size - at > FRAME_BYTES_MAX || endLsn - nextLsn >= FRAME_RECORDS_MAX) return undefined;
  return { at: size, firstLsn: endLsn + 1, time: 0, byMark: true };
}

/**
 * What was acknowledged and stands behind damage is kept: the next frame with a whole header, at most one frame's length
 * away. Where that one goes on above the durable mark, records between were never acknowledged: they are no hole but come
 * again, and it with them.
 */
async function nextFrame(
  { file, groupId, at, size, nextLsn }: DamagedPlace,
  durableLsn: Lsn,
  endLsn: Lsn,
): Promise<Behind | undefined> {
  const window = Buffer.alloc(Math.min(FRAME_BYTES_MAX + FRAME_HEADER_BYTES, size - at));
  await readFully(file, window, at);
  let unproven: Behind | undefined;
  for (
    let hit = window.indexOf(FRAME_MAGIC, 1, 'latin1');
    hit >= 0 && hit + FRAME_HEADER_BYTES <= window.length;
    hit = window.indexOf(FRAME_MAGIC, hit + 1, 'latin1')
  ) {
    const header = headerOrNothing(window.subarray(hit, hit + FRAME_HEADER_BYTES), groupId);
    if (header === undefined || header.firstLsn <= nextLsn || at + hit + header.frameBytes > size) continue;
    if (header.firstLsn <= durableLsn + 1) return { at: at + hit, firstLsn: header.firstLsn, time: header.firstTime };
    unproven ??= acknowledgedEnd(at, at + hit, nextLsn, endLsn);
  }
  return unproven;
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

/**
 * Where the segment behind the one that begins at `afterLsn` begins, by its header page, and the LSN up to which those
 * before it go: where it begins behind a gap that the source declared, its first frame tells. Nothing when it does not say.
 */
export async function beginBehind(
  host: Host,
  path: string,
  groupId: string,
  afterLsn: Lsn,
): Promise<{ readonly firstLsn: Lsn; readonly endLsn: Lsn } | undefined> {
  const file = host.disk.open(path, 'read');
  try {
    const page = Buffer.alloc(SEGMENT_HEADER_BYTES);
    await readFully(file, page, 0);
    const firstLsn = segmentBegins(page, path, groupId, afterLsn - 1);
    const frame = await firstFrame(file);
    return { firstLsn, endLsn: Math.min(firstLsn, (frame && gapBefore(frame)?.fromLsn) ?? firstLsn) - 1 };
  } catch (error) {
    if (!(error instanceof TidemarkError)) throw error;
    return undefined;
  } finally {
    await file.close();
  }
}

/** Whether a segment's first frame says that all records between `lastLsn` and it were given up by the source. */
export async function beginsBehindGap(file: DiskFile, lastLsn: Lsn): Promise<boolean> {
  const frame = await firstFrame(file);
  return frame !== undefined && declaresGap(frame, lastLsn);
}

async function firstFrame(file: DiskFile): Promise<FrameView | undefined> {
  const size = file.size();
  const buffer = Buffer.allocUnsafeSlow(Math.max(FRAME_HEADER_BYTES, Math.min(FRAME_BYTES_MAX, size)));
  try {
    return await readFrame(file, buffer, SEGMENT_HEADER_BYTES, size);
  } catch (error) {
    if (hasCode(error, 'frame-damaged') || hasCode(error, 'journal-damaged')) return undefined;
    throw error;
  }
}

/** Cuts what stands behind the last frame of a scanned segment; `durableLsn`: the newest that was acknowledged in it. What was acknowledged goes to `quarantine/` and has a name. */
export async function cutTail(
  host: Host,
  { directory, durableLsn }: { readonly directory: string; readonly durableLsn: Lsn },
  file: DiskFile,
  scanned: Pick<ScannedSegment, 'end' | 'stoppedBy'> & { readonly sequence: number; readonly lastLsn: Lsn },
): Promise<{ readonly damage?: Damage; readonly droppedBytes: number }> {
  const { end, stoppedBy, sequence, lastLsn } = scanned;
  const size = file.size();
  if (size <= end) return { droppedBytes: 0 };
  if (lastLsn >= durableLsn) {
    file.truncate(end);
    return { droppedBytes: size - end };
  }
  const where = await quarantineTail(host, directory, file, `${segmentName(sequence)}.${end}`, end, size);
  file.truncate(end);
  return { damage: { fromLsn: lastLsn + 1, toLsn: durableLsn, where, reason: stoppedBy }, droppedBytes: 0 };
}

/** Copies bytes [from, to) of a segment into `quarantine/`, so that nothing that was acknowledged is thrown away; returns the copy's path. */
async function quarantineTail(
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
