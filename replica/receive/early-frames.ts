import type { Lsn } from '../../journal/position.ts';

export interface ArrivedFrame {
  readonly bytes: Uint8Array;
  readonly streamOffset: string;
}

/** Frames that came before the one that is missing, by their first LSN, bounded in bytes and count. */
export class EarlyFrames {
  readonly #bytesMax: number;
  readonly #framesMax: number;
  readonly #frames = new Map<Lsn, ArrivedFrame>();
  #bytes = 0;

  constructor(bytesMax: number, framesMax: number) {
    this.#bytesMax = bytesMax;
    this.#framesMax = framesMax;
  }

  get count(): number {
    return this.#frames.size;
  }

  /** False: no room; the frame will be sent again. */
  hold(firstLsn: Lsn, frame: ArrivedFrame): boolean {
    const before = this.#frames.get(firstLsn);
    const bytes = this.#bytes - (before?.bytes.length ?? 0) + frame.bytes.length;
    if (bytes > this.#bytesMax || (before === undefined && this.#frames.size >= this.#framesMax)) return false;
    this.#frames.set(firstLsn, frame);
    this.#bytes = bytes;
    return true;
  }

  /** Takes the frame that begins at or before `lsn` out; nothing when there is none. */
  take(lsn: Lsn): ArrivedFrame | undefined {
    for (const [firstLsn, frame] of this.#frames) {
      if (firstLsn > lsn) continue;
      this.#frames.delete(firstLsn);
      this.#bytes -= frame.bytes.length;
      return frame;
    }
    return undefined;
  }

  clear(): void {
    this.#frames.clear();
    this.#bytes = 0;
  }
}
