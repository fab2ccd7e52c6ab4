import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { cpuSeconds, residentMib } from '../process-usage.ts';
import { ManyGroups } from './many-groups.ts';
import { type PartRun, Values } from './part.ts';

/** After the start: what it made is collected, and files that were made ready are written. */
const SETTLE_MS = 10_000;

interface Idle {
  readonly corePercent: number;
  readonly residentMib: number;
  readonly replicaMib: number;
}

async function idle(directory: string, count: number, seconds: number): Promise<Idle> {
  const groups = new ManyGroups(directory, count);
  try {
    await groups.start();
    await sleep(SETTLE_MS);
    const { pid } = groups.source;
    const [before, began] = [cpuSeconds(pid), performance.now()];
    await sleep(seconds * 1000);
    const corePercent = ((cpuSeconds(pid) - before) / ((performance.now() - began) / 1000)) * 100;
    return { corePercent, residentMib: residentMib(pid), replicaMib: residentMib(groups.replica.pid) };
  } finally {
    await groups.stop();
  }
}

/** Groups that nobody writes to, connected to their replica: what a source of many costs beyond one of one. */
export const idleGroups: PartRun = async ({ directory, quick }) => {
  const values = new Values();
  const [count, seconds] = quick ? [16, 15] : [64, 60];
  const one = await idle(path.join(directory, 'one'), 1, seconds);
  const many = await idle(path.join(directory, 'many'), count, seconds);
  values.add('CPU of a source of one', one.corePercent);
  values.add('CPU of a source of all', many.corePercent);
  values.add(
    'CPU of 64, by what each adds',
    one.corePercent + ((many.corePercent - one.corePercent) / (count - 1)) * 63,
  );
  values.add('memory of a source of one', one.residentMib);
  values.add('memory per further group', (many.residentMib - one.residentMib) / (count - 1));
  values.add('memory per further group of the replica', (many.replicaMib - one.replicaMib) / (count - 1));
  return values.all;
};
