import { crc32c } from '@node-rs/crc32';
import { BATCH_HEADER_BYTES, type BatchHeader } from './batch-codec.ts';
import type { BatchView } from './batch-view.ts';
import type { BatchWindow } from './batch-window.ts';
import type { FileReads } from './file-reads.ts';
import { FRAME_ENTRY_BYTES, writeEntry } from './frame-codec.ts';
import { FILE_HEADER_BYTES, type JournalFileHeader } from './journal-file-header.ts';
import { LogWalk } from './log-walk.ts';
import type { LsnIndex } from './lsn-index.ts';
import { type JournalAddress, type JournalTime, type Lsn, readU64 } from './position.ts';

/** Where the time stands in an entry of a frame's record list. */
const ENTRY_TIME_AT = 24;

/** A place inside a stretch where a batch, or a file, is known to have begun: what points there must go on holding. */
export interface StretchAnchor {
  /** Of the first record there. */
  readonly lsn: Lsn;
  readonly address: JournalAddress;
  /** Of a file header that is still whole: what the batch before it has to be called. */
  readonly chain?: number;
}

/** Records of the journal that cannot be read where they stand, and everything around them that still can. */
export interface DamagedStretch {
  readonly fromLsn: Lsn;
  /** Less than `fromLsn` when no record is lost (a watermark, the mark at a file's end). */
  readonly toLsn: Lsn;
  /** Where the damage begins. */
  readonly address: JournalAddress;
  /** Of the batch right before it, which is whole; absent before the oldest. */
  readonly previous?: JournalAddress;
  /** Where the log goes on. */
  readonly resumeAddress: JournalAddress;
  /** What the batch there names as the one before it. */
  readonly resumeChain: number;
  readonly reason: string;
  /** Of the last batch before it. */
  readonly chain: number;
  readonly incarnation: number;
  readonly time: JournalTime;
  /** In order. */
  readonly anchors: readonly StretchAnchor[];
  /** The header that stands at `address`, when only the body behind it is damaged. */
  readonly header?: BatchHeader;
  /** Entries (as in a frame's record list) of the records right before and behind. */
  readonly before?: Uint8Array;
  readonly after?: Uint8Array;
  /** Header of the file before the damage, for a file header that has to be written again. */
  readonly fileHeader?: JournalFileHeader;
}

export interface StretchSearch {
  readonly reads: FileReads;
  readonly window: BatchWindow;
  readonly fileBytes: number;
  readonly index: LsnIndex;
  readonly oldestAddress: JournalAddress;
  /** The journal's end: where the next batch goes, what it will name, and the newest record. */
  readonly end: { readonly address: JournalAddress; readonly chain: number; readonly lastLsn: Lsn };
  /** Beginnings of batches that others rely on. */
  readonly anchors: readonly StretchAnchor[];
}

/**
 * The damaged stretch that holds `near`, or lies behind it in the same run of batches; undefined when all reads well
 * there. Reads from the beginning of the file, at one go.
 */
export function findStretch(search: StretchSearch, near: JournalAddress): DamagedStretch | undefined {
  const { reads, window, fileBytes, index, oldestAddress, end } = search;
  window.forget();
  let start = window.fileStart(near);
  // what is broken there may be the border, between the last batch of the file before and the header of this one
  if (near <= start + FILE_HEADER_BYTES && start > oldestAddress) start -= fileBytes;
  while (start > oldestAddress && typeof reads.header(start / fileBytes) === 'string') start -= fileBytes;
  let sequence = start / fileBytes;
  let fileHeader = headerOf(reads, sequence);
  const nextLsn = index.firstLsnOf(start / fileBytes);
  const walk = new LogWalk(reads, window, fileBytes, { address: start, ...(nextLsn === undefined ? {} : { nextLsn }) });
  let last: JournalAddress | undefined;
  let previous: JournalAddress | undefined;
  for (;;) {
    const step = walk.step(end.address);
    if (step === undefined) return undefined;
    if (typeof step === 'object') {
      if (step.address > near) return undefined;
      if (step.header.count > 0) last = step.address;
      previous = step.address;
      const inFile = Math.floor(step.address / fileBytes);
      // once a file: it is a read of the disk, and batches may be as small as one sector's record
      if (inFile !== sequence) fileHeader = headerOf(reads, inFile) ?? fileHeader;
      sequence = inFile;
      continue;
    }
    const { address, incarnation, nextLsn = 1, time } = walk;
    const found = window.find(
      address,
      end.address,
      (header) => header.firstLsn >= nextLsn && header.incarnation >= incarnation,
    );
    const fromLsn = walk.nextLsn ?? beginOfEmpty(search, start, found?.address ?? end.address);
    // two whole batches at `near` that do not know each other are a stretch without bytes
    if (found !== undefined && found.address <= near && address < near) {
      walk.take(found);
      last = found.header.count > 0 ? found.address : undefined;
      previous = found.address;
      continue;
    }
    const after = found === undefined || found.header.count === 0 ? undefined : entryOf(found, 'first');
    const resume =
      found === undefined
        ? { resumeAddress: end.address, resumeChain: end.chain, toLsn: end.lastLsn }
        : { resumeAddress: found.address, resumeChain: found.header.previousCrc, toLsn: found.firstLsn - 1 };
    const header = window.header(address, end.address);
    const batch = last === undefined ? undefined : window.batch(last, end.address);
    const inside = { ...search, from: address, fromLsn, to: resume.resumeAddress, toLsn: resume.toLsn };
    return {
      fromLsn,
      ...resume,
      address,
      ...(previous === undefined ? {} : { previous }),
      reason: step,
      // before the oldest file stands nothing that has a name
      chain: walk.chain ?? resume.resumeChain,
      incarnation: Math.max(incarnation, fileHeader?.incarnation.counter ?? 0),
      // at the beginning of a file nothing was read before it, and the time must not go back
      time: Math.max(time, fileHeader?.time ?? 0),
      anchors: anchorsInside(inside),
      ...(typeof header === 'string' ? {} : { header }),
      ...(typeof batch === 'object' ? { before: entryOf(batch, 'last') } : {}),
      ...(after === undefined ? {} : { after }),
      ...(fileHeader === undefined ? {} : { fileHeader }),
    };
  }
}

