import type { BatchView } from './batch-view.ts';
import type { Host } from './host/host.ts';
import type { JournalAddress, Lsn } from './position.ts';

/** Where reading can go on behind damage. */
export interface SkippedDamage {
  readonly fromLsn: Lsn;
  readonly toLsn: Lsn;
  readonly resumeAddress: JournalAddress;
}

export interface JournalReaderOptions {
  readonly directory: string;
  /** 32 hex digits. */
  readonly groupId: string;
}

export declare class JournalReader {
  /** A reader of its own, for another thread: opens the files read-only. `from` is the address of a batch. */
  static open(host: Host, options: JournalReaderOptions, from: JournalAddress): JournalReader;
  /** The batch `next` would return begins at or behind this address. */
  get address(): JournalAddress;
  /**
   * The next batch with records that ends at or below `limit` (a mark), verified; undefined when there is none yet.
   * Throws `trimmed` when the place was recycled, `journal-damaged` (details: address) when it cannot be read.
   * Views and their payloads are valid until the next call.
   */
  next(limit: JournalAddress): BatchView | undefined;
  /** After `journal-damaged`: goes on at the next whole batch below `limit`, if there is one. */
  skipDamage(limit: JournalAddress): SkippedDamage | undefined;
  /** Goes to the batch at this address. */
  seek(address: JournalAddress): void;
  close(): Promise<void>;
}
