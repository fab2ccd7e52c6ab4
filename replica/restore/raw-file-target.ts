import { dirname } from 'node:path';
import { assert } from '../../journal/base/assert.ts';
import { TidemarkError } from '../../journal/base/errors.ts';
import type { BlockDevice, DeviceExtent } from '../../journal/block-device.ts';
import type { DiskFile, Host } from '../../journal/host/host.ts';
import { readFully, writeFully } from '../store/file-io.ts';
import type { OpenTarget } from './restore-target-port.ts';

const ZERO_BYTES = 1024 * 1024;

/**
 * A raw image file as a restore's target. It is written under `<path>.unfinished` and bears its name only when it is
 * whole, so an existing file stays as it is until then. Throws `target-exists` without `overwrite`.
 */
export function openRawTarget(host: Host, path: string, sizeBytes: number, overwrite: boolean): OpenTarget {
  if (host.disk.exists(path) && !overwrite) {
    throw new TidemarkError('target-exists', `${path} exists: --overwrite says that it may be replaced`);
  }
  const unfinished = `${path}.unfinished`;
  host.disk.unlink(unfinished);
  const file = host.disk.open(unfinished, 'create');
  file.truncate(sizeBytes);
  const device = new FileDevice(file, sizeBytes);
  return {
    device,
    zeroed: true,
    finish: async () => {
      await device.flush();
      await file.close();
      host.disk.rename(unfinished, path);
      await host.disk.syncDirectory(dirname(path));
    },
    abandon: () => file.close(),
  };
}

class FileDevice implements BlockDevice {
  readonly size: number;
  readonly readOnly = false;
  readonly #file: DiskFile;

  constructor(file: DiskFile, size: number) {
    this.#file = file;
    this.size = size;
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    this.#check(offset, into.length);
    await readFully(this.#file, into, offset);
  }

  async write(offset: number, from: Uint8Array): Promise<void> {
    this.#check(offset, from.length);
    await writeFully(this.#file, from, offset);
  }

  async zero(offset: number, length: number, mayUnmap: boolean): Promise<void> {
    this.#check(offset, length);
    if (mayUnmap && this.#file.punchHole(offset, length)) return;
    const zeroes = new Uint8Array(Math.min(length, ZERO_BYTES));
    for (let done = 0; done < length; done += zeroes.length) {
      await writeFully(this.#file, zeroes.subarray(0, Math.min(zeroes.length, length - done)), offset + done);
    }
  }

  flush(): Promise<void> {
    return this.#file.dataSync();
  }

  extents(offset: number, length: number): Promise<DeviceExtent[]> {
    return Promise.resolve(this.#file.extents?.(offset, length) ?? [{ length, kind: 'data' }]);
  }

  close(): Promise<void> {
    return this.#file.close();
  }

  #check(offset: number, length: number): void {
    assert(offset >= 0 && offset + length <= this.size, 'an access inside the target');
  }
}
