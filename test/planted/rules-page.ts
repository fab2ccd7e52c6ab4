import { readFileSync } from 'node:fs';
import { ALL_BUGS } from './all-bugs.ts';
import { PROJECT } from './patch-loader.ts';
import type { PlantedBug } from './planted-bug.ts';

export const RULES_PAGE = 'docs/rules.md';
export const RULES = 27;

const HEAD = `# The 27 rules, and who notices when one is broken

Made by \`npm run simulate -- --planted --page\` from DURABILITY.md and the list of planted bugs (\`test/planted\`); a test holds
it to both. Each bug below is put into a copy of the product at load time, and must be noticed: by the simulation of
source, stream and replica within 1,000 seeds, or by the test named beside it, which fails then. \`npm run simulate -- --planted\` plants
all of them and prints the seeds each took; it ends with an error when one is noticed by nobody. The quick ones are planted
in every run of the tests. The letters of invariants are those of DURABILITY.md. What
is masked by another mechanism is planted together with that one broken, and counts when that one alone is not noticed there.
`;

/** The page as it should stand in the file. */
export function rulesPage(): string {
  const words = ruleWords();
  const sections = Array.from({ length: RULES }, (_, index) => {
    const rule = index + 1;
    const rows = ALL_BUGS.filter(({ rules }) => rules.includes(rule)).map(row);
    const title = words.get(rule);
    if (title === undefined) throw new Error(`DURABILITY.md has no row for rule ${rule}`);
    return [`## ${rule}. ${title}`, '', '| planted bug | breaks | noticed by |', '|---|---|---|', ...rows, ''].join(
      '\n',
    );
  });
  return [HEAD, ...sections].join('\n');
}

function row(bug: PlantedBug): string {
  const { noticedBy } = bug;
  const who = 'simulation' in noticedBy ? 'the simulation' : `\`${noticedBy.test}\` "${noticedBy.title}"`;
  const together = bug.masked === undefined ? '' : `, with a second bug: alone it is masked by ${bug.masked.by}`;
  return `| ${bug.name} | ${bug.invariant} | ${who}${together} |`;
}

/** Rule number -> its words, from the table in DURABILITY.md. */
function ruleWords(): ReadonlyMap<number, string> {
  const text = readFileSync(`${PROJECT}/DURABILITY.md`, 'utf8');
  return new Map([...text.matchAll(/^\| (\d+) ([^|]+?) \|/gm)].map(([, rule, words = '']) => [Number(rule), words]));
}
