import { hasCode, TidemarkError } from './base/errors.ts';
import { BatchWindow, UNREADABLE } from './batch-window.ts';
import { findStretch, type StretchSearch } from './damaged-stretch.ts';
import { FileReads, journalFileName, listSequences } from './file-reads.ts';
import { goneFiles, type NeededPlace, standIn } from './gone-files.ts';
import type { Host } from './host/host.ts';
import { FILE_HEADER_BYTES, type JournalFileHeader } from './journal-file-header.ts';
import { LsnIndex } from './lsn-index.ts';
import { rewriteNoted } from './mending-note.ts';
import { type Epoch, type JournalAddress, type JournalTime, LSN_NONE, type Lsn } from './position.ts';
import type { DamagedRange, RecoveryReport } from './recovery-report.ts';
import { type LogRun, scanLog } from './recovery-scan.ts';
import { judge, type RecoveryVerdict } from './recovery-verdict.ts';
import { clearCut, rewriteUnproven } from './rewrite-tail.ts';
import { readStopMark, type StopMark, writeStopMark } from './stop-mark.ts';
import type { Incarnation } from './stream.ts';
import { assertUnborn } from './unborn-journal.ts';

/*
 * How a journal is recovered, every step repeatable after a kill at any point (invariant R6):
 *   1. read every file header; refuse what is foreign or newer and leave it untouched
 *   2. begin at the newest file before which everything is proven durable and nothing is needed: what is older needs no
 *      looking at
 *   3. read on from there, find every whole batch, tell torn tail from damage (recovery-verdict.ts)
 *   4. make files behind a cut unused, and whole batches that nothing will be written over, so that they are never
 *      believed again; what only they prove is kept first
 *   5. write everything unproven again from checked bytes and sync it (the page cache may lie after a failed sync)
 *   6. write what a repair had put back and perhaps not synced once more (mending-note.ts)
 * Nothing is given a new LSN before all of it is done.
 */

export interface RecoveredLog {
  readonly salt: number;
  /** Where the next batch goes: in a file, or at the start of one that is still to be begun. */
  readonly endAddress: JournalAddress;
  readonly chain: number;
  readonly time: JournalTime;
  readonly epoch: Epoch;
  /** Files that hold the log, ascending; everything else in the directory is spare. */
  readonly sequences: readonly number[];
  readonly spareSequences: readonly number[];
  readonly index: LsnIndex;
  /** The newest run that is known to have begun, also when nothing else is left of it; zeroes for a nonce that is lost. */
  readonly begun: Incarnation;
  readonly report: RecoveryReport;
}

export interface RecoveryOptions {
  readonly directory: string;
  readonly groupId: string;
  readonly fileBytes: number;
  readonly needed?: NeededPlace | undefined;
  readonly unshipped?: NeededPlace | undefined;
}

const NO_INCARNATION: Incarnation = { counter: 0, nonce: '0'.repeat(16) };

/** Recovers the journal in the directory; undefined when there is none yet. */
export async function recoverLog(host: Host, options: RecoveryOptions): Promise<RecoveredLog | undefined> {
  const reads = new FileReads(host.disk, options.directory);
  try {
    const files = readHeaders(host, reads, options);
    await standIn(host, options, files.gone);
    const stop = await readStopMark(host.disk, options.directory);
    if (stop !== undefined && stop.groupId !== options.groupId) throw foreign(options.directory, stop.groupId);
    if (files.live.length === 0) {
      assertUnborn(files.sequences, stop, options, reads);
      return undefined;
    }
    return await recoverFiles(host, options, reads, files, stop);
  } finally {
    await reads.close();
  }
}

interface FoundFiles {
  readonly sequences: readonly number[];
  /** The log holds no file below this. */
  readonly oldest: number;
  /** Those of `sequences` that are not there. */
  readonly gone: readonly number[];
  /** Files that were begun, ascending. */
  readonly live: readonly JournalFileHeader[];
}

