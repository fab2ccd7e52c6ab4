import type { BlockDevice, DeviceExtent } from '../../journal/block-device.ts';

/** One thing that was sent to the disk, and how far the witnesses were when it arrived. */
export interface DiskEvent {
  readonly kind: 'write' | 'zero' | 'flush';
  readonly offset: number;
  readonly length: number;
  /** Of a write. */
  readonly bytes: Uint8Array | undefined;
  /** Length in bytes of each witness. */
  readonly told: readonly number[];
}

/** A disk in memory that remembers everything it was sent, in order. */
export class RecordingDisk implements BlockDevice {
  readonly size: number;
  readonly readOnly = false;
  readonly content: Buffer;
  events: DiskEvent[] = [];
  #recording = false;
  #told: () => number[] = () => [];

  constructor(size: number) {
    this.size = size;
    this.content = Buffer.alloc(size);
  }

  /** From now on; `told` is asked at every event. */
  record(told: () => number[]): void {
    this.events = [];
    this.#told = told;
    this.#recording = true;
  }

  /** What came since `record`; nothing is remembered any more. */
  stop(): DiskEvent[] {
    this.#recording = false;
    return this.events;
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    into.set(this.content.subarray(offset, offset + into.length));
    await Promise.resolve();
  }

  write(offset: number, from: Uint8Array): Promise<void> {
    this.#note('write', offset, from.length, from);
    this.content.set(from, offset);
    return Promise.resolve();
  }

  zero(offset: number, length: number): Promise<void> {
    this.#note('zero', offset, length);
    this.content.fill(0, offset, offset + length);
    return Promise.resolve();
  }

  flush(): Promise<void> {
    this.#note('flush', 0, 0);
    return Promise.resolve();
  }

  async extents(_offset: number, length: number): Promise<DeviceExtent[]> {
    await Promise.resolve();
    return [{ length, kind: 'data' }];
  }

  async close(): Promise<void> {
    await Promise.resolve();
  }

  #note(kind: DiskEvent['kind'], offset: number, length: number, bytes?: Uint8Array): void {
    if (!this.#recording) return;
    this.events.push({
      kind,
      offset,
      length,
      bytes: bytes === undefined ? undefined : new Uint8Array(bytes),
      told: this.#told(),
    });
  }
}
