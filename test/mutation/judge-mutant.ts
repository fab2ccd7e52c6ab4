import { type Mutant, mutate } from './mutant.ts';
import { type Outcome, runJudge } from './run-judge.ts';
import { type MeasuredUnit, type Unit, unitName } from './unit.ts';

/** What became of a mutant. */
export interface Verdict {
  readonly mutant: Mutant;
  readonly killed: boolean;
  /** `survived`, `not-run` (no unit runs the place at all), or how the unit that found it ended. */
  readonly how: 'survived' | 'not-run' | Exclude<Outcome['how'], 'clean'>;
  /** The unit that found it, with what it said. */
  readonly by: string;
  readonly message: string;
  /** Units that run the changed place. */
  readonly units: number;
  readonly seconds: number;
}

/** Judges one mutant of `text` after the other and learns which unit finds the mutants of which file. */
export class MutantJudge {
  readonly #units: readonly MeasuredUnit[];
  readonly #cpuMsMax: number;
  readonly #importers: ReadonlyMap<string, readonly string[]>;
  /** `file of the mutant`, `unit` -> mutants found. */
  readonly #finds = new Map<string, number>();

  /**
   * `importers`: of a file of the product, itself and those that import it directly. `cpuSecondsMax`: so much of units is
   * spent on a mutant, which is what a survivor costs; the dearest ones are left out.
   */
  constructor(
    units: readonly MeasuredUnit[],
    importers: ReadonlyMap<string, readonly string[]>,
    cpuSecondsMax: number,
  ) {
    this.#units = units;
    this.#cpuMsMax = cpuSecondsMax * 1000;
    this.#importers = importers;
  }

  async judge(mutant: Mutant, text: string): Promise<Verdict> {
    const began = performance.now();
    const units = this.#unitsFor(mutant);
    const seconds = (): number => Math.round(performance.now() - began) / 1000;
    const base = { mutant, units: units.length };
    if (units.length === 0) return { ...base, killed: false, how: 'not-run', by: '', message: '', seconds: seconds() };
    const patch = { file: mutant.file, text: mutate(text, mutant) };
    const outcome = await runJudge({ task: 'judge', units: named(units) }, [patch], (index) =>
      cpuLimitMs(units[index]),
    );
    if (outcome.how === 'clean') {
      return { ...base, killed: false, how: 'survived', by: '', message: '', seconds: seconds() };
    }
    const by = units[outcome.index] as MeasuredUnit;
    const key = findKey(mutant, by);
    this.#finds.set(key, (this.#finds.get(key) ?? 0) + 1);
    const { how, message } = outcome;
    return { ...base, killed: true, how, by: unitName(by), message: message.slice(0, 300), seconds: seconds() };
  }

  /** The units that a mutant gets which every one of them runs, with nothing changed. */
  async control(): Promise<Outcome & { readonly unit: string }> {
    const units = this.#affordable(this.#units.toSorted((a, b) => a.cpuMs - b.cpuMs));
    const outcome = await runJudge({ task: 'judge', units: named(units) }, [], (index) => cpuLimitMs(units[index]));
    const last = units[outcome.index];
    return { ...outcome, unit: last === undefined ? '' : unitName(last) };
  }

  /** Cheap ones first, and those that found another mutant of the file. */
  #unitsFor(mutant: Mutant): MeasuredUnit[] {
    const files = mutant.inFunction ? [mutant.file] : (this.#importers.get(mutant.file) ?? [mutant.file]);
    const cost = (unit: MeasuredUnit): number =>
      (unit.cpuMs + 5) / (1 + 4 * (this.#finds.get(findKey(mutant, unit)) ?? 0));
    const able = this.#units
      .filter((unit) => files.some((file) => reaches(unit.covers[file], mutant.inFunction ? mutant.start : undefined)))
      .toSorted((a, b) => cost(a) - cost(b));
    return this.#affordable(able);
  }

  #affordable(units: readonly MeasuredUnit[]): MeasuredUnit[] {
    let spentMs = 0;
    return units.filter(({ cpuMs }, index) => {
      if (index > 0 && spentMs + cpuMs > this.#cpuMsMax) return false;
      spentMs += cpuMs;
      return true;
    });
  }
}

const named = (units: readonly MeasuredUnit[]): Unit[] => units.map(({ file, title }) => ({ file, title }));

/** Four times as much, and time to load. */
function cpuLimitMs(unit: MeasuredUnit | undefined): number {
  return 5000 + 4 * (unit?.cpuMs ?? 0);
}

function findKey(mutant: Mutant, unit: MeasuredUnit): string {
  return `${mutant.file}\0${unitName(unit)}`;
}

/** Without a place: whether any of the file is run. */
function reaches(covered: readonly number[] | undefined, place: number | undefined): boolean {
  if (covered === undefined || place === undefined) return covered !== undefined;
  for (let at = 0; at < covered.length; at += 2) {
    if (place >= (covered[at] as number) && place < (covered[at + 1] as number)) return true;
  }
  return false;
}
