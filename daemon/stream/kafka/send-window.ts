import { assert } from '../../../journal/base/assert.ts';
import { type Lsn } from '../../../journal/position.ts';
import { type OutgoingFrame } from '../../../journal/stream.ts';

/**
 * Go-back-N. Frames stand in LSN order from `base` on; up to `FRAMES_MAX` of them are under way. Acknowledgements may
 * come in any order, but only a prefix counts. After any failure everything from the base is sent again, also what was
 * acknowledged above it, byte for byte the same; the receiver drops what it has by position.
 */
export class SendWindow {
  readonly #bytesMax: number;
  readonly #framesMax: number;
  #frames: { readonly frame: OutgoingFrame; acknowledged: bigint | undefined }[] = [];
  /** How many of the frames were sent since the last rewind. */
  #sent = 0;
  #bytes = 0;
  /** The first frame after a rewind goes alone: it warms the connection and proves that one frame gets through. */
  #alone = true;

  constructor(bytesMax: number, framesMax: number) {
    this.#bytesMax = bytesMax;
    this.#framesMax = framesMax;
  }

  get roomBytes(): number {
    return this.#bytesMax - this.#bytes;
  }

  get empty(): boolean {
    return this.#frames.length === 0;
  }

  add(frame: OutgoingFrame): void {
    this.#frames.push({ frame, acknowledged: undefined });
    this.#bytes += frame.bytes.length;
  }

  /** The next frame that may leave now; it counts as sent. */
  next(): OutgoingFrame | undefined {
    const entry = this.#frames[this.#sent];
    if (entry === undefined || this.#sent >= (this.#alone ? 1 : this.#framesMax)) return undefined;
    this.#sent++;
    return entry.frame;
  }

  /**
   * Notes that the log wrote this frame at this offset, and returns the frames of the prefix that is complete now, with
   * their offsets.
   */
  acknowledge(frame: OutgoingFrame, offset: bigint): { readonly lastLsn: Lsn; readonly offset: bigint }[] {
    const entry = this.#frames.find((candidate) => candidate.frame === frame);
    assert(entry !== undefined, 'an acknowledged frame is in the window');
    entry.acknowledged = offset;
    this.#alone = false;
    const complete: { lastLsn: Lsn; offset: bigint }[] = [];
    for (let first = this.#frames[0]; first?.acknowledged !== undefined; first = this.#frames[0]) {
      this.#frames.shift();
      this.#sent--;
      this.#bytes -= first.frame.bytes.length;
      complete.push({ lastLsn: first.frame.lastLsn, offset: first.acknowledged });
    }
    return complete;
  }

  /** Everything from the base on is to be sent again. */
  rewind(): void {
    for (const entry of this.#frames) entry.acknowledged = undefined;
    this.#sent = 0;
    this.#alone = true;
  }

  /** Forgets every frame. */
  clear(): void {
    this.#frames = [];
    this.#bytes = 0;
    this.rewind();
  }
}
