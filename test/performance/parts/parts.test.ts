import test from 'ava';
import { ROWS } from '../rows.ts';
import { type PartValues, Values } from './part.ts';
import { formatPart, partFigures, partVerdicts } from './part-figures.ts';
import { PART_SPECS, type PartSpec } from './part-specs.ts';
import { chosenParts, isMeasured } from './run-parts.ts';

function specOf(row: string): PartSpec {
  const spec = PART_SPECS.find((one) => one.row === row);
  if (spec === undefined) throw new Error(row);
  return spec;
}

function values(entries: Readonly<Record<string, readonly number[]>>): PartValues {
  const list = new Values();
  for (const [figure, all] of Object.entries(entries)) for (const value of all) list.add(figure, value);
  return list.all;
}

test('every part has a name of its own, a run, and figures with at most one goal each', (t) => {
  const names = [...ROWS.map(({ name }) => name), ...PART_SPECS.map(({ row }) => row)];
  t.is(new Set(names).size, names.length);
  for (const { row, figures } of PART_SPECS) {
    t.true(isMeasured(row), row);
    t.is(new Set(figures.map(({ figure }) => figure)).size, figures.length, row);
    for (const { atLeast, atMost } of figures) t.false(atLeast !== undefined && atMost !== undefined, row);
  }
});

test('a figure is the median of its repetitions with their range, and is held to its goal', (t) => {
  const measured = partFigures(
    specOf('restore'),
    values({ 'restored and verified': [9, 3, 4], 'qemu-img convert / restore': [0.9, 1.104, 1.2] }),
  );
  t.deepEqual(measured.figures, [
    { figure: 'restored and verified', unit: 's', median: 4, min: 3, max: 9 },
    { figure: 'qemu-img convert / restore', unit: 'times', median: 1.1, min: 0.9, max: 1.2 },
  ]);
  t.deepEqual(
    partVerdicts([measured]).map(({ what, goal, isUpper, isMet }) => [what, goal, isUpper, isMet]),
    [['qemu-img convert / restore, times', 1, false, true]],
  );
  t.regex(formatPart(measured), /restore: 1\.1 \[0\.9\.\.1\.2\] times, goal at least 1/);
  const missed = partFigures(specOf('recovery'), values({ 'from the start to the first write answered': [5.1] }));
  t.deepEqual(
    partVerdicts([missed]).map(({ isUpper, isMet }) => [isUpper, isMet]),
    [[true, false]],
  );
});

test('a figure that its part does not name is refused', (t) => {
  t.throws(() => partFigures(specOf('restore'), values({ speed: [1] })), { message: /no figure "speed"/ });
});

test('--rows names parts too, and --quick leaves out what takes long unless it is named', (t) => {
  t.deepEqual(
    chosenParts(['index-50m', 'w4k-q32'], true).map(({ row }) => row),
    ['index-50m'],
  );
  t.false(chosenParts(undefined, true).some(({ row }) => row === 'index-50m'));
  t.is(chosenParts(undefined, false).length, PART_SPECS.length);
});
