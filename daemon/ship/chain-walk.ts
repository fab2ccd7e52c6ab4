import { crc32c } from '@node-rs/crc32';
import { assert } from '../../journal/base/assert.ts';
import { TidemarkError } from '../../journal/base/errors.ts';
import { advanceChain, CHAIN_START, type Chain } from '../../journal/chain.ts';
import { FRAME_ENTRY_BYTES, writeEntry } from '../../journal/frame-codec.ts';
import type { JournalReader } from '../../journal/journal-reader.ts';
import type { JournalAddress, JournalTime, Lsn } from '../../journal/position.ts';
import type { JournalRecord } from '../../journal/record.ts';
import type { ChainCheckpoint, ChainCheckpoints } from './chain-checkpoints.ts';

/** What the shipper needs of a journal; `Journal` has it, a worker without one builds it from `JournalReader.open`. */
export interface ShipJournal {
  reader(from: JournalAddress): JournalReader;
  readonly oldestLsn: Lsn;
  readonly oldestAddress: JournalAddress;
  /** Files begin at multiples of it. */
  readonly fileBytes: number;
}

const entry = new Uint8Array(FRAME_ENTRY_BYTES);
const entryView = new DataView(entry.buffer);

/** The chain value after a record that is read but not sealed. */
export function chainOver(chain: Chain, record: JournalRecord, time: JournalTime): Chain {
  const crc = record.payload.length === 0 ? 0 : crc32c(record.payload);
  writeEntry(entryView, 0, { ...record, time }, record.payload.length, crc);
  return advanceChain(chain, entry);
}

/** Where to begin reading for the chain after `lsn`; undefined: nothing that the journal still holds leads there. */
export function walkStart(journal: ShipJournal, checkpoints: ChainCheckpoints, lsn: Lsn): ChainCheckpoint | undefined {
  const known = checkpoints.before(lsn);
  if (known !== undefined && known.address >= journal.oldestAddress) return known;
  if (journal.oldestLsn > 1) return undefined;
  return { lsn: 0, chain: CHAIN_START, address: journal.oldestAddress };
}

/** The lowest LSN that can be sent: `walkStart` has an answer for the one before. Undefined: none can. */
export function lowestStart(journal: ShipJournal, checkpoints: ChainCheckpoints): Lsn | undefined {
  if (journal.oldestLsn <= 1) return 1;
  const first = checkpoints.list.find(({ address }) => address >= journal.oldestAddress);
  return first && first.lsn + 1;
}

/**
 * The chain where a file of the journal ends that is about to be overwritten, read from the nearest place before it;
 * undefined when nothing leads there. Throws what the reader throws.
 */
export async function chainAtFileEnd(
  journal: ShipJournal,
  checkpoints: ChainCheckpoints,
  end: JournalAddress,
): Promise<ChainCheckpoint | undefined> {
  const known = checkpoints.list.findLast(({ address }) => address <= end);
  const first = { lsn: 0, chain: CHAIN_START, address: journal.oldestAddress };
  const start = known !== undefined && known.address >= journal.oldestAddress ? known : first;
  if (start === first && journal.oldestLsn > 1) return undefined;
  const reader = journal.reader(start.address);
  let { chain, lsn } = start;
  try {
    for (let batch = reader.next(end); batch !== undefined; batch = reader.next(end)) {
      for (const record of batch) chain = chainOver(chain, record, batch.time);
      lsn = batch.lastLsn;
    }
  } finally {
    await reader.close();
  }
  return { lsn, chain, address: end };
}

/** The chain after `lsn`, read at one go below `limit`; undefined when it cannot be told. Throws what the reader throws. */
export async function chainAt(
  journal: ShipJournal,
  checkpoints: ChainCheckpoints,
  lsn: Lsn,
  limit: JournalAddress,
): Promise<Chain | undefined> {
  const start = walkStart(journal, checkpoints, lsn);
  if (start === undefined) return undefined;
  if (start.lsn === lsn) return start.chain;
  const reader = journal.reader(start.address);
  try {
    let chain = start.chain;
    for (let batch = reader.next(limit); batch !== undefined; batch = reader.next(limit)) {
      for (const record of batch) {
        assert(record.lsn <= lsn, 'the walk ends at its LSN');
        chain = chainOver(chain, record, batch.time);
        if (record.lsn === lsn) return chain;
      }
    }
    throw new TidemarkError('journal-damaged', `record ${lsn} is not in the journal`);
  } finally {
    await reader.close();
  }
}
