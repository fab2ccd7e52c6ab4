/** What a mutant changes; the names stand in the table and in the kept explanations. */
export const KINDS = [
  'boundary',
  'comparison-negated',
  'arithmetic',
  'bits',
  'constant',
  'boolean',
  'not-removed',
  'and-or',
  'default-only',
  'condition-true',
  'condition-false',
  'guard-removed',
  'else-removed',
  'call-removed',
  'await-removed',
  'assignment-removed',
  'exit-removed',
  'method-swapped',
] as const;

export type MutantKind = (typeof KINDS)[number];

/** One change of one file: characters `start` to `end` become `replacement`. */
export interface Mutant {
  /** From the top of the project. */
  readonly file: string;
  /** UTF-16 offsets into the file's text. */
  readonly start: number;
  readonly end: number;
  /** From 1. */
  readonly line: number;
  readonly kind: MutantKind;
  readonly original: string;
  readonly replacement: string;
  /** False: it is evaluated when the module is loaded or an object is made, so no test is known to reach it by itself. */
  readonly inFunction: boolean;
}

export function mutate(text: string, mutant: Pick<Mutant, 'start' | 'end' | 'replacement'>): string {
  return text.slice(0, mutant.start) + mutant.replacement + text.slice(mutant.end);
}

/** `journal/chain.ts:12 boundary: a < b -> a <= b`, on one line. */
export function describe({ file, line, kind, original, replacement }: Mutant): string {
  return `${file}:${line} ${kind}: ${oneLine(original)} -> ${oneLine(replacement)}`;
}

function oneLine(text: string): string {
  const flat = text.replace(/\s+/g, ' ');
  return flat.length > 90 ? `${flat.slice(0, 87)}...` : flat;
}
