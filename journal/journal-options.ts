import { TidemarkError } from './base/errors.ts';
import type { NeededPlace } from './gone-files.ts';
import type { JournalTime, Lsn } from './position.ts';
import type { RecordKind } from './record.ts';

const FILE_GRANULE_BYTES: number = 64 * 1024;

export interface JournalOptions {
  readonly directory: string;
  /** 32 hex digits. */
  readonly groupId: string;
  readonly groupName: string;
  /** Bytes of one journal file, a multiple of 64 KiB; fixed for the life of a journal. */
  readonly fileBytes: number;
  /** Bytes all journal files together may take; at least three files. */
  readonly budgetBytes: number;
  /** A background fdatasync comes this long after a write that nobody synced. */
  readonly syncIntervalMs: number;
  /**
   * Where the disks go on: all from there on is looked at, and a file that is gone is damage, to be put back. Absent: nobody
   * needs anything.
   */
  readonly needed?: NeededPlace | undefined;
  /** Where the slowest replica goes on: a file from there on that is gone, or has no header, is damage, too. */
  readonly unshipped?: NeededPlace | undefined;
}

export interface AppendOptions {
  readonly volume?: number;
  /** A msgpack body (record-bodies.ts), or the payload of a seed block or write. */
  readonly body?: Uint8Array;
  readonly sector?: number;
  readonly sectors?: number;
  readonly flags?: number;
}

/** A record fetched back from the far side (invariant R4). */
export interface RestoredRecord {
  readonly lsn: Lsn;
  readonly kind: RecordKind;
  readonly flags: number;
  readonly volume: number;
  readonly sector: number;
  readonly sectors: number;
  readonly requestId: number;
  readonly time: JournalTime;
  readonly payload: Uint8Array;
}

/** Throws `invalid-argument` for options that no journal can have. */
export function checkOptions(options: JournalOptions): void {
  const { fileBytes, budgetBytes, groupId } = options;
  if (!/^[0-9a-f]{32}$/.test(groupId)) throw new TidemarkError('invalid-argument', 'a group id is 32 hex digits');
  if (!Number.isSafeInteger(fileBytes) || fileBytes <= 0 || fileBytes % FILE_GRANULE_BYTES !== 0) {
    throw new TidemarkError('invalid-argument', `journal files must be multiples of 64 KiB, not ${fileBytes} bytes`);
  }
  if (budgetBytes < 3 * fileBytes) {
    throw new TidemarkError('invalid-argument', `a journal budget of ${budgetBytes} bytes is less than three files`);
  }
}