/**
 * Nothing that can be read stands before `resumeAddress`, in one oldest file or more: what is lost there and matters
 * begins with what others rely on.
 */
function beginOfEmpty(
  { anchors, fileBytes }: StretchSearch,
  start: JournalAddress,
  resumeAddress: JournalAddress,
): Lsn {
  if (resumeAddress < start + fileBytes) return 1;
  const inside = anchors.filter(({ address }) => address >= start && address < resumeAddress);
  return inside.length === 0 ? 1 : Math.min(...inside.map(({ lsn }) => lsn));
}

function headerOf(reads: FileReads, sequence: number): JournalFileHeader | undefined {
  const header = reads.header(sequence);
  return typeof header === 'string' || header.sequence !== sequence ? undefined : header;
}

function anchorsInside(
  search: StretchSearch & { from: JournalAddress; fromLsn: Lsn; to: JournalAddress; toLsn: Lsn },
): StretchAnchor[] {
  const { reads, fileBytes, index, from, to, fromLsn, toLsn } = search;
  const byAddress = new Map<JournalAddress, StretchAnchor>();
  const add = (anchor: StretchAnchor): void => {
    const inside = anchor.address > from && anchor.address < to && anchor.lsn >= fromLsn && anchor.lsn <= toLsn + 1;
    // where no header fits readers go on by themselves
    const fits = fileBytes - (anchor.address % fileBytes) >= BATCH_HEADER_BYTES;
    if (inside && fits) byAddress.set(anchor.address, anchor);
  };
  for (const anchor of [...search.anchors, ...index.between(from, to)]) add(anchor);
  for (let start = Math.floor(from / fileBytes) * fileBytes; start < to; start += fileBytes) {
    const header = headerOf(reads, start / fileBytes);
    if (header !== undefined) add({ lsn: header.firstLsn, address: start, chain: header.chain });
  }
  return [...byAddress.values()].sort((one, other) => one.address - other.address);
}

/** The first or last record of a batch as an entry of a frame's record list. */
function entryOf(batch: BatchView, which: 'first' | 'last'): Uint8Array {
  let entry = new Uint8Array(0);
  for (const record of batch) {
    if (which === 'first' ? entry.length > 0 : record.lsn !== batch.lastLsn) continue;
    const { payload } = record;
    entry = recordEntry({ ...record, time: batch.time }, payload.length, payload.length === 0 ? 0 : crc32c(payload));
  }
  return entry;
}

/** When the record of such an entry was written, microseconds. */
export function entryTime(entry: Uint8Array): JournalTime {
  return readU64(new DataView(entry.buffer, entry.byteOffset), ENTRY_TIME_AT, 'time');
}

/** A record's 40 bytes in a frame's record list. */
export function recordEntry(
  fields: Parameters<typeof writeEntry>[2],
  payloadBytes: number,
  payloadCrc: number,
): Uint8Array<ArrayBuffer> {
  const entry = new Uint8Array(FRAME_ENTRY_BYTES);
  writeEntry(new DataView(entry.buffer), 0, fields, payloadBytes, payloadCrc);
  return entry;
}
