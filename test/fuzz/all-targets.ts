import type { FuzzTarget } from './target.ts';

/** Imported late, so that coverage counts in all of the product's code. */
export async function allTargets(): Promise<readonly FuzzTarget[]> {
  const modules = await Promise.all([
    import('./targets/nbd-handshake.ts'),
    import('./targets/nbd-transmission.ts'),
    import('./targets/journal.ts'),
    import('./targets/frames.ts'),
    import('./targets/replica.ts'),
    import('./targets/streams.ts'),
    import('./targets/texts.ts'),
  ]);
  return modules.flatMap((module) => (Object.values(module) as unknown[]).filter(isTarget));
}

function isTarget(value: unknown): value is FuzzTarget {
  return typeof value === 'object' && value !== null && 'testRuns' in value;
}
