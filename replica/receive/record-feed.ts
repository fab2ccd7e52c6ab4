import type { FrameLayout } from '../../journal/frame-layout.ts';
import { PieceAssembler } from '../../journal/piece-assembler.ts';
import type { JournalTime, Lsn } from '../../journal/position.ts';
import { changesVolume, holdsContent, RecordKind } from '../../journal/record.ts';
import type { CatalogBuilder } from '../catalog/catalog.ts';
import { isControl } from '../catalog/catalog.ts';
import type { PayloadLocation } from '../index/entry-format.ts';

/** Takes versions of extents; `location` absent: zeroes. */
export interface VersionSink {
  add(volume: number, sector: number, sectors: number, lsn: Lsn, location: PayloadLocation | undefined): void;
}

/** What the catalog is told once the record is durable. */
export interface ControlNote {
  readonly kind: number;
  readonly lsn: Lsn;
  readonly time: JournalTime;
  readonly volume: number;
  readonly body: Uint8Array;
  /** The record that is held before it: its LSN - 1, or lower where the source's gap was stepped over. */
  readonly afterLsn: Lsn;
}

const NO_BODY = new Uint8Array(0);

/**
 * Turns the record lists of consecutive frames into versions: pieces of a request are held until it closes, and take
 * effect at the closing record's LSN (DESIGN rule 5). Needs no payload.
 */
export class RecordFeed {
  readonly #pieces = new PieceAssembler<PayloadLocation>();
  #lastLsn: Lsn;

  /** `lastLsn`: the record before the first one that will be fed. */
  constructor(lastLsn: Lsn) {
    this.#lastLsn = lastLsn;
  }

  /** Records from `fromLsn` on; versions whose LSN is above `sinkAboveLsn` go into the sink. */
  feed(
    layout: FrameLayout,
    fromLsn: Lsn,
    at: { readonly segment: number; readonly offset: number },
    sink: VersionSink,
    sinkAboveLsn: Lsn,
  ): void {
    for (let i = fromLsn - layout.firstLsn; i < layout.recordCount; i += 1) {
      const record = layout.record(i);
      if (!changesVolume(record.kind) && record.kind !== RecordKind.incarnation) continue;
      const location = { segment: at.segment, frame: at.offset, payload: record.payloadOffset };
      for (const effect of this.#pieces.feed(record, location)) {
        if (effect.lsn <= sinkAboveLsn) continue;
        const source = holdsContent(effect.kind) ? effect.source : undefined;
        sink.add(effect.volume, effect.sector, effect.sectors, effect.lsn, source);
      }
    }
    this.#lastLsn = layout.lastLsn;
  }

  /** The lowest LSN of a piece whose request is open, else the LSN behind the last record fed. */
  get openFromLsn(): Lsn {
    return this.#pieces.oldestOpen() ?? this.#lastLsn + 1;
  }
}

/** The control records, and the seeds, from `fromLsn` on, with their bodies; `heldLsn`: what is held before them. */
export async function controlNotes(
  layout: FrameLayout,
  fromLsn: Lsn,
  heldLsn: Lsn,
  bodyOf: (index: number) => Uint8Array | Promise<Uint8Array>,
): Promise<ControlNote[]> {
  const notes: ControlNote[] = [];
  let seeding = 0;
  let lost = false;
  for (let i = fromLsn - layout.firstLsn; i < layout.recordCount; i += 1) {
    const { kind, lsn, time, volume, payloadBytes } = layout.record(i);
    const afterLsn = lsn === fromLsn ? Math.min(heldLsn, lsn - 1) : lsn - 1;
    // Of a volume's seed records one after the other the first tells everything.
    if (kind === RecordKind.seed && volume !== seeding)
      notes.push({ kind, lsn, time, volume, body: NO_BODY, afterLsn });
    seeding = kind === RecordKind.seed ? volume : 0;
    // Of lost records one after the other, too.
    const another = kind === RecordKind.lost && payloadBytes === 0 && lost;
    lost = kind === RecordKind.lost;
    if (isControl(kind) && !another) notes.push({ kind, lsn, time, volume, body: await bodyOf(i), afterLsn });
  }
  return notes;
}

export function applyNote(catalog: CatalogBuilder, note: ControlNote): void {
  if (note.kind === RecordKind.seed) catalog.seed(note.volume, note.lsn, note.time);
  else if (note.kind === RecordKind.blank) catalog.blank(note.volume, note.lsn);
  else catalog.control(note.kind, note.lsn, note.time, note.body, note.afterLsn);
}
