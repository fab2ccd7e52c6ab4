import { journalFileName } from '../../journal/file-reads.ts';
import type { SimulatedDisk } from '../doubles/simulated-disk.ts';
import { JOURNAL_DIRECTORY, REPLICA_DIRECTORY } from './names.ts';
import type { ReplicaNode } from './replica-node.ts';
import type { SeededRandom } from './seeded-random.ts';
import type { World } from './world.ts';

const SEGMENT_HEADER_BYTES = 4096;

/**
 * The fault atlas: which files may rot. Only what can be made again (index runs) or what the source could still send
 * and the product can name (segments, also the end of the newest: its mark says what was acknowledged), or of the source's
 * journal what the replica holds. Never the disks of the source, where there may be no other copy, and of one run's two
 * sides only one.
 */
export function segmentFiles(disk: SimulatedDisk): string[] {
  const segments = [...disk.files.keys()].filter((path) => path.startsWith(REPLICA_DIRECTORY) && path.endsWith('.seg'));
  return segments.sort();
}

function sealedSegments(disk: SimulatedDisk): string[] {
  return segmentFiles(disk).slice(0, -1);
}

function indexRuns(disk: SimulatedDisk): string[] {
  return [...disk.files.keys()].filter((path) => path.startsWith(REPLICA_DIRECTORY) && path.endsWith('.run')).sort();
}

/** A bit of the replica turns, or a write of an index run lands in history: named or mended, and never shown as data. */
export function rotReplica({ source }: World, replica: ReplicaNode, random: SeededRandom): void {
  if (source.rotten) return;
  const { disk } = replica.machine;
  const segments = segmentFiles(disk);
  if (random.chance(0.3)) {
    disk.misdirectNext((path, length) => {
      if (!path.endsWith('.run')) return undefined;
      const [victim] = sealedSegments(disk);
      const size = victim === undefined ? 0 : (disk.files.get(victim)?.size ?? 0);
      if (victim === undefined || size < SEGMENT_HEADER_BYTES + length) return undefined;
      replica.rotten = true;
      return {
        path: victim,
        position: SEGMENT_HEADER_BYTES + 512 * Math.floor((size - length - SEGMENT_HEADER_BYTES) / 1024),
      };
    });
    return;
  }
  const choices = random.chance(0.6) ? segments : indexRuns(disk);
  if (choices.length === 0) return;
  const path = random.pick(choices);
  const size = disk.files.get(path)?.size ?? 0;
  if (size === 0) return;
  if (path === segments.at(-1)) {
    // Twice may be its header page and its only frame's header: then nothing but the position tells what it held.
    if (replica.rottenEnd === path) return;
    replica.rottenEnd = path;
  }
  replica.rotten = true;
  disk.rot(path, random.below(size), random.below(8));
}

/**
 * The source goes down, and a bit of its journal has turned when it comes up, in records that are proven durable and that
 * the replica holds and is asked for. They come back, or nobody needed them: the start and all that is read and shown
 * after it is checked as ever. While a source runs, what it reads of its newest writes is not checked (DURABILITY.md); what
 * was mended and could not be synced stands in the page cache only until it is mended again.
 */
export function rotSource(world: World, random: SeededRandom): void {
  const { model, options, replica, replicas, source } = world;
  const isAsked = options.stream.kind === 'direct' && options.life.historyBytes === 0;
  if (
    !isAsked ||
    options.sourceDisk.syncFails > 0 ||
    replicas.some(({ rotten }) => rotten) ||
    source.group === undefined
  )
    return;
  model.catchUp();
  const { follower, history } = model;
  if (follower === undefined || history.gaps().length > 0) return;
  const { oldestAddress, fileBytes } = source.group.journal;
  const heldLsn = Math.min(replica.durableLsn, follower.witnessedLsn);
  const held = follower.batches.filter(({ from, lastLsn }) => from >= oldestAddress && lastLsn <= heldLsn);
  if (held.length === 0) return;
  world.crash('source', 'kill');
  const { from, end } = random.pick(held);
  const at = random.between(from, end - 1);
  source.rotten = true;
  const path = `${JOURNAL_DIRECTORY}/${journalFileName(Math.floor(at / fileBytes))}`;
  source.machine.disk.rot(path, at % fileBytes, random.below(8));
}
