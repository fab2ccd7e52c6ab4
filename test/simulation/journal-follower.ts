import { hasCode } from '../../journal/base/errors.ts';
import type { BatchView } from '../../journal/batch-view.ts';
import { listSequences } from '../../journal/file-reads.ts';
import type { Host } from '../../journal/host/host.ts';
import { JournalReader } from '../../journal/journal-reader.ts';
import type { Marks } from '../../journal/marks.ts';
import type { JournalAddress, Lsn } from '../../journal/position.ts';
import { type JournalRecord, RecordFlag, RecordKind } from '../../journal/record.ts';
import { type History, type ModelChange, type ModelRecord, sameRecord } from './history.ts';
import type { LogPromises } from './log-promises.ts';
import { identifySectors } from './sector-pattern.ts';
import { compareSectors } from './source-model.ts';
import { must } from './violation.ts';

type Place = Pick<ModelRecord, 'flags' | 'kind' | 'requestId' | 'sector' | 'sectors' | 'volume'>;

interface FollowedJournal {
  readonly directory: string;
  readonly groupId: string;
  readonly fileBytes: number;
  readonly mayBeDamaged: boolean;
}

/**
 * Reads the source's journal as its page cache shows it, and tells the model what every LSN did. Which record takes
 * effect when (pieces, closing records, incarnations) is worked out here once more, by other code than the product's.
 */
export class JournalFollower {
  readonly #history: History;
  readonly #marks: Marks;
  readonly #log: LogPromises;
  readonly #reader: JournalReader;
  readonly #pieces: Map<number, ModelChange[]> = new Map();
  #agrees = true;
  /** Of the newest batch. */
  #time = 0;
  #agreedLsn = 0;
  readonly #fileBytes: number;
  readonly #mayBeDamaged: boolean;
  /** Where batches with records stand, in order; `end` is not aligned. */
  readonly batches: { readonly from: JournalAddress; readonly end: JournalAddress; readonly lastLsn: Lsn }[] = [];
  /** The newest record that a header behind it calls durable. */
  witnessedLsn: Lsn = 0;
  /** Where the last batch of a file ends, by the file's sequence. */
  readonly #ends: Map<number, JournalAddress> = new Map();

  /**
   * Starts at the oldest record held; what the model knows already is compared, not learnt. `mayBeDamaged`: some of that
   * has rotted, and is passed over where nobody needed it yet.
   */
  constructor(
    host: Host,
    { directory, fileBytes, groupId, mayBeDamaged }: FollowedJournal,
    history: History,
    marks: Marks,
    log: LogPromises,
  ) {
    this.#log = log;
    log.beginReading();
    this.#history = history;
    this.#mayBeDamaged = mayBeDamaged;
    this.#marks = marks;
    this.#fileBytes = fileBytes;
    const [oldest = 0] = listSequences(host.disk, directory);
    this.#reader = JournalReader.open(host, { directory, groupId }, oldest * fileBytes);
  }

  /** The highest LSN at which the journal still was what the model had seen before this follower began. */
  get agreedLsn(): Lsn {
    return this.#agreedLsn;
  }

  /** Where the records of a file end; 0: none were read from it. */
  endIn(sequence: number): JournalAddress {
    return this.#ends.get(sequence) ?? 0;
  }

  /** Reads on to the end; returns what is new to the model. */
  catchUp(): ModelRecord[] {
    const fresh: ModelRecord[] = [];
    const limit = this.#marks.address('written');
    for (let batch = this.#next(limit); batch !== undefined; batch = this.#next(limit)) {
      this.witnessedLsn = Math.max(this.witnessedLsn, batch.header.durableLsn);
      this.batches.push({ from: batch.address, end: batch.bodyEndAddress, lastLsn: batch.lastLsn });
      this.#ends.set(Math.floor(batch.address / this.#fileBytes), batch.bodyEndAddress);
      const before = this.#time;
      this.#time = batch.time;
      must('V4', batch.time >= before, () => `journal time goes from ${before} to ${batch.time}`);
      for (const record of batch) {
        this.#log.read(record, batch);
        const learnt = this.#learn(record);
        if (learnt !== undefined) fresh.push(learnt);
      }
    }
    return fresh;
  }

  #next(limit: JournalAddress): BatchView | undefined {
    for (;;) {
      try {
        return this.#reader.next(limit);
      } catch (error) {
        const skipped =
          this.#mayBeDamaged && hasCode(error, 'journal-damaged') ? this.#reader.skipDamage(limit) : undefined;
        if (skipped === undefined) throw error;
        this.#log.passedOver(skipped.toLsn);
        for (let lsn = skipped.fromLsn; lsn <= skipped.toLsn; lsn++) {
          const known = this.#agrees ? this.#history.record(lsn) : undefined;
          if (known === undefined) throw error;
          this.#changesOf(known, known.ids);
          this.#agreedLsn = lsn;
        }
      }
    }
  }

  #learn(record: JournalRecord): ModelRecord | undefined {
    const { flags, kind, lsn, payload, requestId, sector, sectors, volume } = record;
    if (kind === RecordKind.lost) return this.#lose(lsn, payload);
    const holdsData = kind === RecordKind.write || kind === RecordKind.seed;
    const ids = holdsData ? identifySectors(payload, volume, sector) : undefined;
    const content = holdsData || payload.length === 0 ? '' : Buffer.from(payload).toString('hex');
    const changes = this.#changesOf(record, ids);
    const model = { lsn, kind, flags, requestId, volume, sector, sectors, ids, content, changes };
    const known = this.#agrees ? this.#history.record(lsn) : undefined;
    if (known !== undefined && sameRecord(known, model)) {
      this.#history.lost.found(lsn);
      this.#agreedLsn = lsn;
      return undefined;
    }
    if (this.#agrees) {
      this.#agrees = false;
      this.#agreedLsn = lsn - 1;
      this.#history.truncate(lsn - 1);
    }
    if (kind === RecordKind.seed && ids !== undefined && this.#history.lost.count > 0) {
      // what the disk is said to be is what its guests made it
      const expected = this.#history.rangeAt(lsn - 1, volume, sector, ids.length);
      compareSectors('G4', () => `the new seed at LSN ${lsn}`, volume, ids, expected, sector);
    }
    this.#history.append(model);
    return model;
  }

  /** History has it no more; the disks, and whoever reads them, have. */
  #lose(lsn: Lsn, payload: Uint8Array): undefined {
    const known = this.#agrees ? this.#history.record(lsn) : undefined;
    must('G1', known !== undefined, () => `LSN ${lsn} is LOST and never was`);
    this.#history.lost.learn(lsn, payload);
    this.#changesOf(known, known.ids);
    this.#agreedLsn = lsn;
  }

  #changesOf(record: Place, ids: Uint32Array | undefined): readonly ModelChange[] {
    const { flags, kind, requestId, sector, sectors, volume } = record;
    if (kind === RecordKind.incarnation) this.#pieces.clear();
    if (kind === RecordKind.zero || kind === RecordKind.trim) {
      return [{ volume, sector, ids: new Uint32Array(sectors) }];
    }
    if (ids === undefined) return [];
    const change = { volume, sector, ids };
    if (kind !== RecordKind.write || (flags & (RecordFlag.piece | RecordFlag.closes)) === 0) return [change];
    const open = [...(this.#pieces.get(requestId) ?? []), change];
    this.#pieces.set(requestId, open);
    if ((flags & RecordFlag.closes) === 0) return [];
    this.#pieces.delete(requestId);
    return open;
  }
}
