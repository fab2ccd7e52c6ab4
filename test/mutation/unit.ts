/** One thing that can find a mutant: a test of a test file, or a run of the simulator. */
export interface Unit {
  /** From the top of the project: a `.test.ts` file, or `test/simulation/world.ts`. */
  readonly file: string;
  /** The test's title, or `seed N`. */
  readonly title: string;
}

/** A unit as it runs without any mutant. */
export interface MeasuredUnit extends Unit {
  readonly cpuMs: number;
  readonly wallMs: number;
  /** Per file of the product: the stretches of its text that were run, as from, to, from, to ... */
  readonly covers: Readonly<Record<string, readonly number[]>>;
}

export const SIMULATOR = 'test/simulation/world.ts';

/** The seed of a simulator's unit. */
export function seedOf({ title }: Unit): number {
  return Number(title.slice('seed '.length));
}

export function unitName({ file, title }: Unit): string {
  return `${file} › ${title}`;
}

/** What a judge is given: the path of this as JSON is its only argument. */
export type JudgeTask =
  | { readonly task: 'measure'; readonly file: string; readonly seeds: readonly number[] }
  | { readonly task: 'judge'; readonly units: readonly Unit[] };

/** What a judge tells, one JSON text per line, on its descriptor 3. */
export type JudgeEvent =
  | { readonly event: 'begin'; readonly index: number; readonly title: string }
  | { readonly event: 'measured'; readonly unit: MeasuredUnit }
  | {
      readonly event: 'failed';
      readonly how: 'test' | 'violation' | 'load' | 'crash' | 'stuck';
      readonly message: string;
    }
  | { readonly event: 'end' };

/** The file of the unit with this name. */
export function unitFile(name: string): string {
  return name.slice(0, name.indexOf(' › '));
}
