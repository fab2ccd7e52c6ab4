import { TidemarkError } from '../../journal/base/errors.ts';
import type { Host } from '../../journal/host/host.ts';
import { Journal, type JournalOptions } from '../../journal/journal.ts';
import type { Lsn } from '../../journal/position.ts';
import { RecordFlag, RecordKind } from '../../journal/record.ts';
import type { Backing } from '../backing/backing.ts';
import { checkStamp, plainIdentity, readStamp, writeStamp } from '../backing/backing-stamp.ts';
import { replayFrom } from './checkpoint.ts';
import { DestageWindow } from './destage-window.ts';
import { DESTAGE_WINDOW_BYTES } from './group-options.ts';
import { nextHealthyBatch } from './healthy-batches.ts';
import { JournalEffects } from './journal-effects.ts';
import type { StatePlace } from './state-file.ts';
import { VolumeRegistry } from './volume-registry.ts';

export interface OfflineReplay {
  /** The newest record that is in the disk now. */
  readonly lsn: Lsn;
  readonly writtenBytes: number;
}

/**
 * `journal replay --into`: makes a plain disk of a volume's backing without a running source (DESIGN rule 8), by writing
 * into it what the journal holds above the checkpoint. The disk is synced and stamped as detached; the journal and its
 * checkpoint stay as they are, so that this may be repeated, and the volume protected again later.
 *
 * Rejects with `journal-locked` while a source runs, `not-found` for an unknown volume, `backing-changed` when the disk
 * is not the volume's or was written to since.
 */
export async function replayOffline(
  host: Host,
  options: JournalOptions,
  volumeName: string,
  backing: Backing,
): Promise<OfflineReplay> {
  const journal = await Journal.open(host, options);
  try {
    const registered = VolumeRegistry.load(host, options).find(volumeName);
    if (registered === undefined) throw new TidemarkError('not-found', `the journal knows no volume ${volumeName}`);
    const stamp = readStamp(host, options, registered.id);
    const before = (await backing.identity?.()) ?? plainIdentity(backing.size);
    if (stamp !== undefined) checkStamp(volumeName, stamp, before, journal.report.lastLsn);
    // From here on the disk is neither what it was nor yet what it will be.
    const dirty = { state: 'dirty' as const, lsn: stamp?.lsn ?? 0, identity: before };
    await writeStamp(host, options, registered.id, dirty);
    const writtenBytes = await writeInto(journal, host, options, registered.id, backing);
    await backing.flush();
    const identity = (await backing.identity?.()) ?? plainIdentity(backing.size);
    const { lastLsn } = journal.report;
    await writeStamp(host, options, registered.id, { state: 'detached', lsn: lastLsn, identity });
    return { lsn: lastLsn, writtenBytes };
  } finally {
    await journal.close();
  }
}

async function writeInto(
  journal: Journal,
  host: Host,
  place: StatePlace,
  volume: number,
  backing: Backing,
): Promise<number> {
  const window = new DestageWindow(DESTAGE_WINDOW_BYTES);
  const effects = new JournalEffects();
  let writtenBytes = 0;
  const writeOut = async (): Promise<void> => {
    await window.writeOut((bytes) => {
      writtenBytes += bytes;
    });
    window.clear();
  };
  const { applied: reached, checkpoint } = replayFrom(host, place, journal);
  const applied = reached.address;
  const reader = journal.reader(checkpoint.address);
  try {
    const next = () => nextHealthyBatch(reader, journal.endAddress);
    for (let batch = next(); batch !== undefined; batch = next()) {
      for (const record of batch) {
        const due: Parameters<Parameters<JournalEffects['feed']>[2]>[0][] = [];
        effects.feed(record, batch, (effect) => due.push(effect));
        for (const effect of due) {
          if (effect.volume !== volume || effect.stamp < applied) continue;
          if (effect.kind !== RecordKind.write) {
            const keep = effect.kind === RecordKind.zero && (effect.flags & RecordFlag.noHole) !== 0;
            window.zero(backing, effect.sector, effect.sectors, keep);
            continue;
          }
          const bytes = effect.sectors * 512;
          if (bytes > window.freeBytes) await writeOut();
          journal.readInto(effect.payloadAddress, bytes, window.take(backing, effect.sector, bytes), 0);
        }
      }
    }
    await writeOut();
  } finally {
    await reader.close();
  }
  return writtenBytes;
}
