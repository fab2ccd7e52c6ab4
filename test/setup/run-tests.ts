import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { constants } from 'node:os';
import path from 'node:path';
import { TestSummary } from './test-summary.ts';

/**
 * Runs ava with the arguments given, passes on what it prints as it comes, and ends with one line of its own:
 * `N passed, N failed, N skipped`. Exits with ava's code.
 */
const ava = path.join(import.meta.dirname, '../../node_modules/ava/entrypoints/cli.js');
const colours = process.stdout.isTTY && !process.env['NO_COLOR'] ? { FORCE_COLOR: '1' } : {};
const child = spawn(process.execPath, [ava, ...process.argv.slice(2)], {
  stdio: ['ignore', 'pipe', 'inherit'],
  env: { ...process.env, ...colours },
});

/** Longer than ava's own limit for a test that says nothing, which does not see a process that cannot end after its last test. */
const SILENCE_MS_MAX = 30 * 60_000;
const silence = setTimeout(() => {
  console.log(`no test has said anything for ${SILENCE_MS_MAX / 60_000} minutes: a process does not end; stopping`);
  child.kill('SIGTERM');
}, SILENCE_MS_MAX);

const summary = new TestSummary();
child.stdout.setEncoding('utf8').on('data', (text: string) => {
  process.stdout.write(text);
  summary.add(text);
  silence.refresh();
});
// Ctrl-C goes to the whole foreground group: ava prints what was pending, then this process its line.
process.on('SIGINT', () => {});
process.on('SIGTERM', () => child.kill('SIGTERM'));

const [code, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null];
clearTimeout(silence);
process.exitCode = code ?? 128 + constants.signals[signal as NodeJS.Signals];
console.log(summary.line(process.exitCode === 0));
