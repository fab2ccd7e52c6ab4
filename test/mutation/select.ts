import { crc32 } from 'node:zlib';
import { SeededRandom } from '../simulation/seeded-random.ts';
import { KINDS, type Mutant } from './mutant.ts';

/**
 * About `wanted` mutants, the same ones of a file for one seed: every file gets its share by the number of its
 * mutants and at least one (when fewer are wanted than there are files, some files get one), and within a file the kinds take turns, so that the many constants do not crowd out the few
 * removed calls. The rest of each file's mutants follow in `spare`, for those that the compiler refuses.
 */
export interface FileShare {
  readonly file: string;
  readonly wanted: number;
  /** Every mutant of the file, in the order in which they are to be taken. */
  readonly order: readonly Mutant[];
}

export function shareOut(byFile: ReadonlyMap<string, readonly Mutant[]>, wanted: number, seed: number): FileShare[] {
  const random = new SeededRandom(seed);
  const all = [...byFile].filter(([, mutants]) => mutants.length > 0);
  const files = wanted < all.length ? shuffle(all, random).slice(0, wanted) : all;
  const total = files.reduce((sum, [, mutants]) => sum + mutants.length, 0);
  const shares = files.map(([file, mutants]) => ({
    file,
    wanted: Math.min(mutants.length, Math.max(1, Math.floor((wanted * mutants.length) / total))),
    // of the file's name: another file that comes or goes draws nothing else from this one
    order: inTurns(mutants, new SeededRandom(seed ^ crc32(file))),
  }));
  // what rounding left over goes to the largest files, what the ones took too much comes from them
  const bySize = shares.toSorted((a, b) => b.order.length - a.order.length);
  let missing = Math.min(wanted, total) - shares.reduce((sum, share) => sum + share.wanted, 0);
  for (let turn = 0; missing !== 0 && turn < total; turn++) {
    const share = bySize[turn % bySize.length] as (typeof shares)[number];
    const step = Math.sign(missing);
    if (step > 0 ? share.wanted >= share.order.length : share.wanted <= 1) continue;
    share.wanted += step;
    missing -= step;
  }
  return shares;
}

function inTurns(mutants: readonly Mutant[], random: SeededRandom): Mutant[] {
  const shuffled = shuffle(mutants, random);
  const kinds = shuffle(KINDS, random).map((kind) => shuffled.filter((mutant) => mutant.kind === kind));
  const order: Mutant[] = [];
  while (order.length < mutants.length) {
    for (const ofKind of kinds) {
      const next = ofKind.shift();
      if (next !== undefined) order.push(next);
    }
  }
  return order;
}

function shuffle<T>(things: readonly T[], random: SeededRandom): T[] {
  const shuffled = [...things];
  for (let at = shuffled.length - 1; at > 0; at--) {
    const other = random.below(at + 1);
    [shuffled[at], shuffled[other]] = [shuffled[other] as T, shuffled[at] as T];
  }
  return shuffled;
}
