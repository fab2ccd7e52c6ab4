import * as fs from 'node:fs';
import { promisify } from 'node:util';
import { assert } from '../../journal/base/assert.ts';
import { TidemarkError } from '../../journal/base/errors.ts';
import type { DeviceExtent } from '../../journal/block-device.ts';
import { fileExtents } from '../../journal/host/file-extents.ts';
import { blockZeroOut, lockExclusive, punchHole, readCached } from '../../journal/host/native.ts';
import { fromSystemError } from '../../journal/host/system-error.ts';
import { SECTOR_BYTES } from '../../journal/position.ts';
import type { Backing, BackingIdentity } from './backing.ts';
import { deviceMajor, deviceMinor, refuseLockedFile } from './file-use.ts';
import { OperationLimit } from './operation-limit.ts';
import { PLACE_FIELDS, writeRun } from './write-run.ts';

/** Operations under way at once: more than the thread pool runs, few enough to leave other devices their turn. */
const OPERATIONS_MAX = 8;
const PUNCH_SLICE_BYTES = 1024 * 1024 * 1024;
const ZERO_OUT_SLICE_BYTES = 16 * 1024 * 1024;

const ZEROES: Buffer = Buffer.alloc(1024 * 1024);

const read = promisify(fs.read);
const write = promisify(fs.write);
const fdatasync = promisify(fs.fdatasync);
const fsync = promisify(fs.fsync);

/** A descriptor that is closed when the last operation on it has ended, never earlier. */
class Descriptor {
  readonly fd: number;
  #users = 0;
  #retired = false;

  constructor(fd: number) {
    this.fd = fd;
  }

