import { TidemarkError } from './base/errors.ts';
import type { FileReads } from './file-reads.ts';
import { FILE_HEADER_BYTES, writeHeaderBegin } from './journal-file-header.ts';
import type { StopMark } from './stop-mark.ts';

const READ_BYTES = 64 * 1024;

/**
 * Files without a single readable header are an unborn journal only when no record ever was in them: they hold nothing, or
 * the first file holds a part of its header and nothing else, for the write of it failed or was interrupted, and it is
 * durable before anything is written behind it. Throws `journal-damaged` for anything else.
 */
export function assertUnborn(
  sequences: readonly number[],
  stop: StopMark | undefined,
  { directory, groupId }: { readonly directory: string; readonly groupId: string },
  reads: FileReads,
): void {
  if (stop !== undefined && stop.lastLsn > 0) {
    throw new TidemarkError(
      'journal-damaged',
      `the journal files of ${directory} are gone; LSN ${stop.lastLsn} was written`,
    );
  }
  for (const sequence of sequences) {
    // The first file keeps its name as long as the log needs it; a later one begins behind records.
    const headerBytes = sequence === 0 && isPartOfHeader(reads, groupId) ? FILE_HEADER_BYTES : 0;
    if (isZero(reads, sequence, headerBytes, reads.size(sequence))) continue;
    throw new TidemarkError('journal-damaged', `no journal file in ${directory} has a readable header`);
  }
}

/** What stands there in whole is as in a header of this group. */
function isPartOfHeader(reads: FileReads, groupId: string): boolean {
  const found = new Uint8Array(FILE_HEADER_BYTES);
  reads.read(0, 0, found, 0, found.length);
  const expected = found.slice();
  writeHeaderBegin(expected, groupId);
  const length = found.findLastIndex((byte) => byte !== 0) + 1;
  return Buffer.compare(found.subarray(0, length), expected.subarray(0, length)) === 0;
}

function isZero(reads: FileReads, sequence: number, from: number, to: number): boolean {
  const bytes = new Uint8Array(Math.min(READ_BYTES, Math.max(0, to - from)));
  for (let at = from; at < to; at += bytes.length) {
    const length = reads.read(sequence, at, bytes, 0, Math.min(bytes.length, to - at));
    if (length === 0) return true;
    if (bytes.subarray(0, length).some((byte) => byte !== 0)) return false;
  }
  return true;
}
