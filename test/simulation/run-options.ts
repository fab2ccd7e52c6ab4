import type { ApplyMode } from '../../replica/standby/standby-image.ts';
import { type DiskFaults, NO_DISK_FAULTS } from '../doubles/simulated-disk.ts';
import type { NetworkFaults } from '../doubles/simulated-network.ts';
import { ALONE, type DegreeOptions, drawDegree } from './degree-options.ts';
import type { GiveUpOptions } from './give-up-options.ts';
import type { LateOptions } from './late-options.ts';
import { CALM_LIFE, drawLife, type LifeOptions } from './life-options.ts';
import type { SeededRandom } from './seeded-random.ts';
import { DIRECT, drawStream, type StreamOptions } from './stream-options.ts';
import type { Habits } from './volume-client.ts';

/** Everything about a run that is drawn from its seed before it begins: the swarm. Printed when a run fails. */
export interface RunOptions extends LateOptions {
  readonly volumes: readonly { readonly id: number; readonly sectors: number; readonly clients: number }[];
  readonly habits: Habits;
  /** Between two acts of one client, mean. */
  readonly actMicros: number;
  readonly journalFileBytes: number;
  readonly journalFiles: number;
  readonly overlayBytesMax: number;
  readonly segmentBytes: number;
  readonly memtableEntries: number;
  /** How long faults and load go on, simulated. */
  readonly activeMicros: number;
  /** Mean time between two actions of the nemesis. */
  readonly nemesisMicros: number;
  readonly nemesis: readonly NemesisAction[];
  /** How often somebody takes a bookmark right before the source loses its power, probability. */
  readonly bookmarkBeforePowerLoss: number;
  readonly sourceDisk: DiskFaults;
  readonly replicaDisk: DiskFaults;
  readonly network: NetworkFaults;
  readonly stream: StreamOptions;
  readonly life: LifeOptions;
  readonly degree: DegreeOptions;
  /** The replica keeps raw files at its head. */
  readonly apply: 'off' | ApplyMode;
  /** Drawn by itself; absent: the run ends without. */
  readonly giveUp?: GiveUpOptions;
}

export const NEMESIS_ACTIONS = [
  'kill-source',
  'power-source',
  'kill-replica',
  'power-replica',
  'power-both',
  'cut-network',
  'lose-answers',
  'partition',
  'partition-one-way',
  'idle',
  'clock-jump',
  'fill-source',
  'fill-replica',
  'slow-disk',
  'rot-replica',
  'rot-source',
  'stop-source',
  'stop-replica',
  'cut-off-one',
] as const;
export type NemesisAction = (typeof NEMESIS_ACTIONS)[number];
/** Drawn behind everything else, so that it changed nothing of what a seed draws. */
const DRAWN_LAST: NemesisAction = 'rot-source';
/** Drawn elsewhere. */
const DRAWN_LATE: NemesisAction = 'cut-off-one';

const KIB = 1024;

/** Options that were written down before there were all of these: what did not exist then does not happen. */
export function completed(options: Partial<RunOptions>): RunOptions {
  const { life, ...others } = options;
  const added = { stream: DIRECT, bookmarkBeforePowerLoss: 0, degree: ALONE, apply: 'off' };
  return { ...added, ...others, life: { ...CALM_LIFE, ...life } } as RunOptions;
}

export function drawOptions(random: SeededRandom): RunOptions {
  const maybe = (probability: number, value: number): number => (random.chance(probability) ? value : 0);
  const disk = (): DiskFaults => {
    if (random.chance(0.5)) return { ...NO_DISK_FAULTS, latencyMicrosMax: random.pick([100, 2000, 20_000]) };
    return {
      syncFails: maybe(0.4, 0.003),
      writeFails: maybe(0.3, 0.001),
      writeShort: maybe(0.3, 0.001),
      readFails: maybe(0.3, 0.0005),
      latencyMicrosMax: random.pick([100, 2000, 20_000]),
      stuck: maybe(0.3, 0.01),
    };
  };
  // A volume with requests of several MiB, which arrive in many pieces, and a journal that has room for them.
  const large = random.chance(0.08);
  const volumes = large
    ? [{ id: 1, sectors: 16_384, clients: 2 }]
    : Array.from({ length: random.between(1, 3) }, (_, index) => ({
        id: index + 1,
        sectors: random.pick([64, 256, 1024]),
        clients: random.between(1, 3),
      }));
  const drawn: RunOptions = {
    volumes,
    habits: {
      sectorsMax: random.pick([1, 8, 32]),
      zeroes: maybe(0.7, 0.1),
      trims: maybe(0.7, 0.1),
      flushes: maybe(0.8, random.pick([0.02, 0.2])),
      fua: maybe(0.6, 0.1),
      longRequests: large ? 0.03 : maybe(0.6, 0.1),
      longSectorsMax: large ? 8192 : 128,
      places: random.pick(['anywhere', 'anywhere', 'hot', 'sequential']),
      abandons: maybe(0.5, 0.05),
      reads: random.pick([0.05, 0.3]),
    },
    actMicros: random.pick([4000, 12_000, 40_000]),
    journalFileBytes: large ? 1024 * KIB : random.pick([128 * KIB, 256 * KIB, 512 * KIB]),
    journalFiles: large ? 64 : random.pick([6, 16, 64]),
    overlayBytesMax: random.pick([256 * KIB, 4096 * KIB]),
    segmentBytes: random.pick([64 * KIB, 512 * KIB, 4096 * KIB]),
    memtableEntries: random.pick([64, 1024, 8192]),
    activeMicros: random.pick([2, 5, 12]) * 1_000_000,
    nemesisMicros: random.pick([200_000, 800_000, 2_000_000]),
    nemesis: NEMESIS_ACTIONS.filter((action) => action !== DRAWN_LAST && action !== DRAWN_LATE && random.chance(0.4)),
    sourceDisk: disk(),
    replicaDisk: disk(),
    network: {
      latencyMicrosMax: random.pick([200, 5000, 50_000]),
      bytesPerMicro: random.pick([1, 10, 100]),
      cuts: maybe(0.3, 0.002),
      silentDeaths: maybe(0.5, 0.5),
    },
    stream: drawStream(random),
    life: drawLife(random),
    bookmarkBeforePowerLoss: maybe(0.4, 0.5),
    degree: ALONE,
    apply: 'off',
  };
  // A block of a seed is one batch, and no file of the product is smaller than a MiB.
  const { journalFileBytes, life } = drawn;
  const fileBytes = life.seeded ? Math.max(journalFileBytes, 512 * KIB) : journalFileBytes;
  const nemesis = random.chance(0.25) ? [...drawn.nemesis, DRAWN_LAST] : drawn.nemesis;
  const added = random.fork();
  const degree = drawDegree(added, life.outOfRoom === 'block');
  const apply = degree.policy.ack === 'applied' ? 'sync' : added.pick(['off', 'off', 'off', 'async', 'sync'] as const);
  return { ...drawn, journalFileBytes: fileBytes, nemesis, degree, apply };
}
