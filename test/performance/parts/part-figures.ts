import type { Verdict } from '../report.ts';
import { median } from '../table.ts';
import type { PartValues } from './part.ts';
import { type FigureSpec, PART_SPECS, type PartSpec } from './part-specs.ts';

/** One figure as it stands in the JSON: the median of the repetitions and their range. */
export interface SavedFigure {
  readonly figure: string;
  readonly unit: string;
  readonly median: number;
  readonly min: number;
  readonly max: number;
}

export interface PartFigures {
  readonly row: string;
  readonly what: string;
  readonly figures: readonly SavedFigure[];
}

/** Ratios and seconds are small: three digits, whatever the size. */
function rounded(value: number): number {
  return value >= 100 ? Math.round(value) : Number(value.toPrecision(3));
}

/** Every figure of the spec that was measured, in its order; one that the spec does not know is a mistake. */
export function partFigures(spec: PartSpec, values: PartValues): PartFigures {
  const known = new Set(spec.figures.map(({ figure }) => figure));
  for (const name of values.keys()) if (!known.has(name)) throw new Error(`${spec.row} has no figure "${name}"`);
  const figures = spec.figures.flatMap(({ figure, unit }) => {
    const measured = values.get(figure);
    if (measured === undefined) return [];
    const [min, max] = [rounded(Math.min(...measured)), rounded(Math.max(...measured))];
    return [{ figure, unit, median: rounded(median(measured)), min, max }];
  });
  return { row: spec.row, what: spec.what, figures };
}

/** Every goal of the parts that were measured. */
export function partVerdicts(parts: readonly PartFigures[]): Verdict[] {
  return parts.flatMap(({ row, figures }) =>
    figures.flatMap(({ figure, unit, median: measured }) => {
      const spec = specOf(row, figure);
      const goal = spec?.atMost ?? spec?.atLeast;
      if (goal === undefined) return [];
      const isUpper = spec?.atMost !== undefined;
      return [
        {
          row,
          what: `${figure}, ${unit}`,
          goal,
          isUpper,
          measured,
          isMet: isUpper ? measured <= goal : measured >= goal,
        },
      ];
    }),
  );
}

function specOf(row: string, figure: string): FigureSpec | undefined {
  return PART_SPECS.find((spec) => spec.row === row)?.figures.find((one) => one.figure === figure);
}

/** One line per figure of the printed table. */
export function formatPart({ row, what, figures }: PartFigures): string {
  const lines = figures.map(({ figure, unit, median: middle, min, max }) => {
    const spec = specOf(row, figure);
    const goal = spec?.atMost ?? spec?.atLeast;
    const bound = goal === undefined ? '' : `, goal ${spec?.atMost === undefined ? 'at least' : 'at most'} ${goal}`;
    return `  ${figure}: ${middle} [${min}..${max}] ${unit}${bound}`;
  });
  return [`${row}: ${what}`, ...lines].join('\n');
}
