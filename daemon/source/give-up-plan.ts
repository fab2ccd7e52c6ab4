import { TidemarkError } from '../../journal/base/errors.ts';
import { type DamagedStretch, entryTime } from '../../journal/damaged-stretch.ts';
import { delay, type Host } from '../../journal/host/host.ts';
import type { Journal } from '../../journal/journal.ts';
import type { JournalAddress, Lsn } from '../../journal/position.ts';
import type { StreamStatus } from '../../journal/stream.ts';
import type { GiveUpReply, LostRecordsReply } from '../control/control-api.ts';
import type { GivenWord } from '../ship/given-word.ts';
import type { JournalDamage } from '../ship/journal-mender.ts';
import type { ShipReplicaStatus } from '../ship/ship-status.ts';
import { isoTime } from '../times.ts';

/** What is known when an operator wants to give up records. */
export interface GiveUpFacts {
  readonly journal: Journal;
  /** As everybody answered just now. */
  readonly damage: readonly JournalDamage[];
  readonly replicas: readonly ShipReplicaStatus[];
  readonly streams: readonly StreamStatus[];
  /** How the streams are called, in their order. */
  readonly streamNames: readonly string[];
  /** Everything below is synced in the disks. */
  readonly writtenOutTo: JournalAddress;
  readonly volumes: readonly string[];
  readonly reason: string;
}

/** A replica tells its state at every heartbeat; one that was not heard for so long is away. */
const SILENT_SECONDS = 30;
/** Read from the journal in one turn of the event loop. */
const SLICE_BYTES = 8 * 1024 * 1024;

/**
 * Addresses of everything that cannot be read from `from` on: shipping stands still at the first, and a gap for each of
 * them would be a new seed for each.
 */
export async function damageBehind(host: Host, journal: Journal, from: JournalAddress): Promise<JournalAddress[]> {
  const found: JournalAddress[] = [];
  const reader = journal.reader(from);
  const limit = journal.marks.address('durable');
  let pausedAt = from;
  try {
    for (;;) {
      try {
        if (reader.next(limit) === undefined) return found;
      } catch (error) {
        const at = error instanceof TidemarkError ? error.details['address'] : undefined;
        if (typeof at !== 'number' || !(error instanceof TidemarkError) || error.code !== 'journal-damaged')
          throw error;
        found.push(at);
        if (reader.skipDamage(limit) === undefined) return found;
      }
      if (reader.address - pausedAt < SLICE_BYTES) continue;
      pausedAt = reader.address;
      await delay(host.clock, 0);
    }
  } finally {
    await reader.close();
  }
}

/**
 * What giving up would mean, and the word that the next start carries out. Throws `precondition-failed` (nothing is
 * damaged; the disks need the records; a replica holds them) and `stream-unavailable` (somebody could not be asked).
 */
export function planGiveUp(facts: GiveUpFacts): { readonly word: GivenWord; readonly reply: GiveUpReply } {
  const { damage, journal, volumes, reason, streamNames } = facts;
  const stretches = damage
    .map((found) => ({ found, stretch: journal.damageAt(found.address) }))
    .filter((one): one is { found: JournalDamage; stretch: DamagedStretch } => one.stretch !== undefined)
    .filter(({ stretch }) => stretch.toLsn >= stretch.fromLsn);
  if (stretches.length === 0) {
    throw new TidemarkError('precondition-failed', 'no record is known to be lost here: there is nothing to give up');
  }
  for (const { stretch } of stretches) refuseNeeded(facts, stretch);
  refuseAway(facts);
  for (const { found } of stretches) refuseHeld(facts, found);
  const lost = stretches.map(({ found, stretch }): LostRecordsReply => {
    const { fromLsn, toLsn, after, time } = stretch;
    return {
      fromLsn: Math.max(fromLsn, heldLsn(found) + 1),
      toLsn,
      afterTime: time === 0 ? null : isoTime(time),
      beforeTime: after === undefined ? null : isoTime(entryTime(after)),
      answers: found.answers.map(({ reason: answer }, at) => ({ name: streamNames[at] ?? '', answer })),
    };
  });
  const first = Math.min(...lost.map(({ fromLsn }) => fromLsn));
  const steps = [
    ...lost.flatMap(({ fromLsn, toLsn, afterTime, beforeTime, answers }) => [
      `records ${fromLsn} to ${toLsn} are lost to history, written between ${afterTime ?? 'the beginning'} and ${beforeTime ?? 'the end'}; bookmarks among them are gone`,
      ...answers.map(({ name, answer }) => `${name} was asked for them: ${answer}`),
    ]),
    `points up to LSN ${first - 1} stay; from there on there is no point until a new seed of every volume has ended`,
    `every volume is seeded anew, and shut meanwhile: ${volumes.join(', ')}`,
    `the timeline shows the gap and its reason: ${reason}`,
    'all of this at the next start of the source: restart it when the guests can do without their disks, with every replica connected',
  ];
  const word = {
    reason,
    stretches: stretches.map(({ stretch: { fromLsn, toLsn, address } }) => ({ fromLsn, toLsn, address })),
  };
  return { word, reply: { dryRun: false, steps, lost, volumes, reason } };
}

/** As far as anybody gave the first of them. */
function heldLsn({ answers }: JournalDamage): Lsn {
  return Math.max(0, ...answers.map((answer) => answer.heldLsn ?? 0));
}

function refuseNeeded({ writtenOutTo, journal }: GiveUpFacts, { fromLsn, toLsn, resumeAddress }: DamagedStretch): void {
  if (resumeAddress <= writtenOutTo) return;
  throw new TidemarkError(
    'precondition-failed',
    `the disks lack records ${fromLsn} to ${toLsn}, so that the guests' own data is lost with them and nothing can be given up: restore; \`tidemark journal damage\` on the journal's directory says how`,
    { details: { fromLsn, toLsn, oldestLsn: journal.oldestLsn } },
  );
}

function refuseAway({ streams, streamNames, replicas }: GiveUpFacts): void {
  const andThen = 'start it, or take it out of the configuration and restart the source';
  for (const [at, { state, reason }] of streams.entries()) {
    if (state === 'streaming') continue;
    const name = streamNames[at] ?? '';
    throw new TidemarkError(
      'stream-unavailable',
      `${name} may hold the records and is not connected (${reason || state}): ${andThen}`,
      { details: { name } },
    );
  }
  for (const { name, durableLsn, heardSecondsAgo } of replicas) {
    if (durableLsn !== null && heardSecondsAgo !== null && heardSecondsAgo <= SILENT_SECONDS) continue;
    throw new TidemarkError('stream-unavailable', `replica ${name} may hold the records and is not heard: ${andThen}`, {
      details: { name },
    });
  }
}

function refuseHeld({ replicas }: GiveUpFacts, found: JournalDamage): void {
  const { fromLsn, toLsn } = found;
  const from = Math.max(fromLsn, heldLsn(found) + 1);
  for (const { name, durableLsn } of replicas) {
    if (durableLsn === null || durableLsn < from) continue;
    throw new TidemarkError(
      'precondition-failed',
      `replica ${name} has acknowledged records up to ${durableLsn}, so that it holds what is lost here of ${fromLsn} to ${toLsn}: they are put back when it can read them itself; otherwise put a fresh replica in its place`,
      { details: { name, durableLsn, fromLsn, toLsn } },
    );
  }
}
