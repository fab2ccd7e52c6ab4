import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';

const CORPUS = path.join(import.meta.dirname, 'corpus');

/** Inputs that once were a finding, by file name; they are run first, every time. */
export function corpusOf(target: string): Map<string, Uint8Array> {
  const directory = path.join(CORPUS, target);
  if (!existsSync(directory)) return new Map();
  return new Map(readdirSync(directory).map((name) => [name, readFileSync(path.join(directory, name))]));
}

/** Names of the targets that have such inputs. */
export function corpusTargets(): string[] {
  return existsSync(CORPUS) ? readdirSync(CORPUS) : [];
}
