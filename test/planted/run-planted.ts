import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { ALL_BUGS } from './all-bugs.ts';
import { judge, type Verdict } from './judge.ts';
import { PROJECT } from './patch-loader.ts';
import type { PlantedBug } from './planted-bug.ts';
import { RULES_PAGE, rulesPage } from './rules-page.ts';

interface PlantedOptions {
  /** Seeds after which a bug counts as not found. */
  readonly seedsMax: number;
  /** Programs side by side. */
  readonly jobs: number;
  /** Bugs with this in their name; empty: all. */
  readonly only: string;
  /** Where the outcome goes as JSON; undefined: nowhere. */
  readonly json?: string | undefined;
  readonly print: (line: string) => void;
}

const SEEDS_MAX = 1000;
const JOBS = 2;

/** `npm run simulate -- --planted [--seeds N] [--jobs N] [--only TEXT] [--json FILE] [--page]`; false: a bug was not found. */
export async function plantedCommand(args: readonly string[]): Promise<boolean> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      planted: { type: 'boolean' },
      seeds: { type: 'string', default: String(SEEDS_MAX) },
      jobs: { type: 'string', default: String(JOBS) },
      only: { type: 'string', default: '' },
      json: { type: 'string' },
      page: { type: 'boolean', default: false },
    },
  });
  if (values.page) {
    writeFileSync(`${PROJECT}/${RULES_PAGE}`, rulesPage());
    return true;
  }
  const print = (line: string): void => {
    process.stdout.write(`${line}\n`);
  };
  const { json, only } = values;
  return runPlanted({ seedsMax: Number(values.seeds), jobs: Number(values.jobs), only, json, print });
}

/** Plants every bug and prints who noticed it: a row as soon as it is known, the table's end last. True: all were found. */
async function runPlanted(options: PlantedOptions): Promise<boolean> {
  const { print } = options;
  const bugs = ALL_BUGS.filter(({ name }) => name.includes(options.only));
  const waiting = [...bugs];
  const verdicts = new Map<PlantedBug, Verdict>();
  print('| bug | rule | invariant | noticed by | seeds until found | seconds |');
  print('|---|---|---|---|---|---|');
  const worker = async (): Promise<void> => {
    for (let bug = waiting.shift(); bug !== undefined; bug = waiting.shift()) {
      const verdict = await judge(bug, options.seedsMax).catch((error: unknown) => unjudged(bug as PlantedBug, error));
      verdicts.set(bug, verdict);
      print(row(verdict));
    }
  };
  await Promise.all(Array.from({ length: options.jobs }, worker));
  const lost = [...verdicts.values()].filter(({ found }) => !found);
  print(`\n${verdicts.size} bugs planted, ${verdicts.size - lost.length} found, ${lost.length} not found`);
  for (const { bug, message } of lost) print(`not found: ${bug.name}: ${message}`);
  if (options.json !== undefined) writeFileSync(options.json, `${JSON.stringify(summary(bugs, verdicts), null, 2)}\n`);
  return lost.length === 0;
}

function unjudged(bug: PlantedBug, error: unknown): Verdict {
  return {
    bug,
    found: false,
    noticedBy: '',
    message: error instanceof Error ? error.message : String(error),
    seconds: 0,
  };
}

function row({ bug, found, noticedBy, seconds, seeds }: Verdict): string {
  const cells = [
    bug.name,
    bug.rules.join(', '),
    bug.invariant,
    found ? noticedBy : 'NOBODY',
    seeds ?? '',
    seconds.toFixed(1),
  ];
  return `| ${cells.join(' | ')} |`;
}

function summary(bugs: readonly PlantedBug[], verdicts: ReadonlyMap<PlantedBug, Verdict>): unknown {
  return bugs.map((bug) => {
    const { found, message, noticedBy, seconds, seeds } = verdicts.get(bug) as Verdict;
    const { invariant, masked, name, rules } = bug;
    const maskedBy = masked?.by ?? null;
    return { name, rules, invariant, found, noticedBy, seeds: seeds ?? null, maskedBy, message, seconds };
  });
}
