/**
 * Everything disk-like is one small interface: backings, views, scratch overlays, the disks of the tests.
 *
 * Offsets and lengths are bytes, multiples of 512, inside the device; the caller (the NBD session, a restore) refuses
 * everything else, and an implementation asserts it once more. A rejected promise is a `TidemarkError`; after it the
 * range may hold the old bytes, the new bytes or a mixture of both.
 */
export interface BlockDevice {
  /** Bytes; fixed for the life of the object. */
  readonly size: number;
  readonly readOnly: boolean;
  /** Fills `into` with the bytes at `offset`; never short. Resolves with what the newest answered write put there. */
  read(offset: number, into: Uint8Array): Promise<void>;
  /**
   * As `read`, but at once or not at all: true when `into` is filled, false when that would take waiting, or cannot be
   * known (`into` may hold anything then, and `read` says what is wrong). A device that cannot do this leaves it out.
   */
  readNow?(offset: number, into: Uint8Array): boolean;
  /** Writes all of `from`; never short. The buffer belongs to the device until the promise settles. */
  write(offset: number, from: Uint8Array): Promise<void>;
  /**
   * Many `write`s at once, which do not overlap: three numbers each in `places`, byte offset on the device, byte offset
   * in `memory`, length. Both belong to the device until the promise settles. Left out where it would gain nothing.
   */
  writeMany?(memory: SharedArrayBuffer, places: Float64Array): Promise<void>;
  /**
   * The range reads as zeroes afterwards. `mayUnmap`: the space may be given back (a trim, or zeroes without NO_HOLE).
   * The length has no upper bound but the device: implementations slice.
   */
  zero(offset: number, length: number, mayUnmap: boolean): Promise<void>;
  /** Everything answered before the call is on stable storage when it resolves. */
  flush(): Promise<void>;
  /** What lies in the range, as extents in order that cover it exactly; `hole` reads as zeroes and occupies nothing. */
  extents(offset: number, length: number): Promise<DeviceExtent[]>;
  /** Waits for what is under way; idempotent. */
  close(): Promise<void>;
}

export interface DeviceExtent {
  readonly length: number;
  /** 'data': read it; 'zero': allocated, reads as zeroes; 'hole': unallocated, reads as zeroes. */
  readonly kind: 'data' | 'zero' | 'hole';
}
