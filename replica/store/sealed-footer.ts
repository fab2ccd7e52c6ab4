import { hasCode } from '../../journal/base/errors.ts';
import type { DiskFile } from '../../journal/host/host.ts';
import { readFully } from './file-io.ts';
import { DIRECTORY_ENTRY_BYTES } from './frame-directory.ts';
import {
  decodeSegmentFooter,
  SEGMENT_FOOTER_BYTES,
  SEGMENT_HEADER_BYTES,
  type SegmentFooter,
} from './segment-format.ts';

/** The footer of a sealed segment; nothing when it is not sealed (whole). */
export async function sealedFooter(file: DiskFile, path: string): Promise<SegmentFooter | undefined> {
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
