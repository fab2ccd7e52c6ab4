import { TidemarkError } from '../../journal/base/errors.ts';
import { FrameSealer, SEALER_DEFAULTS } from '../../journal/frame-sealer.ts';
import type { Journal } from '../../journal/journal.ts';
import type { Lsn } from '../../journal/position.ts';
import type { SourceIdentity } from '../../journal/stream.ts';
import type { ChainCheckpoints } from './chain-checkpoints.ts';
import { chainOver, walkStart } from './chain-walk.ts';

/**
 * Frames of what is durable in the journal from an LSN on, for a replica whose own are damaged. Throws `trimmed` when the
 * journal does not hold it any more, `journal-damaged` where it cannot be read itself.
 */
export async function* journalFrames(
  journal: Journal,
  checkpoints: ChainCheckpoints,
  identity: SourceIdentity,
  fromLsn: Lsn,
): AsyncGenerator<Uint8Array> {
  if (fromLsn < journal.oldestLsn) {
    const gone = `record ${fromLsn} is not in the journal any more: the oldest is ${journal.oldestLsn}`;
    throw new TidemarkError('trimmed', gone);
  }
  const start = walkStart(journal, checkpoints, fromLsn - 1);
  if (start === undefined) {
    throw new TidemarkError('trimmed', `the chain at record ${fromLsn} is not known: ship.state lost what led there`);
  }
  const reader = journal.reader(start.address);
  let epoch = identity.epoch;
  let sealer = new FrameSealer(identity);
  let { chain } = start;
  try {
    for (let batch = reader.next(durable()); batch !== undefined; batch = reader.next(durable())) {
      // a frame is handed over before the next batch is read: records of a batch are in its buffer
      const full: Uint8Array[] = [];
      const cut = (): void => {
        if (sealer.recordCount === 0) return;
        const frame = sealer.seal(journal.marks.lsn('durable'));
        chain = frame.chainAfter;
        full.push(Uint8Array.from(frame.bytes));
      };
      for (const record of batch) {
        if (record.lsn < fromLsn) {
          if (record.lsn > start.lsn) chain = chainOver(chain, record, batch.time);
          continue;
        }
        if (batch.epoch !== epoch) {
          cut();
          epoch = batch.epoch;
          sealer = new FrameSealer({ ...identity, epoch });
        }
        if (sealer.recordCount > 0 && !sealer.fits(record.payload.length)) cut();
        if (sealer.recordCount === 0) sealer.begin(record.lsn, chain);
        sealer.add({ ...record, time: batch.time });
      }
      if (sealer.recordCount > 0 && sealer.bytes >= SEALER_DEFAULTS.targetBytes) cut();
      for (const bytes of full) yield bytes;
    }
    if (sealer.recordCount > 0) yield Uint8Array.from(sealer.seal(journal.marks.lsn('durable')).bytes);
  } finally {
    await reader.close();
  }

  function durable(): number {
    return journal.marks.address('durable');
  }
}
