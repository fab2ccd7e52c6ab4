import type { DirectoryLock, Disk, DiskFile, OpenMode, Random } from '../../journal/host/host.ts';

/** Turns of the event loop that a call takes at most. */
const TURNS_MAX = 6;

/**
 * A disk whose asynchronous calls end late and in an order of their own, as the kernel's threads do: what a call does,
 * it does when it ends, after a number of turns of the event loop that the random numbers say. A program that does not
 * wait for a call finds the disk as it was before. Calls that block take effect at once.
 */
export class LateDisk implements Disk {
  readonly #below: Disk;
  readonly #random: Random;
  readonly #underWay = new Map<number, string>();
  /** Paths that came, went or got another content under their name, and are not durable by that name yet. */
  readonly #unsyncedNames = new Set<string>();
  readonly #writes = new Map<string, Writes>();
  readonly #descriptors = new Map<LateFile, string>();
  #calls = 0;

  constructor(below: Disk, random: Random) {
    this.#below = below;
    this.#random = random;
  }

  /** Calls that have begun and not ended, as `write /path`; reads left out, which change nothing. */
  get changing(): string[] {
    return [...this.#underWay.values()].filter((call) => !call.startsWith('read '));
  }

  /** Paths of the descriptors that are not closed. */
  get descriptors(): string[] {
    return [...this.#descriptors.values()];
  }

  /** Paths of files with bytes that no sync covers which began after they were written. */
  get unsyncedFiles(): string[] {
    return [...this.#writes].filter(([, { begun, synced }]) => begun > synced).map(([path]) => path);
  }

  /** Names in the directory that a power loss may take back. */
  unsyncedNames(directory: string): string[] {
    return [...this.#unsyncedNames].filter((path) => directoryOf(path) === directory);
  }

  open(path: string, mode: OpenMode): DiskFile {
    const file = this.#below.open(path, mode);
    if (mode === 'create') this.#unsyncedNames.add(path);
    const writes = this.#writes.get(path) ?? { begun: 0, ended: 0, synced: 0 };
    this.#writes.set(path, writes);
    const late = new LateFile(
      file,
      writes,
      (call, effect) => this.#late(`${call} ${path}`, effect),
      () => this.#descriptors.delete(late),
    );
    this.#descriptors.set(late, path);
    return late;
  }

  exists(path: string): boolean {
    return this.#below.exists(path);
  }

  list(directory: string): string[] {
    return this.#below.list(directory);
  }

  makeDirectory(path: string): void {
    this.#below.makeDirectory(path);
  }

  rename(from: string, to: string): void {
    this.#below.rename(from, to);
    const writes = this.#writes.get(from);
    if (writes !== undefined) this.#writes.set(to, writes);
    this.#writes.delete(from);
    this.#unsyncedNames.add(from).add(to);
  }

  unlink(path: string): void {
    if (this.#below.exists(path)) this.#unsyncedNames.add(path);
    this.#below.unlink(path);
    this.#writes.delete(path);
  }

  syncDirectory(path: string): Promise<void> {
    const covered = this.unsyncedNames(path);
    return this.#late(`syncDirectory ${path}`, async () => {
      await this.#below.syncDirectory(path);
      for (const name of covered) this.#unsyncedNames.delete(name);
    });
  }

  syncDirectoryNow(path: string): void {
    this.#below.syncDirectoryNow(path);
    for (const name of this.unsyncedNames(path)) this.#unsyncedNames.delete(name);
  }

  freeBytes(directory: string): number {
    return this.#below.freeBytes(directory);
  }

  lockDirectory(directory: string): DirectoryLock {
    return this.#below.lockDirectory(directory);
  }

  async #late<T>(call: string, effect: () => Promise<T>): Promise<T> {
    const number = this.#calls++;
    this.#underWay.set(number, call);
    try {
      for (let turns = 1 + this.#random.below(TURNS_MAX); turns > 0; turns--) await new Promise(setImmediate);
      return await effect();
    } finally {
      this.#underWay.delete(number);
    }
  }
}

/** Of one file: writes that have begun and ended, and how many of them a sync has covered. */
interface Writes {
  begun: number;
  ended: number;
  synced: number;
}

type Late = <T>(call: string, effect: () => Promise<T>) => Promise<T>;

class LateFile implements DiskFile {
  readonly path: string;
  readonly #file: DiskFile;
  readonly #writes: Writes;
  readonly #late: Late;
  readonly #calls = new Set<Promise<unknown>>();
  readonly #onClosed: () => void;
  #closed: Promise<void> | undefined;

  constructor(file: DiskFile, writes: Writes, late: Late, onClosed: () => void) {
    this.path = file.path;
    this.#file = file;
    this.#writes = writes;
    this.#late = late;
    this.#onClosed = onClosed;
  }

  readSync(buffer: Uint8Array, offset: number, length: number, position: number): number {
    return this.#file.readSync(buffer, offset, length, position);
  }

  writeSync(buffer: Uint8Array, offset: number, length: number, position: number): number {
    this.#writes.begun++;
    this.#writes.ended++;
    return this.#file.writeSync(buffer, offset, length, position);
  }

  read(buffer: Uint8Array, offset: number, length: number, position: number): Promise<number> {
    return this.#call('read', () => this.#file.read(buffer, offset, length, position));
  }

  write(buffer: Uint8Array, offset: number, length: number, position: number): Promise<number> {
    this.#writes.begun++;
    return this.#call('write', async () => {
      const written = await this.#file.write(buffer, offset, length, position);
      this.#writes.ended++;
      return written;
    });
  }

  dataSync(): Promise<void> {
    const covered = this.#writes.ended;
    return this.#call('sync', async () => {
      await this.#file.dataSync();
      this.#writes.synced = Math.max(this.#writes.synced, covered);
    });
  }

  dataSyncSync(): void {
    this.#file.dataSyncSync();
    this.#writes.synced = this.#writes.ended;
  }

  size(): number {
    return this.#file.size();
  }

  truncate(length: number): void {
    this.#file.truncate(length);
  }

  punchHole(position: number, length: number): boolean {
    return this.#file.punchHole(position, length);
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    await Promise.allSettled(this.#calls);
    await this.#file.close();
    this.#onClosed();
  }

  async #call<T>(name: string, effect: () => Promise<T>): Promise<T> {
    if (this.#closed !== undefined) throw new Error(`${this.path} is used after close`);
    const call = this.#late(name, effect);
    this.#calls.add(call);
    try {
      return await call;
    } finally {
      this.#calls.delete(call);
    }
  }
}

function directoryOf(path: string): string {
  return path.slice(0, path.lastIndexOf('/'));
}
