import * as fs from 'node:fs';
import { assert } from '../base/assert.ts';
import { type ErrorCode, TidemarkError } from '../base/errors.ts';
import type { DeviceExtent } from '../block-device.ts';
import { fileExtents } from './file-extents.ts';
import type { DiskFile } from './host.ts';
import { punchHole, readCached } from './native.ts';
import { fromSystemError } from './system-error.ts';

/** One open file. Its descriptor is closed only when no operation of the thread pool can still use it (invariant D7). */
export class RealDiskFile implements DiskFile {
  readonly path: string;
  readonly #fd: number;
  #queued = 0;
  #closing: Promise<void> | undefined;
  #drained: (() => void) | undefined;
  /** Until the file system says that it does not answer such a question. */
  #readsNow = true;

  constructor(path: string, fd: number) {
    this.path = path;
    this.#fd = fd;
  }

  /** For the calls of native.ts; valid until `close`. */
  get descriptor(): number {
    return this.#fd;
  }

  readSync(buffer: Uint8Array, offset: number, length: number, position: number): number {
    return this.#attempt('read', 'device-failed', () => {
      let done = 0;
      while (done < length) {
        const count = fs.readSync(this.#fd, buffer, offset + done, length - done, position + done);
        if (count === 0) break;
        done += count;
      }
      return done;
    });
  }

  writeSync(buffer: Uint8Array, offset: number, length: number, position: number): number {
    this.#assertOpen();
    try {
      return fs.writeSync(this.#fd, buffer, offset, length, position);
    } catch (cause) {
      throw fromSystemError(cause, `write ${this.path}`);
    }
  }

  async read(buffer: Uint8Array, offset: number, length: number, position: number): Promise<number> {
    let done = 0;
    while (done < length) {
      const count = await this.#queue<number>('read', 'device-failed', (callback) => {
        fs.read(this.#fd, buffer, offset + done, length - done, position + done, callback);
      });
      if (count === 0) break;
      done += count;
    }
    return done;
  }

  readNow(into: Uint8Array, position: number): boolean {
    this.#assertOpen();
    if (!this.#readsNow) return false;
    const outcome = readCached(this.#fd, position, into);
    if (outcome === 'unsupported') this.#readsNow = false;
    return outcome === 'cached';
  }

  write(buffer: Uint8Array, offset: number, length: number, position: number): Promise<number> {
    return this.#queue<number>('write', 'device-failed', (callback) => {
      fs.write(this.#fd, buffer, offset, length, position, callback);
    });
  }

  extents(position: number, length: number): DeviceExtent[] {
    this.#assertOpen();
    return fileExtents(this.#fd, position, length);
  }

  async dataSync(): Promise<void> {
    await this.#queue<undefined>('fdatasync', 'sync-failed', (callback) => {
      fs.fdatasync(this.#fd, (error) => {
        callback(error, undefined);
      });
    });
  }

  dataSyncSync(): void {
    this.#assertOpen();
    try {
      fs.fdatasyncSync(this.#fd);
    } catch (cause) {
      throw syncFailed(cause, this.path);
    }
  }

  size(): number {
    return this.#attempt('stat', 'device-failed', () => fs.fstatSync(this.#fd).size);
  }

  truncate(length: number): void {
    this.#attempt('truncate', 'device-failed', () => {
      fs.ftruncateSync(this.#fd, length);
    });
  }

  punchHole(position: number, length: number): boolean {
    this.#assertOpen();
    return punchHole(this.#fd, position, length);
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    if (this.#queued > 0) {
      await new Promise<void>((resolve) => {
        this.#drained = resolve;
      });
    }
    fs.closeSync(this.#fd);
  }

  #queue<T>(
    what: string,
    fallback: ErrorCode,
    start: (callback: (error: NodeJS.ErrnoException | null, value: T) => void) => void,
  ): Promise<T> {
    this.#assertOpen();
    this.#queued++;
    return new Promise<T>((resolve, reject) => {
      start((error, value) => {
        this.#queued--;
        if (error === null) resolve(value);
        else if (fallback === 'sync-failed') reject(syncFailed(error, this.path));
        else reject(fromSystemError(error, `${what} ${this.path}`, fallback));
        if (this.#queued === 0) this.#drained?.();
      });
    });
  }

  #attempt<T>(what: string, fallback: ErrorCode, run: () => T): T {
    this.#assertOpen();
    try {
      return run();
    } catch (cause) {
      throw fromSystemError(cause, `${what} ${this.path}`, fallback);
    }
  }

  #assertOpen(): void {
    assert(this.#closing === undefined, `${this.path} is used after close`);
  }
}

/** Whatever a sync fails with, ENOSPC included: what was written since the last good one is unknown. */
function syncFailed(cause: unknown, path: string): TidemarkError {
  const errno = cause instanceof Error && 'code' in cause && typeof cause.code === 'string' ? cause.code : 'unknown';
  return new TidemarkError('sync-failed', `fdatasync ${path}: ${errno}`, { cause, details: { errno } });
}
