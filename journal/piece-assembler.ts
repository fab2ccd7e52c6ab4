import { TidemarkError } from './base/errors.ts';
import type { Lsn } from './position.ts';
import { type ChangeKind, changesVolume, type JournalRecord, RecordFlag, RecordKind } from './record.ts';

/** What the assembler needs of a record; a JournalRecord has it, and so has an entry of a frame. */
export type PieceRecord = Pick<JournalRecord, 'kind' | 'flags' | 'volume' | 'sector' | 'sectors' | 'requestId' | 'lsn'>;

/** One change to one volume, ready to be applied. */
export interface Effect<Source> {
  readonly kind: ChangeKind;
  readonly flags: number;
  readonly volume: number;
  readonly sector: number;
  readonly sectors: number;
  /** When it takes effect: the LSN of the closing piece, for every piece of a request. */
  readonly lsn: Lsn;
  /** Where the payload is, as given to `feed` with the piece. */
  readonly source: Source;
}

interface OpenRequest<Source> {
  readonly firstLsn: Lsn;
  readonly pieces: { readonly record: PieceRecord; readonly source: Source }[];
}

/** One piece per 512 bytes of the largest request (32 MiB) would be 65,536; more is damage, not a request. */
const PIECES_MAX = 65_536;
/** Requests open at once: every outstanding request of every connection of a group. */
const OPEN_REQUESTS_MAX = 65_536;

/**
 * Makes one request out of its pieces (DESIGN rule 5): nothing of it has an effect before its closing record, then all
 * of it has, at that record's LSN. An open request holds up nobody: other effects pass it. A new incarnation ends every
 * open request, because its sender is gone. Overlay recovery, destage and the replica's index use the same rules.
 */
export class PieceAssembler<Source> {
  readonly #open = new Map<number, OpenRequest<Source>>();

  /**
   * The effects that become visible with this record, in the order of the pieces; usually the record itself or none.
   * Throws `journal-damaged` when a request grows beyond every bound.
   */
  feed(record: PieceRecord, source: Source): Effect<Source>[] {
    const { kind } = record;
    if (kind === RecordKind.incarnation) {
      this.#open.clear();
      return [];
    }
    if (!changesVolume(kind)) return [];
    if ((record.flags & RecordFlag.piece) === 0) return [{ ...effectOf(record, kind), lsn: record.lsn, source }];
    const request = this.#open.get(record.requestId) ?? this.#opened(record);
    if (request.pieces.length === PIECES_MAX) {
      throw new TidemarkError('journal-damaged', `request ${record.requestId} has more than ${PIECES_MAX} pieces`);
    }
    request.pieces.push({ record, source });
    if ((record.flags & RecordFlag.closes) === 0) return [];
    this.#open.delete(record.requestId);
    return request.pieces.map((piece) => ({
      ...effectOf(piece.record, kind),
      lsn: record.lsn,
      source: piece.source,
    }));
  }

  /** LSN of the oldest piece still waiting for its closing record: nothing from there on may be given up. */
  oldestOpen(): Lsn | undefined {
    let oldest: Lsn | undefined;
    for (const { firstLsn } of this.#open.values()) {
      if (oldest === undefined || firstLsn < oldest) oldest = firstLsn;
    }
    return oldest;
  }

  /** Gives up a request whose sender is gone; it has no effect. */
  abandon(requestId: number): void {
    this.#open.delete(requestId);
  }

  #opened(record: PieceRecord): OpenRequest<Source> {
    if (this.#open.size === OPEN_REQUESTS_MAX) {
      throw new TidemarkError(
        'journal-damaged',
        `more than ${OPEN_REQUESTS_MAX} requests are open at LSN ${record.lsn}`,
      );
    }
    const request: OpenRequest<Source> = { firstLsn: record.lsn, pieces: [] };
    this.#open.set(record.requestId, request);
    return request;
  }
}

function effectOf<Source>(
  record: PieceRecord,
  kind: Effect<Source>['kind'],
): Pick<Effect<Source>, 'kind' | 'flags' | 'volume' | 'sector' | 'sectors'> {
  const { flags, volume, sector, sectors } = record;
  return { kind, flags, volume, sector, sectors };
}
