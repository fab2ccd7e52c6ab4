import { type BigIntStats, readFileSync } from 'node:fs';
import { TidemarkError } from '../../journal/base/errors.ts';

/*
 * QEMU announces how it uses an image by locks on single bytes (block/file-posix.c): 100 + n for a permission it has,
 * 200 + n for one it does not share. All lie in this range, and they show in /proc/locks, as every program's do.
 */
const QEMU_FIRST_BYTE = 100;
const QEMU_LAST_BYTE = 299;

/**
 * Throws `target-in-use` when another program holds an image lock of QEMU's on the file, or a lock on all of it. What
 * takes no lock (a plain `cp`) cannot be seen.
 */
export function refuseLockedFile(path: string, stats: BigIntStats): void {
  let table: string;
  try {
    table = readFileSync('/proc/locks', 'latin1');
  } catch {
    return;
  }
  const holder = findLock(table, lockName(stats), process.pid);
  if (holder === undefined) return;
  throw new TidemarkError('target-in-use', `${path} is in use by another program (${holder})`, { details: { path } });
}

/** Who locks the file `name` ("08:01:1234") for itself; undefined when nobody does. Lines as in proc(5). */
export function findLock(table: string, name: string, ownPid: number): string | undefined {
  for (const line of table.split('\n')) {
    // "1: OFDLCK  ADVISORY  READ -1 08:01:1234 100 101"; a waiter's line has "->" behind the number
    const [, type, , access, pid, file, first, last] = line.trim().split(/\s+/);
    if (file !== name || type === undefined || Number(pid) === ownPid) continue;
    const who = pid === '-1' ? 'an open-file lock' : `process ${pid}`;
    if (type === 'FLOCK' && access === 'WRITE') return who;
    if (type !== 'OFDLCK' && type !== 'POSIX') continue;
    const from = Number(first);
    const to = last === 'EOF' ? Number.POSITIVE_INFINITY : Number(last);
    if (from <= QEMU_LAST_BYTE && to >= QEMU_FIRST_BYTE) return `QEMU's image lock, ${who}`;
  }
  return undefined;
}

/** The name of a file in /proc/locks: device in hexadecimal, inode in decimal digits. */
function lockName(stats: BigIntStats): string {
  const device = Number(stats.dev);
  return `${hex(deviceMajor(device))}:${hex(deviceMinor(device))}:${stats.ino}`;
}

export function deviceMajor(device: number): number {
  return (device >>> 8) & 0xfff;
}

export function deviceMinor(device: number): number {
  return (device & 0xff) | ((device >>> 12) & 0xfff00);
}

function hex(value: number): string {
  return value.toString(16).padStart(2, '0');
}
