import { crc32 } from '@node-rs/crc32';
import { TidemarkError } from '../../journal/base/errors.ts';
import type { Chain } from '../../journal/chain.ts';
import type { DiskFile, Host } from '../../journal/host/host.ts';
import { type JournalAddress, type Lsn, readU64, SECTOR_BYTES, writeU64 } from '../../journal/position.ts';
import type { StatePlace } from './state-file.ts';

/*
 * The change map: which parts of each volume changed in a stretch of history that was given up (DESIGN rule 13). One
 * file, made at full size when the group opens, so that it can be written when nothing else can. Two slots, written in
 * turn: a torn write leaves the other one.
 *
 *   slot  0 u32 magic 'TMC4'
 *         4 u32 crc32 of the rest of the slot
 *         8 u64 turn               the higher one counts
 *        16 u64 first LSN given up; 0: nothing is
 *        24 u64 last LSN given up
 *        32 u64 address           everything below is in the map
 *        40 u64 last LSN announced by a GAP record
 *        48 u32 volumes, u32 0
 *        56 16B group id
 *        72 u64 last LSN below the address, u32 chain after it low, u32 high; all 0: the chain is not known
 *        88 per volume: u64 id, u64 size in bytes; then per volume, in the same order, its bits:
 *           bit n of byte n/8: the granule of 64 KiB at n * 64 KiB changed
 *
 * With the magic 'TMC2' there is no chain and the volumes stand at 72, with 'TMC1' no group id either and they stand at
 * 56: both are read, and made anew when the group opens.
 */
/** Two bits away from every older one, or a flipped bit would turn a slot into one of another layout. */
const MAGIC = 0x34434d54;
const HEADER_BYTES = 88;
const CHAIN_AT = 72;
/** Where the volumes stand, by magic. */
const VOLUMES_AT: ReadonlyMap<number, number> = new Map([
  [MAGIC, HEADER_BYTES],
  [0x32434d54, CHAIN_AT],
  [0x31434d54, 56],
]);
const VOLUME_BYTES = 16;
export const GRANULE_BYTES: number = 64 * 1024;
const GRANULE_SECTORS = GRANULE_BYTES / SECTOR_BYTES;
const NAME = 'change-map.state';
const SLOT_ALIGN = 4096;

/** A stretch of history that the journal no longer holds though nobody has it. */
export interface GivenUp {
  readonly fromLsn: Lsn;
  readonly toLsn: Lsn;
  readonly address: JournalAddress;
  readonly announcedLsn: Lsn;
  /** At the address, which is all a replica that stands there needs; left out when it could not be told. */
  readonly end?: ChainAtEnd;
}

/** The chain after the last record below a place in the journal. */
export interface ChainAtEnd {
  readonly lsn: Lsn;
  readonly chain: Chain;
}

export interface MappedVolume {
  readonly id: number;
  /** Bytes. */
  readonly size: number;
}

export class ChangeMap {
  readonly #file: DiskFile;
  readonly #groupId: string;
  readonly #volumes: readonly MappedVolume[];
  readonly #bits: Map<number, Uint8Array> = new Map();
  readonly #slotBytes: number;
  #turn = 0;
  #givenUp: GivenUp | undefined;

