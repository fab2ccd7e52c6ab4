import { TidemarkError } from '../../journal/base/errors.ts';
import type { BlockDevice, DeviceExtent } from '../../journal/block-device.ts';
import type { DiskFile, Host } from '../../journal/host/host.ts';
import { readFully, writeFully } from '../store/file-io.ts';
import { SharedFile } from '../store/shared-file.ts';
import { SCRATCH_BLOCK_BYTES, ScratchMap, ScratchState } from './scratch-map.ts';

/**
 * A view that can be written: writes go to a sparse file of their own, which is thrown away when the view is closed.
 * Neither history nor another view ever sees them (V3). Blocks of 4 KiB; a write of part of a block takes the rest
 * from below. Modifications are done one after the other.
 */
export class ScratchOverlay implements BlockDevice {
  readonly size: number;
  readonly readOnly = false;
  readonly #host: Host;
  readonly #below: BlockDevice;
  readonly #path: string;
  readonly #bytesMax: number;
  readonly #file: SharedFile;
  readonly #map = new ScratchMap();
  #last: Promise<void> = Promise.resolve();
  #closed = false;

  /** `bytesMax`: data written at most; beyond it writes fail with `no-space`. */
  constructor(host: Host, below: BlockDevice, path: string, bytesMax: number) {
    this.size = below.size;
    this.#host = host;
    this.#below = below;
    this.#path = path;
    this.#bytesMax = bytesMax;
    this.#file = new SharedFile(host.disk.open(path, 'create'));
  }

  get usedBytes(): number {
    return this.#map.dataBlocks * SCRATCH_BLOCK_BYTES;
  }

  read(offset: number, into: Uint8Array): Promise<void> {
    if (this.#closed) return Promise.reject(new TidemarkError('shutting-down', 'the view is closed'));
    return this.#file.use((file) => this.#read(file, offset, into));
  }

  readNow(offset: number, into: Uint8Array): boolean {
    if (this.#closed) return false;
    const end = offset + into.length;
    for (let at = offset; at < end; ) {
      const block = Math.floor(at / SCRATCH_BLOCK_BYTES);
      const { state, blocks } = this.#map.stretch(block, Math.ceil(end / SCRATCH_BLOCK_BYTES));
      const to = Math.min(end, (block + blocks) * SCRATCH_BLOCK_BYTES);
      const part = into.subarray(at - offset, to - offset);
      if (state === ScratchState.zero) part.fill(0);
      else if (state === ScratchState.data && !this.#file.readNow(part, at)) return false;
      else if (state === ScratchState.below && this.#below.readNow?.(at, part) !== true) return false;
      at = to;
    }
    return true;
  }

  async #read(file: DiskFile, offset: number, into: Uint8Array): Promise<void> {
    const end = offset + into.length;
    for (let at = offset; at < end; ) {
      const block = Math.floor(at / SCRATCH_BLOCK_BYTES);
      const { state, blocks } = this.#map.stretch(block, Math.ceil(end / SCRATCH_BLOCK_BYTES));
      const to = Math.min(end, (block + blocks) * SCRATCH_BLOCK_BYTES);
      const part = into.subarray(at - offset, to - offset);
      if (state === ScratchState.zero) part.fill(0);
      else if (state === ScratchState.data) await readFully(file, part, at);
      else await this.#below.read(at, part);
      at = to;
    }
  }

  write(offset: number, from: Uint8Array): Promise<void> {
    return this.#inTurn(async () => {
      const first = Math.floor(offset / SCRATCH_BLOCK_BYTES);
      const last = Math.ceil((offset + from.length) / SCRATCH_BLOCK_BYTES);
      if (this.usedBytes + (last - first) * SCRATCH_BLOCK_BYTES > this.#bytesMax) {
        throw new TidemarkError('no-space', `the scratch space of ${this.#bytesMax} bytes is used up`, {
          details: { bytesMax: this.#bytesMax },
        });
      }
      const start = first * SCRATCH_BLOCK_BYTES;
      const bytes = new Uint8Array((last - first) * SCRATCH_BLOCK_BYTES);
      await this.#keepEdges(start, bytes, offset, from.length);
      bytes.set(from, offset - start);
      await this.#file.use((file) => writeFully(file, bytes, start));
      this.#map.set(first, last, ScratchState.data);
    });
  }

  zero(offset: number, length: number): Promise<void> {
    return this.#inTurn(async () => {
      const end = offset + length;
      const first = Math.ceil(offset / SCRATCH_BLOCK_BYTES);
      const last = end === this.size ? Math.ceil(end / SCRATCH_BLOCK_BYTES) : Math.floor(end / SCRATCH_BLOCK_BYTES);
      const wholeFrom = Math.min(first * SCRATCH_BLOCK_BYTES, end);
      const wholeTo = Math.max(last * SCRATCH_BLOCK_BYTES, wholeFrom);
      await this.#zeroPart(offset, wholeFrom - offset);
      if (last > first) this.#map.set(first, last, ScratchState.zero);
      await this.#zeroPart(wholeTo, end - wholeTo);
    });
  }

  /** Nothing here outlives the process: there is nothing to make durable. */
  async flush(): Promise<void> {
    await this.#last;
  }

  async extents(offset: number, length: number): Promise<DeviceExtent[]> {
    const extents: DeviceExtent[] = [];
    const end = offset + length;
    for (let at = offset; at < end; ) {
      const block = Math.floor(at / SCRATCH_BLOCK_BYTES);
      const { state, blocks } = this.#map.stretch(block, Math.ceil(end / SCRATCH_BLOCK_BYTES));
      const to = Math.min(end, (block + blocks) * SCRATCH_BLOCK_BYTES);
      if (state === ScratchState.below) extents.push(...(await this.#below.extents(at, to - at)));
      else extents.push({ length: to - at, kind: state === ScratchState.data ? 'data' : 'hole' });
      at = to;
    }
    return extents;
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#last;
    await this.#file.retire();
    this.#host.disk.unlink(this.#path);
    await this.#below.close();
  }

  /** Part of one block. */
  async #zeroPart(offset: number, length: number): Promise<void> {
    if (length <= 0) return;
    const first = Math.floor(offset / SCRATCH_BLOCK_BYTES);
    if (this.#map.state(first) === ScratchState.zero) return;
    const bytes = new Uint8Array(SCRATCH_BLOCK_BYTES);
    await this.#keepEdges(first * SCRATCH_BLOCK_BYTES, bytes, offset, length);
    await this.#file.use((file) => writeFully(file, bytes, first * SCRATCH_BLOCK_BYTES));
    this.#map.set(first, first + 1, ScratchState.data);
  }

  /** Fills what lies in the blocks of `bytes` (from `start`) before and behind [offset, offset + length). */
  async #keepEdges(start: number, bytes: Uint8Array, offset: number, length: number): Promise<void> {
    if (offset > start) await this.#file.use((file) => this.#read(file, start, bytes.subarray(0, offset - start)));
    const end = offset + length;
    const behind = Math.min(start + bytes.length, this.size) - end;
    if (behind > 0) {
      await this.#file.use((file) => this.#read(file, end, bytes.subarray(end - start, end - start + behind)));
    }
  }

  #inTurn(run: () => Promise<void>): Promise<void> {
    if (this.#closed) return Promise.reject(new TidemarkError('shutting-down', 'the view is closed'));
    const done = this.#last.then(run);
    this.#last = done.catch(() => undefined);
    return done;
  }
}
