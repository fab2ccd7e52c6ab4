/** The volumes of the load, in the order of an image. */
export const VOLUMES = ['root', 'data'] as const;
export const VOLUME_BYTES: number = 2 * 1024 * 1024;
export const SECTOR = 512;
const SECTORS: number = VOLUME_BYTES / SECTOR;
const WORDS: number = SECTOR / 4;
/** A sector whose bytes no operation wrote so. */
const FOREIGN = -1;

export interface LoadOperation {
  /** 1, 2, 3, ... in the order they were issued, one at a time. */
  readonly number: number;
  /** Index into VOLUMES. */
  readonly volume: number;
  readonly sector: number;
  readonly sectors: number;
  readonly zero: boolean;
}

/** For each sector of every volume the operation whose bytes it holds; 0: zeroes. */
export type Image = Int32Array;

interface Verdict {
  readonly fault?: string;
  /** The position stands for one number of operations only. */
  readonly exact: boolean;
}

/**
 * What both volumes hold after any number of operations, and which numbers of operations a position may stand for.
 * Every operation is one record. Between two bookmarks there can be other records (heartbeats, watermarks): with none
 * between them each position is one exact number, with k of them it is one of k + 1.
 */
export class LoadModel {
  readonly #operations: LoadOperation[] = [];
  readonly #bookmarks: { readonly lsn: number; readonly operations: number }[] = [];

  get operations(): number {
    return this.#operations.length;
  }

  get bookmarks(): number {
    return this.#bookmarks.length;
  }

  get firstLsn(): number {
    return this.#bookmarks[0]?.lsn ?? 0;
  }

  get lastLsn(): number {
    return this.#bookmarks.at(-1)?.lsn ?? 0;
  }

  issue(operation: Omit<LoadOperation, 'number'>): LoadOperation {
    const numbered = { ...operation, number: this.#operations.length + 1 };
    this.#operations.push(numbered);
    return numbered;
  }

  /** A bookmark taken while no operation was under way. */
  bookmarked(lsn: number): void {
    this.#bookmarks.push({ lsn, operations: this.#operations.length });
  }

  bytesOf(operation: LoadOperation): Buffer {
    const bytes = Buffer.alloc(operation.sectors * SECTOR);
    for (let sector = 0; sector < operation.sectors; sector++) {
      for (let word = 0; word < WORDS; word++) {
        bytes.writeInt32LE(wordOf(operation.number, operation.sector + sector, word), sector * SECTOR + word * 4);
      }
    }
    return bytes;
  }

  /** One entry of an image per sector of a volume's bytes. */
  decode(bytes: Buffer): number[] {
    return Array.from({ length: SECTORS }, (_, sector) => {
      const number = bytes.readInt32LE(sector * SECTOR);
      for (let word = 0; word < WORDS; word++) {
        const expected = number === 0 ? 0 : wordOf(number, sector, word);
        if (bytes.readInt32LE(sector * SECTOR + word * 4) !== expected) return FOREIGN;
      }
      return number;
    });
  }

  /** Whether a view at this position shows exactly what was written up to it. */
  judge(lsn: number, image: Image): Verdict {
    const [least, most] = this.#range(lsn);
    const exact = least === most;
    const foreign = image.indexOf(FOREIGN);
    if (foreign >= 0) return { exact, fault: `${place(foreign)} holds bytes that nobody wrote` };
    const model = this.#after(least);
    for (let number = least; ; number++) {
      if (number > least) this.#apply(model, number);
      const wrong = differs(model, image);
      if (wrong < 0) return { exact };
      if (number >= most) {
        const fault = `${place(wrong)} holds operation ${image[wrong]}, not ${model[wrong]}, after ${least} to ${most}`;
        return { exact, fault };
      }
    }
  }

  /** How many operations, at least and at most, the position stands behind. */
  #range(lsn: number): [number, number] {
    const after = this.#bookmarks.findIndex((bookmark) => bookmark.lsn > lsn);
    const before = this.#bookmarks.at(after < 0 ? -1 : Math.max(0, after - 1));
    if (before === undefined || before.lsn > lsn) return [0, 0];
    const behind = lsn - before.lsn;
    const next = after < 0 ? undefined : this.#bookmarks[after];
    const issued = (next?.operations ?? this.#operations.length) - before.operations;
    const others = next === undefined ? behind : next.lsn - before.lsn - 1 - issued;
    const least = before.operations + Math.max(0, behind - others);
    return [least, before.operations + Math.min(issued, behind)];
  }

  #after(count: number): Int32Array {
    const model = new Int32Array(SECTORS * VOLUMES.length);
    for (let number = 1; number <= count; number++) this.#apply(model, number);
    return model;
  }

  #apply(model: Int32Array, number: number): void {
    const operation = this.#operations[number - 1];
    if (operation === undefined) return;
    const first = operation.volume * SECTORS + operation.sector;
    model.fill(operation.zero ? 0 : number, first, first + operation.sectors);
  }
}

/** The first word of a sector is the operation's number; every other depends on it, on the sector and on its place. */
function wordOf(number: number, sector: number, word: number): number {
  return word === 0
    ? number
    : (Math.imul(number, 0x9e3779b1) ^ Math.imul(sector + 1, 0x85ebca6b) ^ (word * 0x10001)) | 0;
}

function differs(model: Int32Array, image: Image): number {
  return model.findIndex((number, index) => number !== image[index]);
}

function place(index: number): string {
  return `sector ${index % SECTORS} of ${VOLUMES[Math.floor(index / SECTORS)]}`;
}
