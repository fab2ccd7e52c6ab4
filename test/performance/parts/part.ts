/** Where a part may write, and whether it shall be short. */
export interface PartContext {
  /** Empty, and removed afterwards. */
  readonly directory: string;
  readonly quick: boolean;
  /** For parts that repeat what they compare. */
  readonly repetitions: number;
}

/** What was measured, by the figure's name: one value per repetition. */
export type PartValues = ReadonlyMap<string, readonly number[]>;

export type PartRun = (context: PartContext) => Promise<PartValues>;

/** Collects values under their figures' names. */
export class Values {
  readonly #values = new Map<string, number[]>();

  add(figure: string, value: number): void {
    const list = this.#values.get(figure);
    if (list === undefined) this.#values.set(figure, [value]);
    else list.push(value);
  }

  get all(): PartValues {
    return this.#values;
  }
}

export function percentile(values: readonly number[], part: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? Number.NaN;
}
