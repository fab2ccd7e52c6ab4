import fs from 'node:fs';
import path from 'node:path';

/** The folder a run leaves its figures in; without it nothing is written. */
const DIRECTORY_VARIABLE = 'TIDEMARK_RESULT_DIRECTORY';

/** What a run found: a line of the ledger (test/reliability). */
export interface RawResult {
  /** What ran, in the ledger's words: `direct`, `leader killed`. */
  readonly name: string;
  readonly seconds: number;
  readonly counts: Readonly<Record<string, number>>;
  /** What stands beside the counts. */
  readonly labels?: Readonly<Record<string, string>>;
  readonly violations: readonly string[];
}

/** Keeps a result as `KIND-NAME.json` in the folder that TIDEMARK_RESULT_DIRECTORY names, if it names one. */
export function keepRawResult(kind: string, result: RawResult): void {
  const directory = process.env[DIRECTORY_VARIABLE];
  if (directory === undefined || directory === '') return;
  fs.mkdirSync(directory, { recursive: true });
  const name = `${kind}-${result.name.replaceAll(/[^A-Za-z0-9]+/g, '-')}.json`;
  fs.writeFileSync(path.join(directory, name), `${JSON.stringify(result, undefined, 2)}\n`);
}