  async use<T>(operation: (fd: number) => Promise<T>): Promise<T> {
    this.#users++;
    try {
      return await operation(this.fd);
    } finally {
      this.#users--;
      if (this.#retired && this.#users === 0) fs.closeSync(this.fd);
    }
  }

  retire(): void {
    assert(!this.#retired, 'a descriptor is retired once');
    this.#retired = true;
    if (this.#users === 0) fs.closeSync(this.fd);
  }
}

/**
 * A raw file or a block device. One process at a time: a file is locked (flock) for as long as it is open, a block
 * device is opened exclusively, and a file that QEMU holds is refused.
 *
 * A failed sync leaves the kernel's cache in doubt (it forgets what it could not write), so it is reported as
 * `device-gone`: the owner writes everything since the last good sync again, over a fresh descriptor.
 */
export class FileBacking implements Backing {
  readonly size: number;
  readonly readOnly: boolean;
  readonly #path: string;
  readonly #isBlockDevice: boolean;
  /** Holds the lock until `close`; `#io` may be replaced meanwhile. */
  readonly #lock: number;
  #io: Descriptor;
  readonly #limit = new OperationLimit(OPERATIONS_MAX);
  #punches = true;
  #readsNow = true;
  #closed = false;

  /**
   * Throws `not-found`, `target-in-use` when another program holds it, `invalid-argument` when it is neither a file
   * nor a block device or its size is no multiple of 512.
   */
  static open(path: string, options: { readOnly?: boolean } = {}): FileBacking {
    const readOnly = options.readOnly === true;
    const stats = attempt(path, () => fs.statSync(path, { bigint: true }));
    if (!stats.isFile() && !stats.isBlockDevice()) {
      throw new TidemarkError('invalid-argument', `${path} is neither a file nor a block device`);
    }
    if (!readOnly) refuseLockedFile(path, stats);
    const flags = readOnly ? fs.constants.O_RDONLY : fs.constants.O_RDWR;
    const exclusive = stats.isBlockDevice() && !readOnly ? fs.constants.O_EXCL : 0;
    const lock = attempt(path, () => fs.openSync(path, flags | exclusive));
    try {
      if (!readOnly && lockExclusive(lock) === 'busy') throw inUse(path);
      const size = stats.isBlockDevice() ? blockDeviceSize(path, stats) : Number(stats.size);
      if (size % SECTOR_BYTES !== 0) {
        throw new TidemarkError('invalid-argument', `${path}: ${size} bytes are not a multiple of 512`);
      }
      const io = attempt(path, () => fs.openSync(path, flags));
      return new FileBacking(path, readOnly, stats.isBlockDevice(), size, lock, io);
    } catch (error) {
      fs.closeSync(lock);
      throw error;
    }
  }

  private constructor(path: string, readOnly: boolean, isBlockDevice: boolean, size: number, lock: number, io: number) {
    this.#path = path;
    this.readOnly = readOnly;
    this.#isBlockDevice = isBlockDevice;
    this.size = size;
    this.#lock = lock;
    this.#io = new Descriptor(io);
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    this.#check(offset, into.length);
    await this.#run('read', async (fd) => {
      for (let at = 0; at < into.length; ) {
        const { bytesRead } = await read(fd, into, at, into.length - at, offset + at);
        if (bytesRead === 0) throw new TidemarkError('device-failed', `${this.#path} ends before ${offset + at}`);
        at += bytesRead;
      }
    });
  }

  readNow(offset: number, into: Uint8Array): boolean {
    this.#check(offset, into.length);
    if (this.#closed || !this.#readsNow) return false;
    const outcome = readCached(this.#io.fd, offset, into);
    if (outcome === 'unsupported') this.#readsNow = false;
    return outcome === 'cached';
  }

  async write(offset: number, from: Uint8Array): Promise<void> {
    this.#check(offset, from.length);
    this.#refuseReadOnly();
    await this.#run('write', (fd) => this.#writeAll(fd, offset, from));
  }

  async writeMany(memory: SharedArrayBuffer, places: Float64Array): Promise<void> {
    for (let at = 0; at < places.length; at += PLACE_FIELDS) this.#check(places[at]!, places[at + 2]!);
    this.#refuseReadOnly();
    await this.#run('write', (fd) => writeRun(fd, memory, places));
  }

  async zero(offset: number, length: number, mayUnmap: boolean): Promise<void> {
    this.#check(offset, length);
    this.#refuseReadOnly();
    for (let at = 0; at < length; ) {
      const done = await this.#run('zero', (fd) => this.#zeroSlice(fd, offset + at, length - at, mayUnmap));
      at += done;
    }
  }

  async flush(): Promise<void> {
    if (this.readOnly) return;
    const synced = this.#io;
    try {
      await this.#run('sync', (fd) => fdatasync(fd));
    } catch (cause) {
      if (this.#closed) throw cause;
      if (this.#io === synced) {
        const fresh = attempt(this.#path, () => fs.openSync(this.#path, fs.constants.O_RDWR));
        this.#io = new Descriptor(fresh);
        synced.retire();
      }
      throw new TidemarkError('device-gone', `${this.#path}: a sync failed, what it covered may be lost`, { cause });
    }
  }

  async extents(offset: number, length: number): Promise<DeviceExtent[]> {
    this.#check(offset, length);
    if (this.#isBlockDevice) return length === 0 ? [] : [{ length, kind: 'data' }];
    return this.#run('map', (fd) => Promise.resolve(fileExtents(fd, offset, length)));
  }

  async identity(): Promise<BackingIdentity> {
    const stats = await this.#run('identify', async (fd) => {
      // The time of the last change must be on disk too before it is put into a stamp.
      if (!this.readOnly) await fsync(fd);
      return fs.fstatSync(fd, { bigint: true });
    });
    if (this.#isBlockDevice) {
      return { kind: 'block-device', location: this.#path, node: '', size: this.size, modifiedNanos: '' };
    }
    return {
      kind: 'file',
      location: this.#path,
      node: stats.ino.toString(),
      size: Number(stats.size),
      modifiedNanos: stats.mtimeNs.toString(),
    };
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#limit.idle();
    this.#io.retire();
    fs.closeSync(this.#lock);
  }

  async #run<T>(what: string, operation: (fd: number) => Promise<T>): Promise<T> {
    if (this.#closed) throw new TidemarkError('shutting-down', `${this.#path} is closed`);
    return this.#limit.run(async () => {
      try {
        return await this.#io.use(operation);
      } catch (error) {
        throw fromSystemError(error, `${what} ${this.#path}`);
      }
    });
  }

  async #writeAll(fd: number, offset: number, from: Uint8Array): Promise<void> {
    for (let at = 0; at < from.length; ) {
      const { bytesWritten } = await write(fd, from, at, from.length - at, offset + at);
      // A short write is how ext4 announces a full disk; the next one says ENOSPC.
      if (bytesWritten === 0) throw new TidemarkError('no-space', `${this.#path} takes no more bytes`);
      at += bytesWritten;
    }
  }

  /** Zeroes the front of the range and returns how much of it; the calls into the kernel block, hence the slices. */
  async #zeroSlice(fd: number, offset: number, length: number, mayUnmap: boolean): Promise<number> {
    if (this.#isBlockDevice && this.#punches) {
      const slice = Math.min(length, ZERO_OUT_SLICE_BYTES);
      if (blockZeroOut(fd, offset, slice)) return yielded(slice);
      this.#punches = false;
    }
    if (!this.#isBlockDevice && mayUnmap && this.#punches) {
      const slice = Math.min(length, PUNCH_SLICE_BYTES);
      if (punchHole(fd, offset, slice)) return yielded(slice);
      this.#punches = false;
    }
    const slice = Math.min(length, ZEROES.length);
    await this.#writeAll(fd, offset, ZEROES.subarray(0, slice));
    return slice;
  }

  #refuseReadOnly(): void {
    if (this.readOnly) throw new TidemarkError('read-only', `${this.#path} was opened for reading only`);
  }

  #check(offset: number, length: number): void {
    assert(
      offset >= 0 && length >= 0 && offset + length <= this.size,
      `[${offset}, +${length}) is outside the backing`,
    );
    assert(offset % SECTOR_BYTES === 0 && length % SECTOR_BYTES === 0, 'backings are used in sectors');
  }
}

/** Lets the event loop turn between two blocking calls. */
function yielded(value: number): Promise<number> {
  return new Promise((resolve) => {
    setImmediate(() => resolve(value));
  });
}

/** sysfs counts in sectors of 512 bytes whatever the device's own block is. */
function blockDeviceSize(path: string, stats: fs.BigIntStats): number {
  const device = Number(stats.rdev);
  const file = `/sys/dev/block/${deviceMajor(device)}:${deviceMinor(device)}/size`;
  return Number(attempt(path, () => fs.readFileSync(file, 'latin1')).trim()) * SECTOR_BYTES;
}

function inUse(path: string, cause?: unknown): TidemarkError {
  return new TidemarkError('target-in-use', `${path} is in use by another program`, { cause, details: { path } });
}

function attempt<T>(path: string, call: () => T): T {
  try {
    return call();
  } catch (cause) {
    if (cause instanceof Error && 'code' in cause && cause.code === 'EBUSY') throw inUse(path, cause);
    throw fromSystemError(cause, path);
  }
}
