import { TidemarkError } from '../../../journal/base/errors.ts';
import type {
  Clock,
  DirectoryLock,
  Disk,
  DiskFile,
  Host,
  OpenMode,
  Random,
  Timer,
} from '../../../journal/host/host.ts';

interface Content {
  bytes: Buffer;
  length: number;
  /** Another disk holds the same bytes: they are copied before they are changed. */
  isShared?: boolean;
}

/** A disk in memory: copied in an instant to see what a kill would leave, filled up on demand, bits flipped at will. */
export class MemoryDisk implements Disk {
  readonly files: Map<string, Content> = new Map();
  readonly locked: Set<string> = new Set();
  /** Bytes all files together may take. */
  capacity: number = Number.MAX_SAFE_INTEGER;

  /** A sync of the file waits for this. */
  syncOf: (path: string) => Promise<void> | undefined = () => undefined;

  /** Whether the next read finds its bytes in memory. */
  readsNow: () => boolean = () => false;

  /** Told by `freeBytes` but not there, as with a quota. */
  overstatedBytes = 0;

  /** What a kill at this moment leaves on disk. */
  copy(): MemoryDisk {
    const other = new MemoryDisk();
    for (const [path, { bytes, length }] of this.files) {
      other.files.set(path, { bytes: Buffer.from(bytes.subarray(0, length)), length });
    }
    return other;
  }

  /** As `copy`, for many moments of one disk: what does not change is there once. Nobody may change `files` by hand. */
  moment(): MemoryDisk {
    const other = new MemoryDisk();
    for (const [path, content] of this.files) {
      content.isShared = true;
      other.files.set(path, { ...content });
    }
    return other;
  }

  used(): number {
    let sum = 0;
    for (const { length } of this.files.values()) sum += length;
    return sum;
  }

  open(path: string, mode: OpenMode): DiskFile {
    let content = this.files.get(path);
    if (mode === 'create') {
      if (content !== undefined) throw new TidemarkError('already-exists', path);
      content = { bytes: Buffer.alloc(0), length: 0 };
      this.files.set(path, content);
    }
    if (content === undefined) throw new TidemarkError('not-found', path);
    return new MemoryFile(this, path, content);
  }

  exists(path: string): boolean {
    return this.files.has(path);
  }

  list(directory: string): string[] {
    const names = new Set<string>();
    for (const path of this.files.keys()) {
      if (path.startsWith(`${directory}/`)) names.add(path.slice(directory.length + 1).split('/')[0] ?? '');
    }
    return [...names].sort();
  }

  makeDirectory(): void {}

  rename(from: string, to: string): void {
    const content = this.files.get(from);
    if (content === undefined) throw new TidemarkError('not-found', from);
    this.files.delete(from);
    this.files.set(to, content);
  }

  unlink(path: string): void {
    this.files.delete(path);
  }

  async syncDirectory(): Promise<void> {}

  syncDirectoryNow(): void {}

  freeBytes(): number {
    return this.room() + this.overstatedBytes;
  }

  /** What a write really finds. */
  room(): number {
    return Math.max(0, this.capacity - this.used());
  }

  lockDirectory(directory: string): DirectoryLock {
    if (this.locked.has(directory)) throw new TidemarkError('journal-locked', directory);
    this.locked.add(directory);
    return { release: () => this.locked.delete(directory) };
  }
}

class MemoryFile implements DiskFile {
  readonly path: string;
  readonly #disk: MemoryDisk;
  readonly #content: Content;
  #closed = false;

  constructor(disk: MemoryDisk, path: string, content: Content) {
    this.path = path;
    this.#disk = disk;
    this.#content = content;
  }

