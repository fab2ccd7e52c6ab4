import type { Backing, BackingIdentity } from '../../daemon/backing/backing.ts';
import { assert } from '../../journal/base/assert.ts';
import { TidemarkError } from '../../journal/base/errors.ts';
import type { DeviceExtent } from '../../journal/block-device.ts';
import type { DiskFile, Host } from '../../journal/host/host.ts';

/** Granularity of holes, as on a file system. */
const BLOCK_BYTES = 4096;
const ZEROES: Buffer = Buffer.alloc(BLOCK_BYTES);

/**
 * A raw file on the disk of a simulated machine as a volume's backing. It has what a real one has: a page cache that a
 * power loss takes away, syncs that fail (told as `device-gone`), errors and slowness.
 */
export class SimulatedBacking implements Backing {
  readonly size: number;
  readonly readOnly = false;
  readonly #file: DiskFile;
  readonly #path: string;
  readonly #modified: () => string;
  #closed = false;

  /** Makes the file, empty and durable, when there is none. `modified`: the time of its last change, as it is told. */
  static async open(
    host: Host,
    path: string,
    size: number,
    modified: () => string = () => '',
  ): Promise<SimulatedBacking> {
    const directory = path.slice(0, path.lastIndexOf('/'));
    const keepName = async (): Promise<void> => {
      await host.disk.syncDirectory(directory);
      await host.disk.syncDirectory(directory.slice(0, directory.lastIndexOf('/')));
    };
    if (host.disk.exists(path)) {
      const file = host.disk.open(path, 'write');
      // A start that was killed may have made it: the disks of guests were there before.
      await keepName();
      if (file.size() === size) return new SimulatedBacking(file, path, size, modified);
      await file.close();
      host.disk.unlink(path);
    }
    host.disk.makeDirectory(directory);
    const file = host.disk.open(path, 'create');
    file.truncate(size);
    await file.dataSync();
    await keepName();
    return new SimulatedBacking(file, path, size, modified);
  }

  private constructor(file: DiskFile, path: string, size: number, modified: () => string) {
    this.#modified = modified;
    this.#file = file;
    this.#path = path;
    this.size = size;
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    this.#check(offset, into.length);
    const count = await this.#file.read(into, 0, into.length, offset);
    if (count !== into.length) throw new TidemarkError('device-failed', `${this.#path} ends too early`);
  }

  async write(offset: number, from: Uint8Array): Promise<void> {
    this.#check(offset, from.length);
    for (let done = 0; done < from.length; ) {
      const count = await this.#file.write(from, done, from.length - done, offset + done);
      if (count === 0) throw new TidemarkError('no-space', `${this.#path} takes no more bytes`);
      done += count;
    }
  }

  zero(offset: number, length: number, _mayUnmap: boolean): Promise<void> {
    return this.write(offset, new Uint8Array(length));
  }

  async flush(): Promise<void> {
    this.#check(0, 0);
    try {
      await this.#file.dataSync();
    } catch (cause) {
      throw new TidemarkError('device-gone', `${this.#path}: a sync failed, what it covered may be lost`, { cause });
    }
  }

  async extents(offset: number, length: number): Promise<DeviceExtent[]> {
    this.#check(offset, length);
    const bytes = new Uint8Array(length);
    await this.read(offset, bytes);
    const extents: { length: number; kind: DeviceExtent['kind'] }[] = [];
    for (let at = 0; at < length; ) {
      const count = Math.min(length - at, BLOCK_BYTES - ((offset + at) % BLOCK_BYTES));
      const kind = ZEROES.compare(bytes, at, at + count, 0, count) === 0 ? 'hole' : 'data';
      const last = extents.at(-1);
      if (last?.kind === kind) last.length += count;
      else extents.push({ length: count, kind });
      at += count;
    }
    return extents;
  }

  async identity(): Promise<BackingIdentity> {
    // As the real one: the time of the last change must be on disk before it is put into a stamp.
    await this.flush();
    const modifiedNanos = this.#modified();
    return { kind: 'file', location: this.#path, node: '1', size: this.size, modifiedNanos };
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#file.close();
  }

  #check(offset: number, length: number): void {
    if (this.#closed) throw new TidemarkError('shutting-down', `${this.#path} is closed`);
    assert(offset % 512 === 0 && length % 512 === 0 && offset + length <= this.size, 'a range inside, in sectors');
  }
}
