import type { ProtectedGroup } from '../../daemon/volume/protected-group.ts';
import type { Host } from '../../journal/host/host.ts';
import type { Journal } from '../../journal/journal.ts';
import type { Marks } from '../../journal/marks.ts';
import type { Lsn } from '../../journal/position.ts';
import type { SimulatedProcess } from '../doubles/simulated-process.ts';

/** What one start of the source is made of beside its group. */
export interface PreparedSource {
  readonly host: Host;
  readonly settle: ((journal: Journal) => Promise<{ readonly highestLsn: Lsn } | undefined>) | undefined;
  /** Begins to ship what becomes durable; returns the stop. */
  ship(group: ProtectedGroup, directory: string): () => Promise<void>;
}

/** Where a planted bug gets between the real parts. */
export interface SourceParts {
  prepare(host: Host, process: SimulatedProcess, marks: Marks): PreparedSource;
}
