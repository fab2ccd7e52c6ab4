import type { BatchView } from '../../journal/batch-view.ts';
import type { JournalAddress } from '../../journal/position.ts';
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

interface OpenPieces {
  /** Where reading has to begin to see the request whole. */
  readonly from: Checkpoint;
  readonly pieces: JournalRecord[];
}

/**
 * Reads a journal as what it does to volumes: a request in pieces takes effect as a whole at its closing record, and
 * never when that is missing (DESIGN rule 5). Seeds and control records change no backing.
 */
export class JournalEffects {
  readonly #open: Map<number, OpenPieces> = new Map();

  /** Where the oldest request stands whose closing record has not come; undefined when there is none. */
  get oldestOpen(): Checkpoint | undefined {
    for (const { from } of this.#open.values()) return from;
    return undefined;
  }

  feed(record: JournalRecord, batch: BatchView, visit: (effect: Effect) => void): void {
    const { kind, flags } = record;
    if (kind === RecordKind.incarnation) {
      // The connections of the run before are gone, and with them what they had open.
      this.#open.clear();
      return;
    }
    if (kind !== RecordKind.write && kind !== RecordKind.zero && kind !== RecordKind.trim) return;
    const stamp = record.payloadAddress - RECORD_HEADER_BYTES;
    if ((flags & (RecordFlag.piece | RecordFlag.closes)) === 0) {
      visit(effectOf(record, stamp, record.payload));
      return;
    }
    const open = this.#open.get(record.requestId);
    if ((flags & RecordFlag.closes) === 0) {
      const held = withoutPayload(record);
      if (open !== undefined) open.pieces.push(held);
      else
        this.#open.set(record.requestId, { from: { address: batch.address, lsn: batch.firstLsn - 1 }, pieces: [held] });
      return;
    }
    this.#open.delete(record.requestId);
    for (const piece of open?.pieces ?? []) visit(effectOf(piece, stamp, undefined));
    visit(effectOf(record, stamp, record.payload));
  }
}

const NO_BYTES: Uint8Array = new Uint8Array(0);

/** A piece may be held for long: not the reader's buffer with it. */
function withoutPayload(record: JournalRecord): JournalRecord {
  return { ...record, payload: NO_BYTES };
}

function effectOf(record: JournalRecord, stamp: JournalAddress, payload: Uint8Array | undefined): Effect {
  const { flags, volume, sector, sectors, payloadAddress } = record;
  const kind = record.kind as Effect['kind'];
  return { kind, flags, volume, sector, sectors, payloadAddress, stamp, payload };
}
