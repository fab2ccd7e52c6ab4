import { crc32 } from '@node-rs/crc32';
import { hasCode } from '../../journal/base/errors.ts';
import type { BatchView } from '../../journal/batch-view.ts';
import type { Journal } from '../../journal/journal.ts';
import type { JournalAddress, Lsn } from '../../journal/position.ts';
import { type JournalRecord, RecordKind } from '../../journal/record.ts';
import { decodeIncarnation } from '../../journal/record-bodies.ts';
import type { SimulatedDisk } from '../doubles/simulated-disk.ts';
import { AppendedRecords } from './checkers/appended-records.ts';
import { JOURNAL_DIRECTORY } from './names.ts';
import type { SourceModel } from './source-model.ts';
import { must } from './violation.ts';

const JOURNAL_FILE = /\/journal-([0-9a-f]+)\.tmj$/;

/**
 * What the source's log itself promises, looked at with the eyes of its disk: the same over all starts of a run. Draws
 * nothing and lets no time pass, so that a run with it is the run without it.
 */
export class LogPromises {
  readonly #disk: SimulatedDisk;
  readonly #fileBytes: number;
  readonly appended: AppendedRecords;
  /** `nonce` of a start -> LSN -> what stood there. */
  readonly #contents: Map<string, Map<Lsn, number>> = new Map();
  readonly #starts: Set<string> = new Set();
  /** Of the journal as it is read now: where each record's batch ends. */
  readonly #ends: Map<Lsn, JournalAddress> = new Map();
  /** Where the records of a file end, by its sequence: what stands behind them is of no record. */
  readonly #fileEnds: Map<number, JournalAddress> = new Map();
  /** Of the record that is read next; undefined before the first. */
  #nextLsn: Lsn | undefined;
  #nonce: string | undefined;
  /** The newest record that was seen on the medium; neither a kill nor a power loss takes it back. */
  #provenLsn: Lsn = 0;

  constructor(disk: SimulatedDisk, fileBytes: number) {
    this.#disk = disk;
    this.appended = new AppendedRecords(disk);
    this.#fileBytes = fileBytes;
  }

  /** The journal is read from its oldest record on again. */
  beginReading(): void {
    this.#ends.clear();
    this.#fileEnds.clear();
    this.#nextLsn = undefined;
    this.#nonce = undefined;
  }

  /** What has rotted, up to this record, is passed over; the name of the start may have stood in it. */
  passedOver(toLsn: Lsn): void {
    this.#nextLsn = toLsn + 1;
    this.#nonce = undefined;
  }

  /** The next record that is read, and its batch. */
  read(record: JournalRecord, { bodyEndAddress: end, header }: BatchView): void {
    const { lsn, kind, payload } = record;
    const expected = this.#nextLsn ?? lsn;
    must('R3', lsn === expected, () => `LSN ${lsn} is read behind ${expected - 1}: what was cut stands there again`);
    this.appended.mustHold(record, header);
    this.#nextLsn = lsn + 1;
    this.#ends.set(lsn, end);
    this.#fileEnds.set(Math.floor((end - 1) / this.#fileBytes), end);
    if (kind === RecordKind.incarnation) this.#nonce = decodeIncarnation(payload).nonce;
    // whether it may stand here is asked elsewhere (G1)
    if (this.#nonce === undefined || kind === RecordKind.lost) return;
    const contents = this.#contents.get(this.#nonce) ?? new Map<Lsn, number>();
    this.#contents.set(this.#nonce, contents);
    const content = contentOf(record);
    const before = contents.get(lsn) ?? content;
    must('R5', before === content, () => `LSN ${lsn} of start ${this.#nonce} has two contents`);
    contents.set(lsn, content);
  }

  /** A start of the source has recovered the log and begun to number records. */
  begun({ incarnation, report }: Pick<Journal, 'incarnation' | 'report'>): void {
    const { nonce = '' } = incarnation ?? {};
    must('R5', !this.#starts.has(nonce), () => `two starts call themselves ${nonce}`);
    this.#starts.add(nonce);
    const { cut, lastLsn } = report;
    const kept = Math.min(lastLsn, cut?.afterLsn ?? lastLsn);
    must(
      'R2',
      kept >= this.#provenLsn,
      () => `LSN ${this.#provenLsn} was on the medium, the log is cut behind ${kept}`,
    );
  }

  /** A flush or a write with FUA that this record stands for is about to be answered well. */
  answered(model: SourceModel, lsn: Lsn): void {
    try {
      model.keepUp();
    } catch (error) {
      if (!hasCode(error, 'journal-damaged')) throw error;
    }
    const end = this.#ends.get(lsn);
    if (end === undefined) return;
    const names = this.#disk.namesPending(JOURNAL_DIRECTORY);
    for (const [path, content] of this.#disk.files) {
      const found = JOURNAL_FILE.exec(path)?.[1];
      if (found === undefined) continue;
      const sequence = Number.parseInt(found, 16);
      const begin = sequence * this.#fileBytes;
      const fileEnd = this.#fileEnds.get(sequence);
      if (begin >= end || fileEnd === undefined) continue;
      const pending = content.pendingSectors(0, Math.min(end, fileEnd) - begin);
      must('D3', pending === 0, () => `LSN ${lsn} is flushed, ${pending} sectors of ${path} are not on the medium`);
      must('D3', !names.has(path), () => `LSN ${lsn} is flushed, the name ${path} is not on the medium`);
    }
    this.#provenLsn = Math.max(this.#provenLsn, lsn);
  }
}

function contentOf({ kind, flags, volume, sector, sectors, requestId, payload }: JournalRecord): number {
  return crc32(payload, crc32([kind, flags, volume, sector, sectors, requestId].join()));
}
