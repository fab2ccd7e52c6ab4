import { SECTOR_BYTES } from '../../journal/position.ts';

/**
 * What stands in a sector, as one number: 0 for zeroes, else the id of the request that wrote it. The 512 bytes follow
 * from id, volume and sector, so that a torn sector, or one from another place, is nobody's.
 */
export type SectorId = number;

/** Not written by anybody: torn, misplaced or made up. */
export const FOREIGN_SECTOR: SectorId = 0xffff_ffff;

const WORDS = SECTOR_BYTES / 4;

/** Fills `length` bytes (whole sectors) at `at` with what request `id` writes to `sector` and the following. */
export function fillSectors(
  view: DataView,
  at: number,
  length: number,
  id: SectorId,
  volume: number,
  sector: number,
): void {
  for (let done = 0; done < length; done += SECTOR_BYTES) {
    const seed = patternSeed(id, volume, sector + done / SECTOR_BYTES);
    for (let word = 0; word < WORDS; word++) {
      view.setUint32(at + done + word * 4, id === 0 ? 0 : patternWord(id, seed, word), true);
    }
  }
}

/** Whose bytes these 512 are. */
function identifySector(view: DataView, at: number, volume: number, sector: number): SectorId {
  const id = view.getUint32(at, true);
  const seed = patternSeed(id, volume, sector);
  for (let word = 0; word < WORDS; word++) {
    const expected = id === 0 ? 0 : patternWord(id, seed, word);
    if (view.getUint32(at + word * 4, true) !== expected) return FOREIGN_SECTOR;
  }
  return id;
}

/** Whose bytes stand in each sector of `bytes`, which were read from `sector` on. */
export function identifySectors(bytes: Uint8Array, volume: number, sector: number): Uint32Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const ids = new Uint32Array(bytes.length / SECTOR_BYTES);
  for (let index = 0; index < ids.length; index++) {
    ids[index] = identifySector(view, index * SECTOR_BYTES, volume, sector + index);
  }
  return ids;
}

function patternSeed(id: SectorId, volume: number, sector: number): number {
  return Math.imul(id, 0x9e37_79b1) ^ Math.imul(volume + 1, 0x85eb_ca6b) ^ Math.imul(sector + 1, 0xc2b2_ae35);
}

function patternWord(id: SectorId, seed: number, word: number): number {
  if (word === 0) return id;
  // Half of a sector repeats itself, so that compression has something to do and something it cannot.
  return word < WORDS / 2 ? (seed + Math.imul(word, 0x27d4_eb2f)) >>> 0 : seed >>> 0;
}
