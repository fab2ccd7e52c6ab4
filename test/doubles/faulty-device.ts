import { type ErrorCode, TidemarkError } from '../../journal/base/errors.ts';
import type { BlockDevice, DeviceExtent } from '../../journal/block-device.ts';

type Operation = 'read' | 'write' | 'zero' | 'flush';

/**
 * A disk with a volatile cache that fails on demand. Writes live in the cache until a flush; `lose` throws the cache
 * away, as a server that is killed does. What stands in `stable` is what survives.
 */
export class FaultyDevice implements BlockDevice {
  readonly readOnly = false;
  readonly size: number;
  readonly stable: Buffer;
  readonly #cache: Buffer;
  readonly #faults: Map<Operation, { code: ErrorCode; left: number; loses?: true }> = new Map();
  readonly #overlapping: { from: number; to: number }[] = [];
  #gate: Promise<void> | undefined;
  #open: (() => void) | undefined;
  /** Writes and zeroes that were in flight over the same bytes at once: must stay 0. */
  overlaps = 0;
  flushes = 0;
  /** Called before a write reaches the cache. */
  onWrite: ((offset: number, bytes: Uint8Array) => void) | undefined;

  constructor(size: number) {
    this.size = size;
    this.stable = Buffer.alloc(size);
    this.#cache = Buffer.alloc(size);
  }

  /** The next `times` operations of this kind are refused. */
  fail(operation: Operation, code: ErrorCode, times = 1): void {
    this.#faults.set(operation, { code, left: times });
  }

  /** Every flush until `comeBack` finds that the device is gone, and with it everything not flushed. */
  vanish(): void {
    this.#faults.set('flush', { code: 'device-gone', left: Number.POSITIVE_INFINITY, loses: true });
  }

  comeBack(): void {
    this.#faults.delete('flush');
  }

  heal(): void {
    this.#faults.clear();
  }

  /** Everything not flushed is gone. */
  lose(): void {
    this.stable.copy(this.#cache);
  }

  /** Writes wait until `release`. */
  hold(): void {
    this.#gate ??= new Promise((resolve) => {
      this.#open = resolve;
    });
  }

  release(): void {
    this.#open?.();
    this.#gate = undefined;
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    await this.#turn('read');
    into.set(this.#cache.subarray(offset, offset + into.length));
  }

  async write(offset: number, from: Uint8Array): Promise<void> {
    await this.#alone(offset, from.length, async () => {
      await this.#turn('write');
      this.onWrite?.(offset, from);
      this.#cache.set(from, offset);
    });
  }

  async zero(offset: number, length: number, _mayUnmap: boolean): Promise<void> {
    await this.#alone(offset, length, async () => {
      await this.#turn('zero');
      this.#cache.fill(0, offset, offset + length);
    });
  }

  async flush(): Promise<void> {
    await this.#turn('flush');
    this.#cache.copy(this.stable);
    this.flushes++;
  }

  extents(_offset: number, length: number): Promise<DeviceExtent[]> {
    return Promise.resolve([{ length, kind: 'data' }]);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  async #turn(operation: Operation): Promise<void> {
    if (operation === 'write' || operation === 'zero') await this.#gate;
    await Promise.resolve();
    const fault = this.#faults.get(operation);
    if (fault === undefined || fault.left === 0) return;
    fault.left--;
    if (fault.loses === true) this.lose();
    throw new TidemarkError(fault.code, `the faulty device refuses to ${operation}`);
  }

  async #alone(offset: number, length: number, run: () => Promise<void>): Promise<void> {
    const range = { from: offset, to: offset + length };
    if (this.#overlapping.some((other) => other.from < range.to && range.from < other.to)) this.overlaps++;
    this.#overlapping.push(range);
    try {
      await run();
    } finally {
      this.#overlapping.splice(this.#overlapping.indexOf(range), 1);
    }
  }
}
