import { readFileSync } from 'node:fs';
import { PROJECT } from '../planted/patch-loader.ts';
import type { Verdict } from './judge-mutant.ts';
import { describe, type Mutant } from './mutant.ts';

/** Why a mutant may survive; what each means stands in SURVIVORS.md beside the list. */
export type SurvivorClass = 'equivalent' | 'speed' | 'telemetry' | 'defensive' | 'platform' | 'elsewhere' | 'hole';

/** One survivor that somebody has read. It is found again by its file, the text of its line and what it becomes. */
interface Explanation {
  readonly file: string;
  readonly source: string;
  readonly kind: string;
  readonly replacement: string;
  readonly class: SurvivorClass;
  readonly why: string;
}

interface Count {
  readonly mutants: number;
  readonly killed: number;
}

export interface MutationReport {
  readonly commit: string;
  readonly seed: number;
  readonly mutants: number;
  readonly killed: number;
  readonly survived: number;
  /** Of the killed: those that ended in an endless loop or waited for ever. */
  readonly timedOut: number;
  /** Percent, one decimal. */
  readonly score: number;
  readonly seconds: number;
  readonly byFile: Readonly<Record<string, Count>>;
  readonly byKind: Readonly<Record<string, Count>>;
  readonly killedBy: Readonly<Record<string, number>>;
  readonly survivors: readonly {
    readonly file: string;
    readonly line: number;
    readonly kind: string;
    readonly source: string;
    readonly original: string;
    readonly replacement: string;
    readonly units: number;
    readonly class: SurvivorClass | 'unexplained';
    readonly why: string;
  }[];
}

export function report(
  verdicts: readonly Verdict[],
  about: { readonly commit: string; readonly seed: number; readonly seconds: number },
): MutationReport {
  const explanations = JSON.parse(
    readFileSync(new URL('survivors.json', import.meta.url), 'utf8'),
  ) as readonly Explanation[];
  const killed = verdicts.filter((verdict) => verdict.killed);
  const survivors = verdicts.filter((verdict) => !verdict.killed);
  return {
    ...about,
    mutants: verdicts.length,
    killed: killed.length,
    survived: survivors.length,
    timedOut: killed.filter(({ how }) => how === 'stuck' || how === 'spinning').length,
    score: verdicts.length === 0 ? 0 : Math.round((killed.length / verdicts.length) * 1000) / 10,
    byFile: counted(verdicts, ({ mutant }) => mutant.file),
    byKind: counted(verdicts, ({ mutant }) => mutant.kind),
    killedBy: Object.fromEntries(
      Object.entries(counted(killed, ({ how }) => how)).map(([how, { mutants }]) => [how, mutants]),
    ),
    survivors: survivors.map(({ mutant, units }) => {
      const { file, line, kind, original, replacement } = mutant;
      const source = sourceLine(mutant);
      const known = explanations.find(
        (one) => one.file === file && one.source === source && one.kind === kind && one.replacement === replacement,
      );
      const explained = { class: known?.class ?? ('unexplained' as const), why: known?.why ?? '' };
      return { file, line, kind, source, original, replacement, units, ...explained };
    }),
  };
}

export function printReport(made: MutationReport, say: (line: string) => void): void {
  say('\nby file:');
  for (const line of table(made.byFile)) say(line);
  say('\nby kind:');
  for (const line of table(made.byKind)) say(line);
  if (made.survivors.length > 0) say('\nsurvivors:');
  for (const survivor of made.survivors) {
    const { file, line, kind, source, replacement, units } = survivor;
    say(`${file}:${line} ${kind} [${survivor.class}]${units === 0 ? ' (no unit runs it)' : ''}`);
    say(`    ${source}`);
    say(`    -> ${replacement.replace(/\s+/g, ' ')}`);
  }
  const classes = counted(made.survivors, (survivor) => survivor.class);
  const explained = Object.entries(classes).map(([name, { mutants }]) => `${mutants} ${name}`);
  const by = Object.entries(made.killedBy).map(([how, count]) => `${count} ${how}`);
  say(`\nkilled by: ${by.join(', ')}; survivors: ${explained.join(', ') || 'none'}`);
  say(
    `${made.mutants} mutants (seed ${made.seed}), ${made.killed} killed (${made.timedOut} by time), ` +
      `${made.survived} survived: score ${made.score.toFixed(1)} %; ${(made.seconds / 60).toFixed(1)} min`,
  );
}

/** One line of the progress. */
export function verdictLine({ mutant, killed, how, by, seconds }: Verdict): string {
  return `${killed ? 'killed  ' : 'SURVIVED'} ${seconds.toFixed(1).padStart(5)} s  ${describe(mutant)}${killed ? `  [${how}: ${by}]` : ''}`;
}

/** The whole line of the product that a mutant begins on. */
export function sourceLine({ file, line }: Mutant): string {
  return (readFileSync(`${PROJECT}/${file}`, 'utf8').split('\n')[line - 1] ?? '').trim();
}

function counted<T extends object>(things: readonly T[], keyOf: (thing: T) => string): Record<string, Count> {
  const counts: Record<string, { mutants: number; killed: number }> = {};
  for (const thing of things) {
    const key = keyOf(thing);
    const count = (counts[key] ??= { mutants: 0, killed: 0 });
    count.mutants++;
    if ('killed' in thing && thing.killed === true) count.killed++;
  }
  return Object.fromEntries(Object.entries(counts).toSorted(([a], [b]) => a.localeCompare(b)));
}

function table(counts: Readonly<Record<string, Count>>): string[] {
  return Object.entries(counts).map(([name, { mutants, killed }]) => {
    const percent = Math.round((100 * killed) / mutants);
    return `  ${name.padEnd(40)} ${String(killed).padStart(4)} / ${String(mutants).padStart(3)}  ${String(percent).padStart(3)} %`;
  });
}
