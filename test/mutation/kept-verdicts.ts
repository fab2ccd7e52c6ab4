import { createHash } from 'node:crypto';
import { appendFileSync, existsSync, mkdirSync, readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { PROJECT } from '../planted/patch-loader.ts';
import type { Verdict } from './judge-mutant.ts';
import { type Mutant, mutate } from './mutant.ts';
import { type MeasuredUnit, unitFile } from './unit.ts';

const PATH = `${PROJECT}/node_modules/.cache/mutation-verdicts.jsonl`;

/** One line of the file: `judge` names the tests as they were. */
interface Kept {
  readonly mutant: string;
  readonly judge: string;
  readonly verdict: Verdict;
}

/**
 * Verdicts of earlier runs, one line each, written as they are made: a run that was interrupted is gone on with. One counts
 * while the changed file is the same and so is what judged: for a mutant that was found the test file that found it, for
 * a survivor every test file and the seconds it was given.
 */
export class KeptVerdicts {
  readonly #kept = new Map<string, Verdict>();
  readonly #texts = new Map<string, string>();
  readonly #all: string;

  constructor(units: readonly MeasuredUnit[], cpuSeconds: number) {
    const files = [...new Set(units.map(({ file }) => file))].toSorted();
    this.#all = hashed([String(cpuSeconds), ...files.map((file) => this.#textOf(file))]);
    if (!existsSync(PATH)) return;
    for (const line of readFileSync(PATH, 'utf8').split('\n')) {
      const kept = parsed(line);
      if (kept !== undefined && kept.judge === this.#judgeOf(kept.verdict)) this.#kept.set(kept.mutant, kept.verdict);
    }
  }

  /** Of this change of a file with this text. */
  find(mutant: Mutant, text: string): Verdict | undefined {
    const kept = this.#kept.get(keyOf(mutant, text));
    return kept === undefined ? undefined : { ...kept, mutant };
  }

  keep(verdict: Verdict, text: string): void {
    const kept: Kept = { mutant: keyOf(verdict.mutant, text), judge: this.#judgeOf(verdict), verdict };
    mkdirSync(dirname(PATH), { recursive: true });
    appendFileSync(PATH, `\n${JSON.stringify(kept)}`);
  }

  #judgeOf({ killed, by }: Verdict): string {
    return killed ? hashed([this.#textOf(unitFile(by))]) : this.#all;
  }

  #textOf(file: string): string {
    const known = this.#texts.get(file);
    if (known !== undefined) return known;
    const path = `${PROJECT}/${file}`;
    const text = existsSync(path) ? readFileSync(path, 'utf8') : '';
    this.#texts.set(file, text);
    return text;
  }
}

/** Nothing for a line that a kill cut off. */
function parsed(line: string): Kept | undefined {
  try {
    return JSON.parse(line) as Kept;
  } catch {
    return undefined;
  }
}

function keyOf(mutant: Mutant, text: string): string {
  return hashed([mutant.file, String(mutant.start), mutate(text, mutant)]);
}

function hashed(parts: readonly string[]): string {
  return createHash('sha256').update(JSON.stringify(parts)).digest('hex');
}
