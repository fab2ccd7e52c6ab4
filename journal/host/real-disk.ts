import * as fs from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { TidemarkError } from '../base/errors.ts';
import type { DirectoryLock, Disk, DiskFile, OpenMode } from './host.ts';
import { lockExclusive } from './native.ts';
import { RealDiskFile } from './real-disk-file.ts';
import { fromSystemError } from './system-error.ts';

const LOCK_FILE = 'lock';

/** File systems on which a lock of one host says nothing about another: f_type of statfs(2). */
const NETWORK_FILE_SYSTEMS: ReadonlyMap<number, string> = new Map([
  [0x6969, 'nfs'],
  [0xff53_4d42, 'cifs'],
  [0xfe53_4d42, 'smb2'],
  [0x517b, 'smb'],
  [0x0102_1997, '9p'],
  [0x00c3_6400, 'ceph'],
  [0x5346_414f, 'afs'],
  [0x0bd0_0bd0, 'lustre'],
  [0x4750_4653, 'gpfs'],
  [0x7461_636f, 'ocfs2'],
  [0x0116_1970, 'gfs2'],
  [0x7375_7245, 'coda'],
]);

/** The machine's disk through node:fs. */
export class RealDisk implements Disk {
  open(path: string, mode: OpenMode): DiskFile {
    const flags = mode === 'read' ? 'r' : mode === 'write' ? 'r+' : 'wx+';
    return attempt(`open ${path}`, () => new RealDiskFile(path, fs.openSync(path, flags, 0o640)));
  }

  exists(path: string): boolean {
    return fs.existsSync(path);
  }

  list(directory: string): string[] {
    try {
      return fs.readdirSync(directory).toSorted();
    } catch (cause) {
      const error = fromSystemError(cause, `list ${directory}`);
      if (error.code === 'not-found') return [];
      throw error;
    }
  }

  makeDirectory(path: string): void {
    const wanted = resolve(path);
    const missing: string[] = [];
    for (let at = wanted; !fs.existsSync(at); at = dirname(at)) missing.push(at);
    if (missing.length === 0 && !attempt(`stat ${wanted}`, () => fs.statSync(wanted)).isDirectory()) {
      throw new TidemarkError('invalid-argument', `${path} is no directory`);
    }
    // one by one: node's own `recursive` never returns where the kernel says ENOENT although the parent is there (/proc)
    for (const at of missing.toReversed()) {
      attempt(`make directory ${at}`, () => makeUnlessThere(at));
      this.syncDirectoryNow(dirname(at));
    }
  }

  rename(from: string, to: string): void {
    attempt(`rename ${from} to ${to}`, () => {
      fs.renameSync(from, to);
    });
  }

  unlink(path: string): void {
    try {
      // rmSync would lose the errno
      fs.unlinkSync(path);
    } catch (cause) {
      const error = fromSystemError(cause, `remove ${path}`);
      if (error.code !== 'not-found') throw error;
    }
  }

  async syncDirectory(path: string): Promise<void> {
    try {
      const handle = await fs.promises.open(path, 'r');
      try {
        await handle.sync();
      } finally {
        await handle.close();
      }
    } catch (cause) {
      throw fromSystemError(cause, `sync directory ${path}`, 'sync-failed');
    }
  }

  syncDirectoryNow(path: string): void {
    attempt(`sync directory ${path}`, () => {
      const fd = fs.openSync(path, 'r');
      try {
        fs.fsyncSync(fd);
      } finally {
        fs.closeSync(fd);
      }
    });
  }

  freeBytes(directory: string): number {
    const statistics = attempt(`statfs ${directory}`, () => fs.statfsSync(directory));
    return statistics.bavail * statistics.bsize;
  }

  lockDirectory(directory: string): DirectoryLock {
    const type = attempt(`statfs ${directory}`, () => fs.statfsSync(directory)).type;
    // statfs gives the magic as a signed or unsigned number, depending on the file system's word size
    const network = NETWORK_FILE_SYSTEMS.get(type >>> 0);
    if (network !== undefined) {
      throw new TidemarkError('network-file-system', `${directory} is on ${network}: a lock there proves nothing`);
    }
    const path = join(directory, LOCK_FILE);
    const fd = attempt(`open ${path}`, () => fs.openSync(path, 'a', 0o640));
    const outcome = lockExclusive(fd);
    if (outcome !== 'taken') {
      fs.closeSync(fd);
      if (outcome === 'busy') throw new TidemarkError('journal-locked', `another process uses ${directory}`);
      throw new TidemarkError('unsupported', `${dirname(path)} cannot be locked (flock is missing)`);
    }
    let held = true;
    return {
      release: () => {
        if (held) fs.closeSync(fd);
        held = false;
      },
    };
  }
}

/** Another process may have made it meanwhile. */
function makeUnlessThere(path: string): void {
  try {
    fs.mkdirSync(path, { mode: 0o750 });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
}

function attempt<T>(what: string, run: () => T): T {
  try {
    return run();
  } catch (cause) {
    throw fromSystemError(cause, what);
  }
}
