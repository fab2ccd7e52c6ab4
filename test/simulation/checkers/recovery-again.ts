import { TidemarkError } from '../../../journal/base/errors.ts';
import type { JournalOptions } from '../../../journal/journal.ts';
import type { SeededRandom } from '../seeded-random.ts';
import { must } from '../violation.ts';
import { type FrozenDisk, Laboratory } from './frozen-disk.ts';
import { type Look, type RecoveredJournal, recoverJournal } from './recovered-journal.ts';

/** How a recovery ended: what it found, or why it refused. */
type Outcome = { readonly recovered?: RecoveredJournal; readonly found: string };

/**
 * A copy of a journal that a crash left is recovered, and recovered again; another copy is recovered, killed in between at
 * any event, and recovered: always the same is found. Resolves with it; undefined when all refused, for the same reason.
 */
export async function checkRecoveredAgain(
  frozen: FrozenDisk,
  options: JournalOptions,
  random: SeededRandom,
  look: Look,
): Promise<RecoveredJournal | undefined> {
  const once = new Laboratory(random.uint32(), frozen);
  const first = await recover(once, options, look);
  const events = once.scheduler.events;
  const second = await recover(once, options, look);
  must('R6', second.found === first.found, () => `recovered again: ${second.found}, before ${first.found}`);
  const killed = new Laboratory(random.uint32(), frozen);
  const at = random.below(events + 1);
  const { host } = killed.start();
  recoverJournal(host, options, look).catch(() => undefined);
  await killed.events(at);
  const third = await recover(killed, options, look);
  const when = `killed at event ${at} of ${events}, recovered again`;
  must('R6', third.found === first.found, () => `${when}: ${third.found}, without the kill ${first.found}`);
  return first.recovered;
}

/** A bit of a copy has turned: whatever is handed out of it then was appended once. */
export async function checkTurnedBit(
  frozen: FrozenDisk,
  options: JournalOptions,
  random: SeededRandom,
  look: Look,
): Promise<void> {
  const paths = [...frozen.files.keys()].filter((path) => path.endsWith('.tmj')).sort();
  if (paths.length === 0) return;
  const path = random.pick(paths);
  const bytes = frozen.files.get(path) as Uint8Array;
  const used = bytes.findLastIndex((byte) => byte !== 0) + 1;
  if (used === 0) return;
  const turned = bytes.slice();
  const position = random.below(used);
  turned[position] = (turned[position] as number) ^ (1 << random.below(8));
  const files = new Map(frozen.files).set(path, turned);
  await recover(new Laboratory(random.uint32(), { ...frozen, files }), options, look);
}

async function recover(laboratory: Laboratory, options: JournalOptions, look: Look): Promise<Outcome> {
  const { host, process } = laboratory.start();
  try {
    const recovered = await laboratory.finish('R6', recoverJournal(host, options, look));
    return { recovered, found: recovered.found };
  } catch (error) {
    if (!(error instanceof TidemarkError)) throw error;
    return { found: `${error.code}: ${error.message}` };
  } finally {
    process.kill();
  }
}
