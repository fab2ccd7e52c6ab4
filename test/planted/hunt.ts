import { NO_SEAMS } from '../simulation/parts.ts';
import type { Violation } from '../simulation/violation.ts';
import { World } from '../simulation/world.ts';
import { ALL_BUGS } from './all-bugs.ts';
import type { Hunt } from './judge.ts';

/**
 * Runs seeds until one ends with a violation: node test/planted/hunt.ts NAME FROM TO [control]. Started by `judge`, with
 * the bug's patches in the environment; as a control with what masks it at most, and without the bug's seams. Prints a `Hunt` as JSON.
 */
const [name, from, to, control] = process.argv.slice(2);
const bug = ALL_BUGS.find((one) => one.name === name);
if (bug === undefined || !('simulation' in bug.noticedBy)) throw new Error(`the simulation knows no bug '${name}'`);

const seams = control === undefined ? { ...NO_SEAMS, ...bug.seams } : NO_SEAMS;
let hunt: Hunt = { seeds: Number(to), invariant: '', message: '' };
for (let seed = Number(from); seed <= Number(to); seed++) {
  const { violation } = await new World(seed, seams, bug.noticedBy.simulation).run();
  if (violation === undefined) continue;
  hunt = { seeds: seed, invariant: (violation as Violation).invariant, message: violation.message };
  break;
}
process.stdout.write(`${JSON.stringify(hunt)}\n`);
// What a broken product left waiting does not matter any more.
process.exit();
