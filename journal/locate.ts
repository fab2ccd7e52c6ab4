import { TidemarkError } from './base/errors.ts';
import { BATCH_HEADER_BYTES } from './batch-codec.ts';
import type { BatchWindow } from './batch-window.ts';
import { FILE_HEADER_BYTES } from './journal-file-header.ts';
import type { JournalAddress, Lsn } from './position.ts';

/**
 * Address of the batch that holds the record, hopping from header to header from `from` on (a batch at or before it);
 * `end` when no batch does. Throws `journal-damaged` where a header on the way cannot be read.
 */
export function locate(
  window: BatchWindow,
  fileBytes: number,
  lsn: Lsn,
  from: JournalAddress,
  end: JournalAddress,
): JournalAddress {
  let address = from;
  while (address < end) {
    const fileStart = window.fileStart(address);
    const fileEnd = fileStart + fileBytes;
    if (address === fileStart) address += FILE_HEADER_BYTES;
    if (fileEnd - address < BATCH_HEADER_BYTES) {
      address = fileEnd;
      continue;
    }
    const header = window.header(address, Math.min(end, fileEnd));
    if (typeof header === 'string') {
      throw new TidemarkError('journal-damaged', `journal address ${address}: ${header}`, { details: { address } });
    }
    if (lsn < header.firstLsn + header.count) return address;
    address = header.closesFile ? fileEnd : header.nextAddress;
  }
  return end;
}
