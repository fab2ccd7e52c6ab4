import { readFileSync } from 'node:fs';
import path from 'node:path';
import test from 'ava';
import { ratioChart } from './chart.ts';
import { paceOf } from './pace.ts';
import { madePages } from './page.ts';
import { verdicts } from './report.ts';
import { ROWS } from './rows.ts';
import { figures, type Sample } from './table.ts';

const SAMPLE: Sample = {
  rate: 100,
  operations: 1000,
  p50Micros: 10,
  p99Micros: 20,
  p999Micros: 30,
  maxMicros: 40,
  cpuMicrosPerOperation: 5,
  residentMib: 200,
  drainSeconds: 1,
};

function measured(row: string, ours: Partial<Sample>, theirs: Partial<Sample>) {
  const servers = {
    tidemark: figures([{ ...SAMPLE, ...ours }]),
    'qemu-nbd': figures([{ ...SAMPLE, ...theirs }]),
    nbdkit: figures([SAMPLE]),
    mirror: figures([SAMPLE]),
  };
  return { row, unit: 'IOPS', repetitions: 1, servers };
}

test('the page and the chart are what the saved run says: npm run bench -- --page writes them', (t) => {
  const project = path.resolve(import.meta.dirname, '../..');
  for (const [file, text] of madePages()) t.is(readFileSync(path.join(project, file), 'utf8'), text, file);
});

test('a stop of the guest is the longest time without a completion, at the end of a run too', (t) => {
  const steady = [...Array(300).keys()].map((step) => `${(step + 1) * 10}, 1000, 1, 0, 0`);
  t.is(paceOf(steady.join('\n'), 10, 3000).longestStopMs, 0);
  const inside = steady.filter((_, step) => step < 100 || step >= 130);
  t.is(paceOf(inside.join('\n'), 10, 3000).longestStopMs, 300);
  t.is(paceOf(steady.slice(0, 250).join('\n'), 10, 3000).longestStopMs, 490);
});

test('the slowest second is told as a part of the median one, the first left out', (t) => {
  const lines = [...Array(500).keys()].map((step) => {
    const second = Math.floor(step / 100);
    return `${(step + 1) * 10}, ${second === 0 ? 1 : second === 3 ? 500 : 1000}, 1, 0, 0`;
  });
  t.is(paceOf(lines.join('\n'), 10, 5000).worstSecond, 0.5);
});

test('every goal of a row has a verdict, the tail and the CPU too', (t) => {
  const met = verdicts([measured('w4k-q32', { rate: 600, cpuMicrosPerOperation: 3 }, { p999Micros: 60 })]);
  t.deepEqual(
    met.map(({ goal, isMet }) => [goal, isMet]),
    [
      [3, true],
      [1.5, true],
      [5, true],
      [1, true],
      [0.6, true],
    ],
  );
  const missed = verdicts([measured('w4k-q32', { rate: 290, p999Micros: 61, cpuMicrosPerOperation: 4 }, {})]);
  t.deepEqual(
    missed.map(({ isMet }) => isMet),
    [false, true, false, false, false],
  );
  const pace = { worstSecond: 0.4, longestStopMs: 151 };
  const sustained = verdicts([measured('sustained-w1m-q8', { pace }, {})]);
  t.deepEqual(
    sustained.map(({ what, isMet }) => [what, isMet]),
    [
      ["MiB/s / qemu-nbd's", true],
      ["MiB/s / mirror's", false],
      ['longest stop of the guest, ms', false],
    ],
  );
});

test('the chart has a bar for every peer of every row, and stands in light and dark', (t) => {
  const rows = ROWS.map(({ name }) => measured(name, { rate: 400 }, { rate: 100_000 }));
  const svg = ratioChart(rows);
  t.is(
    [...svg.matchAll(/<rect class="(?:qemu-nbd|nbdkit|mirror)" x="[^"]+" y="[^"]+" width="[^"]+" height="9"/g)].length,
    ROWS.length * 3,
  );
  t.regex(svg, /prefers-color-scheme: dark/);
  t.notRegex(svg, /NaN|Infinity|undefined/);
});
