import { execFile } from 'node:child_process';
import { PROJECT, patchedEnvironment } from './patch-loader.ts';
import { type PlantedBug, patchesOf, type SourceChange } from './planted-bug.ts';

/** What became of a hunt: the seed that found something, or how many found nothing. */
export interface Hunt {
  readonly seeds: number;
  /** Empty: nothing was found. */
  readonly invariant: string;
  readonly message: string;
}

export interface Verdict {
  readonly bug: PlantedBug;
  readonly found: boolean;
  /** Who noticed: `simulation D2`, or the test. */
  readonly noticedBy: string;
  /** Undefined for a test. */
  readonly seeds?: number;
  /** What the noticer said, in one line. */
  readonly message: string;
  readonly seconds: number;
}

type Outcome = Omit<Verdict, 'bug' | 'seconds'>;

/** A hung program is a notice as well, but not one to wait for. */
const RUN_MS_MAX = 30 * 60_000;
const AVA = 'node_modules/ava/entrypoints/cli.js';

/** Plants the bug in programs of its own and looks whether the one who must notice does. Rejects when a patch does not apply. */
export async function judge(bug: PlantedBug, seedsMax: number): Promise<Verdict> {
  const began = performance.now();
  const changes = [...(bug.changes ?? []), ...(bug.masked?.changes ?? [])];
  const outcome = 'simulation' in bug.noticedBy ? await hunt(bug, changes, seedsMax) : await failedTest(bug, changes);
  return { bug, ...outcome, seconds: (performance.now() - began) / 1000 };
}

/**
 * A seed counts when it finds nothing in the product as it is, or with the masking mechanism broken alone: what was noticed
 * then is the bug, not the weather.
 */
async function hunt(bug: PlantedBug, changes: readonly SourceChange[], seedsMax: number): Promise<Outcome> {
  for (let from = 1; from <= seedsMax; ) {
    const { invariant, message, seeds } = await seedsOf(bug, changes, from, seedsMax);
    if (invariant === '') break;
    const control = await seedsOf(bug, bug.masked?.changes ?? [], seeds, seeds, 'control');
    if (control.invariant === '') {
      return { found: true, noticedBy: `simulation ${invariant}`, seeds, message: oneLine(message) };
    }
    from = seeds + 1;
  }
  return { found: false, noticedBy: 'simulation', seeds: seedsMax, message: '' };
}

async function seedsOf(
  bug: PlantedBug,
  changes: readonly SourceChange[],
  from: number,
  to: number,
  ...control: readonly string[]
): Promise<Hunt> {
  const args = ['test/planted/hunt.ts', bug.name, String(from), String(to), ...control];
  const { stdout, stderr } = await run(args, changes);
  const line = stdout.trim().split('\n').at(-1) ?? '';
  if (!line.startsWith('{')) throw new Error(`the hunt for '${bug.name}' ended without a word: ${stderr.slice(-2000)}`);
  return JSON.parse(line) as Hunt;
}

/** The test counts when it passes with the masking mechanism broken alone. */
async function failedTest(bug: PlantedBug, changes: readonly SourceChange[]): Promise<Outcome> {
  if ('simulation' in bug.noticedBy) throw new Error('no test');
  const { test, title } = bug.noticedBy;
  const noticedBy = `${test} "${title}"`;
  const outcome = await failureOf(test, title, changes);
  if (!outcome.failed || bug.masked === undefined) return { ...outcome, found: outcome.failed, noticedBy };
  const alone = await failureOf(test, title, bug.masked.changes);
  if (!alone.failed) return { ...outcome, found: true, noticedBy };
  return { found: false, noticedBy, message: `what masks it is noticed alone: ${alone.message}` };
}

async function failureOf(
  test: string,
  title: string,
  changes: readonly SourceChange[],
): Promise<{ readonly failed: boolean; readonly message: string }> {
  const { stdout } = await run([AVA, '--tap', test, '--match', `*${title}*`], changes);
  const failure = stdout.split('\n').findIndex((line) => line.startsWith('not ok') && line.includes(title));
  const message = stdout
    .split('\n')
    .slice(failure, failure + 40)
    .join(' ');
  return { failed: failure >= 0, message: oneLine(failure < 0 ? stdout : message) };
}

/** Resolves with what the program printed, whatever its exit code. */
function run(args: readonly string[], changes: readonly SourceChange[]): Promise<{ stdout: string; stderr: string }> {
  const options = {
    cwd: PROJECT,
    env: patchedEnvironment(patchesOf(changes)),
    maxBuffer: 1 << 26,
    timeout: RUN_MS_MAX,
  };
  return new Promise((resolve) => {
    execFile(process.execPath, args, options, (_error, stdout, stderr) => resolve({ stdout, stderr }));
  });
}

function oneLine(text: string): string {
  return text.replaceAll(/\s+/g, ' ').trim().slice(0, 240);
}
