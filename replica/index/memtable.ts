import type { Lsn } from '../../journal/position.ts';
import { CLASS_COUNT, cellSectors, classOf, type EntryFields, type PayloadLocation, placeOf } from './entry-format.ts';
import type { LookupWindow } from './lookup-window.ts';
import { sortOrder } from './radix-sort.ts';

/**
 * The newest entries, in memory, until they become a run: parallel arrays in order of arrival (which is LSN order), and
 * a hash of chains from (volume, class, cell) to its entries, newest first.
 */
export class Memtable {
  /** Everything above `baseLsn` and at or below `lastLsn` is in here. */
  readonly baseLsn: Lsn;
  lastLsn: Lsn;
  count = 0;
  #capacity: number;
  #place: Uint32Array;
  #cell: Float64Array;
  #lsn: Float64Array;
  #start: Uint32Array;
  #sectors: Uint32Array;
  #zero: Uint8Array;
  #segment: Uint32Array;
  #frame: Uint32Array;
  #payload: Uint32Array;
  #next: Int32Array;
  #heads: Int32Array;
  readonly #classCounts = new Uint32Array(CLASS_COUNT);
  #order: { count: number; order: Uint32Array } | undefined;

  constructor(baseLsn: Lsn, capacity: number) {
    this.baseLsn = baseLsn;
    this.lastLsn = baseLsn;
    this.#capacity = capacity;
    this.#place = new Uint32Array(capacity);
    this.#cell = new Float64Array(capacity);
    this.#lsn = new Float64Array(capacity);
    this.#start = new Uint32Array(capacity);
    this.#sectors = new Uint32Array(capacity);
    this.#zero = new Uint8Array(capacity);
    this.#segment = new Uint32Array(capacity);
    this.#frame = new Uint32Array(capacity);
    this.#payload = new Uint32Array(capacity);
    this.#next = new Int32Array(capacity);
    this.#heads = new Int32Array(powerOfTwoAtLeast(capacity * 2)).fill(-1);
  }

  /** `location` absent: zeroes. Extents come in LSN order. */
  add(volume: number, sector: number, sectors: number, lsn: Lsn, location: PayloadLocation | undefined): void {
    const sizeClass = classOf(sectors);
    const unit = cellSectors(sizeClass);
    let at = sector;
    let left = sectors;
    while (left > 0) {
      const cell = Math.floor(at / unit);
      const start = at - cell * unit;
      const part = Math.min(left, unit - start);
      this.#push(placeOf(volume, sizeClass), cell, lsn, start, part, location, (at - sector) * 512);
      at += part;
      left -= part;
    }
  }