function readHeaders(host: Host, reads: FileReads, options: RecoveryOptions): FoundFiles {
  const sequences = listSequences(host.disk, options.directory);
  const live: JournalFileHeader[] = [];
  for (const sequence of sequences) {
    const header = reads.header(sequence);
    if (typeof header === 'string') continue;
    if (header.groupId !== options.groupId) throw foreign(options.directory, header.groupId);
    if (header.fileBytes !== options.fileBytes) {
      throw new TidemarkError(
        'precondition-failed',
        `the journal in ${options.directory} has files of ${header.fileBytes} bytes, not ${options.fileBytes}`,
      );
    }
    if (header.sequence === sequence) live.push(header);
  }
  // a removal that did not become durable leaves an old file behind a gap: it belongs to the log no more
  const newest = live.at(-1)?.sequence ?? 0;
  let oldest = newest;
  while (sequences.includes(oldest - 1)) oldest--;
  // ... but not what the disks or a replica still need: of that every file was there
  const needed = Math.min(oldest, ...placesOf(options).map(({ address }) => Math.floor(address / options.fileBytes)));
  const gone = goneFiles(sequences, { needed, oldest, newest });
  if (gone.length > 0) oldest = needed;
  const all = [...sequences, ...gone].sort((one, other) => one - other);
  return { sequences: all, oldest, gone, live: live.filter((header) => header.sequence >= oldest) };
}

async function recoverFiles(
  host: Host,
  options: RecoveryOptions,
  reads: FileReads,
  files: FoundFiles,
  stop: StopMark | undefined,
): Promise<RecoveredLog> {
  const { fileBytes } = options;
  const witnessed = Math.max(stop?.lastLsn ?? 0, ...files.live.map((header) => header.durableLsn));
  const newest = files.live.at(-1);
  const neededFrom = options.needed?.address ?? Number.POSITIVE_INFINITY;
  // a durable record of a file proves the mark that leads to it, too
  const isOld = ({ firstLsn, sequence }: JournalFileHeader): boolean =>
    firstLsn <= witnessed && sequence * fileBytes <= neededFrom;
  const start = files.live.findLast(isOld) ?? files.live[0];
  if (newest === undefined || start === undefined) throw new TidemarkError('journal-damaged', 'no journal file');
  // the file behind the newest may have been begun without its header having reached the disk
  const scanEnd = (newest.sequence + 2) * fileBytes;
  const scan = scanLog(reads, newest, start, scanEnd);
  const verdict = judge(scan, witnessed, host.bootId, fileBytes);
  const last = verdict.kept.at(-1);
  if (last === undefined) throw new TidemarkError('journal-damaged', 'the journal has no readable stretch');
  const furthest = scan.runs.at(-1) ?? last;
  const endAddress = verdict.endDamaged ? untouchedFile(reads, newest.sequence, furthest, fileBytes) : last.end;
  const tailSequence = Math.floor(endAddress / fileBytes);
  const proof = { ...options, lastLsn: verdict.provenLsn, incarnation: last.incarnation };
  const isWitnessAtRisk = verdict.damage.length > 0 || files.live.some(({ sequence }) => sequence > tailSequence);
  const isProofKept = verdict.provenLsn <= (stop?.lastLsn ?? 0) || (isWitnessAtRisk && (await keepProof(host, proof)));
  const window = new BatchWindow(reads, fileBytes, newest.salt);
  const runs = verdict.endDamaged ? [...scan.displaced, ...verdict.dropped] : scan.displaced;
  const isUnreadableEnd = last.endReason === UNREADABLE && last.nextLsn > verdict.provenLsn;
  const unreadable = isUnreadableEnd ? last.end : undefined;
  // a journal without room for the proof keeps what else tells of it
  await clearCut(host, options.directory, fileBytes, window, { runs: isProofKept ? runs : [], unreadable });
  const isCut = ({ sequence, firstLsn }: JournalFileHeader): boolean =>
    sequence > tailSequence || (isProofKept && verdict.endDamaged && firstLsn > verdict.lastLsn + 1);
  await wipeHeaders(host, options.directory, files.live.filter(isCut));
  const rewrittenBytes =
    (await rewriteUnproven(host, options.directory, fileBytes, window, verdict)) +
    (await rewriteNoted(host.disk, options.directory, fileBytes, options.groupId));
  const cleanStop =
    stop !== undefined &&
    stop.lastLsn === verdict.lastLsn &&
    stop.endAddress === endAddress &&
    stop.incarnation === last.incarnation.counter &&
    stop.nonce === last.incarnation.nonce;
  // no two runs may have one counter: the far side may hold frames of one that is lost here
  const torn = window.header(last.end, scanEnd);
  const begun = newestOf([
    last.incarnation,
    ...scan.runs.map(({ incarnation }) => incarnation),
    ...files.live.map(({ incarnation }) => incarnation),
    ...(stop === undefined ? [] : [{ counter: stop.incarnation, nonce: stop.nonce }]),
    ...(typeof torn === 'string' ? [] : [{ ...NO_INCARNATION, counter: torn.incarnation }]),
  ]);
  const index = buildIndex(files.live, start, verdict, tailSequence, fileBytes);
  const oldestAddress = files.oldest * fileBytes;
  const end = { address: endAddress, chain: last.chain, lastLsn: verdict.lastLsn };
  const anchors = placesOf(options);
  const before = unreadableFiles({ reads, window, fileBytes, index, oldestAddress, end, anchors }, files, start);
  const report: RecoveryReport = {
    lastLsn: verdict.lastLsn,
    durableLsn: verdict.provenLsn,
    cleanStop,
    bootChanged: verdict.bootChanged,
    ...(verdict.cut === undefined ? {} : { cut: verdict.cut }),
    damage: [...before, ...verdict.damage],
    incarnation: last.incarnation,
    bootId: last.bootId,
    epoch: last.epoch,
    rewrittenBytes,
  };
  const firstSpare = endAddress % fileBytes === 0 ? tailSequence : tailSequence + 1;
  const isLog = (sequence: number): boolean => sequence >= files.oldest && sequence < firstSpare;
  return {
    salt: newest.salt,
    endAddress,
    chain: last.chain,
    time: last.time,
    epoch: last.epoch,
    sequences: files.sequences.filter(isLog),
    spareSequences: files.sequences.filter((sequence) => !isLog(sequence)),
    index,
    begun,
    report,
  };
}

