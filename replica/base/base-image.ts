import { crc32c } from '@node-rs/crc32';
import { assert } from '../../journal/base/assert.ts';
import { TidemarkError } from '../../journal/base/errors.ts';
import type { DiskFile, Host } from '../../journal/host/host.ts';
import { readWhole, replaceFile, writeFully } from '../store/file-io.ts';

/** Bytes of one bit of the map. */
const MAP_UNIT_BYTES: number = 64 * 1024;
const MAP_MAGIC = 0x324d4254;
const MAP_HEADER_BYTES = 32;
const MAP_1_MAGIC = 0x314d4254;
const MAP_1_HEADER_BYTES = 16;
const zeroes = new Uint8Array(MAP_UNIT_BYTES);

export interface BasePlace {
  readonly directory: string;
  /** 32 hex digits. */
  readonly groupId: string;
}

/**
 * One volume at the floor: a sparse raw file, and a map that says which 64 KiB of it may hold anything but zeroes (2 MiB
 * per terabyte), so that an empty stretch is known without asking the file system. Map file: 0 u32 magic 'TBM2'
 * | 4 u32 crc32c of the rest | 8 u32 unit bytes | 12 u32 0 | 16 group id | 32 bits, lowest first. With the magic 'TBM1'
 * there is no group id and the bits stand at 16: read, and replaced at the next floor move.
 *
 * The map is saved before the floor is stated; a crash between leaves bits from before, and the merge is done again.
 */
export class BaseImage {
  readonly #host: Host;
  readonly #directory: string;
  readonly #groupId: string;
  readonly #volume: number;
  #file: DiskFile | undefined;
  #map: Uint8Array;
  #mapChanged = false;
  /** The map as of the last good sync. */
  #syncedMap: Uint8Array;
  /** The names are durable: that a start found them says it of the page cache only. */
  #named = false;

  private constructor(host: Host, place: BasePlace, volume: number, file: DiskFile | undefined, map: Uint8Array) {
    this.#host = host;
    this.#directory = place.directory;
    this.#groupId = place.groupId;
    this.#volume = volume;
    this.#file = file;
    this.#map = map;
    this.#syncedMap = Uint8Array.from(map);
  }

  /** A volume without a file is all zeroes. Throws `journal-foreign` when the map is another group's. */
  static async open(host: Host, place: BasePlace, volume: number): Promise<BaseImage> {
    const { directory, groupId } = place;
    host.disk.makeDirectory(directory);
    const path = `${directory}/${volume}.img`;
    const stored = await readWhole(host.disk, `${directory}/${volume}.map`);
    const known = stored === undefined ? undefined : decodeMap(stored);
    if (known?.groupId !== undefined && known.groupId !== groupId) {
      throw new TidemarkError(
        'journal-foreign',
        `${directory}/${volume}.map belongs to group ${known.groupId}, not ${groupId}`,
      );
    }
    const file = host.disk.exists(path) ? host.disk.open(path, 'write') : undefined;
    // Without a whole map everything may be data: slower, never wrong.
    const all = new Uint8Array(Math.ceil((file?.size() ?? 0) / MAP_UNIT_BYTES / 8)).fill(0xff);
    return new BaseImage(host, place, volume, file, known?.map ?? all);
  }

  /** Volume ids that have a base in the directory. */
  static list(host: Host, directory: string): number[] {
    const names = host.disk.list(directory).map((name) => /^(\d+)\.img$/.exec(name)?.[1]);
    return names.filter((name) => name !== undefined).map(Number);
  }

