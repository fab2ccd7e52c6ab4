import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { RawResult } from './raw-result.ts';

const RESULTS_DIRECTORY: string = path.join(import.meta.dirname, 'results');
/** A result keeps so many, each cut to so many characters. */
const VIOLATIONS_MAX = 20;
const VIOLATION_CHARACTERS_MAX = 500;

/** One line of the ledger, and where it comes from. */
export interface SavedRow extends RawResult {
  /** Of the checkout it ran on; `+` behind it: with changes that were not committed. */
  readonly commit: string;
  /** UTC day, `2026-11-21`. */
  readonly date: string;
  /** What runs it again. */
  readonly command: string;
}

/** The saved lines of every method, by the method's id. */
export function readResults(directory: string = RESULTS_DIRECTORY): ReadonlyMap<string, readonly SavedRow[]> {
  const results = new Map<string, SavedRow[]>();
  if (!existsSync(directory)) return results;
  for (const file of readdirSync(directory).sort()) {
    if (!file.endsWith('.json')) continue;
    const rows = JSON.parse(readFileSync(path.join(directory, file), 'utf8')) as SavedRow[];
    results.set(file.slice(0, -'.json'.length), rows);
  }
  return results;
}

/** A whole run takes the place of all lines of its method, a part of one the lines of the same names. */
export function saveResults(
  method: string,
  rows: readonly SavedRow[],
  whole: boolean,
  directory: string = RESULTS_DIRECTORY,
): void {
  const known = whole ? [] : (readResults(directory).get(method) ?? []);
  const merged = new Map(known.map((row) => [row.name, row]));
  for (const row of rows) merged.set(row.name, { ...row, violations: bounded(row.violations) });
  mkdirSync(directory, { recursive: true });
  const text = JSON.stringify([...merged.values()], undefined, 2);
  writeFileSync(path.join(directory, `${method}.json`), `${text}\n`);
}

function bounded(violations: readonly string[]): string[] {
  const kept = violations.slice(0, VIOLATIONS_MAX).map((text) => text.slice(0, VIOLATION_CHARACTERS_MAX));
  const more = violations.length - kept.length;
  return more > 0 ? [...kept, `and ${more} more`] : kept;
}
