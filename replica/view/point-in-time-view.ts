import { assert } from '../../journal/base/assert.ts';
import { TidemarkError } from '../../journal/base/errors.ts';
import type { BlockDevice, DeviceExtent } from '../../journal/block-device.ts';
import { type Lsn, SECTOR_BYTES } from '../../journal/position.ts';
import type { VolumeAt } from '../catalog/catalog.ts';
import type { HistoryReader } from './history-reader.ts';

/** One volume at exactly one LSN: the same bytes every time it is read, whatever arrives or is merged meanwhile (V1). */
export class PointInTimeView implements BlockDevice {
  readonly size: number;
  readonly readOnly = true;
  readonly lsn: Lsn;
  readonly volume: VolumeAt;
  readonly #history: HistoryReader;
  readonly #released: () => void;
  #closed = false;

  /** `released` is called once, when the view is closed: the lease that holds the floor back. */
  constructor(history: HistoryReader, volume: VolumeAt, lsn: Lsn, released: () => void) {
    this.size = volume.size;
    this.volume = volume;
    this.lsn = lsn;
    this.#history = history;
    this.#released = released;
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    this.#check(offset, into.length);
    await this.#history.read(this.volume.id, this.lsn, offset, into);
  }

  write(): Promise<void> {
    return Promise.reject(new TidemarkError('read-only', `a view of ${this.volume.name} cannot be written`));
  }

  zero(): Promise<void> {
    return this.write();
  }

  async flush(): Promise<void> {
    await Promise.resolve();
  }

  async extents(offset: number, length: number): Promise<DeviceExtent[]> {
    this.#check(offset, length);
    return length === 0 ? [] : this.#history.extents(this.volume.id, this.lsn, offset, length);
  }

  async close(): Promise<void> {
    if (!this.#closed) this.#released();
    this.#closed = true;
    await Promise.resolve();
  }

  #check(offset: number, length: number): void {
    assert(offset >= 0 && offset + length <= this.size, 'a read inside the view');
    assert(offset % SECTOR_BYTES === 0 && length % SECTOR_BYTES === 0, 'a read of whole sectors');
    if (this.#closed) throw new TidemarkError('shutting-down', `the view of ${this.volume.name} is closed`);
  }
}
