import { execFile, spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { hasCode, TidemarkError } from '../../journal/base/errors.ts';
import type { Host } from '../../journal/host/host.ts';
import { openRawTarget } from '../../replica/restore/raw-file-target.ts';
import type {
  OpenTarget,
  RestoreTargetPort,
  TargetFacts,
  TargetSpec,
} from '../../replica/restore/restore-target-port.ts';
import { openBacking } from '../backing/open-backing.ts';
import { formatNbdUri } from '../nbd/nbd-uri.ts';
import { directoryOfADaemon, realPath } from './own-directories.ts';
import { claimTarget, isClaimed } from './target-claim.ts';

const run = promisify(execFile);

/** What belongs to this replica and is never written by a restore: directories, and the sockets of its own exports. */
export interface OwnPlaces {
  readonly directories: readonly string[];
  readonly sockets: readonly string[];
}

const NOTHING_FOUND: TargetFacts = { exists: false, size: 0, mountedAt: '', heldBy: '', ours: '' };
const QEMU_NBD_START_MS = 10_000;
const QEMU_NBD_STOP_MS = 30_000;

/** Restore targets of the machine: raw and qcow2 files, block devices, NBD exports (rule 25). */
export class RestoreTargets implements RestoreTargetPort {
  readonly #host: Host;
  readonly #own: OwnPlaces;

  constructor(host: Host, own: OwnPlaces) {
    this.#host = host;
    this.#own = own;
  }

  async inspect(spec: TargetSpec): Promise<TargetFacts> {
    if (spec.kind === 'nbd') return this.#inspectNbd(spec.uri);
    const path = realPath(spec.path);
    const base = { ...NOTHING_FOUND, ours: this.#ownerOf(path) };
    const found = await stat(path).catch(() => undefined);
    if (found === undefined) {
      const parent = await stat(dirname(path)).catch(() => undefined);
      if (parent?.isDirectory() === true) return { ...base, heldBy: restoreOf(path) };
      throw new TidemarkError('not-found', `${spec.path}: there is no directory ${dirname(path)}`);
    }
    if (found.isDirectory()) throw new TidemarkError('invalid-argument', `${spec.path} is a directory`);
    // a restore replaces a file by a rename: /dev/null, a pipe or a socket would be gone
    if (!found.isFile() && !found.isBlockDevice()) {
      throw new TidemarkError('invalid-argument', `${spec.path} is neither a file nor a block device`);
    }
    const mountedAt = mountPointOf(path, readFileSync('/proc/mounts', 'latin1'));
    const facts = { ...base, exists: true, mountedAt, size: found.size };
    const holder = await holderOf(path);
    const heldBy = holder.heldBy === '' && found.isFile() ? restoreOf(path) : holder.heldBy;
    return { ...facts, ...holder, heldBy };
  }

  /** What the path belongs to, in words; '' when it is not ours. */
  #ownerOf(path: string): string {
    const own = this.#own.directories
      .map(realPath)
      .find((directory) => path === directory || path.startsWith(`${directory}/`));
    if (own !== undefined) return `part of this replica's own ${own}`;
    const other = directoryOfADaemon(path);
    return other === undefined ? '' : `in ${other}, which holds the journal, history or state of a tidemark daemon`;
  }

  async open(spec: TargetSpec, sizeBytes: number, overwrite: boolean): Promise<OpenTarget> {
    switch (spec.kind) {
      case 'raw':
        return claimed(spec.path, async () => openRawTarget(this.#host, spec.path, sizeBytes, overwrite));
      case 'qcow2':
        return claimed(spec.path, () => openQcow2(this.#host, spec.path, sizeBytes));
      case 'block-device':
        return openDevice(spec.path);
      case 'nbd':
        return openDevice(spec.uri);
    }
  }

  async #inspectNbd(uri: string): Promise<TargetFacts> {
    const ours = this.#own.sockets.find((socket) => uri.includes(encodeURI(socket)));
    if (ours !== undefined) return { ...NOTHING_FOUND, exists: true, ours: 'a view of this replica' };
    const backing = await openBacking(uri);
    try {
      return { ...NOTHING_FOUND, exists: true, size: backing.size };
    } finally {
      await backing.close();
    }
  }
}

/** What an operator's `to` and `format` mean; an existing block device is one whatever the format says. */
export async function targetSpec(to: string, format: 'raw' | 'qcow2' | undefined): Promise<TargetSpec> {
  if (to.includes('://')) {
    if (format === 'qcow2') throw new TidemarkError('invalid-argument', 'an NBD target is raw: leave --format out');
    return { kind: 'nbd', uri: to };
  }
  const found = await stat(to).catch(() => undefined);
  if (found?.isBlockDevice() === true) {
    if (format === 'qcow2') throw new TidemarkError('invalid-argument', 'a block device is raw: leave --format out');
    return { kind: 'block-device', path: to };
  }
  // behind a symbolic link the file is replaced, not the link
  return { kind: format ?? (to.endsWith('.qcow2') ? 'qcow2' : 'raw'), path: realPath(to) };
}

/** Where a device, or a partition of it, is mounted; '' when it is not. `table` is /proc/mounts. */
function mountPointOf(path: string, table: string): string {
  for (const line of table.split('\n')) {
    const [device, where] = line.split(' ');
    if (device === undefined || where === undefined || !device.startsWith('/')) continue;
    const rest = device.slice(path.length);
    if (device === path || (device.startsWith(path) && /^p?\d+$/.test(rest))) return where.replaceAll('\\040', ' ');
  }
  return '';
}

/** The target, with its file claimed until it is finished or abandoned. */
async function claimed(path: string, open: () => Promise<OpenTarget>): Promise<OpenTarget> {
  const claim = claimTarget(path);
  try {
    const target = await open();
    return {
      ...target,
      finish: () => target.finish().finally(() => claim.release()),
      abandon: () => target.abandon().finally(() => claim.release()),
    };
  } catch (error) {
    claim.release();
    throw error;
  }
}

/** Who else restores into this file; '' when nobody does. */
function restoreOf(path: string): string {
  return isClaimed(path) ? 'another restore writes it' : '';
}

/** Opens it as a restore would, exclusively, and lets go again. */
async function holderOf(path: string): Promise<{ heldBy: string; size?: number }> {
  try {
    const backing = await openBacking(path);
    const { size } = backing;
    await backing.close();
    return { heldBy: '', size };
  } catch (error) {
    if (hasCode(error, 'target-in-use')) return { heldBy: error.message };
    // a file that is to be replaced may have any size
    if (hasCode(error, 'invalid-argument')) return { heldBy: '' };
    throw error;
  }
}

async function openDevice(location: string): Promise<OpenTarget> {
  const device = await openBacking(location);
  return {
    device,
    zeroed: false,
    finish: async () => {
      await device.flush();
      await device.close();
    },
    abandon: () => device.close(),
  };
}

/** Written through qemu-nbd under `<path>.unfinished`; bears its name only when it is whole. */
async function openQcow2(host: Host, path: string, sizeBytes: number): Promise<OpenTarget> {
  const unfinished = `${path}.unfinished`;
  host.disk.unlink(unfinished);
  try {
    await run('qemu-img', ['create', '-q', '-f', 'qcow2', unfinished, String(sizeBytes)]);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new TidemarkError('unsupported', `qemu-img (package qemu-utils) makes no qcow2 file: ${reason}`, {
      cause: error,
    });
  }
  const directory = await mkdtemp(join(tmpdir(), 'tidemark-qcow2-'));
  const socket = join(directory, 'nbd.sock');
  const child = spawn('qemu-nbd', ['-f', 'qcow2', '--discard=unmap', '-t', '-k', socket, unfinished], {
    stdio: 'ignore',
  });
  const ended = new Promise<void>((resolve) => {
    child.once('exit', () => resolve());
    child.once('error', () => resolve());
  });
  const leave = async (): Promise<void> => {
    child.kill('SIGTERM');
    const timer = setTimeout(() => child.kill('SIGKILL'), QEMU_NBD_STOP_MS);
    await ended;
    clearTimeout(timer);
    await rm(directory, { recursive: true, force: true });
  };
  const device = await connectWhenReady(socket, ended).catch(async (error: unknown) => {
    await leave();
    throw error;
  });
  return {
    device,
    zeroed: true,
    finish: async () => {
      await device.flush();
      await device.close();
      await leave();
      host.disk.rename(unfinished, path);
      await host.disk.syncDirectory(dirname(path));
    },
    abandon: async () => {
      await device.close();
      await leave();
    },
  };
}

async function connectWhenReady(socket: string, ended: Promise<void>): ReturnType<typeof openBacking> {
  let gone = false;
  void ended.then(() => {
    gone = true;
  });
  const endAt = performance.now() + QEMU_NBD_START_MS;
  while (!existsSync(socket)) {
    if (gone || performance.now() > endAt)
      throw new TidemarkError('unsupported', 'qemu-nbd (package qemu-utils) does not start');
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return openBacking(formatNbdUri({ kind: 'unix', path: socket, exportName: '', tls: false }));
}
