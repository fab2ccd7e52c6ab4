import { assert } from '../../journal/base/assert.ts';
import { SECTOR_BYTES } from '../../journal/position.ts';
import { RECORD_HEADER_BYTES, RecordFlag, RecordKind, writePad, writeRecordHeader } from '../../journal/record.ts';
import { CommandFlag, type RequestWindow, WindowKind, WindowPart } from '../nbd/export.ts';

/** What one connection has open between two windows: a request whose last piece has not come yet. */
export interface OpenRequest {
  /** Request id of its pieces; 0: no request is open. */
  id: number;
}

/** Whether a volume has taken changes that no barrier record follows yet. */
export interface Barrier {
  changed: boolean;
}

/**
 * Makes journal records of a window's requests where they lie: each 28-byte NBD request header becomes a record header
 * of the same size, payloads stay where the socket read them, and what belongs to no modification becomes a PAD.
 *
 *   window:  | WRITE 28 | payload ... | READ 28 | WRITE 28 | payload ... | FLUSH 28 |
 *   journal: | WRITE 28 | payload ... |  PAD 28 | WRITE 28 | payload ... | FLUSH 28 |
 *
 * The first `skip` requests have failed already and become PADs too. Returns the number of records without PADs.
 * A flush becomes a record only when something changed since the barrier before it.
 */
export function layOutRecords(
  window: RequestWindow,
  skip: number,
  volumeId: number,
  open: OpenRequest,
  nextRequestId: () => number,
  barrier: Barrier,
): number {
  const { view, kind, part, flags, offset, length, headerAt } = window;
  let count = 0;
  let cursor = window.start;
  for (let index = 0; index < window.count; index++) {
    const what = kind[index]!;
    const at = headerAt[index]!;
    const bytes = length[index]!;
    const sector = offset[index]! / SECTOR_BYTES;
    if (at > cursor) writePad(view, cursor, at - cursor);
    cursor = at + RECORD_HEADER_BYTES + (what === WindowKind.write ? bytes : 0);
    if (index < skip || (bytes === 0 && what !== WindowKind.flush)) {
      writePad(view, at, cursor - at);
      continue;
    }
    switch (what) {
      case WindowKind.write: {
        let recordFlags = 0;
        let requestId = 0;
        if (part[index] !== WindowPart.whole) {
          if (open.id === 0) open.id = nextRequestId();
          requestId = open.id;
          recordFlags = RecordFlag.piece;
          if (part[index] === WindowPart.last) {
            recordFlags |= RecordFlag.closes;
            open.id = 0;
          }
        }
        writeRecordHeader(
          view,
          at,
          RecordKind.write,
          recordFlags,
          volumeId,
          bytes,
          sector,
          bytes / SECTOR_BYTES,
          requestId,
        );
        break;
      }
      case WindowKind.writeZeroes: {
        const noHole = (flags[index]! & CommandFlag.noHole) === 0 ? 0 : RecordFlag.noHole;
        writeRecordHeader(view, at, RecordKind.zero, noHole, volumeId, 0, sector, bytes / SECTOR_BYTES, 0);
        break;
      }
      case WindowKind.trim:
        writeRecordHeader(view, at, RecordKind.trim, 0, volumeId, 0, sector, bytes / SECTOR_BYTES, 0);
        break;
      default: {
        assert(what === WindowKind.flush, 'a window holds modifications only');
        if (!barrier.changed) {
          writePad(view, at, RECORD_HEADER_BYTES);
          continue;
        }
        writeRecordHeader(view, at, RecordKind.flush, 0, volumeId, 0, 0, 0, 0);
        barrier.changed = false;
        count++;
        continue;
      }
    }
    barrier.changed = true;
    count++;
  }
  if (window.end > cursor) writePad(view, cursor, window.end - cursor);
  return count;
}
