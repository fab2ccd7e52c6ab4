import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test from 'ava';
import { CHECKOUT, ledger, ledgerParts } from './ledger.ts';
import { METHOD_TEXTS } from './method-texts.ts';
import { METHODS } from './methods.ts';
import { newBugs } from './new-bugs.ts';
import { readCrashRun, readFuzz, readMutation, readPlanted, readSimulator, readTests } from './read-outputs.ts';
import { readResults, type SavedRow, saveResults } from './saved-results.ts';

test('RELIABILITY.md is what the saved results say: npm run reliability writes it', (t) => {
  t.is(readFileSync(path.join(CHECKOUT, 'RELIABILITY.md'), 'utf8'), ledger(ledgerParts()));
});

test('every method has a text and every text a method; the shares are the whole', (t) => {
  t.deepEqual(METHODS.map(({ id }) => id).sort(), METHOD_TEXTS.map(({ id }) => id).sort());
  t.is(
    METHODS.reduce((sum, { share }) => sum + share, 0),
    100,
  );
});

const ROW: SavedRow = {
  name: 'leader killed',
  seconds: 2,
  counts: { records: 12_345 },
  violations: [],
  commit: 'abcdef0',
  date: '2026-11-21',
  command: 'npm run x',
};

test('a part of a method replaces the lines of its names, a whole run all of them', (t) => {
  const directory = mkdtempSync(path.join(tmpdir(), 'tidemark-ledger-'));
  t.teardown(() => rmSync(directory, { recursive: true }));
  const saved = (): readonly string[] =>
    (readResults(directory).get('kafka') ?? []).map(({ name, commit }) => `${name} ${commit}`);
  saveResults('kafka', [ROW, { ...ROW, name: 'leader frozen' }], true, directory);
  saveResults('kafka', [{ ...ROW, commit: '1234567' }], false, directory);
  t.deepEqual(saved(), ['leader killed 1234567', 'leader frozen abcdef0']);
  saveResults('kafka', [{ ...ROW, name: 'rolled' }], true, directory);
  t.deepEqual(saved(), ['rolled abcdef0']);
  const violations = Array.from({ length: 30 }, () => 'v'.repeat(1000));
  saveResults('kafka', [{ ...ROW, violations }], true, directory);
  const kept = readResults(directory).get('kafka')?.[0]?.violations ?? [];
  t.is(kept.length, 21);
  t.is(kept[0]?.length, 500);
  t.is(kept.at(-1), 'and 10 more');
});

test('a violation and what has not run stand in the ledger', (t) => {
  const results = new Map([['kafka', [{ ...ROW, violations: ['sector 7\nis | wrong'] }]]]);
  const bugs = [{ method: 'review', symptom: 'it ended', mend: 'it: ends no more', commit: '7654321' }];
  const text = ledger({ results, bugs, durability: '# D\n\n## What can still be lost\n\n- **A**: b\n\n## More\n' });
  t.regex(text, /- \*\*leader killed\*\*: sector 7 is \\\| wrong/);
  t.regex(text, /\| leader killed \| 12,345 \| 2 \| 1 \| abcdef0 \|/);
  t.regex(text, /## Simulator[^#]*Not run yet\./);
  t.regex(text, /- it ended \(mended by 7654321 "it: ends no more"\)/);
  t.regex(text, /DURABILITY\.md:\n\n- \*\*A\*\*: b\n$/);
});

test('outputs of the programs become lines; what is none of theirs is refused', (t) => {
  const run = {
    from: 5,
    seeds: 10,
    events: 100,
    simulatedHours: 0.5,
    crashes: 1,
    records: 2,
    acknowledged: 3,
    views: 4,
  };
  const [simulated] = readSimulator(
    [
      { ...run, violations: [] },
      { ...run, from: 15, violations: [{ seed: 17, message: 'lost' }] },
    ],
    10,
  );
  t.like(simulated?.counts, { seeds: 20, firstSeed: 5, events: 200, simulatedHours: 1, eventsPerSecond: 20 });
  t.is(simulated?.counts['simulatedToReal'], 360);
  t.deepEqual(simulated?.violations, ['seed 17: lost']);
  t.throws(() => readSimulator([{ ...run }], 1), { message: 'violations is no list' });

  const bug = { name: 'b', rules: [3, 4], invariant: 'D1', found: true, noticedBy: 'simulation D1', seeds: 7 };
  const missed = { ...bug, name: 'c', found: false, seeds: null, message: '1000 seeds', seconds: 1 };
  const [found, unnoticed] = readPlanted([{ ...bug, maskedBy: null, message: '', seconds: 2 }, missed]);
  t.like(found, { counts: { seedsUntilFound: 7 }, violations: [], seconds: 2 });
  t.is(found?.labels?.['rules'], '3, 4');
  t.deepEqual(unnoticed?.violations, ['nobody noticed: 1000 seeds']);

  const mutants = {
    mutants: 10,
    killed: 7,
    survived: 3,
    timedOut: 1,
    score: 70,
    byFile: { 'a.ts': { mutants: 10, killed: 7 } },
    survivors: [{ class: 'equivalent' }, { class: 'equivalent' }, { class: 'x' }],
  };
  const [all, file, equivalent] = readMutation(mutants, 9);
  t.like(equivalent, { name: 'survivors: equivalent', counts: { survived: 2 } });
  t.deepEqual(all?.violations, ['the score is below 80 per cent']);
  t.like(file, { name: 'a.ts', counts: { mutants: 10, killed: 7, survived: 3, score: 70 } });

  t.like(readCrashRun('ext4', { writes: 1, states: 2, violations: ['x'] }, 3), {
    counts: { writes: 1, states: 2 },
    violations: ['x'],
  });
  t.throws(() => readCrashRun('ext4', { states: '2', violations: [] }, 3), { message: 'states is no number' });
  const [target] = readFuzz([{ target: 'frame', runs: 5, ms: 2000, covered: 10, findings: 1 }]);
  t.like(target, { name: 'frame', seconds: 2, violations: ['1 findings in frame'] });
});

test('a run of the tests is read by its last line; without one it is no success', (t) => {
  const printed = '  ✔ a\n  ✘ [fail]: b broke\n\u001B[31mx\u001B[39m\n1 passed, 1 failed, 0 skipped\n';
  t.like(readTests('all', printed, 1), {
    counts: { passed: 1, failed: 1, skipped: 0 },
    violations: ['failed: [fail]: b broke'],
  });
  t.deepEqual(readTests('all', 'killed', 1).violations, ['the tests ended without a summary']);
});

test('bugs are taken in once, by the names people give the methods', (t) => {
  const known = [{ method: 'review', symptom: 'x', mend: 'a: b' }];
  const text =
    'simulation (seed 6) | it stood | c: d\nreading | it ran | a: b\ntest | it fell | e: f\nnothing\nx | y | c: d\n';
  t.deepEqual(newBugs(text, known), [
    { method: 'simulator', symptom: 'It stood', mend: 'c: d' },
    { method: 'review', symptom: 'It fell', mend: 'e: f' },
  ]);
});
