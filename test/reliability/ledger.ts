import { readFileSync } from 'node:fs';
import path from 'node:path';
import { METHOD_TEXTS, type MethodText } from './method-texts.ts';
import { METHODS } from './methods.ts';
import { readResults, type SavedRow } from './saved-results.ts';

export const CHECKOUT: string = path.join(import.meta.dirname, '../..');
export const BUGS_FILE: string = path.join(import.meta.dirname, 'bugs.json');

/** A bug that a method found. */
export interface FoundBug {
  /** A method's id, or `review`: found by reading and by the tests written on the way. */
  readonly method: string;
  readonly symptom: string;
  /** Subject of the commit that mended it. */
  readonly mend: string;
  /** Its short hash; filled in by `npm run reliability`. */
  readonly commit?: string;
}

export interface LedgerParts {
  readonly results: ReadonlyMap<string, readonly SavedRow[]>;
  readonly bugs: readonly FoundBug[];
  /** DURABILITY.md. */
  readonly durability: string;
}

/** What RELIABILITY.md is made of, as it lies in the checkout. */
export function ledgerParts(): LedgerParts {
  return {
    results: readResults(),
    bugs: readBugs(),
    durability: readFileSync(path.join(CHECKOUT, 'DURABILITY.md'), 'utf8'),
  };
}

export function readBugs(): readonly FoundBug[] {
  return JSON.parse(readFileSync(BUGS_FILE, 'utf8')) as FoundBug[];
}

/** The text of RELIABILITY.md: a function of the saved results and nothing else. */
export function ledger(parts: LedgerParts): string {
  const { results, bugs, durability } = parts;
  const blocks = [
    '# Reliability',
    '<!-- Made by `npm run reliability` from test/reliability; edit nothing here. -->',
    'What was done to break Tidemark, how much of it, on which commit, and what it found. DURABILITY.md says what is promised;\n' +
      'this is the evidence. Every figure is copied from a saved run in `test/reliability/results` and can be made again.',
    overview(results, bugs),
    howToRun(),
    ...METHOD_TEXTS.map((text) => section(text, results.get(text.id) ?? [], bugs)),
    review(bugs),
    `## Residual risks\n\nWhat none of this excludes, from DURABILITY.md:\n\n${residualRisks(durability)}`,
  ];
  return `${blocks.join('\n\n')}\n`;
}

function overview(results: LedgerParts['results'], bugs: readonly FoundBug[]): string {
  const rows = METHOD_TEXTS.map(({ id, title }) => {
    const lines = results.get(id) ?? [];
    const violations = lines.reduce((sum, line) => sum + line.violations.length, 0);
    return [
      `[${title}](#${anchor(title)})`,
      lines.length === 0 ? 'not run yet' : summary(id, lines),
      lines.length === 0 ? '' : String(violations),
      String(bugs.filter(({ method }) => method === id).length),
      distinct(lines.map(({ date }) => date)),
      distinct(lines.map(({ commit }) => commit)),
    ];
  });
  return table(['method', 'ran', 'violations', 'bugs found so far', 'date', 'commit'], rows);
}

const TOTALS: Readonly<Record<string, readonly string[]>> = {
  simulator: ['seeds', 'events', 'simulatedHours', 'crashes', 'views'],
  mutation: ['mutants', 'killed', 'score'],
  'every-call': ['points', 'run'],
  'guest-kills': ['sourceKills', 'replicaKills', 'durable'],
  'power-loss': ['states', 'torn'],
  kafka: ['records', 'views', 'exactViews', 'statusChecks'],
  fuzzing: ['inputs', 'findings'],
};

function summary(id: string, lines: readonly SavedRow[]): string {
  if (id === 'planted') {
    const slowest = Math.max(...lines.map(({ counts }) => counts['seedsUntilFound'] ?? 0));
    return `${lines.length} bugs, ${lines.filter(({ violations }) => violations.length === 0).length} found, at most ${number(slowest)} seeds`;
  }
  // the first line of a mutation run is the whole of it
  const counted = id === 'mutation' ? lines.slice(0, 1) : lines;
  const names = TOTALS[id] ?? ['passed', 'failed', 'skipped'];
  const totals = names.map((name) => {
    const sum = counted.reduce((total, { counts }) => total + (counts[name] ?? 0), 0);
    return `${number(sum)} ${words(name)}`;
  });
  const of = counted.length > 1 ? `${counted.length} runs: ` : '';
  return `${of}${totals.join(', ')}`;
}

