import { existsSync, readdirSync, realpathSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';

/** The path with every symbolic link followed, also when the last parts of it do not exist yet. */
export function realPath(path: string): string {
  if (existsSync(path)) return realpathSync(path);
  const parent = dirname(path);
  return parent === path ? path : join(realPath(parent), basename(path));
}

/**
 * The nearest directory above `path` that holds a journal, a replica's history or a daemon's state, of whichever daemon
 * of this host: known by the files in it, since a replica does not read the configuration of a source beside it.
 */
export function directoryOfADaemon(path: string): string | undefined {
  for (let directory = dirname(path); directory !== dirname(directory); directory = dirname(directory)) {
    if (isOfADaemon(namesIn(directory))) return directory;
  }
  return undefined;
}

/** Every directory a daemon owns holds its `lock`; the rest tells ours from those of other programs. */
function isOfADaemon(names: readonly string[]): boolean {
  if (!names.includes('lock')) return false;
  const isJournal = names.some((name) => /^journal-[0-9a-f]{16}\.tmj$/.test(name));
  const isHistory = names.includes('segments') && names.includes('position');
  const isState = names.some((name) => /^group-.*\.id$/.test(name));
  return isJournal || isHistory || isState;
}

function namesIn(directory: string): readonly string[] {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}
