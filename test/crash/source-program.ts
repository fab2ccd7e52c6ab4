import { TidemarkError } from '../../journal/base/errors.ts';
import { SourceUnderTest } from './source-under-test.ts';
import { Witness } from './witness.ts';
import { Workload } from './workload.ts';

/*
 * node test/crash/source-program.ts DIRECTORY WITNESS SEED STEPS [DIE_AT]
 *
 * Runs the workload on a source in DIRECTORY from where the last run left it, with a clean restart in the middle. A data
 * path that ends by what the surroundings did is opened again, as the daemon does. DIE_AT: killed before that step.
 */

const STARTS_MAX = 10;
const PAUSE_MS_FIRST = 50;

const [directory = '', witnessPath = '', seed = '1', steps = '60', dieAt = ''] = process.argv.slice(2);
const workload = new Workload(Number(seed), Number(steps));
const witness = new Witness(witnessPath);
const place = { directory, witness: witnessPath };
const end = workload.units.length;

async function session(untilStep: number): Promise<boolean> {
  let source: SourceUnderTest | undefined;
  try {
    source = await SourceUnderTest.open(place, workload, 'acknowledged');
    if (dieAt !== '') {
      await source.run(Number(dieAt));
      process.kill(process.pid, 'SIGKILL');
    }
    await source.run(untilStep);
    await source.close();
    return true;
  } catch (error) {
    if (!(error instanceof TidemarkError)) throw error;
    witness.error(`${error.code}: ${error.message}`);
    if (source === undefined && error.next === 'ask-operator') witness.violation(`refused to start: ${error.message}`);
    if (source !== undefined && !(await source.refusesAll())) witness.violation('acknowledged after a poison');
    await source?.close().catch((closing: unknown) => {
      if (!(closing instanceof TidemarkError)) throw closing;
    });
    return false;
  }
}

try {
  let starts = 0;
  for (const half of [Math.floor(workload.steps.length * 0.7), workload.steps.length]) {
    while (!(await session(half))) {
      if (++starts > STARTS_MAX) {
        witness.violation('it does not come up again');
        process.exit(1);
      }
      await new Promise((resolve) => {
        setTimeout(resolve, PAUSE_MS_FIRST * 2 ** Math.min(starts, 5));
      });
    }
  }
  if (end > 0) witness.finished();
} catch (error) {
  witness.violation(error instanceof Error ? (error.stack ?? error.message) : String(error));
  process.exit(1);
}
