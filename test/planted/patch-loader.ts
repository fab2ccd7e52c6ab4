import { readFileSync } from 'node:fs';
import { stripTypeScriptTypes } from 'node:module';
import { dirname, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The folder above `journal/`, `replica/`, `daemon/`, `cli/` and `test/`. */
export const PROJECT: string = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

/** A file of the project, its path from there with slashes, and the text that is loaded in its place. */
export interface PatchedFile {
  readonly file: string;
  readonly text: string;
}

/**
 * Programs that run with some files of the product changed, without a switch in the product and without touching the
 * working copy. Node's own loader is given another text when it comes to the file:
 *
 *     const bug = patchSource('journal/journal.ts', 'if (due) ', 'if (false) ');
 *     execFile(process.execPath, ['test/simulation/simulate.ts', '--seeds', '10'], { cwd: PROJECT, env: patchedEnvironment([bug]) });
 *     execFile(process.execPath, [AVA, 'test/journal/journal.test.ts'], { cwd: PROJECT, env: patchedEnvironment([bug]) });
 *
 * A whole new text of a file is `{ file: 'journal/journal.ts', text }`. The environment is inherited: worker threads, test
 * processes and daemons that the program starts get the same patches. A process that is already running is not changed.
 */
export function patchedEnvironment(
  files: readonly PatchedFile[],
  environment: NodeJS.ProcessEnv = process.env,
): NodeJS.ProcessEnv {
  const preload = new URL('patch-preload.ts', import.meta.url).href;
  const options = [environment['NODE_OPTIONS'], `--import=${preload}`].filter(
    (text) => text !== undefined && text !== '',
  );
  return { ...environment, [PATCHES_VARIABLE]: JSON.stringify(files), NODE_OPTIONS: options.join(' ') };
}

/** Where the patches stand for the programs that are started: one string, at most 128 KiB as Linux has it. */
export const PATCHES_VARIABLE = 'PLANTED_PATCHES';

/**
 * The file with `find`, which must stand in it exactly once, replaced; several changes of one file are made one behind the
 * other with `onto`. Throws an Error that names the file when it does not stand there once or nothing would change.
 */
export function patchSource(file: string, find: string, replace: string, onto?: PatchedFile): PatchedFile {
  const text = onto?.text ?? readFileSync(`${PROJECT}/${file}`, 'utf8');
  const places = text.split(find).length - 1;
  if (places !== 1) throw new Error(`${file} has ${places} times, not once: ${JSON.stringify(find)}`);
  if (find === replace) throw new Error(`${file}: nothing changes`);
  return { file, text: text.replace(find, () => replace) };
}

/** Throws a SyntaxError when the text is not one that Node can load by leaving the types out. */
export function mustStrip({ text }: PatchedFile): void {
  stripTypeScriptTypes(text, { mode: 'strip' });
}

/** `file:` URL -> the project's path, as in `PatchedFile.file`. */
export function projectPath(url: string): string {
  return relative(PROJECT, fileURLToPath(url)).replaceAll('\\', '/');
}
