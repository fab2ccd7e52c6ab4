import { crc32c } from '@node-rs/crc32';
import { hasCode, TidemarkError } from '../../journal/base/errors.ts';
import type { DiskFile } from '../../journal/host/host.ts';
import type { Lsn } from '../../journal/position.ts';
import { readFully, writeFully } from './file-io.ts';
import { DIRECTORY_ENTRY_BYTES, FrameDirectory } from './frame-directory.ts';
import { sealedFooter } from './sealed-footer.ts';
import { encodeSegmentFooter } from './segment-format.ts';
import type { SegmentInfo } from './segment-info.ts';
import { scanSegment } from './segment-recovery.ts';

/** The segment that is written: its frames end at `end`. */
export interface ActiveSegment {
  readonly file: DiskFile;
  readonly directory: FrameDirectory;
  end: number;
  /** Its last entry is damage found at the opening, and only the mark of that time says up to which LSN it goes. */
  readonly endedByMark?: boolean;
}

/** Writes directory and footer behind the frames. A failed write is taken back and thrown (`no-space`, `device-failed`). */
export async function sealSegment(active: ActiveSegment, info: SegmentInfo, openFromLsn: Lsn): Promise<SegmentInfo> {
  const directory = active.directory.bytes;
  const { firstLsn, firstTime, lastLsn, lastTime } = info;
  const footer = encodeSegmentFooter({
    directoryCrc: crc32c(directory),
    entries: active.directory.count,
    directoryOffset: active.end,
    firstLsn,
    lastLsn,
    openFromLsn,
    firstTime,
    lastTime,
  });
  try {
    await writeFully(active.file, Buffer.concat([directory, footer]), active.end);
  } catch (error) {
    active.file.truncate(active.end);
    throw error;
  }
  return { ...info, bytes: active.end + directory.length + footer.length, openFromLsn, sealed: true };
}

/**
 * The frame directory of a sealed segment. It says nothing that the frames do not say: where it is damaged, they are
 * read one by one, and what lies between whole frames, or behind the last one, counts as a frame that is damaged.
 */
export async function directoryOf(file: DiskFile, groupId: string, info: SegmentInfo): Promise<FrameDirectory> {
  try {
    return await readDirectory(file);
  } catch (error) {
    if (!hasCode(error, 'journal-damaged')) throw error;
  }
  // All of it is proven durable: nothing is written again.
  const { directory, end } = await scanSegment(file, groupId, info.firstLsn, {
    durableLsn: info.lastLsn,
    endLsn: info.lastLsn,
  });
  const last = directory.count === 0 ? undefined : directory.entry(directory.count - 1);
  const firstLsn = (last?.lastLsn ?? info.firstLsn - 1) + 1;
  if (firstLsn <= info.lastLsn) {
    directory.push({
      firstLsn,
      lastLsn: info.lastLsn,
      offset: end,
      bytes: Math.max(0, info.bytes - end),
      records: info.lastLsn - firstLsn + 1,
      guessed: true,
      firstTime: last?.lastTime ?? info.firstTime,
      lastTime: info.lastTime,
    });
  }
  return directory;
}

/** Throws `journal-damaged`. */
async function readDirectory(file: DiskFile): Promise<FrameDirectory> {
  const footer = await sealedFooter(file, file.path);
  if (footer === undefined) throw new TidemarkError('journal-damaged', `${file.path}: the footer is damaged`);
  const bytes = Buffer.alloc(footer.entries * DIRECTORY_ENTRY_BYTES);
  await readFully(file, bytes, footer.directoryOffset);
  if (crc32c(bytes) !== footer.directoryCrc) {
    throw new TidemarkError('journal-damaged', `${file.path}: the frame directory is damaged`);
  }
  const directory = new FrameDirectory(bytes);
  if (!directory.covers(footer.firstLsn, footer.lastLsn)) {
    throw new TidemarkError('journal-damaged', `${file.path}: footer and frame directory disagree`);
  }
  return directory;
}
