/** Frames at most under way in shared memory: the window of a direct stream, full of frames that halved. */
const SLOTS = 20;
/** A frame of the usual size that did not shrink, with its list. */
const SLOT_BYTES: number = 1280 * 1024;
const FREE = 0;
const TAKEN = 1;

/**
 * Memory for frames that the sealing thread fills and the group's thread sends, used again and again. With memory of its
 * own for each frame the collector ran every 25 MiB of guest writes, because its limit counts what lies outside the heap:
 * a quarter of the source's CPU under 1 MiB writes. Pages that were never written to cost nothing.
 *
 *   state:  i32 per slot, FREE or TAKEN; taken by the sealing thread, freed by the one that has sent the frame
 *   bytes:  slot 0 | slot 1 | ...
 */
export class FrameSlots {
  readonly memory: SharedArrayBuffer;
  readonly #state: Int32Array;

  /** `memory`: of the other thread's object. */
  constructor(memory: SharedArrayBuffer = new SharedArrayBuffer(SLOTS * (4 + SLOT_BYTES))) {
    this.memory = memory;
    this.#state = new Int32Array(memory, 0, SLOTS);
  }

  /** The slot taken; undefined when there is none that is free, or large enough. */
  take(bytes: number): number | undefined {
    if (bytes > SLOT_BYTES) return undefined;
    for (let slot = 0; slot < SLOTS; slot++) {
      if (Atomics.compareExchange(this.#state, slot, FREE, TAKEN) === FREE) return slot;
    }
    return undefined;
  }

  /** The front of a slot. */
  bytes(slot: number, length: number): Uint8Array {
    return new Uint8Array(this.memory, 4 * SLOTS + slot * SLOT_BYTES, length);
  }

  free(slot: number): void {
    Atomics.store(this.#state, slot, FREE);
  }
}
