import { crc32c } from '@node-rs/crc32';
import { TidemarkError } from '../../journal/base/errors.ts';
import type { DiskFile, Host } from '../../journal/host/host.ts';
import type { Lsn } from '../../journal/position.ts';
import { CLASS_COUNT, ENTRY_BYTES, placeAt } from './entry-format.ts';
import {
  ENTRIES_PER_PAGE,
  encodeFooter,
  FENCE_BYTES,
  FENCES_PER_PAGE,
  PAGE_BYTES,
  PAGE_HEADER_BYTES,
  runName,
  sealPage,
} from './run-format.ts';

const BUFFER_PAGES = 64;

export interface RunIdentity {
  readonly groupId: string;
  readonly baseLsn: Lsn;
  readonly lastLsn: Lsn;
  readonly openFromLsn: Lsn;
}

/**
 * Writes one run, entry by entry in sorted order, with one buffer of 256 KiB and the top in memory. The run appears
 * under its name only when it is whole and synced. On a failure the caller calls `abandon`.
 */
export class RunWriter {
  readonly #host: Host;
  readonly #directory: string;
  readonly #identity: RunIdentity;
  readonly #temporary: string;
  readonly #file: DiskFile;
  readonly #buffer = Buffer.alloc(BUFFER_PAGES * PAGE_BYTES);
  #buffered = 0;
  #filePosition = 0;
  /** In memory of its own: who fills it does so in whole words. */
  readonly #page = Buffer.from(new ArrayBuffer(PAGE_BYTES));
  readonly #pageView = new DataView(this.#page.buffer, this.#page.byteOffset, PAGE_BYTES);
  #pageEntries = 0;
  readonly #fence = Buffer.alloc(PAGE_BYTES);
  #fences = 0;
  readonly #top: Buffer[] = [];
  #entries = 0;
  readonly #classCounts: number[] = Array.from({ length: CLASS_COUNT }, () => 0);

  constructor(host: Host, directory: string, identity: RunIdentity) {
    this.#host = host;
    this.#directory = directory;
    this.#identity = identity;
    this.#temporary = `${directory}/${runName(identity.baseLsn, identity.lastLsn)}.tmp`;
    host.disk.unlink(this.#temporary);
    this.#file = host.disk.open(this.#temporary, 'create');
  }

  /** Room for one entry of 40 bytes, to be filled at the returned offset of `page` before the next call. */
  get page(): Buffer {
    return this.#page;
  }

  /** True when the buffer must be written before the next `place`. */
  get full(): boolean {
    // A full entry page may bring its group's fence page with it.
    return this.#buffered + 2 > BUFFER_PAGES;
  }

  /** Where the next entry goes in `page`. */
  place(): number {
    if (this.#pageEntries === ENTRIES_PER_PAGE) this.#finishPage();
    const offset = PAGE_HEADER_BYTES + this.#pageEntries * ENTRY_BYTES;
    this.#pageEntries += 1;
    return offset;
  }

  /** Writes the buffered pages out. */
  async drain(): Promise<void> {
    if (this.#buffered === 0) return;
    await this.#writeOut(this.#buffer.subarray(0, this.#buffered * PAGE_BYTES));
    this.#buffered = 0;
  }

  /** Writes the rest, syncs, names the file. Returns its path. */
  async finish(): Promise<string> {
    if (this.full) await this.drain();
    if (this.#pageEntries > 0) this.#finishPage();
    if (this.#fences > 0) this.#finishGroup();
    await this.drain();
    const top = Buffer.concat(this.#top);
    const padded = Buffer.alloc(Math.ceil(top.length / PAGE_BYTES) * PAGE_BYTES);
    top.copy(padded);
    if (padded.length > 0) await this.#writeOut(padded);
    await this.#writeOut(
      encodeFooter({
        ...this.#identity,
        entries: this.#entries,
        groups: this.#top.length,
        topCrc: crc32c(top),
        classCounts: this.#classCounts,
      }),
    );
    await this.#file.dataSync();
    await this.#file.close();
    const path = `${this.#directory}/${runName(this.#identity.baseLsn, this.#identity.lastLsn)}`;
    this.#host.disk.rename(this.#temporary, path);
    await this.#host.disk.syncDirectory(this.#directory);
    return path;
  }

  async abandon(): Promise<void> {
    await this.#file.close();
    this.#host.disk.unlink(this.#temporary);
  }

  #finishPage(): void {
    this.#page.writeUInt32LE(this.#pageEntries, 4);
    this.#page.fill(0, PAGE_HEADER_BYTES + this.#pageEntries * ENTRY_BYTES);
    for (let i = 0; i < this.#pageEntries; i += 1) {
      const sizeClass = placeAt(this.#pageView, PAGE_HEADER_BYTES + i * ENTRY_BYTES) % CLASS_COUNT;
      this.#classCounts[sizeClass] = (this.#classCounts[sizeClass] ?? 0) + 1;
    }
    this.#entries += this.#pageEntries;
    const fence = PAGE_HEADER_BYTES + this.#fences * FENCE_BYTES;
    // volume, class; cell; LSN: the key's fields as they stand in the entry, without flags and length.
    this.#page.copy(this.#fence, fence, PAGE_HEADER_BYTES, PAGE_HEADER_BYTES + 3);
    this.#page.copy(this.#fence, fence + 8, PAGE_HEADER_BYTES + 8, PAGE_HEADER_BYTES + 24);
    this.#fences += 1;
    this.#emit(this.#page);
    this.#pageEntries = 0;
    if (this.#fences === FENCES_PER_PAGE) this.#finishGroup();
  }

  #finishGroup(): void {
    this.#fence.writeUInt32LE(this.#fences, 4);
    this.#top.push(Buffer.from(this.#fence.subarray(PAGE_HEADER_BYTES, PAGE_HEADER_BYTES + FENCE_BYTES)));
    this.#emit(this.#fence);
    this.#fence.fill(0);
    this.#fences = 0;
  }

  #emit(page: Buffer): void {
    sealPage(page);
    page.copy(this.#buffer, this.#buffered * PAGE_BYTES);
    this.#buffered += 1;
  }

  async #writeOut(bytes: Buffer): Promise<void> {
    const written = await this.#file.write(bytes, 0, bytes.length, this.#filePosition);
    if (written < bytes.length) throw new TidemarkError('no-space', `${this.#temporary}: the disk is full`);
    this.#filePosition += bytes.length;
  }
}