  /** Paints what is at or below `atLsn` and above `floorLsn`. */
  paint(window: LookupWindow, volume: number, atLsn: Lsn, floorLsn: Lsn): void {
    if (this.count === 0 || this.baseLsn >= atLsn) return;
    for (let sizeClass = 0; sizeClass < CLASS_COUNT; sizeClass += 1) {
      if (this.#classCounts[sizeClass] === 0) continue;
      const place = placeOf(volume, sizeClass);
      const unit = cellSectors(sizeClass);
      const last = Math.floor((window.sector + window.sectors - 1) / unit);
      for (let cell = Math.floor(window.sector / unit); cell <= last; cell += 1) {
        this.#paintCell(window, place, cell, unit, atLsn, floorLsn);
      }
    }
  }

  /** Entry indexes sorted by (volume, class, cell, LSN), of the entries present now. */
  sorted(): Uint32Array {
    if (this.#order?.count !== this.count) {
      this.#order = { count: this.count, order: sortOrder(this.#place, this.#cell, this.count) };
    }
    return this.#order.order;
  }

  read(index: number, into: EntryFields): void {
    into.place = this.#place[index] ?? 0;
    into.cell = this.#cell[index] ?? 0;
    into.lsn = this.#lsn[index] ?? 0;
    into.start = this.#start[index] ?? 0;
    into.sectors = this.#sectors[index] ?? 0;
    into.zero = this.#zero[index] === 1;
    into.segment = this.#segment[index] ?? 0;
    into.frame = this.#frame[index] ?? 0;
    into.payload = this.#payload[index] ?? 0;
  }

  /** Entries of a class, in any volume. */
  classCount(sizeClass: number): number {
    return this.#classCounts[sizeClass] ?? 0;
  }

  /** Below zero when the entry sorts before (place, cell), zero when it is of that cell. */
  compareToCell(index: number, place: number, cell: number): number {
    return (this.#place[index] ?? 0) - place || (this.#cell[index] ?? 0) - cell;
  }

  #paintCell(window: LookupWindow, place: number, cell: number, unit: number, atLsn: Lsn, floorLsn: Lsn): void {
    const cellStart = cell * unit;
    for (let i = this.#heads[this.#slot(place, cell)] ?? -1; i >= 0; i = this.#next[i] ?? -1) {
      const lsn = this.#lsn[i] ?? 0;
      // A chain runs from the newest to the oldest: nothing behind this one can be above the floor.
      if (lsn <= floorLsn) return;
      if (lsn > atLsn || this.#place[i] !== place || this.#cell[i] !== cell) continue;
      if (window.settled(cellStart, unit, lsn)) return;
      window.paint(
        cellStart + (this.#start[i] ?? 0),
        this.#sectors[i] ?? 0,
        lsn,
        this.#zero[i] === 1,
        this.#segment[i] ?? 0,
        this.#frame[i] ?? 0,
        this.#payload[i] ?? 0,
      );
    }
  }

  #push(
    place: number,
    cell: number,
    lsn: Lsn,
    start: number,
    sectors: number,
    location: PayloadLocation | undefined,
    skipBytes: number,
  ): void {
    if (this.count === this.#capacity) this.#grow();
    const i = this.count;
    this.#place[i] = place;
    this.#cell[i] = cell;
    this.#lsn[i] = lsn;
    this.#start[i] = start;
    this.#sectors[i] = sectors;
    this.#zero[i] = location === undefined ? 1 : 0;
    this.#segment[i] = location?.segment ?? 0;
    this.#frame[i] = location?.frame ?? 0;
    this.#payload[i] = location === undefined ? 0 : location.payload + skipBytes;
    const slot = this.#slot(place, cell);
    this.#next[i] = this.#heads[slot] ?? -1;
    this.#heads[slot] = i;
    this.#classCounts[place % CLASS_COUNT] = (this.#classCounts[place % CLASS_COUNT] ?? 0) + 1;
    this.count += 1;
  }

  #slot(place: number, cell: number): number {
    let hash = Math.imul(place, 0x9e3779b1) ^ Math.imul((cell % 0x1_0000_0000) | 0, 0x85ebca6b);
    hash ^= Math.imul(Math.floor(cell / 0x1_0000_0000), 0xc2b2ae35);
    hash = Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d);
    return (hash ^ (hash >>> 13)) & (this.#heads.length - 1);
  }

  /** One frame may bring more than the room that was left; the index turns a full memtable into a run between frames. */
  #grow(): void {
    this.#capacity *= 2;
    this.#place = enlarged(this.#place, new Uint32Array(this.#capacity));
    this.#cell = enlarged(this.#cell, new Float64Array(this.#capacity));
    this.#lsn = enlarged(this.#lsn, new Float64Array(this.#capacity));
    this.#start = enlarged(this.#start, new Uint32Array(this.#capacity));
    this.#sectors = enlarged(this.#sectors, new Uint32Array(this.#capacity));
    this.#zero = enlarged(this.#zero, new Uint8Array(this.#capacity));
    this.#segment = enlarged(this.#segment, new Uint32Array(this.#capacity));
    this.#frame = enlarged(this.#frame, new Uint32Array(this.#capacity));
    this.#payload = enlarged(this.#payload, new Uint32Array(this.#capacity));
    this.#next = enlarged(this.#next, new Int32Array(this.#capacity));
    this.#heads = new Int32Array(powerOfTwoAtLeast(this.#capacity * 2)).fill(-1);
    for (let i = 0; i < this.count; i += 1) {
      const slot = this.#slot(this.#place[i] ?? 0, this.#cell[i] ?? 0);
      this.#next[i] = this.#heads[slot] ?? -1;
      this.#heads[slot] = i;
    }
  }
}

function enlarged<T extends { set(from: T): void }>(from: T, into: T): T {
  into.set(from);
  return into;
}

function powerOfTwoAtLeast(value: number): number {
  return 2 ** Math.ceil(Math.log2(Math.max(value, 2)));
}
