import { drawPolicy } from './degree-options.ts';
import type { RunOptions } from './run-options.ts';
import { SeededRandom } from './seeded-random.ts';

/** A group has another replica, on a machine of its own, beside the one that every run has and that is required. */
export interface SecondOptions {
  /** The journal keeps what it does not hold, and answers wait for it. */
  readonly required: boolean;
}

/** What becomes of the standby image beside crashes. */
export interface ImageOptions {
  /** Each start of the replica may have another mode, or none. */
  readonly changes: boolean;
  /** How often somebody takes the newest files of history away once all is well, or a file of the image. */
  readonly taken: number;
  /** How often it dies right after a stamp, at most, and of what share of those that call the image a mixture. */
  readonly dies: { readonly times: number; readonly share: number };
}

/** Drawn by themselves, for seeds that nobody has run before there were any: what a run of old is stays as it is. */
export interface LateOptions {
  /** Absent: there is one replica. */
  readonly second?: SecondOptions;
  /** Absent: one mode, and nobody takes anything away. */
  readonly image?: ImageOptions;
  /** Absent: what a degree file's directory is not synced for is chance. */
  readonly degreeFile?: { readonly share: number };
}

const FIRST_SEED = 40_000_000;
const SMALL_SEGMENT_BYTES = 64 * 1024;
const OWN_GENERATOR = 0x2b1d_77c3;

export function lateRandom(seed: number): SeededRandom {
  return new SeededRandom((seed ^ OWN_GENERATOR) >>> 0);
}

/** With what else has to be so in such a run. */
export function withLate(seed: number, options: RunOptions): RunOptions {
  if (seed < FIRST_SEED || options.giveUp !== undefined) return options;
  const random = lateRandom(seed);
  const second = random.chance(0.5) ? { required: random.chance(0.5) } : undefined;
  const image = random.chance(0.4) ? drawImage(random) : undefined;
  const files = random.chance(0.25);
  const base = files ? promising(options, random) : options;
  // where an image is away for a time nobody waits for it
  const { policy } = base.degree;
  const waits = image?.changes === true && policy.ack === 'applied';
  return {
    ...base,
    degree: waits ? { ...base.degree, policy: { ...policy, ack: 'replica' } } : base.degree,
    ...(second && { second, nemesis: [...options.nemesis, 'cut-off-one' as const] }),
    ...(image && { image, apply: options.apply === 'off' ? random.pick(['async', 'sync'] as const) : options.apply }),
    // what is taken are segments, and there have to be some
    ...(image !== undefined && image.taken > 0 && { segmentBytes: SMALL_SEGMENT_BYTES }),
    ...(files && { degreeFile: { share: 0.7 } }),
  };
}

function drawImage(random: SeededRandom): ImageOptions {
  const dies = { times: random.pick([0, 3, 10]), share: random.pick([0.1, 0.5]) };
  return { changes: random.chance(0.7), taken: random.pick([0, 1, 2, 3]), dies };
}

/** Guests that wait for a replica that keeps up, and are answered without it soon when it does not. */
function promising(options: RunOptions, random: SeededRandom): RunOptions {
  const policy = drawPolicy(random, options.life.outOfRoom === 'block');
  return {
    ...options,
    activeMicros: 12_000_000,
    nemesisMicros: Math.max(options.nemesisMicros, 2_000_000),
    nemesis: [...options.nemesis.filter((action) => action !== 'partition'), 'partition'],
    network: { ...options.network, latencyMicrosMax: 5_000, cuts: 0 },
    degree: {
      policy: { ...policy, ack: 'replica', onStall: 'degrade', stallAfterMs: random.pick([800, 2_000]) },
      changes: random.chance(0.3),
      heartbeatMs: 50,
    },
  };
}
