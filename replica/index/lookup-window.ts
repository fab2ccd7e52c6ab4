import { type Lsn, SECTOR_BYTES } from '../../journal/position.ts';

/** What the newest version of a stretch is. */
export type VersionPart =
  | { readonly kind: 'base' | 'zero'; readonly sector: number; readonly sectors: number }
  | {
      readonly kind: 'data';
      readonly sector: number;
      readonly sectors: number;
      readonly segment: number;
      readonly frame: number;
      /** Byte in the frame's plain payload. */
      readonly payload: number;
    };

/** Longest stretch of one lookup: 256 KiB. */
export const WINDOW_SECTORS_MAX = 512;

/**
 * The answer of a lookup while it is put together. Entries are painted in any order; on every sector the highest LSN
 * wins, so the answer does not depend on the order in which classes and runs are visited.
 */
export class LookupWindow {
  readonly sector: number;
  readonly sectors: number;
  /** LSN of the winner per sector; 0: nobody yet. */
  readonly #lsn: Float64Array;
  readonly #winner: Int32Array;
  #open: number;
  /** Five numbers per painted entry: first sector, zero, segment, frame, payload. */
  readonly #entries: number[] = [];

  constructor(sector: number, sectors: number) {
    this.sector = sector;
    this.sectors = sectors;
    this.#lsn = new Float64Array(sectors);
    this.#winner = new Int32Array(sectors).fill(-1);
    this.#open = sectors;
  }

  /** Every sector has a version: an older run cannot add anything. */
  get complete(): boolean {
    return this.#open === 0;
  }

  /** True when nothing at or below `lsn` can still win a sector of this stretch. */
  settled(sector: number, sectors: number, lsn: Lsn): boolean {
    const from = Math.max(sector - this.sector, 0);
    const to = Math.min(sector + sectors - this.sector, this.sectors);
    for (let i = from; i < to; i += 1) {
      if ((this.#lsn[i] ?? 0) < lsn) return false;
    }
    return true;
  }

  paint(
    sector: number,
    sectors: number,
    lsn: Lsn,
    zero: boolean,
    segment: number,
    frame: number,
    payload: number,
  ): void {
    const from = Math.max(sector - this.sector, 0);
    const to = Math.min(sector + sectors - this.sector, this.sectors);
    let entry = -1;
    for (let i = from; i < to; i += 1) {
      const before = this.#lsn[i] ?? 0;
      if (before >= lsn) continue;
      if (entry < 0) {
        entry = this.#entries.length;
        this.#entries.push(sector, zero ? 1 : 0, segment, frame, payload);
      }
      if (before === 0) this.#open -= 1;
      this.#lsn[i] = lsn;
      this.#winner[i] = entry;
    }
  }

  /** The parts in order, covering the window exactly; neighbours of one kind without payload are one part. */
  parts(): VersionPart[] {
    const parts: VersionPart[] = [];
    let i = 0;
    while (i < this.sectors) {
      const winner = this.#winner[i] ?? -1;
      let end = i + 1;
      if (winner >= 0 && this.#entries[winner + 1] === 0) {
        while (end < this.sectors && this.#winner[end] === winner) end += 1;
        parts.push({
          kind: 'data',
          sector: this.sector + i,
          sectors: end - i,
          segment: this.#entries[winner + 2] ?? 0,
          frame: this.#entries[winner + 3] ?? 0,
          payload: (this.#entries[winner + 4] ?? 0) + (this.sector + i - (this.#entries[winner] ?? 0)) * SECTOR_BYTES,
        });
      } else {
        const kind = winner < 0 ? 'base' : 'zero';
        while (end < this.sectors && this.#kindAt(end) === kind) end += 1;
        parts.push({ kind, sector: this.sector + i, sectors: end - i });
      }
      i = end;
    }
    return parts;
  }

  #kindAt(i: number): 'base' | 'zero' | 'data' {
    const winner = this.#winner[i] ?? -1;
    if (winner < 0) return 'base';
    return this.#entries[winner + 1] === 1 ? 'zero' : 'data';
  }
}
