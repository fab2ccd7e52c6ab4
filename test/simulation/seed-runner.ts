import type { RunOptions } from './run-options.ts';
import { type Invariant, Violation } from './violation.ts';
import { World } from './world.ts';

/** One run to do: a seed, and options in place of those it would draw. */
export interface SeedOrder {
  readonly seed: number;
  readonly options?: RunOptions;
}

/** What one run did, as it goes between processes. */
export interface SeedReport {
  readonly seed: number;
  readonly events: number;
  readonly simulatedMicros: number;
  readonly crashes: number;
  readonly records: number;
  readonly acknowledged: number;
  readonly views: number;
  readonly traceHash: string;
  readonly options: RunOptions;
  readonly violation?: { readonly invariant: Invariant; readonly message: string };
}

/** The child of a pool: runs the seeds it is sent, one after the other, until the parent is gone. */
process.on('message', (order: SeedOrder) => {
  void runOne(order);
});

async function runOne(order: SeedOrder): Promise<void> {
  const { seed, options } = order;
  const world = new World(seed, undefined, (drawn) => options ?? drawn);
  const { violation, ...report } = await world.run();
  const told = violation && {
    invariant: violation instanceof Violation ? violation.invariant : ('X1' as const),
    message: violation.message,
  };
  process.send?.({ ...report, ...(told && { violation: told }) } satisfies SeedReport);
}

process.on('disconnect', () => process.exit());
