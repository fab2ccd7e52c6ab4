import { readFileSync } from 'node:fs';
import test from 'ava';
import { ALL_BUGS } from './all-bugs.ts';
import { judge } from './judge.ts';
import { mustStrip, PROJECT } from './patch-loader.ts';
import { patchesOf } from './planted-bug.ts';
import { RULES, RULES_PAGE, rulesPage } from './rules-page.ts';

const QUICK_SEEDS = 10;

test('every planted bug applies to the product as it is, and names a test that is there', (t) => {
  for (const { changes, masked, name, noticedBy } of ALL_BUGS) {
    t.notThrows(() => patchesOf([...(changes ?? []), ...(masked?.changes ?? [])]).forEach(mustStrip), name);
    if (!('test' in noticedBy)) continue;
    t.true(
      readFileSync(`${PROJECT}/${noticedBy.test}`, 'utf8').includes(noticedBy.title),
      `${name}: ${noticedBy.title}`,
    );
  }
  t.is(new Set(ALL_BUGS.map(({ name }) => name)).size, ALL_BUGS.length, 'a name stands for one bug');
});

test('each of the 27 rules has a planted bug that breaks it, and the page says so', (t) => {
  const broken = new Set(ALL_BUGS.flatMap(({ rules }) => rules));
  const rules = Array.from({ length: RULES }, (_, index) => index + 1);
  t.deepEqual(
    rules.filter((rule) => !broken.has(rule)),
    [],
  );
  t.is(readFileSync(`${PROJECT}/${RULES_PAGE}`, 'utf8'), rulesPage(), 'npm run simulate -- --planted --page');
});

for (const bug of ALL_BUGS.filter(({ quick }) => quick === true)) {
  test.serial(`found: ${bug.name}`, async (t) => {
    t.timeout(300_000);
    const { found, message, noticedBy, seeds } = await judge(bug, QUICK_SEEDS);
    t.log(`${noticedBy}, ${seeds} seeds: ${message.slice(0, 150)}`);
    t.true(found, `${noticedBy}: ${message}`);
  });
}
