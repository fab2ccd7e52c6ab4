import { assert } from '../../journal/base/assert.ts';

/** Before the window: batch and record headers are written there by exports (RequestWindow promises 64 bytes). */
const SLAB_HEADROOM_BYTES = 8192;
/** Room that is left behind a waiting request of a whole window, so that a read always finds some. */
const SLAB_RESERVE_BYTES = 64 * 1024;
/** Behind the last byte a socket may fill: an export pads its journal write to 4 KiB with what stands there. */
const SLAB_TAIL_BYTES = 8192;

/** The one place where receive memory comes from. */
function allocate(bytes: number): Buffer {
  return Buffer.from(new ArrayBuffer(bytes));
}

/**
 * Receive memory of one connection: the socket reads straight into it, requests are parsed in place, and an export turns
 * them into journal records in place. [readAt, writeAt) is received and not parsed.
 */
export class Slab {
  readonly buffer: Buffer;
  readonly view: DataView;
  readAt: number = SLAB_HEADROOM_BYTES;
  writeAt: number = SLAB_HEADROOM_BYTES;
  readonly #end: number;
  #spill: Buffer | undefined;

  constructor(windowBytes: number) {
    this.#end = SLAB_HEADROOM_BYTES + windowBytes + SLAB_RESERVE_BYTES;
    this.buffer = allocate(this.#end + SLAB_TAIL_BYTES);
    this.view = new DataView(this.buffer.buffer, this.buffer.byteOffset, this.buffer.byteLength);
  }

  get unparsedBytes(): number {
    return this.writeAt - this.readAt;
  }

  /**
   * Where the next read of the socket goes. The socket keeps this buffer while it is paused, so what lies before it must
   * not move until the read is `filled`; when a blocked client has filled the slab, one more read goes beside it.
   */
  room(): Buffer {
    if (this.#end - this.writeAt < this.#end / 2) this.#compact();
    if (this.#end - this.writeAt >= SLAB_RESERVE_BYTES / 2) return this.buffer.subarray(this.writeAt, this.#end);
    this.#spill ??= allocate(SLAB_RESERVE_BYTES / 2);
    return this.#spill;
  }

  /** The socket has put `bytes` into what `room` returned. The caller parses everything first when it was paused. */
  filled(bytes: number, into: Uint8Array): void {
    if (into.buffer === this.buffer.buffer) this.writeAt += bytes;
    else assert(this.append(into.subarray(0, bytes)) === bytes, 'a spilled read fits once the slab is parsed');
  }

  /** Copies in as much of `bytes` as fits and returns how much that was. */
  append(bytes: Uint8Array): number {
    if (this.#end - this.writeAt < bytes.length) this.#compact();
    const taken = Math.min(bytes.length, this.#end - this.writeAt);
    this.buffer.set(taken === bytes.length ? bytes : bytes.subarray(0, taken), this.writeAt);
    this.writeAt += taken;
    return taken;
  }

  #compact(): void {
    if (this.readAt === SLAB_HEADROOM_BYTES) return;
    if (this.readAt < this.writeAt) this.buffer.copyWithin(SLAB_HEADROOM_BYTES, this.readAt, this.writeAt);
    this.writeAt = SLAB_HEADROOM_BYTES + this.unparsedBytes;
    this.readAt = SLAB_HEADROOM_BYTES;
  }
}
