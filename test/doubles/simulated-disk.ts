import { assert } from '../../journal/base/assert.ts';
import { TidemarkError } from '../../journal/base/errors.ts';
import type { DirectoryLock, Disk, DiskFile, OpenMode } from '../../journal/host/host.ts';
import type { Scheduler } from '../simulation/scheduler.ts';
import { SimulatedContent } from './simulated-content.ts';
import { SimulatedFile } from './simulated-file.ts';
import type { SimulatedProcess } from './simulated-process.ts';

/** Which misbehaviour a run draws; probabilities per call. All zero: a disk that only loses what was not synced. */
export interface DiskFaults {
  readonly syncFails: number;
  readonly writeFails: number;
  readonly writeShort: number;
  readonly readFails: number;
  /** Latency of an asynchronous call, microseconds: uniform up to this. */
  readonly latencyMicrosMax: number;
  /** A call that takes up to a second, probability. */
  readonly stuck: number;
}

export const NO_DISK_FAULTS: DiskFaults = {
  syncFails: 0,
  writeFails: 0,
  writeShort: 0,
  readFails: 0,
  latencyMicrosMax: 2000,
  stuck: 0,
};

/** Where a write landed that was meant for somewhere else. */
export interface Misdirection {
  readonly path: string;
  readonly position: number;
}

/** A change of a directory that a power loss may take back: names are durable only after the directory was synced. */
interface DirectoryChange {
  readonly directory: string;
  /** The name that came or went. */
  readonly path: string;
  readonly undo: () => void;
}

/**
 * The disk of one simulated machine. It outlives the processes that use it (a kill keeps the page cache) and can lose
 * power. Every call can do the worst the real one can: short writes, errors, a close that waits, a failed sync that
 * leaves pages looking clean, a name that is gone although the file's bytes were synced.
 */
export class SimulatedDisk {
  readonly files: Map<string, SimulatedContent> = new Map();
  readonly directories: Set<string> = new Set();
  readonly #scheduler: Scheduler;
  faults: DiskFaults;
  /** Bytes that all files together may have. */
  capacityBytes: number;
  readonly sizeBytes: number;
  /** Told of each failed sync of a file, before the program is. */
  onSyncFailed: (path: string) => void = () => undefined;
  /** Told of each name that is about to be changed or removed. */
  onNameGoes: (path: string) => void = () => undefined;
  /** Told of what a blocking write of a program is asked to write, before any of it is. */
  onWrite: (path: string, bytes: Uint8Array) => void = () => undefined;
  /** Told of each name that a file has got by a rename. */
  onNamed: (path: string) => void = () => undefined;
  /** Whether the sync of a directory fails that covers the changes of these names, beside those that fail by chance. */
  refusesNames: (paths: readonly string[]) => boolean = () => false;
  /** Told how many bytes a program reads. */
  onRead: (path: string, bytes: number) => void = () => undefined;
  #changes: DirectoryChange[] = [];
  readonly #locks = new Map<string, SimulatedProcess>();
  #misdirected: ((path: string, length: number) => Misdirection | undefined) | undefined;

  constructor(scheduler: Scheduler, faults: DiskFaults, capacityBytes: number) {
    this.#scheduler = scheduler;
    this.faults = faults;
    this.capacityBytes = capacityBytes;
    this.sizeBytes = capacityBytes;
  }

