import { PEERS } from './report.ts';
import type { RowFigures } from './table.ts';

const LABEL_WIDTH = 150;
const PLOT_WIDTH = 560;
const BAR_HEIGHT = 9;
const BAR_GAP = 2;
const ROW_GAP = 12;
const TOP = 44;
/** Ratios are drawn on a scale of powers of two. */
const [LOWEST, HIGHEST] = [1 / 32, 16];

/** Text and lines take the colour of the page, light or dark; the three bars are told apart in both. */
const STYLE = `
text { font: 12px system-ui, sans-serif; fill: #24292f }
.small { font-size: 10px }
.grid { stroke: #d0d7de; stroke-width: 1 }
.level { stroke: #57606a; stroke-width: 1.5 }
.qemu-nbd { fill: #0969da } .nbdkit { fill: #bf8700 } .mirror { fill: #1a7f37 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .grid { stroke: #30363d }
  .level { stroke: #8b949e }
  .qemu-nbd { fill: #58a6ff } .nbdkit { fill: #d29922 } .mirror { fill: #3fb950 }
}`;

/** An SVG of our median as a multiple of each peer's, a group of bars for every row. */
export function ratioChart(rows: readonly RowFigures[]): string {
  const rowHeight = PEERS.length * (BAR_HEIGHT + BAR_GAP) + ROW_GAP;
  const height = TOP + rows.length * rowHeight + 10;
  const width = LABEL_WIDTH + PLOT_WIDTH + 60;
  const bars = rows.map((row, index) => rowBars(row, TOP + index * rowHeight)).join('\n');
  const title = 'Tidemark as a multiple of other servers: right of 1 it is faster';
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" role="img" aria-label="${title}">
<style>${STYLE}
</style>
${legend()}
${grid(height)}
${bars}
</svg>
`;
}

function legend(): string {
  return PEERS.map((peer, index) => {
    const x = LABEL_WIDTH + index * 130;
    return `<rect class="${peer}" x="${x}" y="6" width="10" height="10"/><text x="${x + 15}" y="15">against ${peer}</text>`;
  }).join('\n');
}

function grid(height: number): string {
  const lines: string[] = [];
  for (let ratio = LOWEST; ratio <= HIGHEST; ratio *= 2) {
    const x = at(ratio);
    const label = ratio < 1 ? `1/${1 / ratio}` : `${ratio}`;
    lines.push(
      `<line class="${ratio === 1 ? 'level' : 'grid'}" x1="${x}" x2="${x}" y1="${TOP - 8}" y2="${height - 8}"/>`,
      `<text class="small" x="${x}" y="${TOP - 12}" text-anchor="middle">${label}</text>`,
    );
  }
  return lines.join('\n');
}

function rowBars({ row, servers }: RowFigures, top: number): string {
  const middle = top + (PEERS.length * (BAR_HEIGHT + BAR_GAP)) / 2 + 3;
  const parts = [`<text x="${LABEL_WIDTH - 8}" y="${middle}" text-anchor="end">${row}</text>`];
  const ours = servers['tidemark'];
  for (const [index, peer] of PEERS.entries()) {
    const theirs = servers[peer];
    if (ours === undefined || theirs === undefined || theirs.median === 0) continue;
    const ratio = ours.median / theirs.median;
    const [from, to] = [Math.min(at(1), at(ratio)), Math.max(at(1), at(ratio))];
    const y = top + index * (BAR_HEIGHT + BAR_GAP);
    const label = ratio < 1 ? `x="${from - 4}" text-anchor="end"` : `x="${to + 4}"`;
    parts.push(
      `<rect class="${peer}" x="${from}" y="${y}" width="${round(to - from)}" height="${BAR_HEIGHT}"/>`,
      `<text class="small" ${label} y="${y + BAR_HEIGHT - 1}">${ratio.toFixed(2)}</text>`,
    );
  }
  return parts.join('\n');
}

function at(ratio: number): number {
  const bounded = Math.min(HIGHEST, Math.max(LOWEST, ratio));
  return round(LABEL_WIDTH + (PLOT_WIDTH * Math.log2(bounded / LOWEST)) / Math.log2(HIGHEST / LOWEST));
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}