/** Of those with the highest counter the first. */
function newestOf(runs: readonly Incarnation[]): Incarnation {
  return runs.reduce((newest, run) => (run.counter > newest.counter ? run : newest), NO_INCARNATION);
}

function placesOf({ needed, unshipped }: RecoveryOptions): NeededPlace[] {
  return [needed, unshipped].filter((place) => place !== undefined);
}

/** Files that somebody needs, before the first that is looked at, and which have no readable header. */
function unreadableFiles(search: StretchSearch, files: FoundFiles, start: JournalFileHeader): DamagedRange[] {
  const { fileBytes, anchors } = search;
  const needed = Math.floor(Math.min(...anchors.map(({ address }) => address)) / fileBytes);
  const found: DamagedRange[] = [];
  for (let sequence = Math.max(needed, files.oldest); sequence < start.sequence; sequence++) {
    if (files.live.some((header) => header.sequence === sequence)) continue;
    const stretch = findStretch(search, sequence * fileBytes);
    if (stretch === undefined || stretch.resumeAddress <= sequence * fileBytes) continue;
    const { fromLsn, toLsn, address, resumeAddress, reason } = stretch;
    const file = journalFileName(Math.floor(address / fileBytes));
    found.push({ fromLsn, toLsn, address, resumeAddress, file, offset: address % fileBytes, reason });
    sequence = Math.max(sequence, Math.ceil(resumeAddress / fileBytes) - 1);
  }
  return found;
}

