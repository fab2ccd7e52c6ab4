import type { Host } from './host/host.ts';
import type { JournalReader } from './journal-reader.ts';
import type { Marks } from './marks.ts';
import type { Epoch, JournalAddress, JournalTime, Lsn } from './position.ts';
import type { RecordKind } from './record.ts';
import type { RecoveryReport } from './recovery-report.ts';
import type { Incarnation } from './stream.ts';

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
}

export interface Appended {
  readonly firstLsn: Lsn;
  readonly lastLsn: Lsn;
  /** Of the first record header: header of record i lies at `address + (its offset in the slab - start)`. */
  readonly address: JournalAddress;
  /** Where the next batch begins. */
  readonly endAddress: JournalAddress;
  readonly time: JournalTime;
}

export interface AppendOptions {
  readonly volume?: number;
  /** A msgpack body, or the payload of a seed block. */
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

export declare class Journal {
  /**
   * Takes the directory's lock and recovers what is there, or makes an empty journal. Nothing may be appended before
   * `begin`. `marks` (a LocalMarks when left out) is advanced at `written` and `durable`; the rest is others'.
   */
  static open(host: Host, options: JournalOptions, marks?: Marks): Promise<Journal>;
  readonly report: RecoveryReport;
  readonly marks: Marks;
  /**
   * Puts back records that the far side holds and we lost, in order, from `report.lastLsn + 1` on; only before `begin`.
   * They are durable when `begin` returns.
   */
  restoreRecords(records: readonly RestoredRecord[]): void;
  /**
   * Starts a new incarnation: its record is durable when this resolves. Rejects with `needs-resync` (details: headLsn,
   * farLsn) when the far side holds more than we do: restore those records, or give the surplus up.
   */
  begin(settled?: { readonly highestLsn: Lsn }): Promise<Incarnation>;
  /**
   * Records laid out in [start, end) of the slab become a batch; the 64 bytes before `start` are overwritten by its
   * header, and what follows `end` up to 4 KiB may be written too. One synchronous write. `count`: records without PADs.
   * Throws `journal-full` (nothing happened, may be tried again) or `journal-poisoned`.
   */
  appendInPlace(slab: Buffer, start: number, end: number, count: number): Appended;
  /** One record: control records, seed blocks, zeroes. Control records may use the reserve when the budget is spent. */
  append(kind: RecordKind, options?: AppendOptions): Appended;
  /** All appended so far is durable; one fdatasync serves all waiters. Rejects `journal-poisoned`. */
  sync(): Promise<void>;
  /** The same, blocking: for a lone flush. */
  syncNow(): void;
  /** Payload bytes at an address, from the page cache. Throws `trimmed`. */
  readInto(address: JournalAddress, length: number, into: Uint8Array, offset: number): void;
  /** `from`: the address of a batch header, as `addressOf` or a mark gives it. */
  reader(from: JournalAddress): JournalReader;
  /** Address of the batch that holds the record; behind the last record: the end. Throws `trimmed`. */
  addressOf(lsn: Lsn): JournalAddress;
  /** Of the oldest record still held. */
  get oldestLsn(): Lsn;
  get oldestAddress(): JournalAddress;
  get lastLsn(): Lsn;
  get endAddress(): JournalAddress;
  get epoch(): Epoch;
  /** Of this run; undefined before `begin`. */
  get incarnation(): Incarnation | undefined;
  get usedBytes(): number;
  /** What may still be appended within the budget. */
  get freeBytes(): number;
  /** Why nothing can be appended any more: `no-space`, `short-write`, `device-failed` or `sync-failed`. */
  get poisonedBy(): string | undefined;
  /** Whole files below may be reused. */
  recycleBelow(address: JournalAddress): void;
  /** Ends the run; a clean stop is recorded unless the journal is poisoned. Idempotent. */
  close(): Promise<void>;
}
