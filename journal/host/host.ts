import type { DeviceExtent } from '../block-device.ts';

/**
 * The machine behind interfaces: nothing in journal/, replica/, and the data path of daemon/ touches disk, clock,
 * random numbers or network by another way, so that one seed replays any failure in the simulator.
 */

export interface Host {
  readonly disk: Disk;
  readonly clock: Clock;
  readonly random: Random;
  /** The kernel's boot id (36 characters): page cache survives a kill within one boot, not across two (rule 3). */
  readonly bootId: string;
}

export type OpenMode =
  /** Must exist; reads only. */
  | 'read'
  /** Must exist; reads and writes. */
  | 'write'
  /** Must not exist; made empty, reads and writes. */
  | 'create';

/** Failures are `TidemarkError`s: not-found, already-exists, no-space, device-failed, sync-failed. */
export interface Disk {
  open(path: string, mode: OpenMode): DiskFile;
  exists(path: string): boolean;
  /** Names in the directory, sorted; empty when the directory does not exist. */
  list(directory: string): string[];
  /** With those above it, as far as they are missing; durable when it returns, unlike the names made in it later. */
  makeDirectory(path: string): void;
  /** Not durable before `syncDirectory`. */
  rename(from: string, to: string): void;
  /** Not durable before `syncDirectory`. A missing file is no error. */
  unlink(path: string): void;
  syncDirectory(path: string): Promise<void>;
  /** The same, blocking: for a journal that had to make its next file in the middle of a write. */
  syncDirectoryNow(path: string): void;
  /** Bytes that a write may still take on the file system of this directory. */
  freeBytes(directory: string): number;
  /**
   * Takes the exclusive lock of a directory by a kernel lock that dies with the process (rule 15). Throws
   * `journal-locked` when another process holds it, `network-file-system` when locks there prove nothing.
   */
  lockDirectory(directory: string): DirectoryLock;
}

export interface DirectoryLock {
  release(): void;
}

export interface DiskFile {
  readonly path: string;
  /** Returns the bytes read; short only at the end of the file. */
  readSync(buffer: Uint8Array, offset: number, length: number, position: number): number;
  /** Returns the bytes written: LESS than `length` when the disk fills up (a full ext4 says so, not ENOSPC). */
  writeSync(buffer: Uint8Array, offset: number, length: number, position: number): number;
  read(buffer: Uint8Array, offset: number, length: number, position: number): Promise<number>;
  /**
   * Fills `into` from memory without ever waiting for the disk: false when not all of it is there (`into` may be half
   * filled then), and `read` has to be asked. Absent: this disk cannot tell.
   */
  readNow?(into: Uint8Array, position: number): boolean;
  /** As `writeSync`, short writes included; the buffer must not change before the promise settles. */
  write(buffer: Uint8Array, offset: number, length: number, position: number): Promise<number>;
  /** fdatasync. After a rejection the file is poisoned: what was written since the last success is unknown. */
  dataSync(): Promise<void>;
  dataSyncSync(): void;
  size(): number;
  truncate(length: number): void;
  /** Gives the space back and makes the range read as zeroes; false when the file system cannot. */
  punchHole(position: number, length: number): boolean;
  /** Data and holes of a range, in order, which they cover exactly; absent: the disk cannot tell, all is data. */
  extents?(position: number, length: number): DeviceExtent[];
  /** Resolves when every queued operation of the file has ended and the descriptor is closed; idempotent. */
  close(): Promise<void>;
}

export interface Clock {
  /** Microseconds since 1970 by the wall clock: may jump. */
  wallMicros(): number;
  /** Milliseconds since some start, never going back; for intervals only. */
  monotonicMs(): number;
  /** Calls `run` once after `ms`; the timer never keeps a process alive by itself. */
  after(ms: number, run: () => void): Timer;
}

export interface Timer {
  cancel(): void;
}

export interface Random {
  bytes(length: number): Uint8Array;
  /** Uniform in [0, bound). */
  below(bound: number): number;
}

/** Resolves after `ms` of the host's clock. */
export function delay(clock: Clock, ms: number): Promise<void> {
  return new Promise((resolve) => {
    clock.after(ms, resolve);
  });
}
