import { crc32c } from '@node-rs/crc32';
import { hasCode, TidemarkError } from '../../journal/base/errors.ts';
import type { DiskFile } from '../../journal/host/host.ts';
import { readFully } from './file-io.ts';
import { DIRECTORY_ENTRY_BYTES, FrameDirectory } from './frame-directory.ts';
import { decodeSegmentFooter, SEGMENT_FOOTER_BYTES, SEGMENT_HEADER_BYTES } from './segment-format.ts';

/** The footer of a sealed segment; nothing when it is not sealed (whole). */
export async function sealedFooter(
  file: DiskFile,
  path: string,
): Promise<ReturnType<typeof decodeSegmentFooter> | undefined> {
  const size = file.size();
  if (size < SEGMENT_HEADER_BYTES + SEGMENT_FOOTER_BYTES) return undefined;
  const bytes = Buffer.alloc(SEGMENT_FOOTER_BYTES);
  await readFully(file, bytes, size - SEGMENT_FOOTER_BYTES);
  try {
    const footer = decodeSegmentFooter(bytes, path);
    const ends = footer.directoryOffset + footer.entries * DIRECTORY_ENTRY_BYTES + SEGMENT_FOOTER_BYTES;
    if (ends !== size || footer.entries === 0) return undefined;
    return footer;
  } catch (error) {
    if (!hasCode(error, 'journal-damaged')) throw error;
    return undefined;
  }
}

/** The frame directory of a sealed segment. Throws `journal-damaged`. */
export async function readDirectory(file: DiskFile): Promise<FrameDirectory> {
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