  /** The disk as one process sees it. */
  mount(process: SimulatedProcess): Disk {
    return new MountedDisk(this, this.#scheduler, process);
  }

  /** Power is gone. `keep` 0..1: how many of the unsynced sectors happen to have reached the medium. */
  losePower(keep: number): void {
    const random = this.#scheduler.random;
    // A file system's own journal keeps names in order: what survives is a prefix of the changes.
    const kept = random.below(this.#changes.length + 1);
    for (const change of this.#changes.slice(kept).reverse()) change.undo();
    this.#changes = [];
    for (const content of this.files.values()) {
      content.losePower(() => random.chance(keep), random.pick(['old', 'new', 'up-to-last-kept']));
    }
  }

  freeBytes(): number {
    return Math.max(0, this.capacityBytes - this.usedBytes());
  }

  usedBytes(): number {
    let used = 0;
    for (const content of this.files.values()) used += content.size;
    return used;
  }

  /** Flips one bit of what is stored. */
  rot(path: string, position: number, bit: number): void {
    this.#scheduler.trace(`rot ${path}`, position, bit);
    this.files.get(path)?.flipBit(position, bit);
  }

  /** The next write for which `choose` names a place lands there and not where it was meant to; nobody is told. */
  misdirectNext(choose: (path: string, length: number) => Misdirection | undefined): void {
    this.#misdirected = choose;
  }

  /** Where a write goes. */
  landingOf(path: string, position: number, length: number): Misdirection {
    const elsewhere = this.#misdirected?.(path, length);
    if (elsewhere === undefined) return { path, position };
    this.#misdirected = undefined;
    this.#scheduler.trace(`misdirect ${path} ${elsewhere.path}`, position, elsewhere.position);
    return elsewhere;
  }

  drawLatencyMicros(): number {
    const { random } = this.#scheduler;
    return random.chance(this.faults.stuck) ? random.below(1_000_000) : random.below(this.faults.latencyMicrosMax + 1);
  }

  changed(path: string, undo: () => void): void {
    this.#changes.push({ directory: directoryOf(path), path, undo });
  }

  /** Paths in a directory that a power loss may take back by their names. */
  namesPending(directory: string): ReadonlySet<string> {
    return new Set(this.#changes.filter((change) => change.directory === directory).map(({ path }) => path));
  }

  /** The changes of this directory that a sync beginning now covers. */
  changesOf(directory: string): ReadonlySet<DirectoryChange> {
    return new Set(this.#changes.filter((change) => change.directory === directory));
  }

  changesDurable(covered: ReadonlySet<DirectoryChange>): void {
    this.#changes = this.#changes.filter((change) => !covered.has(change));
  }

  takeLock(directory: string, process: SimulatedProcess): void {
    if (this.#locks.get(directory)?.alive === true) {
      throw new TidemarkError('journal-locked', `${directory} is in use by another process`);
    }
    this.#locks.set(directory, process);
  }

  releaseLock(directory: string): void {
    this.#locks.delete(directory);
  }
}

function directoryOf(path: string): string {
  return path.slice(0, path.lastIndexOf('/'));
}

class MountedDisk implements Disk {
  readonly #disk: SimulatedDisk;
  readonly #scheduler: Scheduler;
  readonly #process: SimulatedProcess;

  constructor(disk: SimulatedDisk, scheduler: Scheduler, process: SimulatedProcess) {
    this.#disk = disk;
    this.#scheduler = scheduler;
    this.#process = process;
  }

  open(path: string, mode: OpenMode): DiskFile {
    this.#checkAlive();
    const { files } = this.#disk;
    let content = files.get(path);
    if (mode === 'create') {
      if (content !== undefined) throw new TidemarkError('already-exists', `${path} exists`);
      this.#checkDirectory(directoryOf(path));
      content = new SimulatedContent();
      files.set(path, content);
      this.#scheduler.trace(`create ${path}`);
      this.#disk.changed(path, () => files.delete(path));
    }
    if (content === undefined) throw new TidemarkError('not-found', `${path} does not exist`);
    return new SimulatedFile(path, content, mode !== 'read', this.#disk, this.#scheduler, this.#process);
  }

  exists(path: string): boolean {
    return this.#disk.files.has(path) || this.#disk.directories.has(path);
  }

  list(directory: string): string[] {
    const prefix = `${directory}/`;
    const names = new Set<string>();
    for (const path of [...this.#disk.files.keys(), ...this.#disk.directories]) {
      if (path.startsWith(prefix)) names.add(path.slice(prefix.length).split('/')[0] as string);
    }
    return [...names].sort();
  }

  makeDirectory(path: string): void {
    const { directories } = this.#disk;
    for (let end = path.indexOf('/', 1); ; end = path.indexOf('/', end + 1)) {
      const part = end < 0 ? path : path.slice(0, end);
      directories.add(part);
      if (end < 0) return;
    }
  }

  rename(from: string, to: string): void {
    this.#checkAlive();
    const { files } = this.#disk;
    const content = files.get(from);
    if (content === undefined) throw new TidemarkError('not-found', `${from} does not exist`);
    this.#checkDirectory(directoryOf(to));
    this.#disk.onNameGoes(from);
    const replaced = files.get(to);
    files.delete(from);
    files.set(to, content);
    this.#scheduler.trace(`rename ${from} ${to}`);
    this.#disk.changed(to, () => {
      files.set(from, content);
      if (replaced === undefined) files.delete(to);
      else files.set(to, replaced);
    });
    this.#disk.onNamed(to);
  }

  unlink(path: string): void {
    this.#checkAlive();
    const { files } = this.#disk;
    const content = files.get(path);
    if (content === undefined) return;
    this.#disk.onNameGoes(path);
    files.delete(path);
    this.#scheduler.trace(`unlink ${path}`);
    this.#disk.changed(path, () => files.set(path, content));
  }

  syncDirectory(path: string): Promise<void> {
    const covered = this.#disk.changesOf(path);
    return this.#process.call(this.#disk.drawLatencyMicros(), () => this.#endSync(path, covered));
  }

  syncDirectoryNow(path: string): void {
    this.#endSync(path, this.#disk.changesOf(path));
  }

  freeBytes(_directory: string): number {
    return this.#disk.freeBytes();
  }

  lockDirectory(directory: string): DirectoryLock {
    this.#checkDirectory(directory);
    this.#disk.takeLock(directory, this.#process);
    return { release: (): void => this.#disk.releaseLock(directory) };
  }

  #endSync(path: string, covered: ReadonlySet<DirectoryChange>): void {
    const isRefused = this.#disk.refusesNames([...covered].map((change) => change.path));
    const fails = this.#scheduler.random.chance(this.#disk.faults.syncFails) || isRefused;
    this.#scheduler.trace(`sync directory ${path}`, covered.size, fails ? 0 : 1);
    if (fails) throw new TidemarkError('sync-failed', `fsync ${path}: simulated EIO`);
    this.#disk.changesDurable(covered);
  }

  #checkDirectory(directory: string): void {
    if (!this.#disk.directories.has(directory)) {
      throw new TidemarkError('not-found', `${directory} does not exist`);
    }
  }

  #checkAlive(): void {
    assert(this.#process.alive, 'a dead process uses the disk');
  }
}
