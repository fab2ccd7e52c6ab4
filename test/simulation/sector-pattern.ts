import { SECTOR_BYTES } from '../../journal/position.ts';

/**
 * What stands in a sector, as one number: 0 for zeroes, else the id of the request that wrote it. The 512 bytes follow
 * from id, volume and sector, so that a torn sector, or one from another place, is nobody's.
 */
export type SectorId = number;

/** Not written by anybody: torn, misplaced or made up. */
export const FOREIGN_SECTOR: SectorId = 0xffff_ffff;

/** Fills `length` bytes (whole sectors) at `at` with what request `id` writes to `sector` and the following. */
export function fillSectors(
  view: DataView,
  at: number,
  length: number,
  id: SectorId,
  volume: number,
  sector: number,
): void {
  for (let start = at; start < at + length; start += SECTOR_BYTES) {
    const seed = patternSeed(id, volume, sector + (start - at) / SECTOR_BYTES);
    view.setInt32(start, id, true);
    let word = seed;
    let offset = start + 4;
    // Half of a sector repeats itself, so that compression has something to do and something it cannot.
    for (const middle = start + SECTOR_BYTES / 2; offset < middle; offset += 4) {
      word = (word + STEP) | 0;
      view.setInt32(offset, word, true);
    }
    for (; offset < start + SECTOR_BYTES; offset += 4) view.setInt32(offset, seed, true);
  }
}

/** Whose bytes stand in each sector of `bytes`, which were read from `sector` on. */
export function identifySectors(bytes: Uint8Array, volume: number, sector: number): Uint32Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const ids = new Uint32Array(bytes.length / SECTOR_BYTES);
  for (let index = 0; index < ids.length; index++) {
    const at = index * SECTOR_BYTES;
    const id = view.getUint32(at, true);
    const whole = id === 0 ? isZero(view, at) : isWhole(view, at, patternSeed(id, volume, sector + index));
    ids[index] = whole ? id : FOREIGN_SECTOR;
  }
  return ids;
}

const STEP = 0x27d4_eb2f;

function isZero(view: DataView, at: number): boolean {
  let any = 0;
  for (let offset = at; offset < at + SECTOR_BYTES; offset += 4) any |= view.getInt32(offset, true);
  return any === 0;
}

/** Whether everything behind the id is what follows from it. */
function isWhole(view: DataView, at: number, seed: number): boolean {
  let wrong = 0;
  let word = seed;
  let offset = at + 4;
  for (const middle = at + SECTOR_BYTES / 2; offset < middle; offset += 4) {
    word = (word + STEP) | 0;
    wrong |= view.getInt32(offset, true) ^ word;
  }
  for (; offset < at + SECTOR_BYTES; offset += 4) wrong |= view.getInt32(offset, true) ^ seed;
  return wrong === 0;
}

function patternSeed(id: SectorId, volume: number, sector: number): number {
  return Math.imul(id, 0x9e37_79b1) ^ Math.imul(volume + 1, 0x85eb_ca6b) ^ Math.imul(sector + 1, 0xc2b2_ae35);
}
