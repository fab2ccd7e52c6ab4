import { parseArgs } from 'node:util';
import { type RunReport, World } from './world.ts';

/** Runs seeds and prints what they did: node test/simulation/simulate.ts --seeds 100 --from 1 [--verbose] */
const { values } = parseArgs({
  options: {
    seeds: { type: 'string', default: '100' },
    from: { type: 'string', default: '1' },
    verbose: { type: 'boolean', default: false },
  },
});
const from = Number(values.from);
const seeds = Number(values.seeds);
const print = (line: string): void => {
  process.stdout.write(`${line}\n`);
};

const totals = { events: 0, simulatedMicros: 0, crashes: 0, records: 0, acknowledged: 0, views: 0, violations: 0 };
const began = performance.now();
for (let seed = from; seed < from + seeds; seed++) {
  const report: RunReport = await new World(seed).run();
  for (const key of ['events', 'simulatedMicros', 'crashes', 'records', 'acknowledged', 'views'] as const) {
    totals[key] += report[key];
  }
  if (values.verbose) {
    const { crashes, events, records, traceHash, views } = report;
    print(`seed ${seed}: ${events} events, ${records} records, ${crashes} crashes, ${views} views, trace ${traceHash}`);
  }
  if (report.violation === undefined) continue;
  totals.violations++;
  print(`\nseed ${seed} failed after ${(report.simulatedMicros / 1e6).toFixed(3)} simulated seconds:`);
  print(report.violation.message);
  print(`options: ${JSON.stringify(report.options)}`);
  print(`replay: npm run simulate -- --seeds 1 --from ${seed}`);
}
const seconds = (performance.now() - began) / 1000;
const hours = (totals.simulatedMicros / 3.6e9).toFixed(2);
print(
  `${seeds} seeds from ${from}: ${totals.events} events, ${hours} simulated hours, ${totals.crashes} crashes, ` +
    `${totals.records} records, ${totals.acknowledged} acknowledged, ${totals.views} views checked, ` +
    `${totals.violations} violations; ${seconds.toFixed(1)} s`,
);
if (totals.violations > 0) process.exitCode = 1;
