import type { SimulatedDisk } from '../doubles/simulated-disk.ts';
import { REPLICA_DIRECTORY } from './names.ts';
import type { SeededRandom } from './seeded-random.ts';
import type { World } from './world.ts';

const SEGMENT_HEADER_BYTES = 4096;

/**
 * The fault atlas: which files may rot. Only what can be made again (index runs) or what the source could still send
 * and the product can name (segments, also the end of the newest: its mark says what was acknowledged). Never the
 * journal or the disks of the source, where there may be no other copy.
 */
function segmentFiles(disk: SimulatedDisk): string[] {
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
export function rotReplica(world: World, random: SeededRandom): void {
  const { replica } = world;
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
