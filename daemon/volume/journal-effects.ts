import type { BatchView } from '../../journal/batch-view.ts';
import { PieceAssembler } from '../../journal/piece-assembler.ts';
import type { JournalAddress, Lsn } from '../../journal/position.ts';
import { type JournalRecord, RECORD_HEADER_BYTES, RecordFlag, RecordKind } from '../../journal/record.ts';
import type { Checkpoint } from './checkpoint.ts';

/** A change of a volume that has taken effect. */
export interface Effect {
  readonly kind: typeof RecordKind.write | typeof RecordKind.zero | typeof RecordKind.trim;
  readonly flags: number;
  readonly volume: number;
  readonly sector: number;
  readonly sectors: number;
  readonly payloadAddress: JournalAddress;
  /** Address of the record by which it took effect: the closing one of a request in pieces. */
  readonly stamp: JournalAddress;
  /** The bytes, where they stand in the batch just read; valid until the reader moves on. */
  readonly payload: Uint8Array | undefined;
}

/** A request in pieces whose sender is gone. */
export interface AbandonedRequest {
  /** Counter of the run it belongs to. */
  readonly incarnation: number;
  /** None of its pieces stands behind this record. */
  readonly lastLsn: Lsn;
}

/**
 * Reads a journal as what it does to backings: a request in pieces takes effect as a whole at its closing record, and
 * never when that is missing (DESIGN rule 5). Seeds and control records change no backing.
 */
export class JournalEffects {
  readonly #assembler: PieceAssembler<JournalAddress> = new PieceAssembler();
  /** Where reading has to begin to see a piece again, by the piece's LSN. */
  readonly #pieces: Map<Lsn, Checkpoint> = new Map();
  readonly #abandoned: ReadonlyMap<number, AbandonedRequest>;
  /** Of the batch fed last. */
  #incarnation = 0;

  /** `abandoned`: by request id, what will never be closed; entries may come later. */
  constructor(abandoned: ReadonlyMap<number, AbandonedRequest> = new Map()) {
    this.#abandoned = abandoned;
  }

  /** Where the oldest request stands whose closing record has not come; undefined when there is none. */
  get oldestOpen(): Checkpoint | undefined {
    const lsn = this.#assembler.oldestOpen();
    return lsn === undefined ? undefined : this.#pieces.get(lsn);
  }

  /** A request that was open is no longer waited for. Ids begin anew with every run: one of a run before is not meant. */
  abandon(requestId: number, incarnation: number): void {
    if (this.#incarnation !== incarnation) return;
    this.#assembler.abandon(requestId);
    this.#forgetClosed();
  }

  feed(record: JournalRecord, batch: BatchView, visit: (effect: Effect) => void): void {
    const { kind } = record;
    this.#incarnation = batch.incarnation;
    if (kind === RecordKind.incarnation) {
      // The connections of the run before are gone, and with them what they had open.
      this.#assembler.feed(record, 0);
      this.#pieces.clear();
      return;
    }
    if (kind !== RecordKind.write && kind !== RecordKind.zero && kind !== RecordKind.trim) return;
    const { flags, volume, sector, sectors, payloadAddress, payload } = record;
    const stamp = payloadAddress - RECORD_HEADER_BYTES;
    if ((flags & RecordFlag.piece) === 0) {
      visit({ kind, flags, volume, sector, sectors, payloadAddress, stamp, payload });
      return;
    }
    if (this.#abandoned.get(record.requestId)?.incarnation === batch.incarnation) return;
    this.#pieces.set(record.lsn, { address: batch.address, lsn: batch.firstLsn - 1 });
    for (const effect of this.#assembler.feed(record, payloadAddress)) {
      const piece = { flags: effect.flags, volume: effect.volume, sector: effect.sector, sectors: effect.sectors };
      visit({ kind, ...piece, payloadAddress: effect.source, stamp, payload: undefined });
    }
    if ((flags & RecordFlag.closes) !== 0) this.#forgetClosed();
  }

  #forgetClosed(): void {
    const oldest = this.#assembler.oldestOpen() ?? Number.POSITIVE_INFINITY;
    for (const lsn of this.#pieces.keys()) {
      if (lsn >= oldest) return;
      this.#pieces.delete(lsn);
    }
  }
}
