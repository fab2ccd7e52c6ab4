import fs from 'node:fs';
import { TidemarkError } from '../../journal/base/errors.ts';
import { lockExclusive } from '../../journal/host/native.ts';

/** A target file that is ours to write, until it is released or the process ends. */
export interface TargetClaim {
  release(): void;
}

/**
 * Claims a file for a restore by a kernel lock on `<path>.restoring`, which is there as long as the restore runs: two
 * restores into one file, of whatever groups and daemons, would rename each other's unfinished file into place. Throws
 * `target-in-use` when another restore has it.
 */
export function claimTarget(path: string): TargetClaim {
  const name = `${path}.restoring`;
  for (;;) {
    const fd = openLock(name);
    if (lockExclusive(fd) === 'busy') {
      fs.closeSync(fd);
      throw new TidemarkError('target-in-use', `another restore writes ${path}`, { details: { path } });
    }
    // Whoever had it before removes the name first and lets go then: a lock on a nameless file keeps nobody out.
    if (fs.statSync(name, { throwIfNoEntry: false })?.ino === fs.fstatSync(fd).ino) return claimOf(name, fd);
    fs.closeSync(fd);
  }
}

/** Whether a restore has it now. Makes no file. */
export function isClaimed(path: string): boolean {
  let fd: number;
  try {
    fd = fs.openSync(`${path}.restoring`, 'r');
  } catch {
    return false;
  }
  try {
    return lockExclusive(fd) === 'busy';
  } finally {
    fs.closeSync(fd);
  }
}

function claimOf(name: string, fd: number): TargetClaim {
  let held = true;
  return {
    release: () => {
      if (!held) return;
      held = false;
      fs.rmSync(name, { force: true });
      fs.closeSync(fd);
    },
  };
}

function openLock(name: string): number {
  try {
    return fs.openSync(name, 'a', 0o640);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new TidemarkError('device-failed', `${name}: ${reason}`, { cause });
  }
}
