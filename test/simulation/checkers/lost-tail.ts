import { ChainCheckpoints } from '../../../daemon/ship/chain-checkpoints.ts';
import { chainAt, walkStart } from '../../../daemon/ship/chain-walk.ts';
import { journalFrames } from '../../../daemon/ship/journal-frames.ts';
import { settleFarSide } from '../../../daemon/ship/settle.ts';
import { loadShipState } from '../../../daemon/ship/ship-state.ts';
import { hasCode, TidemarkError } from '../../../journal/base/errors.ts';
import { journalFileName } from '../../../journal/file-reads.ts';
import { FRAME_VERSION } from '../../../journal/frame-codec.ts';
import { Journal, type JournalOptions } from '../../../journal/journal.ts';
import type { Lsn } from '../../../journal/position.ts';
import type { FrameSink } from '../../../journal/stream.ts';
import type { SeededRandom } from '../seeded-random.ts';
import { must } from '../violation.ts';
import { changed, type FrozenDisk, Laboratory } from './frozen-disk.ts';
import { type Look, type RecoveredJournal, readAll } from './recovered-journal.ts';

const BATCHES_LOST_MAX = 8;
const SETTLE_TIMEOUT_MS = 3000;

/**
 * The end of a journal that nothing proves is gone from its copy, and the far side holds it: a start takes it back, to the
 * byte, before it numbers anything, or, when the far side does not give it, begins nothing.
 */
export async function checkLostTail(
  frozen: FrozenDisk,
  options: JournalOptions,
  whole: RecoveredJournal,
  random: SeededRandom,
  look: Look,
): Promise<void> {
  const first = whole.batches[whole.batches.length - random.between(1, BATCHES_LOST_MAX)];
  if (first === undefined || first.firstLsn <= whole.oldestLsn || whole.found.includes('@')) return;
  const laboratory = new Laboratory(random.uint32(), withoutTail(frozen, options, first.from));
  const other = new Laboratory(random.uint32(), frozen);
  const far = await other.finish('R4', Journal.open(other.start().host, options));
  const checkpoints = new ChainCheckpoints(
    await other.finish('R4', loadShipState(other.machine.observe().disk, options.directory, options.groupId)),
    options.fileBytes,
  );
  // Where history was given up the chain is kept elsewhere: who stands in for the far side does not know it.
  if (walkStart(far, checkpoints, first.firstLsn - 1) === undefined) return;
  // It reads the same disk: damage on the way there, below what a start looks at, keeps it from giving anything.
  const leadsThere = chainAt(far, checkpoints, first.firstLsn - 1, far.endAddress).then(
    () => true,
    (error: unknown) => {
      if (hasCode(error, 'journal-damaged')) return false;
      throw error;
    },
  );
  if (!(await other.finish('R4', leadsThere))) return;
  const gives = random.chance(0.75);
  await laboratory.finish(
    'R4',
    comeBack(laboratory, options, farSide(far, checkpoints, options, gives), { whole, gives, look }),
  );
}

async function comeBack(
  laboratory: Laboratory,
  options: JournalOptions,
  sink: FrameSink,
  { gives, look, whole }: { readonly whole: RecoveredJournal; readonly gives: boolean; readonly look: Look },
): Promise<void> {
  const { host } = laboratory.start();
  const { directory, groupId, groupName } = options;
  const journal = await Journal.open(host, options);
  const { lastLsn } = journal;
  const far = whole.lastLsn;
  const settled = await settleFarSide(host, {
    journal,
    directory,
    groupId,
    groupName,
    sinks: [sink],
    timeoutMs: SETTLE_TIMEOUT_MS,
  });
  must(
    'R4',
    settled.highestLsn === far,
    () => `the far side holds LSN ${far}, the start heard of ${settled.highestLsn}`,
  );
  const begun = await journal.begin(settled).then(
    () => '',
    (error: unknown) => {
      if (!hasCode(error, 'needs-resync')) throw error;
      return error instanceof TidemarkError ? error.code : '';
    },
  );
  const held = `the journal ended at LSN ${lastLsn}, the far side holds ${far}`;
  if (gives) must('R4', begun === '', () => `${held} and gives it: the start refuses, ${begun}`);
  else must('R4', begun !== '', () => `${held} and does not give it: the start goes on at ${journal.lastLsn}`);
  must(
    'R4',
    journal.lastLsn === (gives ? far + 1 : lastLsn),
    () => `${held}: the journal ends at ${journal.lastLsn} now`,
  );
  if (!gives) return;
  await readAll(journal, (record, header) => {
    if (record.lsn <= far) look(record, header);
  });
}

/** Zeroes from the address on, as a disk shows places that were never written; nothing says how the run ended. */
function withoutTail(frozen: FrozenDisk, { directory, fileBytes }: JournalOptions, from: number): FrozenDisk {
  const changes = new Map<string, Uint8Array | undefined>([[`${directory}/journal.stop`, undefined]]);
  const sequence = Math.floor(from / fileBytes);
  for (const [path, bytes] of frozen.files) {
    const name = path.slice(directory.length + 1);
    if (!name.startsWith('journal-') || name < journalFileName(sequence)) continue;
    const left = name === journalFileName(sequence) ? from % fileBytes : 0;
    changes.set(path, bytes.slice().fill(0, left));
  }
  return changed(frozen, changes);
}

/** Whoever holds what a journal holds, and hands it out or not. */
function farSide(journal: Journal, checkpoints: ChainCheckpoints, options: JournalOptions, gives: boolean): FrameSink {
  const { groupId, groupName } = options;
  const { epoch, incarnation } = journal.report;
  const identity = { groupId, groupName, epoch, incarnation, frameVersion: FRAME_VERSION };
  async function* nothing(): AsyncGenerator<Uint8Array> {}
  return {
    open: () => undefined,
    windowBytes: 0,
    send: () => undefined,
    settle: () => Promise.resolve({ highestLsn: journal.lastLsn }),
    fetch: (fromLsn: Lsn) => (gives ? journalFrames(journal, checkpoints, identity, fromLsn) : nothing()),
    trim: () => undefined,
    status: () => ({ state: 'streaming', reason: '' }),
    close: () => Promise.resolve(),
  };
}