  /**
   * Opens the map, or makes it with room for these volumes. Throws `journal-damaged` when neither slot can be read, and
   * `journal-foreign` for another group's.
   */
  static async open(host: Host, place: StatePlace, volumes: readonly MappedVolume[]): Promise<ChangeMap> {
    const { directory, groupId } = place;
    const path = `${directory}/${NAME}`;
    const old = host.disk.exists(path) ? readSlots(host.disk.open(path, 'write'), path) : undefined;
    if (old?.groupId !== undefined && old.groupId !== groupId) {
      await old.file.close();
      throw new TidemarkError('journal-foreign', `${path} belongs to group ${old.groupId}, not ${groupId}`);
    }
    if (old?.isCurrent === true && sameVolumes(old.volumes, volumes)) {
      const map = new ChangeMap(old.file, groupId, volumes, old.slotBytes);
      map.#restore(old);
      // what a sync that failed has left in the page cache is believed from here on
      await map.#write(old.turn, old.givenUp);
      return map;
    }
    await old?.file.close();
    const temporary = `${path}.new`;
    host.disk.unlink(temporary);
    const map = new ChangeMap(host.disk.open(temporary, 'create'), groupId, volumes, slotBytesFor(volumes));
    if (old !== undefined) map.#restore(old);
    await map.save(map.#givenUp);
    await map.save(map.#givenUp);
    host.disk.rename(temporary, path);
    await host.disk.syncDirectory(directory);
    return map;
  }

  private constructor(file: DiskFile, groupId: string, volumes: readonly MappedVolume[], slotBytes: number) {
    this.#file = file;
    this.#groupId = groupId;
    this.#volumes = volumes;
    this.#slotBytes = slotBytes;
    for (const volume of volumes) this.#bits.set(volume.id, new Uint8Array(bitBytes(volume.size)));
  }

  /** undefined: all history is whole. */
  get givenUp(): GivenUp | undefined {
    return this.#givenUp;
  }

  /** In memory; durable with the next `save`. */
  mark(volume: number, sector: number, sectors: number): void {
    const bits = this.#bits.get(volume);
    if (bits === undefined) return;
    const last = Math.floor((sector + sectors - 1) / GRANULE_SECTORS);
    for (let granule = Math.floor(sector / GRANULE_SECTORS); granule <= last; granule++) {
      bits[granule >>> 3] = bits[granule >>> 3]! | (1 << (granule & 7));
    }
  }

  isMarked(volume: number, sector: number): boolean {
    const granule = Math.floor(sector / GRANULE_SECTORS);
    return ((this.#bits.get(volume)?.[granule >>> 3] ?? 0) & (1 << (granule & 7))) !== 0;
  }

  /** Granules marked, of all volumes. */
  get markedGranules(): number {
    let count = 0;
    for (const bits of this.#bits.values()) {
      for (const byte of bits) for (let rest = byte; rest !== 0; rest &= rest - 1) count++;
    }
    return count;
  }

  /** Durable when the promise resolves; until then the map on disk is the one before. */
  async save(givenUp: GivenUp | undefined): Promise<void> {
    const turn = this.#turn + 1;
    await this.#write(turn, givenUp);
    this.#turn = turn;
    this.#givenUp = givenUp;
  }

  async close(): Promise<void> {
    await this.#file.close();
  }

  async #write(turn: number, givenUp: GivenUp | undefined): Promise<void> {
    const slot = Buffer.alloc(this.#slotBytes);
    const view = new DataView(slot.buffer, slot.byteOffset, slot.byteLength);
    view.setUint32(0, MAGIC, true);
    writeU64(view, 8, turn);
    writeU64(view, 16, givenUp?.fromLsn ?? 0);
    writeU64(view, 24, givenUp?.toLsn ?? 0);
    writeU64(view, 32, givenUp?.address ?? 0);
    writeU64(view, 40, givenUp?.announcedLsn ?? 0);
    view.setUint32(48, this.#volumes.length, true);
    slot.write(this.#groupId, 56, 'hex');
    writeU64(view, CHAIN_AT, givenUp?.end?.lsn ?? 0);
    view.setUint32(CHAIN_AT + 8, givenUp?.end?.chain.low ?? 0, true);
    view.setUint32(CHAIN_AT + 12, givenUp?.end?.chain.high ?? 0, true);
    let bitsAt = HEADER_BYTES + this.#volumes.length * VOLUME_BYTES;
    for (const [index, volume] of this.#volumes.entries()) {
      writeU64(view, HEADER_BYTES + index * VOLUME_BYTES, volume.id);
      writeU64(view, HEADER_BYTES + index * VOLUME_BYTES + 8, volume.size);
      const bits = this.#bits.get(volume.id) ?? new Uint8Array(0);
      slot.set(bits, bitsAt);
      bitsAt += bits.length;
    }
    view.setUint32(4, crc32(slot.subarray(8)), true);
    const written = await this.#file.write(slot, 0, slot.length, (turn % 2) * this.#slotBytes);
    if (written !== slot.length) throw new TidemarkError('no-space', `${this.#file.path}: the change map has no room`);
    await this.#file.dataSync();
  }

  #restore(old: StoredMap): void {
    this.#turn = old.turn;
    this.#givenUp = old.givenUp;
    for (const [id, bits] of old.bits) {
      const into = this.#bits.get(id);
      into?.set(bits.subarray(0, into.length));
    }
  }
}

interface StoredMap {
  readonly isCurrent: boolean;
  readonly file: DiskFile;
  /** Undefined in a file of version 1. */
  readonly groupId: string | undefined;
  readonly slotBytes: number;
  readonly turn: number;
  readonly givenUp: GivenUp | undefined;
  readonly volumes: readonly MappedVolume[];
  readonly bits: ReadonlyMap<number, Uint8Array>;
}

function readSlots(file: DiskFile, path: string): StoredMap {
  const slotBytes = Math.floor(file.size() / 2);
  let newest: StoredMap | undefined;
  for (const position of [0, slotBytes]) {
    const slot = Buffer.alloc(slotBytes);
    if (file.readSync(slot, 0, slotBytes, position) !== slotBytes) continue;
    const stored = parseSlot(slot, file);
    if (stored !== undefined && stored.turn > (newest?.turn ?? 0)) newest = stored;
  }
  if (newest !== undefined) return newest;
  void file.close();
  throw new TidemarkError('journal-damaged', `${path}: no readable change map`, { details: { path } });
}

function parseSlot(slot: Buffer, file: DiskFile): StoredMap | undefined {
  if (slot.length < HEADER_BYTES) return undefined;
  const view = new DataView(slot.buffer, slot.byteOffset, slot.byteLength);
  const magic = view.getUint32(0, true);
  const headerBytes = VOLUMES_AT.get(magic);
  if (headerBytes === undefined || view.getUint32(4, true) !== crc32(slot.subarray(8))) return undefined;
  const fromLsn = readU64(view, 16, 'first LSN');
  const count = view.getUint32(48, true);
  if (headerBytes + count * VOLUME_BYTES > slot.length) return undefined;
  const volumes: MappedVolume[] = [];
  for (let index = 0; index < count; index++) {
    const at = headerBytes + index * VOLUME_BYTES;
    volumes.push({ id: readU64(view, at, 'volume id'), size: readU64(view, at + 8, 'volume size') });
  }
  if (slotBytesFor(volumes, headerBytes) !== slot.length) return undefined;
  const bits = new Map<number, Uint8Array>();
  let bitsAt = headerBytes + volumes.length * VOLUME_BYTES;
  for (const volume of volumes) {
    bits.set(volume.id, slot.subarray(bitsAt, bitsAt + bitBytes(volume.size)));
    bitsAt += bitBytes(volume.size);
  }
  const givenUp =
    fromLsn === 0
      ? undefined
      : {
          fromLsn,
          toLsn: readU64(view, 24, 'last LSN'),
          address: readU64(view, 32, 'address'),
          announcedLsn: readU64(view, 40, 'announced LSN'),
          ...(headerBytes === HEADER_BYTES && parseEnd(view)),
        };
  const groupId = headerBytes >= CHAIN_AT ? slot.toString('hex', 56, CHAIN_AT) : undefined;
  return {
    isCurrent: magic === MAGIC,
    file,
    groupId,
    slotBytes: slot.length,
    turn: readU64(view, 8, 'turn'),
    givenUp,
    volumes,
    bits,
  };
}

function parseEnd(view: DataView): { readonly end: ChainAtEnd } | undefined {
  const lsn = readU64(view, CHAIN_AT, 'LSN of the chain');
  if (lsn === 0) return undefined;
  return {
    end: { lsn, chain: { low: view.getUint32(CHAIN_AT + 8, true), high: view.getUint32(CHAIN_AT + 12, true) } },
  };
}

function bitBytes(size: number): number {
  return Math.ceil(size / GRANULE_BYTES / 8);
}

function slotBytesFor(volumes: readonly MappedVolume[], headerBytes: number = HEADER_BYTES): number {
  const bytes = volumes.reduce((sum, volume) => sum + VOLUME_BYTES + bitBytes(volume.size), headerBytes);
  return Math.ceil(bytes / SLOT_ALIGN) * SLOT_ALIGN;
}

function sameVolumes(one: readonly MappedVolume[], other: readonly MappedVolume[]): boolean {
  return (
    one.length === other.length &&
    one.every((volume, at) => volume.id === other[at]?.id && volume.size === other[at]?.size)
  );
}
