import { assert } from '../../journal/base/assert.ts';
import { TidemarkError } from '../../journal/base/errors.ts';
import type { BlockDevice, DeviceExtent } from '../../journal/block-device.ts';

/** A disk in memory that keeps a bit of truth beside its bytes: which 512-byte sectors were ever written. */
export class MemoryDevice implements BlockDevice {
  readonly size: number;
  readonly readOnly: boolean;
  readonly bytes: Buffer;
  /** Per sector: 0 hole, 1 zero (allocated), 2 data. */
  readonly #state: Uint8Array;
  /** Calls of `flush` so far. */
  flushes = 0;
  #closed = false;

  constructor(size: number, options: { readOnly?: boolean; content?: Uint8Array } = {}) {
    assert(size % 512 === 0, 'a device has whole sectors');
    this.size = size;
    this.readOnly = options.readOnly ?? false;
    this.bytes = Buffer.alloc(size);
    this.#state = new Uint8Array(size / 512);
    if (options.content !== undefined) {
      this.bytes.set(options.content);
      this.#state.fill(2, 0, Math.ceil(options.content.length / 512));
    }
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    this.#check(offset, into.length);
    into.set(this.bytes.subarray(offset, offset + into.length));
  }

  async write(offset: number, from: Uint8Array): Promise<void> {
    this.#check(offset, from.length);
    if (this.readOnly) throw new TidemarkError('read-only', 'the memory device is read-only');
    this.bytes.set(from, offset);
    this.#state.fill(2, offset / 512, (offset + from.length) / 512);
  }

  async zero(offset: number, length: number, mayUnmap: boolean): Promise<void> {
    this.#check(offset, length);
    if (this.readOnly) throw new TidemarkError('read-only', 'the memory device is read-only');
    this.bytes.fill(0, offset, offset + length);
    this.#state.fill(mayUnmap ? 0 : 1, offset / 512, (offset + length) / 512);
  }

  async flush(): Promise<void> {
    assert(!this.#closed, 'the device is open');
    this.flushes += 1;
  }

  async extents(offset: number, length: number): Promise<DeviceExtent[]> {
    this.#check(offset, length);
    const kinds = ['hole', 'zero', 'data'] as const;
    const extents: { length: number; kind: DeviceExtent['kind'] }[] = [];
    for (let sector = offset / 512; sector < (offset + length) / 512; sector++) {
      const kind = kinds[this.#state[sector] ?? 0] ?? 'data';
      const last = extents.at(-1);
      if (last?.kind === kind) last.length += 512;
      else extents.push({ length: 512, kind });
    }
    return extents;
  }

  async close(): Promise<void> {
    this.#closed = true;
  }

  #check(offset: number, length: number): void {
    assert(!this.#closed, 'the device is open');
    assert(offset % 512 === 0 && length % 512 === 0, 'offset and length are whole sectors');
    assert(offset >= 0 && offset + length <= this.size, 'the range is inside the device');
  }
}
