import { listSequences } from '../../journal/file-reads.ts';
import type { Host } from '../../journal/host/host.ts';
import { JournalReader } from '../../journal/journal-reader.ts';
import type { Marks } from '../../journal/marks.ts';
import type { Lsn } from '../../journal/position.ts';
import { type JournalRecord, RecordFlag, RecordKind } from '../../journal/record.ts';
import type { History, ModelChange, ModelRecord } from './history.ts';
import { identifySectors } from './sector-pattern.ts';

/**
 * Reads the source's journal as its page cache shows it, and tells the model what every LSN did. Which record takes
 * effect when (pieces, closing records, incarnations) is worked out here once more, by other code than the product's.
 */
export class JournalFollower {
  readonly #history: History;
  readonly #marks: Marks;
  readonly #reader: JournalReader;
  readonly #pieces: Map<number, ModelChange[]> = new Map();
  #agrees = true;
  #agreedLsn = 0;

  /** Starts at the oldest record held; what the model knows already is compared, not learnt. */
  constructor(host: Host, directory: string, groupId: string, fileBytes: number, history: History, marks: Marks) {
    this.#history = history;
    this.#marks = marks;
    const [oldest = 0] = listSequences(host.disk, directory);
    this.#reader = JournalReader.open(host, { directory, groupId }, oldest * fileBytes);
  }

  /** The highest LSN at which the journal still was what the model had seen before this follower began. */
  get agreedLsn(): Lsn {
    return this.#agreedLsn;
  }

  /** Reads on to the end; returns what is new to the model. */
  catchUp(): ModelRecord[] {
    const fresh: ModelRecord[] = [];
    const limit = this.#marks.address('written');
    for (let batch = this.#reader.next(limit); batch !== undefined; batch = this.#reader.next(limit)) {
      for (const record of batch) {
        const learnt = this.#learn(record);
        if (learnt !== undefined) fresh.push(learnt);
      }
    }
    return fresh;
  }

  #learn(record: JournalRecord): ModelRecord | undefined {
    const model = { lsn: record.lsn, identity: identityOf(record), changes: this.#changesOf(record) };
    const known = this.#agrees ? this.#history.record(record.lsn) : undefined;
    if (known !== undefined && known.identity === model.identity) {
      this.#agreedLsn = record.lsn;
      return undefined;
    }
    if (this.#agrees) {
      this.#agrees = false;
      this.#agreedLsn = record.lsn - 1;
      this.#history.truncate(record.lsn - 1);
    }
    this.#history.append(model);
    return model;
  }

  #changesOf(record: JournalRecord): readonly ModelChange[] {
    const { flags, kind, requestId, sector, sectors, volume } = record;
    // oxlint-disable-next-line typescript/switch-exhaustiveness-check -- every other kind changes nothing
    switch (kind) {
      case RecordKind.incarnation:
        this.#pieces.clear();
        return [];
      case RecordKind.zero:
      case RecordKind.trim:
        return [{ volume, sector, ids: new Uint32Array(sectors) }];
      case RecordKind.seed:
        return [{ volume, sector, ids: identifySectors(record.payload, volume, sector) }];
      case RecordKind.write: {
        const change = { volume, sector, ids: identifySectors(record.payload, volume, sector) };
        if ((flags & (RecordFlag.piece | RecordFlag.closes)) === 0) return [change];
        const open = [...(this.#pieces.get(requestId) ?? []), change];
        this.#pieces.set(requestId, open);
        if ((flags & RecordFlag.closes) === 0) return [];
        this.#pieces.delete(requestId);
        return open;
      }
      default:
        return [];
    }
  }
}

function identityOf(record: JournalRecord): string {
  const { flags, kind, requestId, sector, sectors, volume } = record;
  const content =
    kind === RecordKind.write || kind === RecordKind.seed
      ? identifySectors(record.payload, volume, sector).join(',')
      : Buffer.from(record.payload).toString('hex');
  return `${kind}/${flags}/${requestId} ${volume}:${sector}+${sectors} ${content}`;
}