function howToRun(): string {
  const rows = METHODS.map(({ id, share, options }) => [
    `\`${id}\``,
    `${share} %`,
    Object.entries(options)
      .map(([name, meaning]) => `\`--${name}\` ${meaning}`)
      .join('; '),
  ]);
  return [
    '## How it is run',
    '`npm run reliability -- --hours H` runs every method, in this order, each with its share of the time, goes on over failures,\n' +
      'saves the results with commit and date, and writes this file. `npm run reliability -- --only METHOD [options]` runs one of\n' +
      'them; `npm run reliability` alone writes this file from what is saved. What cannot be cut short (`tests`, `golden`,\n' +
      '`properties`, `file-systems`, `planted`) runs whole however small its share is. A part of the Kafka faults or of the guest\n' +
      'kills replaces the lines of the same name; every line has its own commit. Root is needed for `file-systems`, `power-loss`,\n' +
      '`guest-kills` and the full disks of `kafka`.',
    table(['method', 'share', 'options with `--only`'], rows),
  ].join('\n\n');
}

function section(text: MethodText, lines: readonly SavedRow[], bugs: readonly FoundBug[]): string {
  const found = bugs.filter(({ method }) => method === text.id);
  return [
    `## ${text.title}`,
    text.does,
    `**Covers**: ${text.covers}`,
    `**Cannot show**: ${text.cannotShow}`,
    ...figures(lines),
    ...(found.length === 0 ? [] : [`Found so far:\n\n${bugList(found)}`]),
  ].join('\n\n');
}

function review(bugs: readonly FoundBug[]): string {
  const found = bugs.filter(({ method }) => !METHOD_TEXTS.some(({ id }) => id === method));
  return [
    '## Reading, and tests written on the way',
    'Bugs that no method above found first: seen while a test of a promise was written, or by reading.',
    bugList(found),
  ].join('\n\n');
}

function figures(lines: readonly SavedRow[]): string[] {
  if (lines.length === 0) return ['Not run yet.'];
  const names = [...new Set(lines.flatMap(({ counts }) => Object.keys(counts)))];
  const labels = [...new Set(lines.flatMap((line) => Object.keys(line.labels ?? {})))];
  const rows = lines.map((line) => [
    line.name,
    ...labels.map((label) => line.labels?.[label] ?? ''),
    ...names.map((name) => (line.counts[name] === undefined ? '' : number(line.counts[name]))),
    line.seconds === 0 ? '' : number(Math.round(line.seconds)),
    String(line.violations.length),
    line.commit,
  ]);
  const header = ['what', ...labels.map(words), ...names.map(words), 'seconds', 'violations', 'commit'];
  const commands = [...new Set(lines.map(({ command }) => `\`${command}\``))];
  const open = lines.flatMap(({ name, violations }) =>
    violations.map((violation) => `- **${name}**: ${inLine(violation)}`),
  );
  return [
    `Run on ${distinct(lines.map(({ date }) => date))} by ${commands.join(', ')}:`,
    table(header, rows),
    ...(open.length === 0 ? [] : [`Open violations:\n\n${open.join('\n')}`]),
  ];
}

function bugList(bugs: readonly FoundBug[]): string {
  return bugs
    .map(({ symptom, commit, mend }) => `- ${symptom} (mended by ${commit === undefined ? '' : `${commit} `}"${mend}")`)
    .join('\n');
}

const RISKS_HEADING = '## What can still be lost';

function residualRisks(durability: string): string {
  const from = durability.indexOf(RISKS_HEADING);
  if (from < 0) throw new Error(`DURABILITY.md has no "${RISKS_HEADING}"`);
  const rest = durability.slice(from + RISKS_HEADING.length);
  const end = rest.search(/^## /m);
  return (end < 0 ? rest : rest.slice(0, end)).trim();
}

function table(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string => `| ${cells.map(inLine).join(' | ')} |`;
  return [line(header), `|${header.map(() => '---').join('|')}|`, ...rows.map(line)].join('\n');
}

function inLine(text: string): string {
  return text.replaceAll('|', '\\|').replaceAll(/\s*\n\s*/g, ' ');
}

/** What is short in a result. */
const WORDS: Readonly<Record<string, string>> = {
  run: 'of them tried',
  durable: 'durable records',
  torn: 'of them torn',
  acknowledged: 'writes acknowledged',
};

/** `simulatedHours` as `simulated hours`. */
function words(name: string): string {
  const better = WORDS[name];
  if (better !== undefined) return better;
  return name.replaceAll(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
}

/** 1234567 as 1,234,567, in every locale. */
function number(value: number): string {
  const [whole = '', part] = String(value).split('.');
  const grouped = whole.replaceAll(/\B(?=(?:\d{3})+$)/g, ',');
  return part === undefined ? grouped : `${grouped}.${part}`;
}

function anchor(title: string): string {
  return title
    .toLowerCase()
    .replaceAll(/[^a-z0-9 -]/g, '')
    .replaceAll(' ', '-');
}

function distinct(values: readonly string[]): string {
  const all = [...new Set(values)].sort();
  return all.length > 3 ? `${all[0]} to ${all.at(-1)}` : all.join(', ');
}