  readSync(buffer: Uint8Array, offset: number, length: number, position: number): number {
    this.#alive();
    const end = Math.min(position + length, this.#content.length);
    if (end <= position) return 0;
    buffer.set(this.#content.bytes.subarray(position, end), offset);
    return end - position;
  }

  writeSync(buffer: Uint8Array, offset: number, length: number, position: number): number {
    this.#alive();
    const grows = Math.max(0, position + length - this.#content.length);
    const fits = Math.max(0, length - Math.max(0, grows - this.#disk.room()));
    this.#own();
    this.#room(position + fits);
    this.#content.bytes.set(buffer.subarray(offset, offset + fits), position);
    return fits;
  }

  read(buffer: Uint8Array, offset: number, length: number, position: number): Promise<number> {
    return Promise.resolve().then(() => this.readSync(buffer, offset, length, position));
  }

  readNow(into: Uint8Array, position: number): boolean {
    return this.#disk.readsNow() && this.readSync(into, 0, into.length, position) === into.length;
  }

  write(buffer: Uint8Array, offset: number, length: number, position: number): Promise<number> {
    return Promise.resolve().then(() => this.writeSync(buffer, offset, length, position));
  }

  async dataSync(): Promise<void> {
    this.#alive();
    await this.#disk.syncOf(this.path);
  }

  dataSyncSync(): void {
    this.#alive();
  }

  size(): number {
    return this.#content.length;
  }

  truncate(length: number): void {
    this.#alive();
    this.#own();
    if (length > this.#content.length) this.#room(length);
    else this.#content.bytes.fill(0, length, this.#content.length);
    this.#content.length = length;
  }

  punchHole(position: number, length: number): boolean {
    this.#own();
    this.#content.bytes.fill(0, position, Math.min(position + length, this.#content.length));
    return true;
  }

  async close(): Promise<void> {
    this.#closed = true;
    await Promise.resolve();
  }

  #own(): void {
    const content = this.#content;
    if (content.isShared !== true) return;
    content.bytes = Buffer.from(content.bytes.subarray(0, content.length));
    content.isShared = false;
  }

  #room(length: number): void {
    const content = this.#content;
    if (length > content.bytes.length) {
      const bigger = Buffer.alloc(Math.max(length, content.bytes.length * 2));
      content.bytes.copy(bigger, 0, 0, content.length);
      content.bytes = bigger;
    }
    content.length = Math.max(content.length, length);
  }

  #alive(): void {
    if (this.#closed) throw new Error(`${this.path} is used after close`);
  }
}

/** Time stands still until `advance`; timers then fire in order. */
class ManualClock implements Clock {
  micros = 1_700_000_000_000_000;
  #timers: { at: number; run: () => void }[] = [];

  wallMicros(): number {
    return this.micros;
  }

  monotonicMs(): number {
    return this.micros / 1000;
  }

  after(ms: number, run: () => void): Timer {
    const timer = { at: this.micros + ms * 1000, run };
    this.#timers.push(timer);
    return {
      cancel: () => {
        this.#timers = this.#timers.filter((other) => other !== timer);
      },
    };
  }

  advance(ms: number): void {
    this.micros += ms * 1000;
    const due = this.#timers.filter((timer) => timer.at <= this.micros);
    this.#timers = this.#timers.filter((timer) => timer.at > this.micros);
    for (const timer of due.sort((a, b) => a.at - b.at)) timer.run();
  }
}

/** Numbers that are the same at every run: a 32-bit xorshift. */
export class SeededRandom implements Random {
  #state: number;

  constructor(seed: number) {
    this.#state = (seed * 2654435761 + 88675123) >>> 0 || 1;
  }

  bytes(length: number): Uint8Array {
    return Uint8Array.from({ length }, () => this.below(256));
  }

  below(bound: number): number {
    this.#state ^= this.#state << 13;
    this.#state ^= this.#state >>> 17;
    this.#state ^= this.#state << 5;
    this.#state >>>= 0;
    return Math.floor((this.#state / 0x1_0000_0000) * bound);
  }
}

export interface MemoryHost extends Host {
  readonly disk: MemoryDisk;
  readonly clock: ManualClock;
  readonly random: SeededRandom;
}

export function memoryHost(seed: number, disk: MemoryDisk = new MemoryDisk()): MemoryHost {
  return { disk, clock: new ManualClock(), random: new SeededRandom(seed), bootId: 'b'.repeat(36) };
}
