import { readFileSync } from 'node:fs';
import { relative } from 'node:path';

/** What changes a storage, or makes a change durable. */
export const STORAGE_CALLS: readonly string[] = [
  'write',
  'pwrite64',
  'writev',
  'pwritev',
  'pwritev2',
  'fsync',
  'fdatasync',
  'sync_file_range',
  'rename',
  'renameat',
  'renameat2',
  'link',
  'linkat',
  'unlink',
  'unlinkat',
  'ftruncate',
  'truncate',
  'fallocate',
  'mkdir',
  'mkdirat',
  'openat',
];

/** A place to inject a fault: the `nth` time that one thread makes this call on this path. */
export interface CallPoint {
  readonly call: string;
  /** Below the directory under test. */
  readonly path: string;
  readonly nth: number;
}

const LINE = /^(?:(\d+) +)?(\w+)\((.*)$/;
const RESUMED = /^(?:(\d+) +)?<\.\.\. /;

/**
 * The points of a run, from what `strace -f -y` wrote down. Only calls below `directory` count, and an openat only when
 * it may make a file, though strace counts every one of them. What two threads do for the nth time is one point.
 */
export function storageCalls(traceFile: string, directory: string): { points: CallPoint[]; calls: number } {
  const counts = new Map<string, number>();
  const points = new Map<string, CallPoint>();
  let calls = 0;
  for (const line of readFileSync(traceFile, 'latin1').split('\n')) {
    if (RESUMED.test(line)) continue;
    const match = LINE.exec(line);
    if (match === null) continue;
    const [, thread = '', call = '', rest = ''] = match;
    const path = STORAGE_CALLS.includes(call) ? pathBelow(rest, directory) : undefined;
    if (path === undefined) continue;
    const key = `${thread} ${call} ${path}`;
    const nth = (counts.get(key) ?? 0) + 1;
    counts.set(key, nth);
    if (call === 'openat' && !rest.includes('O_CREAT')) continue;
    calls++;
    points.set(`${call} ${path} ${nth}`, { call, path, nth });
  }
  return { points: [...points.values()], calls };
}

/** The first path of the arguments that lies below the directory: as a string, or behind a descriptor. */
function pathBelow(args: string, directory: string): string | undefined {
  for (const match of args.matchAll(/"([^"]*)"|\d+<([^>]*)>/g)) {
    const path = match[1] ?? match[2] ?? '';
    if (path === directory || path.startsWith(`${directory}/`)) return relative(directory, path) || '.';
  }
  return undefined;
}
