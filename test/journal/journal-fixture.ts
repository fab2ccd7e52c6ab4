import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { TidemarkError } from '../../journal/base/errors.ts';
import type { BatchView } from '../../journal/batch-view.ts';
import type { Clock, Disk, DiskFile, Host, OpenMode, Timer } from '../../journal/host/host.ts';
import { RealDisk } from '../../journal/host/real-disk.ts';
import { RealRandom } from '../../journal/host/real-random.ts';
import type { Appended, Journal, JournalOptions } from '../../journal/journal.ts';
import { RecordKind, writeRecordHeader } from '../../journal/record.ts';

export const GROUP_ID: string = 'ab'.repeat(16);
export const FIRST_BOOT = '11111111-1111-4111-8111-111111111111';
export const SECOND_BOOT = '22222222-2222-4222-8222-222222222222';

/** A clock that moves only when told to; timers run inside `advance`. */
class ManualClock implements Clock {
  wall = 1_800_000_000_000_000;
  monotonic = 1000;
  readonly #timers = new Set<{ at: number; run: () => void }>();

  wallMicros(): number {
    return this.wall;
  }

  monotonicMs(): number {
    return this.monotonic;
  }

  after(ms: number, run: () => void): Timer {
    const timer = { at: this.monotonic + ms, run };
    this.#timers.add(timer);
    return { cancel: () => void this.#timers.delete(timer) };
  }

  advance(ms: number): void {
    this.monotonic += ms;
    this.wall += ms * 1000;
    for (const timer of Array.from(this.#timers)) {
      if (timer.at > this.monotonic || !this.#timers.delete(timer)) continue;
      timer.run();
    }
  }
}

/** The real disk with a way to fail: `fault` is asked before every changing operation on a file. */
class FaultyDisk extends RealDisk implements Disk {
  fault: (operation: 'write' | 'sync', path: string) => 'short' | 'EIO' | 'ENOSPC' | undefined = () => undefined;
  /** Bytes from..to of every journal file of this name cannot be read. */
  badPlace: { readonly name: string; readonly from: number; readonly to: number } | undefined;
  syncs = 0;
  reads = 0;

  override open(path: string, mode: OpenMode): DiskFile {
    return new FaultyFile(super.open(path, mode), this);
  }
}

class FaultyFile implements DiskFile {
  readonly path: string;
  readonly #file: DiskFile;
  readonly #disk: FaultyDisk;

  constructor(file: DiskFile, disk: FaultyDisk) {
    this.path = file.path;
    this.#file = file;
    this.#disk = disk;
  }

  readSync(buffer: Uint8Array, offset: number, length: number, position: number): number {
    this.#disk.reads++;
    const bad = this.#disk.badPlace;
    if (bad !== undefined && this.path.endsWith(bad.name) && position < bad.to && position + length > bad.from) {
      throw new TidemarkError('device-failed', `${this.path}: injected EIO`);
    }
    return this.#file.readSync(buffer, offset, length, position);
  }

  writeSync(buffer: Uint8Array, offset: number, length: number, position: number): number {
    return this.#file.writeSync(buffer, offset, this.#allowed(length), position);
  }

  read(buffer: Uint8Array, offset: number, length: number, position: number): Promise<number> {
    return this.#file.read(buffer, offset, length, position);
  }

  async write(buffer: Uint8Array, offset: number, length: number, position: number): Promise<number> {
    const allowed = this.#allowed(length);
    return this.#file.write(buffer, offset, allowed, position);
  }

  async dataSync(): Promise<void> {
    this.#sync();
    await this.#file.dataSync();
  }

  dataSyncSync(): void {
    this.#sync();
    this.#file.dataSyncSync();
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
    return this.#file.close();
  }

  #allowed(length: number): number {
    const fault = this.#disk.fault('write', this.path);
    if (fault === 'EIO') throw new TidemarkError('device-failed', `${this.path}: injected EIO`);
    if (fault === 'ENOSPC') throw new TidemarkError('no-space', `${this.path}: injected ENOSPC`);
    return fault === 'short' ? Math.floor(length / 2) : length;
  }

  #sync(): void {
    this.#disk.syncs++;
    if (this.#disk.fault('sync', this.path) !== undefined) {
      throw new TidemarkError('sync-failed', `${this.path}: injected EIO`);
    }
  }
}

export interface TestHost extends Host {
  readonly disk: FaultyDisk;
  readonly clock: ManualClock;
}

export function testHost(bootId: string = FIRST_BOOT): TestHost {
  return { disk: new FaultyDisk(), clock: new ManualClock(), random: new RealRandom(), bootId };
}

/** A directory that goes away with the test. */
export function temporaryDirectory(t: ExecutionContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'tidemark-journal-'));
  t.teardown(() => {
    rmSync(directory, { recursive: true, force: true });
  });
  return directory;
}

