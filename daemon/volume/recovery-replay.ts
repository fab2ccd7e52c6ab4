import type { JournalReader } from '../../journal/journal-reader.ts';
import type { JournalAddress, Lsn } from '../../journal/position.ts';
import type { JournalRecord } from '../../journal/record.ts';
import { RecordKind } from '../../journal/record.ts';
import type { ExtentMap } from './extent-map.ts';
import { ZERO_SOURCE } from './extent-map.ts';
import { nextHealthyBatch } from './healthy-batches.ts';
import { JournalEffects } from './journal-effects.ts';

export interface ReplayOptions {
  /** Where reading ends: the journal's end. */
  readonly end: JournalAddress;
  /** What took effect below is in the backings. */
  readonly applied: JournalAddress;
  /** The overlay of a volume; undefined for a detached one, whose records were all written out. */
  readonly overlay: (volume: number) => ExtentMap | undefined;
  /** Every record that is neither write, zero, trim nor flush. */
  readonly onRecord: (record: JournalRecord) => void;
  /** Memory the overlays take now, and their bound. */
  readonly overlayBytes: () => number;
  readonly overlayBytesMax: number;
  /** Writes everything up to record `lsn` out and forgets it in the overlays. */
  readonly writeOut: (lsn: Lsn) => Promise<void>;
}

/**
 * Builds the overlays anew from the journal above the checkpoint, which is what a restart needs and all it needs. Memory
 * stays within the overlay's bound: when it is reached, the part read so far is written out to the backings first.
 */
export async function replayJournal(reader: JournalReader, options: ReplayOptions): Promise<void> {
  const effects = new JournalEffects();
  const next = () => nextHealthyBatch(reader, options.end);
  for (let batch = next(); batch !== undefined; batch = next()) {
    for (const record of batch) {
      effects.feed(record, batch, (effect) => {
        if (effect.stamp < options.applied) return;
        const source = effect.kind === RecordKind.write ? effect.payloadAddress : ZERO_SOURCE;
        options.overlay(effect.volume)?.insert(effect.sector, effect.sector + effect.sectors, source, effect.stamp);
      });
      if (record.kind >= RecordKind.bookmark) options.onRecord(record);
    }
    if (options.overlayBytes() > options.overlayBytesMax) await options.writeOut(batch.lastLsn);
  }
}
