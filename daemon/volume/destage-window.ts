import { TidemarkError } from '../../journal/base/errors.ts';
import type { BlockDevice } from '../../journal/block-device.ts';
import { SECTOR_BYTES } from '../../journal/position.ts';
import { ExtentMap, ZERO_SOURCE } from './extent-map.ts';

/** Source of an extent whose zeroes must stay allocated (NO_HOLE). */
const KEPT_ZERO_SOURCE = -3;

/** One write to a backing at most. */
const WRITE_BYTES_MAX = 1024 * 1024;
/** From so many pieces for one device on they are worth a thread of their own, where the device has one. */
const TOGETHER_FROM = 16;
/** Writes in flight at once; they never overlap, because the extents of a window do not. */
const WRITES_MAX = 4;

/** One write to a backing: extents of the window that lie side by side on the disk, or one extent of zeroes. */
interface BackingWrite {
  readonly device: BlockDevice;
  /** Bytes. */
  readonly offset: number;
  length: number;
  /** Places in the slab, in order; empty for zeroes. */
  readonly parts: { readonly at: number; readonly length: number }[];
  readonly mayUnmap: boolean;
}

/**
 * A stretch of the journal on its way to the backings: the last version of every sector it touches, sorted. What was
 * overwritten within the window is never written; neighbours become one write.
 */
export class DestageWindow {
  /** Shared, so that a device may write it out on another thread. */
  readonly #memory: SharedArrayBuffer;
  readonly #slab: Buffer;
  #used = 0;
  /** As `BlockDevice.writeMany` wants them; used again for each window. */
  #places: Float64Array<ArrayBuffer> = new Float64Array(3 * 1024);
  readonly #maps: Map<BlockDevice, ExtentMap> = new Map();

  /** `bytes`: payload the window holds at most. */
  constructor(bytes: number) {
    this.#memory = new SharedArrayBuffer(bytes);
    this.#slab = Buffer.from(this.#memory);
  }

  get freeBytes(): number {
    return this.#slab.length - this.#used;
  }

  get usedBytes(): number {
    return this.#used;
  }

  /** Takes `length` bytes (not more than `freeBytes`) for a sector range; the caller fills what is returned. */
  take(device: BlockDevice, sector: number, length: number): Uint8Array {
    const at = this.#used;
    this.#used += length;
    this.#map(device).insert(sector, sector + length / SECTOR_BYTES, at, 0);
    return this.#slab.subarray(at, at + length);
  }

  zero(device: BlockDevice, sector: number, sectors: number, keepAllocated: boolean): void {
    this.#map(device).insert(sector, sector + sectors, keepAllocated ? KEPT_ZERO_SOURCE : ZERO_SOURCE, 0);
  }

  /** Writes everything; rejects with the first error when all that was begun has ended. `onWrite` gets bytes as they go. */
  async writeOut(onWrite: (bytes: number) => void): Promise<void> {
    const writes: BackingWrite[] = [];
    for (const [device, map] of this.#maps) {
      const isTogether = device.writeMany !== undefined && (await this.#writeTogether(device, map, onWrite));
      this.#plan(device, map, isTogether, writes);
    }
    const mergedBytes = writes.reduce(
      (most, { length, parts }) => (parts.length > 1 ? Math.max(most, length) : most),
      0,
    );
    let next = 0;
    let failure: TidemarkError | undefined;
    const worker = async (): Promise<void> => {
      const buffer = new Lazy(() => Buffer.allocUnsafe(mergedBytes));
      while (next < writes.length && failure === undefined) {
        const write = writes[next++]!;
        try {
          await this.#issue(write, buffer);
        } catch (error) {
          if (!(error instanceof TidemarkError)) throw error;
          failure ??= error;
          return;
        }
        onWrite(write.length);
      }
    };
    await Promise.all(Array.from({ length: Math.min(WRITES_MAX, writes.length) }, worker));
    if (failure !== undefined) throw failure;
  }

  clear(): void {
    this.#used = 0;
    this.#maps.clear();
  }

  #map(device: BlockDevice): ExtentMap {
    let map = this.#maps.get(device);
    if (map === undefined) {
      map = new ExtentMap();
      this.#maps.set(device, map);
    }
    return map;
  }

  /** Adds the writes of one device to a list; `zeroesOnly`: what it holds otherwise is written already. */
  #plan(device: BlockDevice, map: ExtentMap, zeroesOnly: boolean, writes: BackingWrite[]): void {
    let open: BackingWrite | undefined;
    map.forEach((start, end, source) => {
      const offset = start * SECTOR_BYTES;
      const length = (end - start) * SECTOR_BYTES;
      if (source < 0) {
        open = undefined;
        writes.push({ device, offset, length, parts: [], mayUnmap: source === ZERO_SOURCE });
        return;
      }
      if (zeroesOnly) return;
      for (let at = 0; at < length; ) {
        if (open === undefined || open.offset + open.length !== offset + at || open.length === WRITE_BYTES_MAX) {
          open = { device, offset: offset + at, length: 0, parts: [], mayUnmap: false };
          writes.push(open);
        }
        const part = Math.min(length - at, WRITE_BYTES_MAX - open.length);
        open.parts.push({ at: source + at, length: part });
        open.length += part;
        at += part;
      }
    });
  }

  /**
   * Hands a device all its bytes in one piece, when there are many: true. An object for each of 4096 extents took milliseconds
   * in which guests waited, numbers in a row take a twentieth of that.
   */
  async #writeTogether(device: BlockDevice, map: ExtentMap, onWrite: (bytes: number) => void): Promise<boolean> {
    let used = 0;
    let bytes = 0;
    map.forEach((start, end, source) => {
      if (source < 0) return;
      const length = (end - start) * SECTOR_BYTES;
      bytes += length;
      for (let at = 0; at < length; at += WRITE_BYTES_MAX) {
        if (used + 3 > this.#places.length) {
          const larger = new Float64Array(2 * this.#places.length);
          larger.set(this.#places);
          this.#places = larger;
        }
        this.#places[used] = start * SECTOR_BYTES + at;
        this.#places[used + 1] = source + at;
        this.#places[used + 2] = Math.min(WRITE_BYTES_MAX, length - at);
        used += 3;
      }
    });
    if (used < 3 * TOGETHER_FROM) return false;
    await device.writeMany!(this.#memory, this.#places.slice(0, used));
    onWrite(bytes);
    return true;
  }

  async #issue(write: BackingWrite, buffer: Lazy<Buffer>): Promise<void> {
    const [first] = write.parts;
    if (first === undefined) {
      await write.device.zero(write.offset, write.length, write.mayUnmap);
    } else if (write.parts.length === 1) {
      await write.device.write(write.offset, this.#slab.subarray(first.at, first.at + first.length));
    } else {
      const merged = buffer.value;
      let at = 0;
      for (const part of write.parts) {
        this.#slab.copy(merged, at, part.at, part.at + part.length);
        at += part.length;
      }
      await write.device.write(write.offset, merged.subarray(0, at));
    }
  }
}

/** A buffer made at its first use: most windows have workers that never merge. */
class Lazy<T> {
  readonly #make: () => T;
  #made: T | undefined;

  constructor(make: () => T) {
    this.#make = make;
  }

  get value(): T {
    this.#made ??= this.#make();
    return this.#made;
  }
}
