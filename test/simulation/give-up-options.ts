import type { RunOptions } from './run-options.ts';
import { SeededRandom } from './seeded-random.ts';

/** What becomes of records that rot when nobody but the source's journal holds them, once everything else of a run is over. */
export interface GiveUpOptions {
  /** Gaps, one after the other. */
  readonly rounds: number;
  /** Why nobody else gets the records. Over direct: the replica is down, or cut off. Over Kafka: the brokers are down, or what the topic had expires. */
  readonly nobodyBy: 'replica-down' | 'cut-off' | 'brokers-down' | 'topic-expires';
  /** The bits turn while the source runs (direct only), or while it is down. */
  readonly rots: 'running' | 'down';
  /** Runs of batches that rot. */
  readonly stretches: number;
  /** The first of them begins in what the replica holds. */
  readonly beginsHeld: boolean;
  /** Words that must be refused. */
  readonly refused: readonly RefusedWord[];
  /** Somebody is away when the source starts with the word: it waits. */
  readonly waits: boolean;
  /** The bits turn back, the records arrive, and the bits turn again before the start that finds the word. */
  readonly arrivesAfterAll: boolean;
  /** How the source ends before it carries the word out. */
  readonly ends: 'stop' | 'kill' | 'losePower';
  /** The starts that carry it out die so often: so long after the start, or after the first write of what is put back. */
  readonly crashes: readonly StartCrash[];
  /** The disks fail now and then from the end of the source on, for so long; absent: they do not. */
  readonly faults?: WordFaults;
}

/** Probabilities per call, as in `DiskFaults`. */
export interface WordFaults {
  readonly micros: number;
  readonly syncFails: number;
  readonly writeFails: number;
  readonly writeShort: number;
  readonly readFails: number;
  /** The source's disk has no room but what its files take. */
  readonly full: boolean;
  /** The replica's disk fails, too. */
  readonly replica: boolean;
}

export interface StartCrash {
  readonly how: 'kill' | 'losePower';
  readonly after: 'start' | 'repair';
  readonly micros: number;
}

/** Nothing is lost yet; somebody holds what rotted; the replica is away; the disks lack some of it; only asked what it would mean. */
const REFUSED = ['nothing-lost', 'held', 'away', 'disks-lack', 'dry-run'] as const;
type RefusedWord = (typeof REFUSED)[number];

const SHARE = 0.2;
/** The runs before had no such end, and keep it. */
const FIRST_SEED = 8_200_000;
/** The same for faults of disks while a word is carried out. */
const FAULTS_FIRST_SEED = 41_000_000;
const OWN_GENERATOR = 0x6715_e0b5;
/** A block of a seed is one batch of the journal. */
const FILE_BYTES_MIN = 512 * 1024;

/** Of the seed, and by nothing that others draw from; undefined: the run ends without. */
export function drawGiveUp(seed: number, options: RunOptions): GiveUpOptions | undefined {
  const random = giveUpRandom(seed);
  if (seed < FIRST_SEED || options.journalFileBytes < FILE_BYTES_MIN || !random.chance(SHARE)) return undefined;
  const isDirect = options.stream.kind === 'direct';
  return {
    rounds: random.chance(0.2) ? 2 : 1,
    nobodyBy: random.pick(isDirect ? ['replica-down', 'cut-off'] : ['brokers-down', 'topic-expires']),
    rots: isDirect && random.chance(0.5) ? 'running' : 'down',
    stretches: random.pick([1, 1, 2, 3]),
    beginsHeld: random.chance(0.3),
    refused: REFUSED.filter(() => random.chance(0.35)),
    waits: random.chance(0.25),
    arrivesAfterAll: random.chance(0.2),
    ends: random.pick(['stop', 'kill', 'losePower']),
    crashes: Array.from({ length: random.pick([0, 1, 1, 2]) }, () => drawCrash(random)),
    ...(seed >= FAULTS_FIRST_SEED && random.chance(0.8) ? { faults: drawFaults(random) } : {}),
  };
}

function drawFaults(random: SeededRandom): WordFaults {
  const rate = random.pick([0.005, 0.03, 0.15]);
  const maybe = (): number => (random.chance(0.5) ? rate : 0);
  return {
    micros: random.between(1, random.pick([30_000, 600_000, 5_000_000])),
    syncFails: maybe(),
    writeFails: maybe(),
    writeShort: maybe(),
    readFails: maybe(),
    full: random.chance(0.2),
    replica: random.chance(0.3),
  };
}

function drawCrash(random: SeededRandom): StartCrash {
  const how = random.pick(['kill', 'losePower'] as const);
  if (random.chance(0.5)) return { how, after: 'repair', micros: random.between(0, random.pick([100, 1000, 5000])) };
  return { how, after: 'start', micros: random.between(1, random.pick([3_000, 30_000, 300_000, 1_500_000])) };
}

export function giveUpRandom(seed: number): SeededRandom {
  return new SeededRandom((seed ^ OWN_GENERATOR) >>> 0);
}
