import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { run } from '../../servers/child.ts';
import { type PartRun, Values } from './part.ts';

const PROGRAM = fileURLToPath(new URL('./receive-program.ts', import.meta.url));
const MIB = { quick: 512, full: 1536 };
const EXTENTS = 10_000_000;
const RUN_EXTENTS = 65_536;
const FAN_IN = 8;

interface Received {
  readonly mib: number;
  readonly cpuSeconds: number;
  readonly seconds: number;
  readonly perMerged: number;
}

async function received(directory: string, mib: number, kind: 'packed' | 'raw'): Promise<Received> {
  return JSON.parse(await run(process.execPath, [PROGRAM, directory, String(mib), kind])) as Received;
}

/** How often an extent is merged, on average, until there are 10 million: a level is as long as eight of the one before. */
function passes(): number {
  const runs = Math.floor(EXTENTS / RUN_EXTENTS);
  let sum = 0;
  for (let size = FAN_IN; size <= runs; size *= FAN_IN) sum += (Math.floor(runs / size) * size) / runs;
  return sum;
}

export const receive: PartRun = async ({ directory, quick, repetitions }) => {
  const values = new Values();
  for (let repetition = 0; repetition < repetitions; repetition++) {
    const mib = quick ? MIB.quick : MIB.full;
    const raw = await received(path.join(directory, `raw-${repetition}`), mib, 'raw');
    const packed = await received(path.join(directory, `packed-${repetition}`), mib, 'packed');
    values.add('frames as they are, per second of CPU', raw.mib / raw.cpuSeconds);
    values.add('frames as they are, per second', raw.mib / raw.seconds);
    values.add('half-compressible frames, plain bytes per second of CPU', packed.mib / packed.cpuSeconds);
    const perReceived = raw.cpuSeconds / (raw.mib * 256);
    values.add(
      'merging 10 million extents, part of the CPU of receiving them',
      (100 * passes() * raw.perMerged) / perReceived,
    );
  }
  return values.all;
};
