import { readAcknowledged } from '../../daemon/ship/acknowledged.ts';
import { isoTime } from '../../daemon/times.ts';
import { readCheckpoint } from '../../daemon/volume/checkpoint.ts';
import { VolumeRegistry } from '../../daemon/volume/volume-registry.ts';
import { realHost } from '../../journal/host/real-host.ts';
import { auditJournal } from '../../journal/journal-audit.ts';
import { listBatches } from '../../journal/journal-list.ts';

/** Records that cannot be read in a source's journal, and what that means. */
interface LostRecords {
  readonly fromLsn: number;
  readonly toLsn: number;
  readonly file: string;
  /** Bytes. */
  readonly offset: number;
  readonly reason: string;
  /** Of the batch before and of the one behind; null: there is none. They were written between the two. */
  readonly afterTime: string | null;
  readonly beforeTime: string | null;
  /** Whether the volumes' disks hold these records: they were written out and synced before. */
  readonly writtenOut: boolean;
  /** Replicas that said that they hold all of them. */
  readonly heldBy: readonly string[];
  /** What an operator can do, in order. */
  readonly wayOn: readonly string[];
}

export interface JournalDamageReport {
  readonly directory: string;
  readonly groupId: string;
  /** Any place of these may be meant: the list of what was written is lost with the records. */
  readonly volumes: readonly string[];
  /** The disks hold everything up to here; 0: nothing is known to be written out. */
  readonly writtenOutLsn: number;
  readonly replicas: readonly { readonly name: string; readonly acknowledgedLsn: number }[];
  readonly damage: readonly LostRecords[];
}

/** Reads everything again; changes nothing and takes no lock. Throws not-found, journal-damaged, format-too-new. */
export function explainDamage(directory: string): JournalDamageReport {
  const host = realHost();
  const audit = auditJournal(host, directory);
  const { groupId } = audit;
  const place = { directory, groupId };
  const writtenOutLsn = readCheckpoint(host, place)?.checkpoint.lsn ?? 0;
  const replicas = readAcknowledged(host, place).map(({ name, acknowledgedLsn }) => ({ name, acknowledgedLsn }));
  const lost = audit.damage.filter(({ fromLsn, toLsn }) => toLsn >= fromLsn);
  const damage = lost.map(({ fromLsn, toLsn, file, offset, reason }) => {
    const writtenOut = toLsn <= writtenOutLsn;
    const heldBy = replicas.filter(({ acknowledgedLsn }) => acknowledgedLsn >= toLsn).map(({ name }) => name);
    const newest = Math.max(0, ...replicas.map(({ acknowledgedLsn }) => acknowledgedLsn));
    const times = timesAround(directory, fromLsn, toLsn);
    const wayOn = wayOnFor({ fromLsn, writtenOut, heldBy, newest });
    return { fromLsn, toLsn, file, offset, reason, ...times, writtenOut, heldBy, wayOn };
  });
  const volumes = VolumeRegistry.load(host, place).all.map(({ name }) => name);
  return { directory, groupId, volumes, writtenOutLsn, replicas, damage };
}

function timesAround(directory: string, fromLsn: number, toLsn: number): Pick<LostRecords, 'afterTime' | 'beforeTime'> {
  let afterTime: string | null = null;
  for (const step of listBatches(realHost(), directory)) {
    if ('reason' in step || step.header.count === 0) continue;
    if (step.lastLsn < fromLsn) afterTime = isoTime(step.time);
    else if (step.firstLsn > toLsn) return { afterTime, beforeTime: isoTime(step.time) };
  }
  return { afterTime, beforeTime: null };
}

const AGAIN =
  'then protect the volumes as a new group: another name and journal directory, start: seed. Replicas keep the old history under the old name';

function wayOnFor(lost: {
  readonly fromLsn: number;
  readonly writtenOut: boolean;
  readonly heldBy: readonly string[];
  readonly newest: number;
}): string[] {
  const { fromLsn, writtenOut, heldBy, newest } = lost;
  const ask =
    heldBy.length > 0
      ? `start the source while ${heldBy.join(' or ')} can be reached: the records are put back by themselves`
      : 'no replica said that it holds them; a Kafka topic may: start the source while it can be reached';
  if (writtenOut) {
    return [
      ask,
      `if nobody has them any more: the disks are whole and the guests may go on, but no point behind LSN ${fromLsn - 1} reaches a replica until you decide: tidemark give-up <group> --reason <text> --dry-run`,
      'then without --dry-run, and restart the source: history has a gap there, and every volume is seeded anew behind it',
    ];
  }
  const point = Math.min(newest, fromLsn - 1);
  const restore =
    newest >= fromLsn
      ? 'tidemark restore every volume from the newest point of the replica that holds the most'
      : point > 0
        ? `tidemark restore every volume from LSN ${point}, the newest point a replica is known to hold; every write behind it is lost`
        : 'no replica is known to hold a point: look with tidemark points at each';
  return [
    ask,
    `if nobody has them any more: the disks lack these records and must not be used as they are; ${restore}`,
    AGAIN,
  ];
}
