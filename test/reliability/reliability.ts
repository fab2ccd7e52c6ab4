import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { BUGS_FILE, CHECKOUT, type FoundBug, ledger, ledgerParts, readBugs } from './ledger.ts';
import { METHODS, type Method, type Outcome } from './methods.ts';
import { newBugs } from './new-bugs.ts';
import { readResults, saveResults } from './saved-results.ts';

/*
 * npm run reliability                                  RELIABILITY.md from the saved results
 * npm run reliability -- --hours H                     every method with its share of the time
 * npm run reliability -- --only METHOD [options]       one method; --hours H may say how long
 * npm run reliability -- --bugs FILE                   takes bugs in: a line each, `method | symptom | commit subject`
 *
 * Options are those of the methods (`--seeds`, `--kills`, ...), see RELIABILITY.md. The exit code is 1 when a method
 * that ran has found a violation.
 */
const optionNames = [...new Set(METHODS.flatMap(({ options }) => Object.keys(options)))];
const { values } = parseArgs({
  options: {
    hours: { type: 'string' },
    only: { type: 'string' },
    bugs: { type: 'string' },
    ...Object.fromEntries(optionNames.map((name) => [name, { type: 'string' as const }])),
  },
}) as { values: Record<string, string | undefined> };

const { hours, only, bugs, ...options } = values;
const seconds = hours === undefined ? undefined : Number(hours) * 3600;
if (seconds !== undefined && !(seconds > 0)) throw new Error('--hours needs a number above 0');
const print = (text: string): void => void process.stdout.write(`${text}\n`);

let broken = 0;
for (const method of chosen()) {
  const budgetSeconds =
    seconds === undefined ? undefined : only === undefined ? (seconds * method.share) / 100 : seconds;
  broken += await perform(method, budgetSeconds);
}
nameCommits([...readBugs(), ...(bugs === undefined ? [] : newBugs(readFileSync(bugs, 'utf8'), readBugs()))]);
writeFileSync(path.join(CHECKOUT, 'RELIABILITY.md'), ledger(ledgerParts()));
print('RELIABILITY.md is written');
if (broken > 0) process.exitCode = 1;

function chosen(): readonly Method[] {
  if (only === undefined) {
    if (Object.keys(options).length > 0) throw new Error('options of a method need --only METHOD');
    return seconds === undefined ? [] : METHODS;
  }
  const method = METHODS.find(({ id }) => id === only);
  if (method === undefined) throw new Error(`no method ${only}; there are ${METHODS.map(({ id }) => id).join(', ')}`);
  const unknown = Object.keys(options).filter((name) => !(name in method.options));
  if (unknown.length > 0) throw new Error(`${only} has no --${unknown.join(', --')}`);
  return [method];
}

/** Runs a method and saves what it says, also when it fails; returns its violations. */
async function perform(method: Method, budgetSeconds: number | undefined): Promise<number> {
  const known = readResults().get(method.id) ?? [];
  const commit = commitNow();
  const began = performance.now();
  print(`\n== ${method.id}`);
  let outcome: Outcome;
  try {
    outcome = await method.run({ ...(budgetSeconds === undefined ? {} : { budgetSeconds }), options, known });
  } catch (error) {
    const row = { name: 'the run itself', seconds: (performance.now() - began) / 1000, counts: {} };
    outcome = { rows: [{ ...row, violations: [String(error)] }], command: '', whole: false };
  }
  const { rows, command, whole } = outcome;
  const date = new Date().toISOString().slice(0, 10);
  const saved = rows.map((row) => ({ ...row, seconds: Math.round(row.seconds * 10) / 10, commit, date, command }));
  saveResults(method.id, saved, whole);
  const violations = rows.flatMap((row) => row.violations.map((violation) => `${row.name}: ${violation}`));
  for (const violation of violations.slice(0, 20)) print(violation);
  const took = ((performance.now() - began) / 1000).toFixed(0);
  print(`== ${method.id}: ${rows.length} lines, ${violations.length} violations, ${took} s`);
  return violations.length;
}

function git(...args: readonly string[]): string {
  return execFileSync('git', args, { cwd: CHECKOUT, encoding: 'utf8' }).trim();
}

function commitNow(): string {
  const changed = git('status', '--porcelain', '--untracked-files=no')
    .split('\n')
    .some((line) => line !== '' && !/test\/reliability\/results\/|RELIABILITY\.md$/.test(line));
  return `${git('rev-parse', '--short=7', 'HEAD')}${changed ? '+' : ''}`;
}

/** Gives every bug the commit of its subject; one that git does not know is named. */
function nameCommits(all: readonly FoundBug[]): void {
  const commits = new Map<string, string>();
  for (const line of git('log', '--format=%h %s', '--abbrev=7').split('\n')) {
    const [hash = ''] = line.split(' ', 1);
    commits.set(line.slice(hash.length + 1), hash);
  }
  const named = all.map((bug): FoundBug => {
    const commit = commits.get(bug.mend);
    if (commit === undefined) print(`no commit "${bug.mend}"`);
    return commit === undefined ? bug : { ...bug, commit };
  });
  writeFileSync(BUGS_FILE, `${JSON.stringify(named, undefined, 2)}\n`);
}
