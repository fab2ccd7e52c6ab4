import { zstdInto } from './host/zstd.ts';

/** What comes out longer than this part of itself is kept raw: unpacking would cost more than the bytes saved. */
const WORTH_PACKING = 0.95;
/** zstd levels: the fast one costs a quarter of the careful one (13 and 48 us for 64 KiB that halve). */
const CAREFUL = 1;
const FAST = -5;
/** The fast level is used where it comes out at most so much longer: fully so on much data, by 40 % on programs. */
const FAST_IS_AS_GOOD = 1.1;
/** Chunks between two comparisons of the levels: what a disk is written with changes slowly. */
const COMPARED_EVERY = 64;
/** A chunk shorter than this says nothing about the levels. */
const COMPARED_BYTES_MIN = 4096;
/** After chunks that would not shrink, at most this many are taken raw untried before zstd gets its next try. */
const UNTRIED_CHUNKS_MAX = 16;

/** Packs what is small and always alike, a record list, with care and without memory; undefined: it is to be kept raw. */
export function packCarefully(into: Uint8Array, plain: Uint8Array): number | undefined {
  return zstdInto(worthwhile(into, plain), plain, CAREFUL);
}

/** The front of `into` that packing must fit to be worth it. */
function worthwhile(into: Uint8Array, plain: Uint8Array): Uint8Array {
  return into.subarray(0, Math.floor(plain.length * WORTH_PACKING));
}

/** Packs chunks by what packing has yielded lately. The result depends on nothing but the chunks that came before. */
export class ChunkPacker {
  #level = FAST;
  #untilCompared = 0;
  #rawInARow = 0;
  #untried = 0;
  #scratch: Uint8Array | undefined;

  /** Packs `plain` into the front of `into`, which is at least as long; undefined: it is to be kept raw. */
  packInto(into: Uint8Array, plain: Uint8Array): number | undefined {
    // Data that does not shrink mostly comes in long runs: after each failure zstd is tried less often.
    if (this.#untried > 0) {
      this.#untried--;
      return undefined;
    }
    const room = worthwhile(into, plain);
    const packedBytes = this.#isComparedNow(plain) ? this.#compare(room, plain) : zstdInto(room, plain, this.#level);
    this.#rawInARow = packedBytes === undefined ? this.#rawInARow + 1 : 0;
    this.#untried = packedBytes === undefined ? Math.min(2 ** this.#rawInARow - 2, UNTRIED_CHUNKS_MAX) : 0;
    return packedBytes;
  }

  #isComparedNow(plain: Uint8Array): boolean {
    if (plain.length < COMPARED_BYTES_MIN || this.#untilCompared-- > 0) return false;
    this.#untilCompared = COMPARED_EVERY - 1;
    return true;
  }

  #compare(room: Uint8Array, plain: Uint8Array): number | undefined {
    if (this.#scratch === undefined || this.#scratch.length < room.length) this.#scratch = new Uint8Array(room.length);
    const careful = zstdInto(room, plain, CAREFUL);
    const fast = zstdInto(this.#scratch.subarray(0, room.length), plain, FAST);
    const isAsGood = careful === undefined || (fast !== undefined && fast <= careful * FAST_IS_AS_GOOD);
    this.#level = isAsGood ? FAST : CAREFUL;
    return careful;
  }
}
