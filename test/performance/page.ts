import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { ratioChart } from './chart.ts';
import { partVerdicts } from './parts/part-figures.ts';
import { PEERS, type Report, type Verdict, verdicts } from './report.ts';
import type { RowFigures, ServerFigures } from './table.ts';

const PROJECT: string = path.resolve(import.meta.dirname, '../..');
const REPORT = 'test/performance/report.json';
/** The same of the parts, saved by a run of their own. */
const PARTS = 'test/performance/parts.json';
/** What was found by profile, in words. */
const NOTES = 'test/performance/notes.md';
const PAGE = 'docs/performance.md';
const CHART = 'docs/performance.svg';

const HEAD = `# Performance

Made by \`npm run bench -- --page\` from the saved runs below (\`${REPORT}\`, \`${PARTS}\`) and from \`${NOTES}\`; a test holds it to both.

\`npm run bench\` runs fio against Tidemark, qemu-nbd, nbdkit and a QEMU mirror in turn, within each repetition, on copies of one disk, and
prints the medians. Tidemark runs as a user runs it: source and replica as two processes on this machine, with the journal, writing out to
the backing, and shipping to a replica that checks, stores, syncs and acknowledges, all on; qemu-nbd and nbdkit do none of that. The mirror is
qemu-storage-daemon with \`blockdev-mirror copy-mode=write-blocking\` to a second server: it replicates too, without history. Before each run the
machine is waited for until it is quiet, and Tidemark until nothing is left over; how long that took is the drain. Data is refilled and half
compressible. Sustained rows run a minute, 15 s with \`--quick\`. Believe the ratios: absolute figures of a shared machine drift.
`;

/** Everything that is made from the saved run, by its path in the project. */
export function madePages(): ReadonlyMap<string, string> {
  const report = JSON.parse(readFileSync(path.join(PROJECT, REPORT), 'utf8')) as Report;
  const parts = JSON.parse(readFileSync(path.join(PROJECT, PARTS), 'utf8')) as Report;
  const notes = readFileSync(path.join(PROJECT, NOTES), 'utf8');
  return new Map([
    [PAGE, page(report, parts, notes)],
    [CHART, ratioChart(report.rows)],
  ]);
}

export function writePages(): void {
  for (const [file, text] of madePages()) writeFileSync(path.join(PROJECT, file), text);
}

function page(report: Report, parts: Report, notes: string): string {
  const { machine, date, commit, command, rows } = report;
  return `${HEAD}
## The saved run

Commit ${commit}, ${date.slice(0, 10)}, ${machine}, shared by fio, servers and replica:

\`\`\`
${command}
\`\`\`

![Tidemark as a multiple of each peer](performance.svg)

Per server: median [min..max] (ratio tidemark / peer), p99 / p99.9 / worst of a request in ms, CPU of the server per
operation, its drain included, in us, memory in MiB.

| row | tidemark | ${PEERS.join(' | ')} |
|---|---|${PEERS.map(() => '---|').join('')}
${rows.map(tableRow).join('\n')}

## Against the goals

${goalTable(verdicts(rows))}

${partSection(parts)}

${notes.trimEnd()}
`;
}

function tableRow({ row, unit, repetitions, servers }: RowFigures): string {
  const ours = servers['tidemark'];
  const peers = PEERS.map((peer) => {
    const theirs = servers[peer];
    if (theirs === undefined || ours === undefined) return '';
    return cell(theirs, ` (x${(ours.median / theirs.median).toFixed(2)})`);
  });
  return `| ${row}, ${unit}, ${repetitions} x | ${ours === undefined ? '' : `${cell(ours, '')}${pace(ours)}`} | ${peers.join(' | ')} |`;
}

function cell(server: ServerFigures, ratio: string): string {
  const { median, min, max, cpu_us_per_op: cpu, rss_mib: memory } = server;
  const [p99, p999, worst] = [server.p99_us, server.p999_us, server.max_us].map((micros) => (micros / 1000).toFixed(1));
  return `${median} [${min}..${max}]${ratio}, ${p99} / ${p999} / ${worst} ms, ${cpu} us, ${memory} MiB`;
}

function pace({ drain_s: drain, worst_second: worst, longest_stop_ms: stop }: ServerFigures): string {
  const even = worst === undefined ? '' : `; slowest second ${worst} of the median, longest stop ${stop} ms`;
  return `${even}; drained in ${drain} s`;
}

function partSection({ machine, date, commit, command, parts = [] }: Report): string {
  const tables = parts.map(({ row, what, figures }) => {
    const lines = figures.map(
      ({ figure, unit, median, min, max }) => `| ${figure} | ${median} [${min}..${max}] ${unit} |`,
    );
    return [`**${row}**: ${what}.`, '', '| figure | median [min..max] |', '|---|---|', ...lines].join('\n');
  });
  return `## Replica, history, scale, Kafka

Commit ${commit}, ${date.slice(0, 10)}, ${machine}; saved in \`${PARTS}\`:

\`\`\`
${command}
\`\`\`

${tables.join('\n\n')}

${goalTable(partVerdicts(parts))}`;
}

function goalTable(all: readonly Verdict[]): string {
  const lines = all.map(({ row, what, goal, isUpper, measured, isMet }) => {
    const shown = measured >= 10 ? measured.toFixed(0) : measured.toFixed(2);
    return `| ${row} | ${what} | ${isUpper ? 'at most' : 'at least'} ${goal} | ${shown} | ${isMet ? 'met' : 'missed'} |`;
  });
  const met = all.filter(({ isMet }) => isMet).length;
  return [
    `${met} of ${all.length} are met; what is missed is the work of the next versions.`,
    '',
    '| row | figure | goal | measured | |',
    '|---|---|---|---|---|',
    ...lines,
  ].join('\n');
}
