import { NO_DISK_FAULTS } from '../doubles/simulated-disk.ts';
import { NO_NETWORK_FAULTS } from '../doubles/simulated-network.ts';
import type { RunOptions } from './run-options.ts';
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
    for (const { name, options } of simplifications(best.options)) {
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

/** Each option that could be simpler than it is, with a name for a person; only what would be a change. */
function* simplifications(options: RunOptions): Generator<{ readonly name: string; readonly options: RunOptions }> {
  const { habits, nemesis, network, replicaDisk, sourceDisk, volumes } = options;
  for (const action of nemesis) {
    yield { name: `no ${action}`, options: { ...options, nemesis: nemesis.filter((one) => one !== action) } };
  }
  for (const disk of ['sourceDisk', 'replicaDisk'] as const) {
    for (const [fault, value] of Object.entries(disk === 'sourceDisk' ? sourceDisk : replicaDisk)) {
      const none = NO_DISK_FAULTS[fault as keyof typeof NO_DISK_FAULTS];
      if (value === none) continue;
      yield { name: `${disk} ${fault}`, options: { ...options, [disk]: { ...options[disk], [fault]: none } } };
    }
  }
  for (const [fault, value] of Object.entries(network)) {
    const none = NO_NETWORK_FAULTS[fault as keyof typeof NO_NETWORK_FAULTS];
    if (value !== none)
      yield { name: `network ${fault}`, options: { ...options, network: { ...network, [fault]: none } } };
  }
  for (const [habit, value] of Object.entries(habits)) {
    const none = habit === 'sectorsMax' ? 1 : 0;
    if (value !== none) yield { name: `no ${habit}`, options: { ...options, habits: { ...habits, [habit]: none } } };
  }
  if (volumes.length > 1) yield { name: 'a volume less', options: { ...options, volumes: volumes.slice(0, -1) } };
  if (volumes.some(({ clients }) => clients > 1)) {
    const alone = volumes.map((volume) => ({ ...volume, clients: 1 }));
    yield { name: 'one client each', options: { ...options, volumes: alone } };
  }
  if (options.activeMicros > 500_000) {
    yield { name: 'half the time', options: { ...options, activeMicros: Math.ceil(options.activeMicros / 2) } };
  }
  if (options.actMicros < 500_000) {
    yield { name: 'half the load', options: { ...options, actMicros: options.actMicros * 2 } };
  }
}
