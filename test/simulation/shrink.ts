import { NO_DISK_FAULTS } from '../doubles/simulated-disk.ts';
import { NO_NETWORK_FAULTS } from '../doubles/simulated-network.ts';
import { NEMESIS_ACTIONS, type RunOptions } from './run-options.ts';
import { runSeeds } from './seed-pool.ts';
import type { SeedOrder, SeedReport } from './seed-runner.ts';
import type { Invariant } from './violation.ts';

/** Other seeds under the same options tried for each simplification: the draws shift when an option changes. */
const SEEDS_TRIED = 6;

/**
 * Looks for the simplest and shortest run that breaks the same promise: takes faults, load, configuration and time away
 * one at a time, as long as it still fails (with this seed or one of a few others). Undefined: the run does not fail.
 */
export async function shrink(
  order: SeedOrder,
  jobs: number,
  print: (line: string) => void,
): Promise<SeedReport | undefined> {
  let best = await firstFailing([order], 1, undefined);
  if (best === undefined) return undefined;
  print(`seed ${best.seed} fails after ${best.events} events: ${best.violation?.message.split('\n')[0]}`);
  for (let simpler = true; simpler; ) {
    simpler = false;
    for (const { name, apply } of SIMPLIFICATIONS) {
      const options: RunOptions = apply(best.options);
      if (options === best.options) continue;
      const { seed } = best;
      const seeds = [seed, ...Array.from({ length: SEEDS_TRIED - 1 }, (_, index) => 1 + index)];
      const orders = seeds.map((one) => ({ seed: one, options }));
      const found: SeedReport | undefined = await firstFailing(orders, jobs, best.violation?.invariant);
      if (found === undefined) continue;
      best = found;
      simpler = true;
      print(`${name}: seed ${best.seed} fails after ${best.events} events`);
    }
  }
  return best;
}

async function firstFailing(
  orders: readonly SeedOrder[],
  jobs: number,
  invariant: Invariant | undefined,
): Promise<SeedReport | undefined> {
  const found: SeedReport[] = [];
  await runSeeds(orders, Math.min(jobs, orders.length), (report) => {
    if (report.violation === undefined) return undefined;
    if (invariant !== undefined && report.violation.invariant !== invariant) return undefined;
    found.push(report);
    return 'enough';
  });
  return found.sort((a, b) => a.events - b.events)[0];
}

interface Simplification {
  readonly name: string;
  /** The same object when there is nothing to take away. */
  readonly apply: (options: RunOptions) => RunOptions;
}

/** The object with a property at its simplest; the same object when it is that already. */
function at<T extends object, K extends keyof T>(whole: T, key: K, value: T[K]): T {
  return whole[key] === value ? whole : { ...whole, [key]: value };
}

function without(options: RunOptions, name: (typeof LATE)[number]): RunOptions {
  const { [name]: _, ...others } = options;
  return others;
}

const LATE = ['second', 'image', 'degreeFile', 'giveUp'] as const;
const DISKS = ['sourceDisk', 'replicaDisk'] as const;
const RATES = ['zeroes', 'trims', 'flushes', 'fua', 'longRequests', 'abandons', 'reads'] as const;
const SHORTEST_MICROS = 500_000;

const SIMPLIFICATIONS: readonly Simplification[] = [
  { name: 'half the time', apply: halfTheTime },
  ...NEMESIS_ACTIONS.map((action) => ({
    name: `no ${action}`,
    apply: (options: RunOptions): RunOptions =>
      options.nemesis.includes(action)
        ? { ...options, nemesis: options.nemesis.filter((one) => one !== action) }
        : options,
  })),
  ...DISKS.flatMap((disk) =>
    keysOf(NO_DISK_FAULTS).map((fault) => ({
      name: `no ${fault} of the ${disk}`,
      apply: (options: RunOptions): RunOptions => at(options, disk, at(options[disk], fault, NO_DISK_FAULTS[fault])),
    })),
  ),
  ...keysOf(NO_NETWORK_FAULTS).map((fault) => ({
    name: `no ${fault} of the network`,
    apply: (options: RunOptions): RunOptions =>
      at(options, 'network', at(options.network, fault, NO_NETWORK_FAULTS[fault])),
  })),
  ...RATES.map((habit) => ({
    name: `no ${habit}`,
    apply: (options: RunOptions): RunOptions => at(options, 'habits', at(options.habits, habit, 0)),
  })),
  ...LATE.map((name) => ({
    name: `no ${name}`,
    apply: (options: RunOptions): RunOptions => (name in options ? without(options, name) : options),
  })),
  { name: 'one sector', apply: (options) => at(options, 'habits', at(options.habits, 'sectorsMax', 1)) },
  {
    name: 'a volume less',
    apply: (options) => (options.volumes.length > 1 ? { ...options, volumes: options.volumes.slice(0, -1) } : options),
  },
  {
    name: 'one client each',
    apply: (options) =>
      options.volumes.some(({ clients }) => clients > 1)
        ? { ...options, volumes: options.volumes.map((volume) => ({ ...volume, clients: 1 })) }
        : options,
  },
  {
    name: 'half the load',
    apply: (options) =>
      options.actMicros < SHORTEST_MICROS ? { ...options, actMicros: 2 * options.actMicros } : options,
  },
];

function halfTheTime(options: RunOptions): RunOptions {
  if (options.activeMicros <= SHORTEST_MICROS) return options;
  return { ...options, activeMicros: Math.ceil(options.activeMicros / 2) };
}

function keysOf<T extends object>(whole: T): (keyof T)[] {
  return Object.keys(whole) as (keyof T)[];
}
