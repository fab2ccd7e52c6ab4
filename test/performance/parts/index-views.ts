import fs from 'node:fs';
import { fileURLToPath } from 'node:url';
import { run } from '../../servers/child.ts';
import { evict } from './page-cache.ts';
import { type PartRun, Values } from './part.ts';

const PROGRAM = fileURLToPath(new URL('./index-program.ts', import.meta.url));

async function step<T>(name: string, directory: string, extents: number): Promise<T> {
  return JSON.parse(await run(process.execPath, ['--expose-gc', PROGRAM, name, directory, String(extents)])) as T;
}

interface Made {
  readonly cpuSeconds: number;
  readonly bytesPerExtent: number;
}

interface Read {
  readonly openMs: number;
  readonly viewMs: number;
  readonly coldP50: number;
  readonly coldP99: number;
  readonly warmP50: number;
  readonly againP50: number;
}

/** A history of so many extents: made once, opened and read cold by a new process per repetition. */
export function indexViews(extents: number): PartRun {
  return async ({ directory, repetitions }) => {
    const values = new Values();
    const made = await step<Made>('make', directory, extents);
    values.add('extents taken, written and merged', extents / 1000 / made.cpuSeconds);
    values.add('index on disk per extent', made.bytesPerExtent);
    for (let repetition = 0; repetition < repetitions; repetition++) {
      await evict(directory);
      const read = await step<Read>('read', directory, extents);
      values.add('index opened, cold', read.openMs);
      values.add('view opened and first 4 KiB read, cold', read.viewMs);
      values.add('random 4 KiB of the view, cold, p50', read.coldP50);
      values.add('random 4 KiB of the view, cold, p99', read.coldP99);
      values.add('random 4 KiB of the view, files in memory, p50', read.warmP50);
      values.add('the same places again, p50', read.againP50);
    }
    const { memoryMib } = await step<{ memoryMib: number }>('remember', directory, extents);
    values.add('memory of the index, full and written to', memoryMib);
    fs.rmSync(directory, { recursive: true });
    return values.all;
  };
}
