/** Extents per chunk: an insert moves half of this on average, a chunk's arrays stay inside the processor's cache. */
export const CHUNK_EXTENTS = 256;

/** What one chunk occupies: four arrays of eight bytes per extent and the objects around them. */
export const CHUNK_BYTES: number = CHUNK_EXTENTS * 4 * 8 + 512;

/**
 * A sorted run of extents that do not overlap, as parallel arrays: an object per extent would cost four times the
 * memory and most of the time. Only `ExtentMap` uses it.
 */
export class ExtentChunk {
  count = 0;
  /** First sector. */
  readonly start: Float64Array = new Float64Array(CHUNK_EXTENTS);
  /** Sector behind the last. */
  readonly end: Float64Array = new Float64Array(CHUNK_EXTENTS);
  /** Address of the first sector's bytes, or ZERO_SOURCE. */
  readonly source: Float64Array = new Float64Array(CHUNK_EXTENTS);
  /** Address of the record by which the extent took effect. */
  readonly stamp: Float64Array = new Float64Array(CHUNK_EXTENTS);

  /** Index of the first extent that ends behind `sector`; `count` when there is none. */
  firstEndingAfter(sector: number): number {
    let low = 0;
    let high = this.count;
    const end = this.end;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (end[middle]! > sector) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  set(index: number, start: number, end: number, source: number, stamp: number): void {
    this.start[index] = start;
    this.end[index] = end;
    this.source[index] = source;
    this.stamp[index] = stamp;
  }

  /** Makes room for `slots` extents at `index`; the caller has checked that they fit. */
  open(index: number, slots: number): void {
    const { count } = this;
    this.start.copyWithin(index + slots, index, count);
    this.end.copyWithin(index + slots, index, count);
    this.source.copyWithin(index + slots, index, count);
    this.stamp.copyWithin(index + slots, index, count);
    this.count = count + slots;
  }

  /** Takes the extents [from, to) out. */
  remove(from: number, to: number): void {
    const { count } = this;
    this.start.copyWithin(from, to, count);
    this.end.copyWithin(from, to, count);
    this.source.copyWithin(from, to, count);
    this.stamp.copyWithin(from, to, count);
    this.count = count - (to - from);
  }

  /** Moves the extents from `index` on to the end of `target`; the caller has checked that they fit. */
  moveTail(index: number, target: ExtentChunk): void {
    const at = target.count;
    target.start.set(this.start.subarray(index, this.count), at);
    target.end.set(this.end.subarray(index, this.count), at);
    target.source.set(this.source.subarray(index, this.count), at);
    target.stamp.set(this.stamp.subarray(index, this.count), at);
    target.count = at + this.count - index;
    this.count = index;
  }

  /** Drops the extents whose stamp lies below `deadBelow`, keeping the order. */
  dropBelow(deadBelow: number): void {
    let kept = 0;
    for (let index = 0; index < this.count; index++) {
      if (this.stamp[index]! < deadBelow) continue;
      if (kept !== index) {
        this.set(kept, this.start[index]!, this.end[index]!, this.source[index]!, this.stamp[index]!);
      }
      kept++;
    }
    this.count = kept;
  }
}
