import { TidemarkError } from '../../journal/base/errors.ts';
import { ReplicaUnderTest, readFrames, replicaOptions, Shipment } from './replica-under-test.ts';
import { Witness } from './witness.ts';

/*
 * node test/crash/replica-program.ts DIRECTORY WITNESS SEED RECORDS FRAMES [DIE_AT]
 *
 * Receives the frames of the file FRAMES into a replica in DIRECTORY from where the last run left it: most of them, a
 * move of the floor, a clean restart, the rest, another move. A data path that ends by what the surroundings did is
 * opened again, as the daemon does. DIE_AT: killed when it holds that LSN.
 */

const STARTS_MAX = 10;
const PAUSE_MS_FIRST = 50;

const [directory = '', witnessPath = '', seed = '1', records = '200', framesPath = '', dieAt = ''] =
  process.argv.slice(2);
const shipment = new Shipment(Number(seed), Number(records), readFrames(framesPath));
const witness = new Witness(witnessPath);
const { lastLsn } = shipment.history;

async function session(upTo: number): Promise<boolean> {
  let replica: ReplicaUnderTest | undefined;
  try {
    replica = await ReplicaUnderTest.open(replicaOptions(directory), shipment, witnessPath);
    if (dieAt !== '') {
      await replica.receive(Number(dieAt));
      process.kill(process.pid, 'SIGKILL');
    }
    await replica.receive(upTo);
    await replica.retain();
    await replica.close();
    return true;
  } catch (error) {
    if (!(error instanceof TidemarkError)) throw error;
    witness.error(`${error.code}: ${error.message}`);
    if (replica === undefined && error.next === 'ask-operator') witness.violation(`refused to start: ${error.message}`);
    await replica?.close().catch((closing: unknown) => {
      if (!(closing instanceof TidemarkError)) throw closing;
    });
    return false;
  }
}

try {
  let starts = 0;
  for (const upTo of [Math.floor(lastLsn * 0.7), lastLsn]) {
    while (!(await session(upTo))) {
      if (++starts > STARTS_MAX) {
        witness.violation('it does not come up again');
        process.exit(1);
      }
      await new Promise((resolve) => {
        setTimeout(resolve, PAUSE_MS_FIRST * 2 ** Math.min(starts, 5));
      });
    }
  }
  witness.finished();
} catch (error) {
  witness.violation(error instanceof Error ? (error.stack ?? error.message) : String(error));
  process.exit(1);
}
