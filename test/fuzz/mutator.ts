import type { SeededRandom } from '../replica/support/memory-host.ts';
import { type FuzzTarget, packParts, unpackParts } from './target.ts';

/** Numbers at which lengths, counts and positions break. */
const EDGES = [
  0,
  1,
  2,
  7,
  8,
  27,
  28,
  39,
  40,
  63,
  64,
  127,
  128,
  255,
  256,
  511,
  512,
  4095,
  4096,
  65_535,
  65_536,
  2 ** 20,
  2 ** 22,
  2 ** 24,
  2 ** 25,
  2 ** 31 - 1,
  2 ** 31,
  2 ** 32 - 512,
  2 ** 32 - 1,
];
/** Upper halves of 64-bit numbers: around 2^53 and 2^64. */
const HIGH_EDGES = [0, 1, 0x1f_ffff, 0x20_0000, 0x7fff_ffff, 0xffff_ffff];
const STACKED_MAX = 5;
/** The constructor itself, not the one that counts. */
const Bytes = Uint8Array;

/** Makes an input from others: a few changes one on top of another, the same for the same random numbers. */
export class Mutator {
  readonly #random: SeededRandom;
  readonly #target: FuzzTarget;
  readonly #bytesMax: number;

  constructor(target: FuzzTarget, random: SeededRandom) {
    this.#target = target;
    this.#random = random;
    this.#bytesMax = target.inputBytesMax ?? 4096;
  }

  /** A new input; checksums are mended three times out of four. */
  mutate(corpus: readonly Uint8Array[]): Uint8Array {
    const random = this.#random;
    const from = this.#pick(corpus);
    let input: Uint8Array;
    if (this.#target.parts === true) {
      const parts = unpackParts(from);
      const changes = 1 + random.below(2);
      for (let change = 0; change < changes; change++) {
        const at = random.below(Math.max(1, parts.length));
        parts[at] = this.#change(parts[at] ?? new Bytes(0), unpackParts(this.#pick(corpus))[at]);
      }
      input = packParts(parts);
    } else input = this.#change(from, this.#pick(corpus));
    if (input.length > this.#bytesMax) input = Bytes.from(input.subarray(0, this.#bytesMax));
    if (random.below(4) > 0) this.#target.fix?.(input, random);
    return input;
  }

  #pick(corpus: readonly Uint8Array[]): Uint8Array {
    // The newest half of the time: what was found last is the deepest.
    const { length } = corpus;
    const at =
      this.#random.below(2) === 0 ? length - 1 - this.#random.below(Math.min(length, 8)) : this.#random.below(length);
    return corpus[at] ?? new Bytes(0);
  }

  #change(from: Uint8Array, other: Uint8Array | undefined): Uint8Array {
    let bytes: Uint8Array = Bytes.from(from);
    for (let left = 1 + this.#random.below(STACKED_MAX); left > 0; left--) bytes = this.#one(bytes, other);
    return bytes;
  }

  #one(bytes: Uint8Array, other: Uint8Array | undefined): Uint8Array {
    const random = this.#random;
    const { length } = bytes;
    if (length === 0) return Bytes.from({ length: 1 + random.below(40) }, () => random.below(256));
    const at = this.#place(length);
    const view = new DataView(bytes.buffer, bytes.byteOffset, length);
    switch (random.below(12)) {
      case 0:
      case 1:
        bytes[at] = bytes[at]! ^ (1 << random.below(8));
        return bytes;
      case 2:
        bytes[at] = random.below(256);
        return bytes;
      case 3:
        bytes[at] = bytes[at]! + (random.below(2) === 0 ? 1 : 255);
        return bytes;
      case 4:
      case 5:
        return this.#number(view, bytes, at);
      case 6: {
        const to = this.#place(length);
        const count = 1 + random.below(Math.min(64, length - Math.max(at, to)));
        bytes.copyWithin(to, at, at + count);
        return bytes;
      }
      case 7:
        return bytes.slice(0, random.below(length + 1));
      case 8:
        return join(bytes.subarray(0, at), bytes.subarray(Math.min(length, at + 1 + random.below(32))));
      case 9:
        return join(bytes.subarray(0, at), bytes.subarray(at, at + 1 + random.below(64)), bytes.subarray(at));
      case 10: {
        const source = other ?? bytes;
        const from = random.below(source.length + 1);
        if (random.below(2) === 0) return join(bytes.subarray(0, at), source.subarray(from));
        bytes.set(source.subarray(from, from + Math.min(random.below(128), length - at)), at);
        return bytes;
      }
      default:
        return this.#word(bytes, at);
    }
  }

  /** Headers are at the front: a third of all changes go there. */
  #place(length: number): number {
    const random = this.#random;
    return random.below(3) === 0 ? random.below(Math.min(length, 200)) : random.below(length);
  }

  #number(view: DataView, bytes: Uint8Array, near: number): Uint8Array {
    const random = this.#random;
    const width = [1, 2, 4, 4, 4, 8][random.below(6)]!;
    const little = random.below(4) > 0;
    const at = random.below(3) > 0 ? near - (near % Math.min(width, 4)) : near;
    if (at + width > bytes.length) return bytes;
    const edge = random.below(6) === 0 ? bytes.length : EDGES[random.below(EDGES.length)]! + random.below(3) - 1;
    if (width === 1) bytes[at] = edge;
    else if (width === 2) view.setUint16(at, edge, little);
    else if (width === 4) view.setUint32(at, edge, little);
    else {
      view.setUint32(little ? at : at + 4, edge, little);
      view.setUint32(little ? at + 4 : at, HIGH_EDGES[random.below(HIGH_EDGES.length)]!, little);
    }
    return bytes;
  }

  #word(bytes: Uint8Array, at: number): Uint8Array {
    const { words } = this.#target;
    const word = words?.[this.#random.below(words.length)];
    if (word === undefined) return bytes;
    if (this.#random.below(2) === 0) return join(bytes.subarray(0, at), word, bytes.subarray(at));
    bytes.set(word.subarray(0, Math.min(word.length, bytes.length - at)), at);
    return bytes;
  }
}

function join(...parts: Uint8Array[]): Uint8Array {
  const bytes = new Bytes(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}