/** Start of the first file that damaged records at the end of the log cannot reach into. */
function untouchedFile(reads: FileReads, newest: number, furthest: LogRun, fileBytes: number): JournalAddress {
  let sequence = Math.max(newest, Math.floor(furthest.end / fileBytes)) + 1;
  const header = reads.header(sequence);
  if (typeof header === 'string' && header !== 'empty' && header !== 'missing') sequence++;
  return sequence * fileBytes;
}

/**
 * What is proven may be said by nothing but the header of a file that is about to be wiped, or by batches that are about to
 * be cut. A power loss after that, before damage is put back, would leave it for a torn tail. False: there was no room.
 */
async function keepProof(
  host: Host,
  proof: {
    readonly directory: string;
    readonly groupId: string;
    readonly lastLsn: Lsn;
    readonly incarnation: Incarnation;
  },
): Promise<boolean> {
  const { directory, groupId, lastLsn } = proof;
  const { counter, nonce } = proof.incarnation;
  try {
    // no log ends at address 0: it is a proof, and not a clean stop
    await writeStopMark(host.disk, directory, { groupId, incarnation: counter, nonce, lastLsn, endAddress: 0 });
    return true;
  } catch (error) {
    // a full disk keeps nobody from starting
    if (!hasCode(error, 'no-space') && !hasCode(error, 'short-write')) throw error;
    return false;
  }
}

async function wipeHeaders(host: Host, directory: string, cut: readonly JournalFileHeader[]): Promise<void> {
  const zeroes = new Uint8Array(FILE_HEADER_BYTES);
  for (const { sequence } of cut.toReversed()) {
    const name = journalFileName(sequence);
    const file = host.disk.open(`${directory}/${name}`, 'write');
    try {
      if ((await file.write(zeroes, 0, zeroes.length, 0)) !== zeroes.length) {
        throw new TidemarkError('short-write', `${name}: the header of a cut file could not be cleared`);
      }
      await file.dataSync();
    } finally {
      await file.close();
    }
  }
}

function buildIndex(
  live: readonly JournalFileHeader[],
  start: JournalFileHeader,
  verdict: RecoveryVerdict,
  tailSequence: number,
  fileBytes: number,
): LsnIndex {
  const index = new LsnIndex(fileBytes);
  for (const header of live) {
    if (header.sequence <= start.sequence && header.sequence <= tailSequence)
      index.addFile(header.sequence, header.firstLsn);
  }
  const begins = new Map(live.map(({ sequence, firstLsn }) => [sequence, firstLsn]));
  for (const run of verdict.kept) {
    for (const note of run.notes) {
      const sequence = Math.floor(note.address / fileBytes);
      // where the first batch of a file is damaged its header still says where the file begins
      index.addFile(sequence, Math.min(note.lsn, begins.get(sequence) ?? note.lsn));
      index.note(note.lsn, note.address);
    }
  }
  // the last file may have been begun and hold no whole batch yet
  const end = verdict.endDamaged ? undefined : verdict.kept.at(-1)?.end;
  if (end !== undefined && end % fileBytes !== 0) index.addFile(tailSequence, verdict.lastLsn + 1);
  return index;
}

function foreign(directory: string, groupId: string): TidemarkError {
  return new TidemarkError('journal-foreign', `${directory} holds the journal of group ${groupId}`);
}

/** A journal in which nothing was written yet. */
export function emptyLog(host: Host, options: RecoveryOptions): RecoveredLog {
  return {
    salt: new DataView(Uint8Array.from(host.random.bytes(4)).buffer).getUint32(0, true),
    endAddress: 0,
    chain: 0,
    time: 0,
    epoch: 1,
    sequences: [],
    spareSequences: listSequences(host.disk, options.directory),
    index: new LsnIndex(options.fileBytes),
    begun: NO_INCARNATION,
    report: {
      lastLsn: LSN_NONE,
      durableLsn: LSN_NONE,
      cleanStop: false,
      bootChanged: false,
      damage: [],
      incarnation: NO_INCARNATION,
      bootId: '',
      epoch: 1,
      rewrittenBytes: 0,
    },
  };
}
