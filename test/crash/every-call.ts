import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { everyCall, type Fault, type Role } from './every-call-run.ts';

/* node test/crash/every-call.ts --role source|replica --fault kill|eio|enospc [--share n/m] [--json FILE] [--verbose] */

const { values } = parseArgs({
  options: {
    role: { type: 'string', default: 'source' },
    fault: { type: 'string', default: 'kill' },
    share: { type: 'string', default: '0/1' },
    json: { type: 'string' },
    verbose: { type: 'boolean', default: false },
  },
});
const [index = 0, of = 1] = values.share.split('/').map(Number);
if (!['source', 'replica'].includes(values.role)) throw new Error(`no role ${values.role}`);
if (!['kill', 'eio', 'enospc'].includes(values.fault)) throw new Error(`no fault ${values.fault}`);

const say = (text: string): void => void process.stdout.write(`${text}\n`);
const result = await everyCall(values.role as Role, values.fault as Fault, { index, of }, (text) => {
  if (values.verbose) say(text);
});
const { calls, points, run, missed, noticed, violations } = result;
for (const violation of violations) say(violation);
say(
  `${values.role} ${values.fault}: ${calls} storage calls, ${points} points, ${run} run, ${missed} not reached, ` +
    `${noticed} noticed, ${violations.length} violations`,
);
if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(result, undefined, 2)}\n`);
process.exitCode = violations.length === 0 ? 0 : 1;
