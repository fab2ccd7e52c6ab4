import { stripVTControlCharacters } from 'node:util';
import type { RawResult } from './raw-result.ts';

/* What the programs of the methods write with --json, as lines of the ledger. Every field is checked: a program that
 * writes something else is a violation of its own, not a line of zeroes. */

type Json = Readonly<Record<string, unknown>>;

function object(value: unknown, what: string): Json {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new Error(`${what} is no object`);
  return value as Json;
}

function list(value: unknown, what: string): readonly unknown[] {
  if (!Array.isArray(value)) throw new Error(`${what} is no list`);
  return value;
}

function figures(from: Json, names: readonly string[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const name of names) {
    const value = from[name];
    if (typeof value !== 'number') throw new Error(`${name} is no number`);
    counts[name] = value;
  }
  return counts;
}

function text(value: unknown): string {
  return typeof value === 'string' ? value : JSON.stringify(value);
}

/** A violation of the simulator is an object with a seed and a message, any other program's a text. */
function violationText(value: unknown): string {
  if (typeof value !== 'object' || value === null || !('message' in value)) return text(value);
  const message = text(value.message);
  return 'seed' in value ? `seed ${text(value.seed)}: ${message}` : message;
}

function violationsOf(from: Json): string[] {
  return list(from['violations'], 'violations').map(violationText);
}

const SUMMED = ['seeds', 'events', 'simulatedHours', 'crashes', 'records', 'acknowledged', 'views'] as const;

/** All runs of the simulator as one line; they follow on each other. */
export function readSimulator(outputs: readonly unknown[], seconds: number): RawResult[] {
  const runs = outputs.map((output) => object(output, 'the simulator'));
  const counts: Record<string, number> = {};
  for (const run of runs) {
    for (const [name, value] of Object.entries(figures(run, SUMMED))) counts[name] = (counts[name] ?? 0) + value;
  }
  const firstSeed = Math.min(...runs.map((run) => figures(run, ['from'])['from'] ?? 0));
  const events = counts['events'] ?? 0;
  const hours = Math.round((counts['simulatedHours'] ?? 0) * 100) / 100;
  counts['simulatedHours'] = hours;
  counts['firstSeed'] = firstSeed;
  counts['eventsPerSecond'] = Math.round(events / seconds);
  counts['simulatedToReal'] = Math.round((hours * 3600) / seconds);
  return [{ name: 'fresh seeds', seconds, counts, violations: runs.flatMap(violationsOf) }];
}

/** A line per planted bug; one that nobody noticed is a violation. Bugs that a test notices need no seeds. */
export function readPlanted(output: unknown): RawResult[] {
  const bugs = list(output, 'the planted bugs').map((bug) => object(bug, 'a planted bug'));
  return bugs.map((bug) => {
    const { name, seeds, maskedBy, found } = bug;
    if (typeof found !== 'boolean') throw new Error('found is no truth value');
    return {
      name: text(name),
      seconds: figures(bug, ['seconds'])['seconds'] ?? 0,
      counts: typeof seeds === 'number' ? { seedsUntilFound: seeds } : {},
      labels: {
        rules: list(bug['rules'], 'rules').map(text).join(', '),
        invariant: text(bug['invariant']),
        noticedBy: text(bug['noticedBy']),
        maskedBy: typeof maskedBy === 'string' ? maskedBy : '',
      },
      violations: found ? [] : [`nobody noticed: ${text(bug['message'])}`],
    };
  });
}

const MUTATION_SCORE_MIN = 80;

/** One line for all mutants, one per file, and one per kind of survivor. */
export function readMutation(output: unknown, seconds: number): RawResult[] {
  const report = object(output, 'the mutation run');
  const counts = figures(report, ['mutants', 'killed', 'survived', 'timedOut', 'score']);
  const low = (counts['score'] ?? 0) < MUTATION_SCORE_MIN;
  const violations = low ? [`the score is below ${MUTATION_SCORE_MIN} per cent`] : [];
  const files = Object.entries(object(report['byFile'], 'byFile')).map(([name, value]) => {
    const { mutants = 0, killed = 0 } = figures(object(value, name), ['mutants', 'killed']);
    const score = mutants === 0 ? 0 : Math.round((killed / mutants) * 1000) / 10;
    return { name, seconds: 0, counts: { mutants, killed, survived: mutants - killed, score }, violations: [] };
  });
  const classes = new Map<string, number>();
  for (const value of list(report['survivors'], 'survivors')) {
    const name = `survivors: ${text(object(value, 'a survivor')['class'])}`;
    classes.set(name, (classes.get(name) ?? 0) + 1);
  }
  const survivors = [...classes].map(([name, survived]) => ({
    name,
    seconds: 0,
    counts: { survived },
    violations: [],
  }));
  return [{ name: 'all files', seconds, counts, violations }, ...files, ...survivors];
}

/** `test/crash/every-call.ts --json` and `test/crash/power-loss.ts --json`. */
export function readCrashRun(name: string, output: unknown, seconds: number): RawResult {
  const { violations: _, ...rest } = object(output, name);
  const counts = figures(rest, Object.keys(rest));
  return { name, seconds, counts, violations: violationsOf(object(output, name)) };
}

/** `test/fuzz/fuzz.ts --json`: a line per target. */
export function readFuzz(output: unknown): RawResult[] {
  return list(output, 'the fuzz run').map((value) => {
    const target = object(value, 'a fuzz target');
    const { ms = 0, runs: inputs = 0, ...more } = figures(target, ['runs', 'ms', 'covered', 'findings']);
    const counts = { inputs, ...more };
    const name = text(target['target']);
    const findings = more['findings'] ?? 0;
    return { name, seconds: ms / 1000, counts, violations: findings > 0 ? [`${findings} findings in ${name}`] : [] };
  });
}

/** The last lines of a run of the tests: `N passed, N failed, N skipped`, and the tests that failed by name. */
export function readTests(name: string, printed: string, seconds: number): RawResult {
  const plain = stripVTControlCharacters(printed);
  const summary = [...plain.matchAll(/^(\d+) passed, (\d+) failed, (\d+) skipped$/gm)].at(-1);
  if (summary === undefined) return { name, seconds, counts: {}, violations: ['the tests ended without a summary'] };
  const [passed, failed, skipped] = summary.slice(1).map(Number) as [number, number, number];
  const violations = [...plain.matchAll(/^ {2}[✘✖] (.*)$/gm)].map(([, title = '']) => `failed: ${title}`);
  if (failed > 0 && violations.length === 0) violations.push(`${failed} tests failed`);
  return { name, seconds, counts: { passed, failed, skipped }, violations };
}
