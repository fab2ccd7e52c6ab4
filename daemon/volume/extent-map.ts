import { SECTOR_BYTES } from '../../journal/position.ts';
import { CHUNK_BYTES, CHUNK_EXTENTS, ExtentChunk } from './extent-chunk.ts';

/** Source of an extent that reads as zeroes. */
export const ZERO_SOURCE = -1;

/** What a lookup reports where the map says nothing (or nothing that still counts). */
export const NO_SOURCE = -2;

/** `source`: address of the run's first byte, ZERO_SOURCE or NO_SOURCE. */
export type RunVisitor = (startSector: number, endSector: number, source: number) => void;

/**
 * Which bytes stand for which sectors: extents in order that never overlap, the newest insert wins. The volume's
 * overlay points into the journal, a destage window into its slab.
 *
 * Every extent carries the address of the record by which it took effect. Extents below `deadBelow` have no effect any
 * more: moving that mark is all it takes to forget them, and `sweep` gives their memory back. A trim of a terabyte is
 * one extent; what a map costs is the number of its extents (`bytes`).
 *
 *   chunks:  [ 0..8 | 8..16 | 40..41 ]  [ 56..64 | ... ]  ...      each at most 256 extents
 *   firsts:    0                          56                       no extent of the chunk begins lower; searched by halves
 */
export class ExtentMap {
  /** Extents with a lower stamp are dead. */
  deadBelow = 0;
  readonly #chunks: ExtentChunk[] = [];
  readonly #firsts: number[] = [];

  /** Memory in use, including extents that died and were not swept yet. */
  get bytes(): number {
    return this.#chunks.length * CHUNK_BYTES;
  }

  get isEmpty(): boolean {
    return this.#chunks.length === 0;
  }

  /** From now on `[start, end)` is what lies at `source`; `stamp` may not be lower than any inserted before. */
  insert(start: number, end: number, source: number, stamp: number): void {
    if (this.#chunks.length === 0) {
      const first = new ExtentChunk();
      first.set(0, start, end, source, stamp);
      first.count = 1;
      this.#chunks.push(first);
      this.#firsts.push(start);
      return;
    }
    let at = this.#chunkOf(start);
    let chunk = this.#chunks[at]!;
    if (chunk.count + 2 > CHUNK_EXTENTS) {
      this.#makeRoom(at, start);
      at = this.#chunkOf(start);
      chunk = this.#chunks[at]!;
    }
    let index = chunk.firstEndingAfter(start);
    if (index < chunk.count && chunk.start[index]! < start) {
      if (chunk.end[index]! > end) {
        this.#splitExtent(chunk, index, start, end, source, stamp);
        return;
      }
      chunk.end[index] = start;
      index++;
    }
    if (index < chunk.count && chunk.start[index]! === start && chunk.end[index]! === end) {
      chunk.source[index] = source;
      chunk.stamp[index] = stamp;
      return;
    }
    this.#clear(at, index, end);
    if (index > 0 && this.#extendsPrevious(chunk, index - 1, start, source, stamp)) {
      chunk.end[index - 1] = end;
      chunk.stamp[index - 1] = stamp;
      return;
    }
    chunk.open(index, 1);
    chunk.set(index, start, end, source, stamp);
    if (index === 0) this.#firsts[at] = start;
  }

  /** Tells `visit` the runs that cover `[start, end)` exactly, in order. The map must not change meanwhile. */
  forEachRun(start: number, end: number, visit: RunVisitor): void {
    let position = start;
    if (this.#chunks.length > 0) {
      let at = this.#chunkOf(start);
      let index = this.#chunks[at]!.firstEndingAfter(start);
      for (; at < this.#chunks.length; at++, index = 0) {
        const chunk = this.#chunks[at]!;
        for (; index < chunk.count; index++) {
          const from = chunk.start[index]!;
          if (from >= end) {
            if (position < end) visit(position, end, NO_SOURCE);
            return;
          }
          if (chunk.stamp[index]! < this.deadBelow) continue;
          if (from > position) {
            visit(position, from, NO_SOURCE);
            position = from;
          }
          const to = Math.min(chunk.end[index]!, end);
          const source = chunk.source[index]!;
          visit(position, to, source < 0 ? source : source + (position - from) * SECTOR_BYTES);
          position = to;
          if (position === end) return;
        }
      }
    }
    if (position < end) visit(position, end, NO_SOURCE);
  }

  /** True when all of `[start, end)` stands for bytes with a stamp in `(after, below)`, both exclusive. */
  isNewer(start: number, end: number, after: number, below: number): boolean {
    let position = start;
    for (let at = this.#chunkOf(start); at < this.#chunks.length; at++) {
      const chunk = this.#chunks[at]!;
      for (let index = chunk.firstEndingAfter(position); index < chunk.count; index++) {
        const stamp = chunk.stamp[index]!;
        if (chunk.start[index]! > position || stamp <= after || stamp >= below || stamp < this.deadBelow) return false;
        position = chunk.end[index]!;
        if (position >= end) return true;
      }
    }
    return false;
  }

