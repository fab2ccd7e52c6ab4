import { assert } from '../../journal/base/assert.ts';
import { TidemarkError } from '../../journal/base/errors.ts';
import type { BlockDevice, DeviceExtent } from '../../journal/block-device.ts';
import { type Lsn, SECTOR_BYTES } from '../../journal/position.ts';
import type { VolumeAt } from '../catalog/volume-at.ts';
import type { HistoryReader } from './history-reader.ts';

/** One volume at exactly one LSN: the same bytes every time it is read, whatever arrives or is merged meanwhile (V1). */
export class PointInTimeView implements BlockDevice {
  readonly size: number;
  readonly readOnly = true;
  readonly lsn: Lsn;
  readonly volume: VolumeAt;
  readonly #history: HistoryReader;
  readonly #released: () => void;
  #underWay = 0;
  #idle: (() => void) | undefined;
  #closing: Promise<void> | undefined;

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
    await this.#run(() => this.#history.read(this.volume.id, this.lsn, offset, into));
  }

  readNow(offset: number, into: Uint8Array): boolean {
    this.#check(offset, into.length);
    return this.#history.readNow(this.volume.id, this.lsn, offset, into);
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
    if (length === 0) return [];
    return this.#run(() => this.#history.extents(this.volume.id, this.lsn, offset, length));
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  /** What is read must stay, and its files open, until the last read has ended. */
  async #close(): Promise<void> {
    if (this.#underWay > 0) {
      await new Promise<void>((resolve) => {
        this.#idle = resolve;
      });
    }
    this.#released();
  }

  async #run<T>(work: () => Promise<T>): Promise<T> {
    this.#underWay++;
    try {
      return await work();
    } finally {
      this.#underWay--;
      if (this.#underWay === 0) this.#idle?.();
    }
  }

  #check(offset: number, length: number): void {
    assert(offset >= 0 && offset + length <= this.size, 'a read inside the view');
    assert(offset % SECTOR_BYTES === 0 && length % SECTOR_BYTES === 0, 'a read of whole sectors');
    if (this.#closing !== undefined)
      throw new TidemarkError('shutting-down', `the view of ${this.volume.name} is closed`);
  }
}