  /** Bytes that may be occupied. */
  get dataBytes(): number {
    let units = 0;
    for (const byte of this.#map) for (let bits = byte; bits > 0; bits &= bits - 1) units += 1;
    return units * MAP_UNIT_BYTES;
  }

  /** False: the range is zeroes. */
  mayHoldData(offset: number, length: number): boolean {
    for (let unit = Math.floor(offset / MAP_UNIT_BYTES); unit * MAP_UNIT_BYTES < offset + length; unit += 1) {
      if (this.#bit(unit)) return true;
    }
    return false;
  }

  /** Bytes from `offset`, at most `length`, that are alike: all maybe data, or all zeroes. */
  stretch(offset: number, length: number): { data: boolean; bytes: number } {
    const data = this.#bit(Math.floor(offset / MAP_UNIT_BYTES));
    let at = (Math.floor(offset / MAP_UNIT_BYTES) + 1) * MAP_UNIT_BYTES;
    while (at < offset + length && this.#bit(at / MAP_UNIT_BYTES) === data) at += MAP_UNIT_BYTES;
    return { data, bytes: Math.min(at - offset, length) };
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    if (this.#file === undefined || !this.mayHoldData(offset, into.length)) {
      into.fill(0);
      return;
    }
    const read = await this.#file.read(into, 0, into.length, offset);
    into.fill(0, read);
  }

  /** As `read` when nothing has to be waited for; false: ask `read`. */
  readNow(offset: number, into: Uint8Array): boolean {
    if (this.#file !== undefined && this.mayHoldData(offset, into.length)) {
      return this.#file.readNow?.(into, offset) === true;
    }
    into.fill(0);
    return true;
  }

  async write(offset: number, from: Uint8Array): Promise<void> {
    await writeFully(this.#writable(), from, offset);
    const last = Math.floor((offset + from.length - 1) / MAP_UNIT_BYTES);
    for (let unit = Math.floor(offset / MAP_UNIT_BYTES); unit <= last; unit += 1) this.#setBit(unit, true);
  }

  /** Zeroes a range; whole units lose their bits, so that they need not even be punched. */
  async zero(offset: number, length: number): Promise<void> {
    const end = offset + length;
    for (let at = offset; at < end; ) {
      const { data, bytes } = this.stretch(at, end - at);
      if (data) await this.#zeroData(at, bytes);
      at += bytes;
    }
  }

  /** The image is durable, then the map and both their names. */
  async sync(): Promise<void> {
    if (this.#file !== undefined) await this.#syncFile(this.#file);
    if (!this.#mapChanged) {
      if (this.#file !== undefined && !this.#named) await this.#host.disk.syncDirectory(this.#directory);
      this.#named = true;
      return;
    }
    const bytes = Buffer.alloc(MAP_HEADER_BYTES + this.#map.length);
    bytes.writeUInt32LE(MAP_MAGIC, 0);
    bytes.writeUInt32LE(MAP_UNIT_BYTES, 8);
    bytes.write(this.#groupId, 16, 'hex');
    bytes.set(this.#map, MAP_HEADER_BYTES);
    bytes.writeUInt32LE(crc32c(bytes.subarray(8)), 4);
    await replaceFile(this.#host.disk, this.#directory, `${this.#volume}.map`, bytes);
    this.#mapChanged = false;
    this.#named = true;
  }

  async close(): Promise<void> {
    await this.#file?.close();
    this.#file = undefined;
  }

  /** After a failed sync the medium may still hold what was made zeroes: whoever does it again must not pass it over. */
  async #syncFile(file: DiskFile): Promise<void> {
    try {
      await file.dataSync();
    } catch (error) {
      for (const [at, bits] of this.#syncedMap.entries()) this.#map[at] = (this.#map[at] ?? 0) | bits;
      throw error;
    }
    if (this.#mapChanged) this.#syncedMap = Uint8Array.from(this.#map);
  }

  async #zeroData(offset: number, length: number): Promise<void> {
    const file = this.#writable();
    const end = Math.min(offset + length, file.size());
    const whole = Math.ceil(offset / MAP_UNIT_BYTES) * MAP_UNIT_BYTES;
    const wholeEnd = Math.floor((offset + length) / MAP_UNIT_BYTES) * MAP_UNIT_BYTES;
    const punched = wholeEnd > whole && file.punchHole(whole, wholeEnd - whole);
    for (let at = offset; at < end; ) {
      if (punched && at === whole) {
        at = wholeEnd;
        continue;
      }
      const bytes = Math.min(MAP_UNIT_BYTES - (at % MAP_UNIT_BYTES), end - at);
      await writeFully(file, zeroes.subarray(0, bytes), at);
      at += bytes;
    }
    for (let unit = whole / MAP_UNIT_BYTES; unit < wholeEnd / MAP_UNIT_BYTES; unit += 1) this.#setBit(unit, false);
  }

  #writable(): DiskFile {
    this.#file ??= this.#host.disk.open(`${this.#directory}/${this.#volume}.img`, 'create');
    return this.#file;
  }

  #bit(unit: number): boolean {
    return ((this.#map[unit >>> 3] ?? 0) & (1 << (unit & 7))) !== 0;
  }

  #setBit(unit: number, value: boolean): void {
    const at = unit >>> 3;
    if (at >= this.#map.length) {
      if (!value) return;
      const bigger = new Uint8Array(Math.max(at + 1, this.#map.length * 2));
      bigger.set(this.#map);
      this.#map = bigger;
    }
    const before = this.#map[at];
    assert(before !== undefined, 'the map covers the unit');
    const after = value ? before | (1 << (unit & 7)) : before & ~(1 << (unit & 7));
    if (after === before) return;
    this.#map[at] = after;
    this.#mapChanged = true;
  }
}

interface StoredMap {
  /** Undefined in a file of version 1. */
  readonly groupId: string | undefined;
  readonly map: Uint8Array;
}

/** Undefined: damaged. */
function decodeMap(bytes: Buffer): StoredMap | undefined {
  if (bytes.length < MAP_1_HEADER_BYTES) return undefined;
  if (crc32c(bytes.subarray(8)) !== bytes.readUInt32LE(4) || bytes.readUInt32LE(8) !== MAP_UNIT_BYTES) return undefined;
  const magic = bytes.readUInt32LE(0);
  if (magic === MAP_1_MAGIC) return { groupId: undefined, map: Uint8Array.from(bytes.subarray(MAP_1_HEADER_BYTES)) };
  if (magic !== MAP_MAGIC || bytes.length < MAP_HEADER_BYTES) return undefined;
  const groupId = bytes.toString('hex', 16, MAP_HEADER_BYTES);
  return { groupId, map: Uint8Array.from(bytes.subarray(MAP_HEADER_BYTES)) };
}
