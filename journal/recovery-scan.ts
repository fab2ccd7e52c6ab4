import { BATCH_HEADER_BYTES } from './batch-codec.ts';
import type { BatchView } from './batch-view.ts';
import { BatchWindow } from './batch-window.ts';
import type { FileReads } from './file-reads.ts';
import type { JournalFileHeader } from './journal-file-header.ts';
import type { JournalShape } from './journal-reader.ts';
import { LogWalk } from './log-walk.ts';
import { INDEX_STEP_BYTES } from './lsn-index.ts';
import type { Epoch, JournalAddress, JournalTime, Lsn } from './position.ts';
import { RecordKind } from './record.ts';
import { decodeIncarnation } from './record-bodies.ts';
import type { Incarnation } from './stream.ts';

/** Runs kept in memory at most: behind so many separate damages the rest is one damage. */
const RUNS_MAX = 4096;

interface LogNote {
  readonly lsn: Lsn;
  readonly address: JournalAddress;
}

/** An unbroken stretch of the log. */
export interface LogRun {
  from: JournalAddress;
  /** Behind the last batch: where the break is. */
  end: JournalAddress;
  firstLsn: Lsn;
  /** Of the record that would come next. */
  nextLsn: Lsn;
  /** Header crc of the last batch. */
  chain: number;
  incarnation: Incarnation;
  bootId: string;
  epoch: Epoch;
  time: JournalTime;
  /** Highest watermark in any of its headers. */
  durableLsn: Lsn;
  bytes: number;
  /** Sparse: LSN and address of a batch, the first of each file and one per MiB. */
  notes: LogNote[];
  /** Why it does not go on. */
  endReason: string;
}

export interface LogScan {
  /** In address order, at least one; every later one begins at or behind the LSN the one before ends with. */
  readonly runs: LogRun[];
  /** Whole batches between them that a later incarnation took the place of: what stood there had been cut. */
  readonly displaced: readonly LogRun[];
  /** Bytes of a batch at the very end that was begun and is not whole; 0: the log ends cleanly. */
  readonly tornBytes: number;
}

/**
 * Reads the log from the beginning of a file to `end` and finds every stretch that can still be read: behind a break it
 * looks at every place where a batch may begin. A batch counts when its own address and both crcs hold, its incarnation
 * is not older, and its LSNs lie behind what was read; an older incarnation is what a recycled or cut place still shows
 * (DESIGN rule 2). One pass, bounded memory.
 */
export function scanLog(reads: FileReads, shape: JournalShape, start: JournalFileHeader, end: JournalAddress): LogScan {
  const { fileBytes } = shape;
  const window = new BatchWindow(reads, fileBytes, shape.salt);
  const from = start.sequence * fileBytes;
  const walk = new LogWalk(reads, window, fileBytes, {
    address: from,
    chain: start.chain,
    nextLsn: start.firstLsn,
    incarnation: start.incarnation.counter,
  });
  let run: LogRun = {
    from,
    end: from,
    firstLsn: start.firstLsn,
    nextLsn: start.firstLsn,
    chain: start.chain,
    incarnation: start.incarnation,
    bootId: start.bootId,
    epoch: start.epoch,
    time: start.time,
    durableLsn: start.durableLsn,
    bytes: 0,
    notes: [],
    endReason: '',
  };
  const base = run;
  const runs = [run];
  const displaced: LogRun[] = [];
  while (true) {
    const step = walk.step(end);
    if (typeof step === 'object') {
      absorb(run, step, fileBytes);
      continue;
    }
    run.end = walk.address;
    run.endReason = step ?? 'the files end here';
    if (runs.length === RUNS_MAX) break;
    const last = run;
    const found = window.find(run.end, end, (header) => {
      if (header.firstLsn < base.nextLsn || header.incarnation < base.incarnation.counter) return false;
      if (header.incarnation > last.incarnation.counter) return true;
      return header.incarnation === last.incarnation.counter && header.firstLsn >= last.nextLsn;
    });
    if (found === undefined) break;
    // a later incarnation gave these LSNs anew: what stood there before it had been cut
    while (runs.length > 1 && (runs.at(-1)?.nextLsn ?? 0) > found.firstLsn) displaced.push(...runs.splice(-1));
    const before = runs.at(-1) ?? base;
    run = { ...before, from: found.address, firstLsn: found.firstLsn, durableLsn: 0, bytes: 0, notes: [] };
    runs.push(run);
    walk.take(found);
    absorb(run, found, fileBytes);
  }
  return { runs, displaced, tornBytes: tornBytes(window, run, end) };
}

function absorb(run: LogRun, batch: BatchView, fileBytes: number): void {
  const { header } = batch;
  run.nextLsn = header.firstLsn + header.count;
  run.chain = header.chain;
  run.epoch = header.epoch;
  run.time = Math.max(run.time, header.time);
  run.durableLsn = Math.max(run.durableLsn, header.durableLsn);
  run.bytes += BATCH_HEADER_BYTES + header.bodyBytes;
  const noted = run.notes.at(-1)?.address ?? -1;
  const newFile = Math.floor(noted / fileBytes) !== Math.floor(header.address / fileBytes);
  if (newFile || header.address - noted >= INDEX_STEP_BYTES) {
    run.notes.push({ lsn: header.firstLsn, address: header.address });
  }
  if (header.count !== 1 && header.incarnation === run.incarnation.counter) return;
  for (const record of batch) {
    if (record.kind !== RecordKind.incarnation) continue;
    const body = decodeIncarnation(record.payload);
    run.incarnation = { counter: body.counter, nonce: body.nonce };
    run.bootId = body.bootId;
  }
  if (run.incarnation.counter !== header.incarnation) {
    // its first record is lost in damage: the counter is all that is known
    run.incarnation = { counter: header.incarnation, nonce: '0'.repeat(16) };
  }
}

function tornBytes(window: BatchWindow, run: LogRun, end: JournalAddress): number {
  const header = window.header(run.end, end);
  if (typeof header === 'string') return header === 'the header crc is wrong' ? BATCH_HEADER_BYTES : 0;
  if (header.incarnation < run.incarnation.counter) return 0;
  return BATCH_HEADER_BYTES + header.bodyBytes;
}
