import { readFileSync } from 'node:fs';
import { completed, type RunOptions } from './run-options.ts';

/** A run that once ended in a broken promise, and what it found. */
interface PastRun {
  readonly seed: number;
  readonly found: string;
  readonly options: RunOptions;
}

/**
 * Each with the options it had: what a seed draws changes with every option that is added. What happens in a run changes
 * with the product, too, so that it is the same kind of run and no more; what it found has a test of its own.
 */
export const PAST_RUNS: readonly PastRun[] = (
  JSON.parse(readFileSync(new URL('past-runs.json', import.meta.url), 'utf8')) as PastRun[]
).map((run) => ({ ...run, options: completed(run.options) }));
