import { readFileSync } from 'node:fs';
import test from 'ava';
import { type PatchedFile, PROJECT, patchSource } from '../planted/patch-loader.ts';
import { Compiler } from './compiler.ts';
import { findMutants } from './find-mutants.ts';
import { MutantJudge } from './judge-mutant.ts';
import { describe, type Mutant, mutate } from './mutant.ts';
import { type Outcome, runJudge } from './run-judge.ts';
import { shareOut } from './select.ts';
import type { MeasuredUnit } from './unit.ts';

const CHAIN = 'journal/chain.ts';
const text = (file: string): string => readFileSync(`${PROJECT}/${file}`, 'utf8');

test('mutants are real changes of code: none of types, imports or what errors say, and the compiler has its say', (t) => {
  const compiler = new Compiler();
  try {
    const mutants = findMutants(CHAIN, compiler.tree(CHAIN));
    const source = text(CHAIN);
    t.true(mutants.length > 20);
    for (const mutant of mutants) {
      t.is(source.slice(mutant.start, mutant.end), mutant.original);
      t.is(source.slice(0, mutant.start).split('\n').length, mutant.line);
      t.not(mutate(source, mutant), source);
      t.false(/^\s*(?:import|export (?:type|interface))/.test(source.split('\n')[mutant.line - 1] ?? ''));
    }
    const file = 'journal/record.ts';
    const errors = findMutants(file, compiler.tree(file)).filter(({ original }) => /Error\(/.test(original));
    t.true(errors.every(({ kind }) => kind !== 'constant'));
    const asserting = 'journal/frame-sealer.ts';
    const lines = text(asserting).split('\n');
    const asserts = lines.flatMap((line, i) => (line.includes(' assert(') && line.endsWith(';') ? [i + 1] : []));
    t.true(asserts.length > 5);
    const sealing = findMutants(asserting, compiler.tree(asserting));
    t.false(
      sealing.some(({ line }) => asserts.includes(line)),
      'an assertion',
    );

    const [first] = mutants as [Mutant];
    t.true(compiler.compiles(source, { ...first, start: 0, end: 0, replacement: '' }), 'unchanged');
    t.false(compiler.compiles(source, { ...first, start: 0, end: 0, replacement: 'const a: string = 1;' }));
    t.true(compiler.compiles(source, { ...first, start: 0, end: 0, replacement: '' }), 'the change is gone');
  } finally {
    compiler.close();
  }
});

test('one seed chooses the same mutants, from every file, and the kinds take turns', (t) => {
  const mutant = (file: string, line: number): Mutant => {
    const kind = line % 10 === 0 ? 'call-removed' : 'constant';
    return { file, line, kind, start: line, end: line + 1, original: '1', replacement: '2', inFunction: true };
  };
  const byFile = new Map(
    [200, 40, 3].map((count, index) => [
      `f${index}`,
      Array.from({ length: count }, (_, line) => mutant(`f${index}`, line)),
    ]),
  );
  const shares = shareOut(byFile, 24, 7);
  t.deepEqual(shareOut(byFile, 24, 7), shares);
  t.notDeepEqual(shareOut(byFile, 24, 8), shares);
  t.is(
    shares.reduce((sum, { wanted }) => sum + wanted, 0),
    24,
  );
  t.true(shares.every(({ wanted }) => wanted >= 1));
  const [large] = shares.toSorted((a, b) => b.wanted - a.wanted);
  const taken = large?.order.slice(0, large.wanted) ?? [];
  t.is(taken.filter(({ kind }) => kind === 'call-removed').length, Math.ceil(taken.length / 2));
  t.is(shareOut(byFile, 2, 7).length, 2);
  const fewer = shareOut(new Map([...byFile].slice(1)), 24, 7);
  t.deepEqual(fewer[0]?.order, shares[1]?.order, 'a file that goes changes nothing of the others');
});

test('a judge passes what is unchanged and stops at what fails, loops, waits for ever or does not load', async (t) => {
  t.timeout(120_000);
  const units = [
    { file: 'test/journal/frame.test.ts', title: 'the chain does not depend on where frames are cut' },
    {
      file: 'test/journal/journal.test.ts',
      title: 'one sync serves all who wait, and the next one those who came later',
    },
  ];
  const judge = (...patches: PatchedFile[]): Promise<Outcome> =>
    runJudge({ task: 'judge', units }, patches, () => 4000);
  const advance = 'if (entries.length === 0) return chain;';
  t.like(await judge(), { how: 'clean', index: 1 });
  t.like(await judge(patchSource(CHAIN, advance, 'return chain;')), { how: 'test', index: 0 });
  t.like(await judge(patchSource(CHAIN, advance, 'for (;;) {}')), { how: 'spinning', index: 0 });
  t.like(await judge(patchSource(CHAIN, 'function advanceChain', 'function otherName')), { how: 'load', index: 0 });
  const sync = 'for (const file of files) await file.file.dataSync();';
  const never = patchSource('journal/group-sync.ts', sync, 'await new Promise(() => undefined);');
  t.like(await judge(never), { how: 'stuck', index: 1 });
});

test('a mutant goes to the units that run its place, and one that no unit runs survives unseen', async (t) => {
  const source = text(CHAIN);
  const start = source.indexOf('entries.length === 0');
  const mutant: Mutant = {
    file: CHAIN,
    start,
    end: start + 'entries.length === 0'.length,
    line: 1,
    kind: 'condition-true',
    original: 'entries.length === 0',
    replacement: 'true',
    inFunction: true,
  };
  const file = 'test/journal/frame.test.ts';
  const unit = (title: string, covered: number[]): MeasuredUnit => {
    return { file, title, cpuMs: 10, wallMs: 10, covers: { [CHAIN]: covered } };
  };
  const elsewhere = unit('any single flipped bit is found', [0, start, start + 1, source.length]);
  const there = unit('the chain does not depend on where frames are cut', [0, source.length]);
  const importers = new Map([[CHAIN, [CHAIN]]]);
  t.like(await new MutantJudge([elsewhere], importers, 15).judge(mutant, source), {
    killed: false,
    how: 'not-run',
    units: 0,
  });
  const verdict = await new MutantJudge([elsewhere, there], importers, 15).judge(mutant, source);
  t.like(verdict, { killed: true, how: 'test', units: 1, by: `${file} › ${there.title}` });
  t.is(describe(mutant), 'journal/chain.ts:1 condition-true: entries.length === 0 -> true');
});
