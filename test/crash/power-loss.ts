import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { cannotMount, FILE_SYSTEMS, type FileSystem } from './file-system-bench.ts';
import { powerLoss } from './power-loss-run.ts';

/* node test/crash/power-loss.ts --fs ext4|xfs|btrfs --states N [--seed S] [--json FILE] [--verbose] */

const { values } = parseArgs({
  options: {
    fs: { type: 'string', default: 'ext4' },
    states: { type: 'string', default: '60' },
    seed: { type: 'string', default: '1' },
    json: { type: 'string' },
    verbose: { type: 'boolean', default: false },
  },
});
const say = (text: string): void => void process.stdout.write(`${text}\n`);
if (!(FILE_SYSTEMS as readonly string[]).includes(values.fs)) throw new Error(`no file system ${values.fs}`);
const system = values.fs as FileSystem;
const reason = cannotMount([system]);
if (reason !== undefined) throw new Error(`cannot run here: ${reason}`);

const result = await powerLoss(system, Number(values.states), Number(values.seed), (text) => {
  if (values.verbose) say(text);
});
const { writes, flushes, states, torn, withFloor, violations } = result;
for (const violation of violations) say(violation);
say(
  `${system}: ${writes} writes, ${flushes} flushes recorded; ${states} states, ${torn} torn, ${withFloor} with something ` +
    `to keep, ${violations.length} violations`,
);
if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(result, undefined, 2)}\n`);
process.exitCode = violations.length === 0 ? 0 : 1;
