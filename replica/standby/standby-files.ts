import { TidemarkError } from '../../journal/base/errors.ts';
import type { DiskFile, Host } from '../../journal/host/host.ts';
import { SECTOR_BYTES } from '../../journal/position.ts';
import { writeFully } from '../store/file-io.ts';
import type { OrderedEffect } from './ordered-effects.ts';
import type { StandbyVolume } from './standby-stamp.ts';

const ZEROES = new Uint8Array(1024 * 1024);

/**
 * The raw files of a standby image: each write is waited for before the next one begins, so that a process that dies
 * leaves the disks as they were at one position. A failed sync ends this object; what follows writes everything again that
 * was not synced, through new descriptors.
 */
export class StandbyFiles {
  readonly #host: Host;
  readonly #directory: string;
  readonly #open = new Map<number, { readonly file: DiskFile; readonly size: number }>();
  readonly #dirty = new Set<DiskFile>();

  constructor(host: Host, directory: string) {
    this.#host = host;
    this.#directory = directory;
  }

  /** Written to since the last sync. */
  get isDirty(): boolean {
    return this.#dirty.size > 0;
  }

  /**
   * Opens the file of a volume. `isBegun`: it was durable, and something may stand in it. Otherwise it is made, sparse and
   * as large as the volume: what is there was made by a run that was killed, or could not sync it, before any stamp
   * relied on it.
   */
  async open(volume: StandbyVolume, isBegun: boolean): Promise<DiskFile> {
    const { id, file: name, sizeBytes: size } = volume;
    const known = this.#open.get(id);
    if (known !== undefined) return known.file;
    const path = `${this.#directory}/${name}`;
    const isThere = this.#host.disk.exists(path);
    if (isBegun && !isThere) throw new TidemarkError('not-found', `${path} was taken away`);
    const file = this.#host.disk.open(path, isThere ? 'write' : 'create');
    this.#open.set(id, { file, size });
    const before = isBegun ? file.size() : 0;
    if (before === size) return file;
    // a length whose sync failed is in the page cache only: it is set anew, so that it is written
    file.truncate(before);
    file.truncate(size);
    try {
      await file.dataSync();
      await this.#host.disk.syncDirectory(this.#directory);
    } catch (error) {
      this.#open.delete(id);
      file.truncate(before);
      await file.close();
      throw error;
    }
    return file;
  }

  async apply({ volume, sector, sectors, bytes }: OrderedEffect): Promise<void> {
    const known = this.#open.get(volume);
    if (known === undefined)
      throw new TidemarkError('journal-damaged', `a record of volume ${volume}, which is not known`);
    const { file, size } = known;
    const offset = sector * SECTOR_BYTES;
    const length = Math.min(sectors * SECTOR_BYTES, size - offset);
    this.#dirty.add(file);
    if (bytes === undefined) await this.zero(file, offset, length);
    else await writeFully(file, bytes.subarray(0, length), offset);
  }

  async write(file: DiskFile, offset: number, bytes: Uint8Array): Promise<void> {
    this.#dirty.add(file);
    await writeFully(file, bytes, offset);
  }

  async zero(file: DiskFile, offset: number, length: number): Promise<void> {
    this.#dirty.add(file);
    if (file.punchHole(offset, length)) return;
    for (let at = 0; at < length; at += ZEROES.length) {
      await writeFully(file, ZEROES.subarray(0, Math.min(ZEROES.length, length - at)), offset + at);
    }
  }

  /** What was written before the call is on the medium. */
  async sync(): Promise<void> {
    for (const file of this.#dirty) await file.dataSync();
    this.#dirty.clear();
  }

  async close(): Promise<void> {
    await Promise.all([...this.#open.values()].map(({ file }) => file.close()));
    this.#open.clear();
    this.#dirty.clear();
  }
}
