import { execFileSync } from 'node:child_process';
import { globSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, posix } from 'node:path';
import { parseArgs } from 'node:util';
import { PROJECT } from '../planted/patch-loader.ts';
import { measureUnits } from './baseline.ts';
import { Compiler } from './compiler.ts';
import { findMutants } from './find-mutants.ts';
import { MutantJudge, type Verdict } from './judge-mutant.ts';
import { KeptVerdicts } from './kept-verdicts.ts';
import type { Mutant } from './mutant.ts';
import { type MutationReport, printReport, report, sourceLine, verdictLine } from './report.ts';
import { shareOut } from './select.ts';

/**
 * Changes the product in small ways and sees whether the tests and the simulator notice:
 *
 *     npm run mutate -- [--mutants 300] [--seed 1] [--files 'journal/recovery*.ts'] [--jobs 2] [--cpu 15] [--json FILE] [--list] [--again FILE] [--continue] [--old-times]
 *
 * `--again` takes up only what survived in a run saved with `--json`, as for a test that was written since;
 * `--continue` takes the verdicts of earlier runs, also interrupted ones, that still hold (kept-verdicts.ts);
 * `--old-times` does not measure the tests again although the code has changed.
 * `--cpu` is how many seconds of tests and simulation a mutant is given at most. Ends with 1 below 80 percent.
 */
const { values } = parseArgs({
  options: {
    mutants: { type: 'string', default: '300' },
    seed: { type: 'string', default: '1' },
    files: { type: 'string', multiple: true, default: [] },
    cpu: { type: 'string', default: '15' },
    jobs: { type: 'string', default: '2' },
    json: { type: 'string' },
    again: { type: 'string' },
    continue: { type: 'boolean', default: false },
    'old-times': { type: 'boolean', default: false },
    list: { type: 'boolean', default: false },
  },
});

/** The code that keeps the promises: journal, recovery, receiver, history and views, and what decides on release. */
const FILES = [
  'journal/**/*.ts',
  'replica/{receive,store,index,view,base}/*.ts',
  'replica/replica-recovery.ts',
  'daemon/ship/{settle,release}.ts',
  'daemon/volume/recovery-replay.ts',
];
/** No decision is made in them. */
const LEFT_OUT = ['journal/base/channels.ts', 'journal/base/errors.ts'];
const SCORE_MIN = 80;

const say = (line: string): void => {
  process.stdout.write(`${line}\n`);
};

const seed = Number(values.seed);
const began = performance.now();
const files = (values.files.length > 0 ? values.files : FILES)
  .flatMap((pattern) => globSync(pattern, { cwd: PROJECT }))
  .filter((file) => !LEFT_OUT.includes(file))
  .toSorted();
const texts = new Map(files.map((file) => [file, readFileSync(`${PROJECT}/${file}`, 'utf8')]));

const { mutants, found, refused } = values.again === undefined ? chooseMutants() : survivorsOf(values.again);
say(`${mutants.length} of ${found} mutants of ${files.length} files; ${refused} more were refused by the compiler`);
if (values.list) {
  for (const { file, line, kind, original, replacement } of mutants) {
    say(`${file}:${line} ${kind}: ${original} -> ${replacement}`);
  }
} else {
  await judgeAll();
}

function chooseMutants(): { mutants: Mutant[]; found: number; refused: number } {
  const compiler = new Compiler();
  try {
    const byFile = new Map(files.map((file) => [file, findMutants(file, compiler.tree(file))]));
    const chosen: Mutant[] = [];
    let refusals = 0;
    const shares = shareOut(byFile, Number(values.mutants), seed);
    const rests = shares.map(({ order }) => order.values());
    /** The next mutant of the file that the compiler lets pass is chosen; false when there is none. */
    const choose = (index: number): boolean => {
      for (const mutant of rests[index % rests.length] ?? []) {
        if (compiler.compiles(texts.get(mutant.file) as string, mutant)) return chosen.push(mutant) > 0;
        refusals++;
      }
      return false;
    };
    for (const [index, { wanted }] of shares.entries()) {
      for (let taken = 0; taken < wanted && choose(index); ) taken++;
    }
    // what a file of few mutants could not give comes from the others in turn
    for (let turn = 0; chosen.length < Number(values.mutants) && turn < 10 * shares.length; turn++) choose(turn);
    const all = [...byFile.values()].reduce((sum, ofFile) => sum + ofFile.length, 0);
    return { mutants: chosen, found: all, refused: refusals };
  } finally {
    compiler.close();
  }
}

/** The mutants of the product as it is now that are the survivors of a saved run. */
function survivorsOf(path: string): { mutants: Mutant[]; found: number; refused: number } {
  const { survivors } = JSON.parse(readFileSync(path, 'utf8')) as MutationReport;
  const compiler = new Compiler();
  try {
    const known = new Set(
      survivors.map(({ file, source, kind, replacement }) => [file, source, kind, replacement].join()),
    );
    const all = files.flatMap((file) => findMutants(file, compiler.tree(file)));
    const again = all.filter((one) => known.has([one.file, sourceLine(one), one.kind, one.replacement].join()));
    return { mutants: again, found: all.length, refused: 0 };
  } finally {
    compiler.close();
  }
}

async function judgeAll(): Promise<void> {
  const units = await measureUnits(values['old-times'], say);
  const cpuSeconds = units.reduce((sum, { cpuMs }) => sum + cpuMs, 0) / 1000;
  say(`${units.length} units judge, ${cpuSeconds.toFixed(0)} s of processor together`);
  const judge = new MutantJudge(units, importersOf(files), Number(values.cpu));
  // as for a mutant, with nothing changed: what fails here would be taken for a find
  const control = await judge.control();
  if (control.how !== 'clean')
    throw new Error(`nothing is changed and a unit fails: ${control.unit}: ${control.message}`);

  const kept = new KeptVerdicts(units, Number(values.cpu));
  const queue = mutants.entries();
  const verdicts: Verdict[] = [];
  const jobs = Array.from({ length: Number(values.jobs) }, async () => {
    for (const [index, mutant] of queue) {
      const text = texts.get(mutant.file) as string;
      const known = values.continue ? kept.find(mutant, text) : undefined;
      const verdict = known ?? (await judge.judge(mutant, text));
      if (known === undefined) kept.keep(verdict, text);
      verdicts[index] = verdict;
      say(verdictLine(verdict));
    }
  });
  await Promise.all(jobs);

  const commit = execFileSync('git', ['rev-parse', 'HEAD'], { cwd: PROJECT, encoding: 'utf8' }).trim();
  const made = report(verdicts, { commit, seed, seconds: Math.round((performance.now() - began) / 1000) });
  printReport(made, say);
  if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(made, undefined, 2)}\n`);
  if (made.score < SCORE_MIN) process.exitCode = 1;
}

/** Of each file: itself and the files of the product that import it directly. */
function importersOf(names: readonly string[]): Map<string, string[]> {
  const importers = new Map(names.map((name) => [name, [name]]));
  for (const importer of globSync('{journal,replica,daemon}/**/*.ts', { cwd: PROJECT })) {
    const text = readFileSync(`${PROJECT}/${importer}`, 'utf8');
    for (const [, path] of text.matchAll(/from '(\.{1,2}\/[^']+\.ts)'/g)) {
      importers.get(posix.join(dirname(importer), path as string))?.push(importer);
    }
  }
  return importers;
}