export function journalOptions(directory: string, changed: Partial<JournalOptions> = {}): JournalOptions {
  return {
    directory,
    groupId: GROUP_ID,
    groupName: 'test',
    fileBytes: 64 * 1024,
    budgetBytes: 64 * 64 * 1024,
    syncIntervalMs: 25,
    ...changed,
  };
}

/** The state of a directory at this moment, as a kill would leave it (the page cache survives). */
export function snapshot(t: ExecutionContext, directory: string): string {
  const copy = temporaryDirectory(t);
  cpSync(directory, copy, { recursive: true });
  return copy;
}

export function journalFiles(directory: string): string[] {
  return readdirSync(directory)
    .filter((name) => name.startsWith('journal-'))
    .toSorted()
    .map((name) => join(directory, name));
}

/** Changes bytes at an address of the journal's linear address space. */
export function changeAt(directory: string, fileBytes: number, address: number, change: (bytes: Buffer) => void): void {
  const name = `journal-${Math.floor(address / fileBytes)
    .toString(16)
    .padStart(16, '0')}.tmj`;
  const path = join(directory, name);
  const bytes = readFileSync(path);
  change(bytes.subarray(address % fileBytes));
  writeFileSync(path, bytes);
}

const slab = Buffer.alloc(64 + 40 * 1024);
const view = new DataView(slab.buffer, slab.byteOffset, slab.byteLength);

/** One batch of `count` writes of 512 bytes; each is filled with the low byte of its LSN. */
export function appendWrites(journal: Journal, count: number): Appended {
  let at = 64;
  for (let index = 0; index < count; index++) {
    writeRecordHeader(view, at, RecordKind.write, 0, 1, 512, index, 1, 0);
    slab.fill((journal.lastLsn + 1 + index) % 256, at + 28, at + 28 + 512);
    at += 28 + 512;
  }
  return journal.appendInPlace(slab, 64, at, count);
}

/** LSNs of everything a reader gives from the oldest address on; damage is stepped over. */
export function readLsns(journal: Journal): number[] {
  const reader = journal.reader(journal.oldestAddress);
  const lsns: number[] = [];
  try {
    while (true) {
      const batch = nextOrSkip(reader, journal.endAddress);
      if (batch === 'skipped') continue;
      if (batch === undefined) return lsns;
      for (const record of batch) {
        if (record.kind === RecordKind.write && record.payload.some((byte) => byte !== record.lsn % 256)) {
          throw new Error(`LSN ${record.lsn} has other bytes than were written`);
        }
        lsns.push(record.lsn);
      }
    }
  } finally {
    void reader.close();
  }
}

function nextOrSkip(reader: ReturnType<Journal['reader']>, limit: number): BatchView | 'skipped' | undefined {
  try {
    return reader.next(limit);
  } catch (error) {
    if (!(error instanceof TidemarkError) || error.code !== 'journal-damaged') throw error;
    return reader.skipDamage(limit) === undefined ? undefined : 'skipped';
  }
}

export function range(from: number, to: number): number[] {
  return Array.from({ length: Math.max(0, to - from + 1) }, (_, index) => from + index);
}
