import { assert } from '../../journal/base/assert.ts';
import { type JournalTime, type Lsn, readU64, writeU64 } from '../../journal/position.ts';

/** One frame of a segment. `firstLsn` is where counting begins: behind what the frame before it holds (rule 17). */
export interface FrameEntry {
  readonly firstLsn: Lsn;
  readonly lastLsn: Lsn;
  /** Byte in the segment file. */
  readonly offset: number;
  readonly bytes: number;
  readonly records: number;
  readonly firstTime: JournalTime;
  readonly lastTime: JournalTime;
  /** No header tells what stands here: it may be several frames, or one with more records than are counted. Not stored. */
  readonly guessed?: boolean;
}

/**
 * Entry, 48 bytes: 0 u64 first LSN counted | 8 u64 last LSN | 16 u32 offset | 20 u32 bytes | 24 u64 first time us
 * | 32 u64 last time us | 40 u32 records in the frame | 44 u32 0
 */
export const DIRECTORY_ENTRY_BYTES = 48;

/** The frames of one segment, in order; as it stands at the end of a sealed segment. */
export class FrameDirectory {
  #bytes: Buffer;
  #view: DataView;
  /** Where an entry is `guessed`. */
  readonly #guessed = new Set<number>();
  count: number;

  constructor(bytes: Buffer = Buffer.alloc(0)) {
    assert(bytes.length % DIRECTORY_ENTRY_BYTES === 0, 'a frame directory of whole entries');
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.count = bytes.length / DIRECTORY_ENTRY_BYTES;
  }

  get bytes(): Buffer {
    return this.#bytes.subarray(0, this.count * DIRECTORY_ENTRY_BYTES);
  }

  push(entry: FrameEntry): void {
    const at = this.count * DIRECTORY_ENTRY_BYTES;
    if (at === this.#bytes.length) {
      const bigger = Buffer.alloc(Math.max(at * 2, 64 * DIRECTORY_ENTRY_BYTES));
      this.#bytes.copy(bigger);
      this.#bytes = bigger;
      this.#view = new DataView(bigger.buffer, bigger.byteOffset, bigger.byteLength);
    }
    writeU64(this.#view, at, entry.firstLsn);
    writeU64(this.#view, at + 8, entry.lastLsn);
    this.#view.setUint32(at + 16, entry.offset, true);
    this.#view.setUint32(at + 20, entry.bytes, true);
    writeU64(this.#view, at + 24, entry.firstTime);
    writeU64(this.#view, at + 32, entry.lastTime);
    this.#view.setUint32(at + 40, entry.records, true);
    if (entry.guessed === true) this.#guessed.add(entry.offset);
    this.count += 1;
  }

  entry(index: number): FrameEntry {
    assert(index >= 0 && index < this.count, `no frame ${index} in the directory`);
    const at = index * DIRECTORY_ENTRY_BYTES;
    const offset = this.#view.getUint32(at + 16, true);
    return {
      firstLsn: readU64(this.#view, at, 'directory first LSN'),
      lastLsn: readU64(this.#view, at + 8, 'directory last LSN'),
      offset,
      bytes: this.#view.getUint32(at + 20, true),
      firstTime: readU64(this.#view, at + 24, 'directory first time'),
      lastTime: readU64(this.#view, at + 32, 'directory last time'),
      records: this.#view.getUint32(at + 40, true),
      ...(this.#guessed.has(offset) && { guessed: true }),
    };
  }

  /** The frames hold the LSNs from `firstLsn` to `lastLsn`, each once: a search between them always ends at a frame. */
  covers(firstLsn: Lsn, lastLsn: Lsn): boolean {
    let next = firstLsn;
    for (let i = 0; i < this.count; i += 1) {
      const entry = this.entry(i);
      if (entry.firstLsn !== next || entry.lastLsn < next) return false;
      next = entry.lastLsn + 1;
    }
    return next === lastLsn + 1;
  }

  /** The first frame whose last LSN is at or behind `lsn`; `count` when there is none. */
  atLsn(lsn: Lsn): number {
    return this.#search(8, lsn);
  }

  /** The first frame whose last record is at or behind `time`; `count` when there is none. */
  atTime(time: JournalTime): number {
    return this.#search(32, time);
  }

  #search(field: number, value: number): number {
    let low = 0;
    let high = this.count;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (readU64(this.#view, middle * DIRECTORY_ENTRY_BYTES + field, 'directory') < value) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

/** The entry of the frame, or of the damage, in which a byte stands; nothing where no frame is. */
export function entryAt(directory: FrameDirectory, offset: number): FrameEntry | undefined {
  for (let index = directory.count - 1; index >= 0; index -= 1) {
    const entry = directory.entry(index);
    if (entry.offset <= offset) return offset < entry.offset + Math.max(entry.bytes, 1) ? entry : undefined;
  }
  return undefined;
}
