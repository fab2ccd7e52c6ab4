import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { allTargets } from './all-targets.ts';
import { Allocations } from './allocations.ts';
import { corpusOf } from './corpus.ts';
import { Coverage } from './coverage.ts';
import { type Finding, FuzzLoop, type FuzzReport } from './fuzz-loop.ts';
import type { FuzzTarget } from './target.ts';
import { Watchdog } from './watchdog.ts';

/*
 * node test/fuzz/fuzz.ts --target NAME|all [--seconds S | --runs N] [--seed K] [--no-coverage] [--json FILE]
 * node test/fuzz/fuzz.ts --target NAME --input FILE
 *
 * Runs each target for S seconds (10) or N inputs and prints a line for each. Findings are kept as files; the exit code
 * is 1 when there is one. With --input that one input is run, and what it throws is shown.
 */
const { values } = parseArgs({
  options: {
    target: { type: 'string', default: 'all' },
    seconds: { type: 'string' },
    runs: { type: 'string' },
    seed: { type: 'string', default: '1' },
    input: { type: 'string' },
    json: { type: 'string' },
    'no-coverage': { type: 'boolean', default: false },
  },
});
const WATCHED_BYTES_MAX = 1024 * 1024;

const coverage = new Coverage();
const guided = !values['no-coverage'] && values.input === undefined;
if (guided) coverage.start();
const allocations = new Allocations();
const targets = (await allTargets()).filter(({ name }) => values.target === 'all' || values.target === name);
if (targets.length === 0) {
  const names = (await allTargets()).map(({ name }) => name).join(', ');
  throw new Error(`there is no target ${values.target}; there are ${names}`);
}
allocations.install();
if (values.input === undefined) await fuzz(targets);
else await targets[0]?.run(readFileSync(values.input));

async function fuzz(chosen: readonly FuzzTarget[]): Promise<void> {
  const runs = values.runs === undefined ? Number.POSITIVE_INFINITY : Number(values.runs);
  const seconds = values.seconds === undefined && values.runs === undefined ? 10 : Number(values.seconds ?? 'Infinity');
  const directory = mkdtempSync(path.join(tmpdir(), 'tidemark-fuzz-'));
  const watchdog = new Watchdog(path.join(directory, 'hang.bin'), WATCHED_BYTES_MAX);
  const reports: FuzzReport[] = [];
  for (const target of chosen) {
    const loop = new FuzzLoop(target, { allocations, watchdog, ...(guided ? { coverage } : {}) }, Number(values.seed));
    const report = await loop.run(runs, seconds * 1000, [...corpusOf(target.name).values()]);
    reports.push(report);
    print(lineOf(report));
    for (const finding of report.findings) tell(finding, directory);
  }
  await watchdog.close();
  const findings = reports.reduce((sum, { findings: found }) => sum + found.length, 0);
  print(`${reports.reduce((sum, report) => sum + report.runs, 0)} inputs, ${findings} findings, seed ${values.seed}`);
  if (values.json !== undefined) {
    writeFileSync(
      values.json,
      `${JSON.stringify(
        reports.map(({ findings: found, ...rest }) => ({ ...rest, findings: found.length })),
        undefined,
        2,
      )}\n`,
    );
  }
  process.exitCode = findings === 0 ? 0 : 1;
}

function lineOf(report: FuzzReport): string {
  const { target, runs, ms, covered, coveredBySeeds, answers, corpus, findings } = report;
  const speed = Math.round((runs / ms) * 1000);
  const grown = guided ? `, ${coveredBySeeds} -> ${covered} bytes of source covered` : '';
  return `${target.padEnd(22)} ${runs} inputs, ${speed}/s${grown}, ${corpus} kept, ${answers} answers, ${findings.length} findings`;
}

function tell(finding: Finding, directory: string): void {
  const hash = createHash('sha256').update(finding.input).digest('hex').slice(0, 12);
  const file = path.join(directory, `${finding.target}-${hash}.bin`);
  mkdirSync(directory, { recursive: true });
  writeFileSync(file, finding.input);
  print(`  ${finding.kind}: ${finding.message}\n${finding.stack.split('\n').slice(0, 8).join('\n')}`);
  print(`  replay: node test/fuzz/fuzz.ts --target ${finding.target} --input ${file}`);
}

function print(text: string): void {
  process.stdout.write(`${text}\n`);
}
