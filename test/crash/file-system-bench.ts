import { spawnSync } from 'node:child_process';
import { accessSync, closeSync, existsSync, ftruncateSync, mkdirSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { atEnd } from '../servers/at-end.ts';
import { attempt, Child, run } from '../servers/child.ts';
import { waitForSocket } from '../servers/wait-for-socket.ts';

export const FILE_SYSTEMS = ['ext4', 'xfs', 'btrfs'] as const;
export type FileSystem = (typeof FILE_SYSTEMS)[number];

const MIB = 1024 * 1024;
/** The smallest that each of them agrees to. */
export const DISK_BYTES: Readonly<Record<FileSystem, number>> = {
  ext4: 48 * MIB,
  xfs: 320 * MIB,
  btrfs: 128 * MIB,
};

const MAKE: Readonly<Record<FileSystem, readonly string[]>> = {
  ext4: ['mkfs.ext4', '-q', '-F', '-E', 'lazy_itable_init=0,lazy_journal_init=0,nodiscard'],
  xfs: ['mkfs.xfs', '-q', '-f', '-K'],
  btrfs: ['mkfs.btrfs', '-q', '-f', '-K'],
};

const START_MS_MAX = 20_000;

/** Why file systems cannot be made and mounted here; undefined: they can. */
export function cannotMount(systems: readonly FileSystem[]): string | undefined {
  if (process.getuid?.() !== 0) return 'not root';
  const programs = ['nbdkit', 'nbdfuse', 'mount', 'losetup', ...systems.map((system) => `mkfs.${system}`)];
  const missing = programs.filter((program) => !isInstalled(program));
  if (missing.length > 0) return `not installed: ${missing.join(', ')}`;
  const device = ['/dev/fuse', '/dev/loop-control'].find((path) => !existsSync(path));
  return device === undefined ? undefined : `no ${device}`;
}

function isInstalled(program: string): boolean {
  const path = `${process.env['PATH'] ?? ''}${delimiter}/usr/sbin${delimiter}/sbin`;
  return path.split(delimiter).some((directory) => {
    try {
      accessSync(join(directory, program));
      return true;
    } catch {
      return false;
    }
  });
}

/** Directories, mounts and servers of one test: all gone after `remove`, and at the end of the process at the latest. */
export class FileSystemBench {
  readonly directory: string = mkdtempSync(join(tmpdir(), 'tidemark-mounts-'));
  readonly #mounts: string[] = [];
  readonly #children: Child[] = [];
  readonly #stay = atEnd(() => this.#unmountNow());

  path(name: string): string {
    return join(this.directory, name);
  }

  /** A file of zeroes that occupies nothing. */
  image(name: string, bytes: number): string {
    const path = this.path(name);
    const fd = openSync(path, 'w');
    ftruncateSync(fd, bytes);
    closeSync(fd);
    return path;
  }

  /** The NBD export behind a socket as a file, by way of FUSE. */
  async asFile(socket: string, exportName = ''): Promise<string> {
    const path = this.path(`nbd-${this.#mounts.length}`);
    const uri = `nbd+unix:///${exportName}?socket=${socket}`;
    closeSync(openSync(path, 'w'));
    this.#mounts.push(path);
    const child = new Child('nbdfuse', 'nbdfuse', [path, uri]);
    this.#children.push(child);
    const end = performance.now() + START_MS_MAX;
    while (!isMountPoint(path)) {
      if (!child.running || performance.now() > end) throw new Error(`nbdfuse did not start:\n${child.output}`);
      await new Promise((resolve) => {
        setTimeout(resolve, 10);
      });
    }
    return path;
  }

  /** An nbdkit in memory whose writes fail with EIO for as long as the file `switchOn` exists. */
  async failingDisk(bytes: number, switchOn: string): Promise<{ file: string; socket: string }> {
    const socket = this.path(`nbdkit-${this.#children.length}`);
    const filter = ['error-pwrite=EIO', 'error-pwrite-rate=100%', `error-file=${switchOn}`];
    const child = new Child('nbdkit', 'nbdkit', [
      '--foreground',
      '--exit-with-parent',
      '--unix',
      socket,
      '--filter=error',
      'memory',
      String(bytes),
      ...filter,
    ]);
    this.#children.push(child);
    await waitForSocket(socket, child);
    return { file: await this.asFile(socket), socket };
  }

  async make(system: FileSystem, file: string, ...more: string[]): Promise<void> {
    const [program = '', ...args] = MAKE[system];
    await run(program, [...args, ...more, file], { PATH: `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin` });
  }

  /** Mounts by way of a loop device that goes with the mount. Returns the mount point. */
  async mount(system: FileSystem, file: string, name = 'mnt', options: readonly string[] = []): Promise<string> {
    const point = this.path(name);
    mkdirSync(point, { recursive: true });
    await run('mount', ['-t', system, '-o', ['loop', ...options].join(','), file, point]);
    this.#mounts.push(point);
    return point;
  }

  /** A copy of a disk whose original is mounted, too: file systems refuse two of one identity. */
  async mountCopy(system: FileSystem, file: string): Promise<string> {
    if (system === 'btrfs') await run('btrfstune', ['-f', '-u', file]);
    return this.mount(system, file, 'copy', system === 'xfs' ? ['nouuid'] : []);
  }

  /** Rejects when something there is still in use; it is gone from sight all the same. */
  async unmount(point: string): Promise<void> {
    const at = this.#mounts.lastIndexOf(point);
    if (at !== -1) this.#mounts.splice(at, 1);
    const { code, stderr } = await attempt('umount', [point]);
    if (code === 0) return;
    await run('umount', ['-l', point]);
    throw new Error(stderr);
  }

  async remove(): Promise<void> {
    for (const point of this.#mounts.splice(0).toReversed()) await run('umount', ['-l', point]);
    for (const child of this.#children.splice(0).toReversed()) await child.stop();
    this.#stay();
    rmSync(this.directory, { recursive: true, force: true });
  }

  #unmountNow(): void {
    for (const point of this.#mounts.toReversed()) spawnSync('umount', ['-l', point]);
  }
}

/** A file on which FUSE has put another one. */
function isMountPoint(path: string): boolean {
  return spawnSync('mountpoint', ['-q', path]).status === 0;
}
