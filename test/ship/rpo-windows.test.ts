import test from 'ava';
import fc from 'fast-check';
import { RPO_WINDOWS_SECONDS, RpoWindows } from '../../daemon/ship/rpo-windows.ts';
import { Standstill } from '../../daemon/ship/standstill.ts';

test('quantiles of the loss are those of the samples; a moment at which it was not known, or nobody looked, counts as worst', (t) => {
  const sample = fc.record({ skip: fc.constantFrom(0, 0, 0, 0, 0, 3), value: fc.option(fc.nat(200), { freq: 8 }) });
  fc.assert(
    fc.property(fc.array(sample, { minLength: 1, maxLength: 150 }), (samples) => {
      const windows = new RpoWindows();
      const seen: number[] = [];
      let second = 5;
      for (const { skip, value } of samples) {
        if (seen.length > 0) for (let missed = 0; missed < skip; missed++) seen.push(Number.POSITIVE_INFINITY);
        second += 1 + (seen.length > 0 ? skip : 0);
        windows.note(second * 1_000 + 7, value);
        // within a second the first word counts
        windows.note(second * 1_000 + 900, 9_999);
        seen.push(value ?? Number.POSITIVE_INFINITY);
      }
      const [minute] = windows.figures;
      const last = seen.slice(-60).toSorted((a, b) => a - b);
      const at = (part: number): number | null => {
        const found = last[Math.ceil(part * last.length) - 1] as number;
        return found === Number.POSITIVE_INFINITY ? null : found;
      };
      t.deepEqual(minute, {
        windowSeconds: 60,
        p50Seconds: at(0.5),
        p99Seconds: at(0.99),
        covered: Math.min(1, seen.length / 60),
      });
    }),
    { numRuns: 300 },
  );
});

test('an hour and a day are kept, and nothing before them', (t) => {
  const windows = new RpoWindows();
  t.deepEqual(
    windows.figures.map(({ p50Seconds, covered }) => [p50Seconds, covered]),
    RPO_WINDOWS_SECONDS.map(() => [null, 0]),
  );
  for (let second = 1; second <= 86_400; second++) windows.note(second * 1_000, second <= 50_000 ? 30 : 2);
  t.deepEqual(
    windows.figures.map(({ p50Seconds, p99Seconds, covered }) => [p50Seconds, p99Seconds, covered]),
    [
      [2, 2, 1],
      [2, 2, 1],
      [30, 30, 1],
    ],
  );
  for (let second = 86_401; second <= 86_400 + 50_000; second++) windows.note(second * 1_000, 3);
  t.is(windows.figures[2]?.p99Seconds, 3, 'what is a day old is forgotten');
  windows.note(10 * 86_400_000, 1);
  t.deepEqual(
    windows.figures.map(({ p50Seconds }) => p50Seconds),
    [null, null, null],
    'a process that stood still for days',
  );
});

test('a replica stands still from when it stopped taking what there is, and not while there is nothing', (t) => {
  const replica = new Standstill();
  t.is(replica.look(1_000, undefined, 0), 0);
  t.is(replica.look(9_000, undefined, 0), 0, 'there is nothing');
  t.is(replica.look(10_000, undefined, 5), 1, 'one that was never heard');
  t.is(replica.look(11_000, 2, 5), 0);
  t.is(replica.look(14_000, 2, 9), 3);
  t.is(replica.look(15_000, 3, 9), 0, 'it takes');
  t.is(replica.look(18_000, 1, 9), 0, 'it has another position, if a lower one');
  t.is(replica.look(20_000, 1, 9), 2);
  t.is(replica.look(21_000, 9, 9), 0);
});
