import { assert } from '../../journal/base/assert.ts';
import { TidemarkError } from '../../journal/base/errors.ts';
import type { BlockDevice, DeviceExtent } from '../../journal/block-device.ts';
import {
  CommandFlag,
  type ExportClient,
  type NbdExport,
  type ReplyPort,
  type RequestWindow,
  WindowKind,
  WindowPart,
} from './export.ts';
import { REQUEST_BYTES } from './protocol.ts';

export interface DeviceExportOptions {
  readonly name: string;
  readonly description?: string;
  /** Refuses modifications even when the device would take them. */
  readonly readOnly?: boolean;
  /** Zeroing is always quicker than writing zeroes; false unless said. */
  readonly fastZero?: boolean;
  readonly preferredBlockBytes?: number;
  /** Bytes of one client's copied payloads under way, above which no more are taken from it; 16 MiB. */
  readonly inFlightBytesMax?: number;
}

/**
 * Puts any BlockDevice on the network: a view, a backing, a scratch disk. A write of more than a window reaches the device
 * in parts, and the first of them stay when its sender dies in the middle: what a plain disk does too.
 */
export class DeviceExport implements NbdExport {
  readonly name: string;
  readonly description: string;
  readonly size: number;
  readonly readOnly: boolean;
  readonly fastZero: boolean;
  /** Holds because every request of every client goes to the one device, and its flush covers what it answered. */
  readonly multiConn = true;
  readonly minimumBlockBytes = 512;
  readonly preferredBlockBytes: number;
  readonly #device: BlockDevice;
  readonly #inFlightBytesMax: number;

  constructor(device: BlockDevice, options: DeviceExportOptions) {
    this.name = options.name;
    this.description = options.description ?? '';
    this.size = device.size;
    this.readOnly = device.readOnly || options.readOnly === true;
    this.fastZero = options.fastZero ?? false;
    this.preferredBlockBytes = options.preferredBlockBytes ?? 4096;
    this.#device = device;
    this.#inFlightBytesMax = options.inFlightBytesMax ?? 16 * 1024 * 1024;
  }

  attach(replies: ReplyPort): ExportClient {
    return new DeviceClient(this.#device, replies, this.#inFlightBytesMax);
  }
}

/** A request that comes in parts: its answer waits for all of them. */
interface LongWrite {
  parts: Promise<void>[];
}

class DeviceClient implements ExportClient {
  readonly #device: BlockDevice;
  readonly #replies: ReplyPort;
  readonly #inFlightBytesMax: number;
  #inFlightBytes = 0;
  #paused = false;
  #long: LongWrite | undefined;

  constructor(device: BlockDevice, replies: ReplyPort, inFlightBytesMax: number) {
    this.#device = device;
    this.#replies = replies;
    this.#inFlightBytesMax = inFlightBytesMax;
  }

  /**
   * Overlapping requests in flight may take effect in any order, as the protocol allows. The payload is copied: the
   * device holds its buffer until the write settles, the slab is needed again at once.
   */
  submit(window: RequestWindow): void {
    for (let i = 0; i < window.count; i++) {
      const offset = window.offset[i] ?? 0;
      const length = window.length[i] ?? 0;
      const kind = window.kind[i];
      const part = window.part[i];
      let work: Promise<void>;
      if (kind === WindowKind.write) work = this.#write(window, i, offset, length);
      else if (kind === WindowKind.flush) work = this.#device.flush();
      else {
        const mayUnmap = kind === WindowKind.trim || ((window.flags[i] ?? 0) & CommandFlag.noHole) === 0;
        work = this.#device.zero(offset, length, mayUnmap);
      }
      if (part !== WindowPart.whole) {
        this.#long ??= { parts: [] };
        this.#long.parts.push(work);
        // An operating error is told when the last part answers; it may never come.
        work.catch(ignoreOperatingError);
        if (part === WindowPart.more) continue;
        work = allOf(this.#long.parts);
        this.#long = undefined;
      }
      const fua = ((window.flags[i] ?? 0) & CommandFlag.fua) !== 0 && kind !== WindowKind.flush;
      void this.#answer(work, fua, window.cookieHigh[i] ?? 0, window.cookieLow[i] ?? 0);
    }
  }

  /** What the device has at hand is answered with the rest of its window, in one write to the socket. */
  read(offset: number, into: Uint8Array): undefined | Promise<void> {
    if (this.#device.readNow?.(offset, into) === true) return undefined;
    return this.#device.read(offset, into);
  }

  async extents(offset: number, length: number): Promise<DeviceExtent[]> {
    return this.#device.extents(offset, length);
  }

  /** Nothing to be gained: the kernel's cache, or the upstream server's, does the reading ahead. */
  async cache(): Promise<void> {}

  detach(): void {
    this.#long = undefined;
  }

  #write(window: RequestWindow, i: number, offset: number, length: number): Promise<void> {
    const payloadAt = (window.headerAt[i] ?? 0) + REQUEST_BYTES;
    assert(length > 0, 'a write has a payload');
    const copy = Buffer.from(window.buffer.subarray(payloadAt, payloadAt + length));
    this.#enter(length);
    return this.#device.write(offset, copy).finally(() => this.#leave(length));
  }

  async #answer(work: Promise<void>, fua: boolean, high: number, low: number): Promise<void> {
    try {
      await work;
      if (fua) await this.#device.flush();
      this.#replies.ok(high, low);
    } catch (error) {
      if (!(error instanceof TidemarkError)) throw error;
      this.#replies.fail(high, low, error.code);
    }
    this.#replies.send();
  }

  #enter(bytes: number): void {
    this.#inFlightBytes += bytes;
    if (this.#paused || this.#inFlightBytes < this.#inFlightBytesMax) return;
    this.#paused = true;
    this.#replies.pause();
  }

  #leave(bytes: number): void {
    this.#inFlightBytes -= bytes;
    if (!this.#paused || this.#inFlightBytes > this.#inFlightBytesMax / 2) return;
    this.#paused = false;
    this.#replies.resume();
  }
}

async function allOf(parts: readonly Promise<void>[]): Promise<void> {
  await Promise.all(parts);
}

function ignoreOperatingError(error: unknown): void {
  if (!(error instanceof TidemarkError)) throw error;
}
