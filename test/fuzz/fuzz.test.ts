import test from 'ava';
import { TidemarkError } from '../../journal/base/errors.ts';
import { allTargets } from './all-targets.ts';
import { Allocations } from './allocations.ts';
import { corpusOf, corpusTargets } from './corpus.ts';
import { Coverage } from './coverage.ts';
import { FuzzLoop } from './fuzz-loop.ts';

/** The same inputs at every run: `node test/fuzz/fuzz.ts` goes further, with other seeds. */
const SEED = 20_261_121;
/** A machine that is too slow for all inputs takes fewer. */
const TARGET_MS = 1200;

const coverage = new Coverage();
// Under c8 the counters belong to it.
const guided = process.env['NODE_V8_COVERAGE'] === undefined;
if (guided) coverage.start();
const allocations = new Allocations();
const targets = await allTargets();
allocations.install();

test('what was found once is refused, and never found again', async (t) => {
  for (const target of targets) {
    for (const [file, input] of corpusOf(target.name)) {
      try {
        await target.run(Uint8Array.from(input));
      } catch (error) {
        if (!(error instanceof TidemarkError)) t.fail(`${target.name}/${file}: ${String(error)}`);
      }
    }
  }
  t.deepEqual(
    corpusTargets().filter((name) => !targets.some((target) => target.name === name)),
    [],
  );
});

for (const target of targets) {
  test.serial(`any bytes: ${target.name}`, async (t) => {
    const loop = new FuzzLoop(target, { allocations, ...(guided ? { coverage } : {}) }, SEED);
    const report = await loop.run(target.testRuns, TARGET_MS);
    t.true(report.runs > 20 && report.corpus > 0);
    t.deepEqual(
      report.findings.map(({ kind, message, stack }) => `${kind}: ${message}\n${stack}`),
      [],
    );
  });
}

test.serial('the loop finds a bug behind a magic number, a length and a checksum', async (t) => {
  const loop = new FuzzLoop(
    {
      name: 'planted',
      testRuns: 0,
      seeds: () => [Buffer.from([1, 0, 2, 3])],
      words: [Buffer.from('MAGIC')],
      fix: (input) => {
        if (input.length > 6) input[5] = input.length;
      },
      run: (input) => {
        if (Buffer.from(input).toString('latin1', 0, 5) !== 'MAGIC') throw new TidemarkError('frame-damaged', 'magic');
        if (input[5] !== input.length) throw new TidemarkError('frame-damaged', 'length');
        if (input[6] === 0x7f) throw new RangeError('planted');
      },
    },
    { allocations },
    SEED,
  );
  const { findings } = await loop.run(60_000, 40_000);
  t.is(findings[0]?.message, 'RangeError: planted');
});

test.serial('the loop finds memory that an input asks for', async (t) => {
  const loop = new FuzzLoop(
    {
      name: 'planted',
      testRuns: 0,
      seeds: () => [Buffer.from([0, 0, 0, 1])],
      run: (input) => void Buffer.alloc(Math.min(2 ** 24, new DataView(input.buffer).getUint32(0, true))),
    },
    { allocations },
    SEED,
  );
  const { findings } = await loop.run(200, 10_000);
  t.is(findings[0]?.kind, 'memory');
});
