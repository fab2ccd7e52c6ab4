import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { activeVolumes } from './active-volumes.ts';
import { idleGroups } from './idle-groups.ts';
import { indexViews } from './index-views.ts';
import { kafkaGuest, kafkaSustained } from './kafka.ts';
import { length } from './length.ts';
import type { PartContext, PartRun } from './part.ts';
import { type PartFigures, partFigures } from './part-figures.ts';
import { FULL_ONLY, PART_SPECS, type PartSpec } from './part-specs.ts';
import { receive } from './receive.ts';
import { recovery } from './recovery.ts';
import { restore } from './restore.ts';
import { viewFio } from './view-fio.ts';

const RUNS: Readonly<Record<string, PartRun>> = {
  receive,
  'index-1m': indexViews(1_000_000),
  'index-10m': indexViews(10_000_000),
  'index-50m': indexViews(50_000_000),
  'view-fio': viewFio,
  restore,
  recovery,
  'idle-groups': idleGroups,
  'active-volumes': activeVolumes,
  length,
  'kafka-sustained': kafkaSustained,
  'kafka-guest': kafkaGuest,
};

/** True when there is a program behind the name. */
export function isMeasured(row: string): boolean {
  return RUNS[row] !== undefined;
}

/** The parts named by `--rows`, or all; what takes long only by name, or without `--quick`. */
export function chosenParts(chosen: readonly string[] | undefined, quick: boolean): PartSpec[] {
  return PART_SPECS.filter(({ row }) => (chosen === undefined ? !(quick && FULL_ONLY.has(row)) : chosen.includes(row)));
}

/** Measures one part in a directory of its own. */
export async function measurePart(spec: PartSpec, options: Omit<PartContext, 'directory'>): Promise<PartFigures> {
  const run = RUNS[spec.row];
  if (run === undefined) throw new Error(`nothing measures ${spec.row}`);
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), `tidemark-bench-${spec.row}-`));
  try {
    return partFigures(spec, await run({ directory, ...options }));
  } finally {
    fs.rmSync(directory, { recursive: true, force: true });
  }
}