  /** Every live extent in order. */
  forEach(visit: RunVisitor): void {
    for (const chunk of this.#chunks) {
      for (let index = 0; index < chunk.count; index++) {
        if (chunk.stamp[index]! < this.deadBelow) continue;
        visit(chunk.start[index]!, chunk.end[index]!, chunk.source[index]!);
      }
    }
  }

  /** Gives the memory of dead extents back: one pass over all extents, a millisecond per million. */
  sweep(): void {
    let kept = 0;
    for (const chunk of this.#chunks) {
      chunk.dropBelow(this.deadBelow);
      if (chunk.count === 0) continue;
      const previous = kept > 0 ? this.#chunks[kept - 1]! : undefined;
      if (previous !== undefined && previous.count + chunk.count <= CHUNK_EXTENTS / 2) {
        chunk.moveTail(0, previous);
        continue;
      }
      this.#chunks[kept] = chunk;
      this.#firsts[kept] = chunk.start[0]!;
      kept++;
    }
    this.#chunks.length = kept;
    this.#firsts.length = kept;
  }

  clear(): void {
    this.#chunks.length = 0;
    this.#firsts.length = 0;
  }

  /** The last chunk that begins at or before `sector`, or the first one. */
  #chunkOf(sector: number): number {
    const firsts = this.#firsts;
    let low = 0;
    let high = firsts.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (firsts[middle]! <= sector) low = middle + 1;
      else high = middle;
    }
    return low === 0 ? 0 : low - 1;
  }

  /**
   * A full chunk first loses its dead extents; when that is not enough its upper part moves to a new chunk: half of it,
   * or little when extents come in ascending order, so that their chunks end up full.
   */
  #makeRoom(at: number, nextSector: number): void {
    const chunk = this.#chunks[at]!;
    chunk.dropBelow(this.deadBelow);
    if (chunk.count <= CHUNK_EXTENTS / 2) return;
    const ascending = nextSector >= chunk.end[chunk.count - 1]!;
    const upper = new ExtentChunk();
    chunk.moveTail(ascending ? chunk.count - 4 : chunk.count >>> 1, upper);
    this.#chunks.splice(at + 1, 0, upper);
    this.#firsts.splice(at + 1, 0, upper.start[0]!);
  }

  /** `[start, end)` falls inside one extent: it becomes three. `#makeRoom` has left two free slots. */
  #splitExtent(chunk: ExtentChunk, index: number, start: number, end: number, source: number, stamp: number): void {
    const oldSource = chunk.source[index]!;
    const tailSource = oldSource < 0 ? oldSource : oldSource + (end - chunk.start[index]!) * SECTOR_BYTES;
    chunk.open(index + 1, 2);
    chunk.set(index + 2, end, chunk.end[index]!, tailSource, chunk.stamp[index]!);
    chunk.set(index + 1, start, end, source, stamp);
    chunk.end[index] = start;
  }

  /** Takes out what `[.., end)` covers from extent `index` of chunk `at` on, and the front of what it cuts. */
  #clear(at: number, index: number, end: number): void {
    const chunk = this.#chunks[at]!;
    const stop = this.#clearChunk(chunk, index, end);
    if (stop < chunk.count || at + 1 >= this.#chunks.length || this.#firsts[at + 1]! >= end) return;
    let last = at + 1;
    while (last < this.#chunks.length && this.#chunks[last]!.end[this.#chunks[last]!.count - 1]! <= end) last++;
    this.#chunks.splice(at + 1, last - at - 1);
    this.#firsts.splice(at + 1, last - at - 1);
    const next = this.#chunks[at + 1];
    if (next === undefined || next.start[0]! >= end) return;
    this.#clearChunk(next, 0, end);
    this.#firsts[at + 1] = next.start[0]!;
  }

  /** Returns the index of the first extent left behind `end`. */
  #clearChunk(chunk: ExtentChunk, index: number, end: number): number {
    let stop = index;
    while (stop < chunk.count && chunk.end[stop]! <= end) stop++;
    if (stop > index) chunk.remove(index, stop);
    if (index < chunk.count && chunk.start[index]! < end) {
      const source = chunk.source[index]!;
      if (source >= 0) chunk.source[index] = source + (end - chunk.start[index]!) * SECTOR_BYTES;
      chunk.start[index] = end;
    }
    return index;
  }

  /**
   * Zeroes behind zeroes need no extent of their own: the older ones then count for as long as the newer, which is true
   * of them, for what overwrites them takes them out. Bytes that follow in the source may only join within one stamp,
   * because the bytes of a lower one may be gone before those of a higher one.
   */
  #extendsPrevious(chunk: ExtentChunk, previous: number, start: number, source: number, stamp: number): boolean {
    if (chunk.end[previous]! !== start || chunk.stamp[previous]! < this.deadBelow) return false;
    const before = chunk.source[previous]!;
    if (source < 0) return before === source;
    if (before < 0 || chunk.stamp[previous]! !== stamp) return false;
    return before + (start - chunk.start[previous]!) * SECTOR_BYTES === source;
  }
}
