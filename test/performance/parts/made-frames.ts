import { randomFillSync } from 'node:crypto';
import { CHAIN_START } from '../../../journal/chain.ts';
import { FrameSealer, SEALER_DEFAULTS, type SealedFrame } from '../../../journal/frame-sealer.ts';
import { RecordKind } from '../../../journal/record.ts';
import { encodeSeedEnd, encodeVolumeAdded } from '../../../journal/record-bodies.ts';

export const GROUP: string = '5a'.repeat(16);
export const VOLUME = 1;
/** Places of 4 KiB on the disk: 256 GiB. */
export const BLOCKS: number = 2 ** 26;
const BLOCK_BYTES = 4096;
const POOL_BYTES = 16 * 1024 ** 2;

/** 32-bit numbers in a fixed order: two runs measure the same. */
export class Numbers {
  #state: number;

  constructor(seed: number) {
    this.#state = seed | 0;
  }

  /** Uniform in [0, bound), bound at most 2^32. */
  below(bound: number): number {
    // xorshift32
    this.#state ^= this.#state << 13;
    this.#state ^= this.#state >>> 17;
    this.#state ^= this.#state << 5;
    return Math.floor(((this.#state >>> 0) / 2 ** 32) * bound);
  }
}

/** A stream of frames as a source seals them: an empty disk, then random writes of 4 KiB. */
export class MadeFrames {
  readonly #sealer: FrameSealer;
  readonly #pool: Uint8Array;
  readonly #numbers = new Numbers(0x7ead);
  #time = 1_700_000_000_000_000;

  /** `packed`: blocks whose second half is zeroes, compressed by zstd; otherwise random ones, as they are. */
  constructor(packed: boolean) {
    const incarnation = { counter: 1, nonce: '1'.repeat(16) };
    this.#sealer = new FrameSealer({ groupId: GROUP, epoch: 1, incarnation }, { ...SEALER_DEFAULTS, compress: packed });
    this.#sealer.begin(1, CHAIN_START);
    this.#pool = randomFillSync(new Uint8Array(POOL_BYTES));
    for (let at = BLOCK_BYTES / 2; packed && at < POOL_BYTES; at += BLOCK_BYTES) {
      this.#pool.fill(0, at, at + BLOCK_BYTES / 2);
    }
  }

  /** The next frame of about 1 MiB of plain bytes. */
  next(): SealedFrame {
    const sealer = this.#sealer;
    if (sealer.nextLsn === 1) {
      this.#control(
        RecordKind.volumeAdded,
        encodeVolumeAdded({ id: VOLUME, name: 'disk0', size: BLOCKS * BLOCK_BYTES, blockBytes: 512 }),
      );
      this.#control(RecordKind.seedEnd, encodeSeedEnd({ volume: VOLUME }));
    }
    while (sealer.fits(BLOCK_BYTES)) {
      const at = this.#numbers.below(POOL_BYTES / BLOCK_BYTES) * BLOCK_BYTES;
      this.#add(RecordKind.write, VOLUME, this.#numbers.below(BLOCKS), this.#pool.subarray(at, at + BLOCK_BYTES));
    }
    return sealer.seal(sealer.nextLsn - 1);
  }

  #control(kind: RecordKind, body: Uint8Array): void {
    this.#add(kind, 0, 0, body);
  }

  #add(kind: RecordKind, volume: number, block: number, payload: Uint8Array): void {
    this.#time += 20;
    const sectors = kind === RecordKind.write ? 8 : 0;
    const lsn = this.#sealer.nextLsn;
    const [sector, time] = [block * 8, this.#time];
    this.#sealer.add({ lsn, kind, flags: 0, volume, sector, sectors, requestId: 0, payload, time });
  }
}
