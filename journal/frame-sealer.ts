import { crc32c } from '@node-rs/crc32';
import { assert } from './base/assert.ts';
import { advanceChain, type Chain } from './chain.ts';
import { ChunkPacker, packCarefully } from './chunk-packer.ts';
import {
  CHUNK_BYTES_DEFAULT,
  CHUNK_BYTES_MAX,
  CHUNK_ENTRY_BYTES,
  CHUNK_PACKED,
  type EntryFields,
  FRAME_ENTRY_BYTES,
  FRAME_HEADER_BYTES,
  FRAME_RECORDS_MAX,
  FrameFlag,
  writeEntry,
  writeFrameHeader,
} from './frame-codec.ts';
import { type Epoch, type JournalTime, type Lsn, SECTOR_BYTES } from './position.ts';
import { healsGap, RECORD_PAYLOAD_BYTES_MAX, RecordKind } from './record.ts';
import type { Incarnation, OutgoingFrame } from './stream.ts';

/** One record on its way into a frame: a `JournalRecord` with the time of its batch. */
export interface SealRecord extends EntryFields {
  readonly lsn: Lsn;
  readonly payload: Uint8Array;
}

export interface SealerIdentity {
  /** 32 hex digits. */
  readonly groupId: string;
  readonly epoch: Epoch;
  readonly incarnation: Incarnation;
}

export interface SealerOptions {
  /** Plain bytes of one chunk: a multiple of 512, at most 1 MiB. */
  readonly chunkBytes: number;
  /** A frame takes no further record once its plain payload and list would pass this; at most 2 MiB. */
  readonly targetBytes: number;
  readonly compress: boolean;
}

export const SEALER_DEFAULTS: SealerOptions = {
  chunkBytes: CHUNK_BYTES_DEFAULT,
  targetBytes: 1024 * 1024,
  compress: true,
};

export interface SealedFrame extends OutgoingFrame {
  readonly recordCount: number;
  readonly payloadPlainBytes: number;
  readonly lastTime: JournalTime;
  readonly chainAfter: Chain;
}

const TARGET_BYTES_MAX = 2 * 1024 * 1024;

/**
 * Collects records and seals them into frames. Payloads and entries are copied on `add`, so that the caller's buffer is
 * free at once; memory is twice the target or the largest record. A sealed frame has bytes of its own, made once at their
 * final size: everything else is kept from frame to frame, because what the collector must free it first must find, and
 * under large writes that was a quarter of all CPU.
 */
export class FrameSealer {
  readonly #identity: SealerIdentity;
  readonly #options: SealerOptions;
  readonly #payload: Uint8Array;
  /** Packed chunks, one behind the other, then the packed list; they are shorter than what they were made of. */
  readonly #packed: Uint8Array;
  readonly #entries: Uint8Array = new Uint8Array(FRAME_RECORDS_MAX * FRAME_ENTRY_BYTES);
  readonly #entriesView: DataView = new DataView(this.#entries.buffer);
  readonly #packer = new ChunkPacker();
  #nextLsn: Lsn = 0;
  #chain: Chain | undefined;
  #count = 0;
  #payloadBytes = 0;
  #firstTime: JournalTime = 0;
  #lastTime: JournalTime = 0;
  /** Entries of the frame at hand that `#chain` covers already. */
  #chained = 0;
  #chainBefore: Chain | undefined;
  #flags = 0;

  constructor(identity: SealerIdentity, options: SealerOptions = SEALER_DEFAULTS) {
    const { chunkBytes, targetBytes } = options;
    assert(
      chunkBytes >= SECTOR_BYTES && chunkBytes <= CHUNK_BYTES_MAX && chunkBytes % SECTOR_BYTES === 0,
      `chunks of ${chunkBytes} bytes`,
    );
    assert(targetBytes >= FRAME_ENTRY_BYTES && targetBytes <= TARGET_BYTES_MAX, `frames of ${targetBytes} bytes`);
    assert(/^[0-9a-f]{32}$/.test(identity.groupId), `group id '${identity.groupId}'`);
    assert(/^[0-9a-f]{16}$/.test(identity.incarnation.nonce), `nonce '${identity.incarnation.nonce}'`);
    this.#identity = identity;
    this.#options = options;
    this.#payload = new Uint8Array(Math.max(targetBytes, RECORD_PAYLOAD_BYTES_MAX));
    this.#packed = new Uint8Array(this.#payload.length + this.#entries.length);
  }

  /** Forgets what was collected; the next record is `nextLsn`, `chain` the value before it. */
  begin(nextLsn: Lsn, chain: Chain): void {
    this.#nextLsn = nextLsn;
    this.#chain = chain;
    this.#clear();
  }

  /** The chain value after the last record added. */
  get chain(): Chain {
    assert(this.#chain !== undefined, 'the sealer was not begun');
    const from = this.#chained * FRAME_ENTRY_BYTES;
    this.#chain = advanceChain(this.#chain, this.#entries.subarray(from, this.#count * FRAME_ENTRY_BYTES));
    this.#chained = this.#count;
    return this.#chain;
  }

  /** LSN of the next record to add. */
  get nextLsn(): Lsn {
    return this.#nextLsn;
  }

  get recordCount(): number {
    return this.#count;
  }

  /** Plain bytes collected: payloads and list. */
  get bytes(): number {
    return this.#payloadBytes + this.#count * FRAME_ENTRY_BYTES;
  }

  /** True when a record with so many payload bytes still goes into the frame at hand; an empty one takes any record. */
  fits(payloadBytes: number): boolean {
    if (this.#count === 0) return true;
    return (
      this.#count < FRAME_RECORDS_MAX && this.bytes + FRAME_ENTRY_BYTES + payloadBytes <= this.#options.targetBytes
    );
  }

  /** Takes one record, which `fits` and follows the one before. */
  add(record: SealRecord): void {
    const payloadBytes = record.payload.length;
    assert(this.#chain !== undefined, 'the sealer was not begun');
    assert(record.lsn === this.#nextLsn, `record ${record.lsn} after ${this.#nextLsn - 1}`);
    assert(record.kind !== RecordKind.pad, 'a pad has no LSN');
    assert(payloadBytes <= RECORD_PAYLOAD_BYTES_MAX && this.fits(payloadBytes), `${payloadBytes} bytes do not fit`);
    assert(this.#count === 0 || record.time >= this.#lastTime, `the time of record ${record.lsn} goes back`);
    // The crc is taken over the caller's bytes, which its batch was verified over, not over our copy (DESIGN rule 16).
    const crc = payloadBytes === 0 ? 0 : crc32c(record.payload);
    writeEntry(this.#entriesView, this.#count * FRAME_ENTRY_BYTES, record, payloadBytes, crc);
    this.#payload.set(record.payload, this.#payloadBytes);
    if (healsGap(record.kind)) this.#flags = FrameFlag.gapHealed;
    if (this.#count === 0) this.#firstTime = record.time;
    this.#lastTime = record.time;
    this.#payloadBytes += payloadBytes;
    this.#count++;
    this.#nextLsn++;
  }

  /**
   * Seals what was collected (one record or more) and begins the next frame behind it. `memoryFor`: where the frame's bytes
   * are to stand, exactly so many.
   */
  seal(sourceDurableLsn: Lsn, memoryFor: (bytes: number) => Uint8Array = unsetBytes): SealedFrame {
    assert(this.#count > 0 && this.#chainBefore !== undefined, 'an empty frame is never sealed');
    const entries = this.#entries.subarray(0, this.#count * FRAME_ENTRY_BYTES);
    const chainAfter = this.chain;
    const { compress } = this.#options;
    const chunkCount = Math.ceil(this.#payloadBytes / this.#options.chunkBytes);
    const table = new DataView(new ArrayBuffer(chunkCount * CHUNK_ENTRY_BYTES));
    let packedBytes = 0;
    let payloadStoredBytes = 0;
    for (let index = 0; index < chunkCount; index++) {
      const plain = this.#chunk(index);
      const packed = compress ? this.#packer.packInto(this.#packed.subarray(packedBytes), plain) : undefined;
      const stored = packed === undefined ? plain : this.#packed.subarray(packedBytes, packedBytes + packed);
      packedBytes += packed ?? 0;
      payloadStoredBytes += stored.length;
      table.setUint32(index * CHUNK_ENTRY_BYTES, stored.length + (packed === undefined ? 0 : CHUNK_PACKED), true);
      table.setUint32(index * CHUNK_ENTRY_BYTES + 4, crc32c(stored), true);
    }
    const listPacked = compress ? packCarefully(this.#packed.subarray(packedBytes), entries) : undefined;
    const list = listPacked === undefined ? entries : this.#packed.subarray(packedBytes, packedBytes + listPacked);
    const bytes = memoryFor(FRAME_HEADER_BYTES + list.length + table.byteLength + payloadStoredBytes);
    bytes.set(list, FRAME_HEADER_BYTES);
    const tableBytes = bytes.subarray(FRAME_HEADER_BYTES + list.length, bytes.length - payloadStoredBytes);
    tableBytes.set(new Uint8Array(table.buffer));
    this.#copyChunks(table, bytes, bytes.length - payloadStoredBytes);
    const firstLsn = this.#nextLsn - this.#count;
    writeFrameHeader(bytes, {
      frameBytes: bytes.length,
      groupId: this.#identity.groupId,
      firstLsn,
      recordCount: this.#count,
      epoch: this.#identity.epoch,
      incarnation: this.#identity.incarnation,
      sourceDurableLsn,
      firstTime: this.#firstTime,
      lastTime: this.#lastTime,
      chainBefore: this.#chainBefore,
      chainAfter,
      listPlainBytes: entries.length,
      listStoredBytes: list.length,
      listCrc: crc32c(list),
      listPacked: listPacked !== undefined,
      chunkBytes: this.#options.chunkBytes,
      chunkCount,
      payloadPlainBytes: this.#payloadBytes,
      payloadStoredBytes,
      tableCrc: crc32c(tableBytes),
      flags: this.#flags,
    });
    const frame = {
      bytes,
      firstLsn,
      lastLsn: this.#nextLsn - 1,
      recordCount: this.#count,
      payloadPlainBytes: this.#payloadBytes,
      lastTime: this.#lastTime,
      chainAfter,
    };
    this.#clear();
    return frame;
  }

  #chunk(index: number): Uint8Array {
    const start = index * this.#options.chunkBytes;
    return this.#payload.subarray(start, Math.min(start + this.#options.chunkBytes, this.#payloadBytes));
  }

  /** Each chunk as the table says: the next packed one, or the plain one. */
  #copyChunks(table: DataView, into: Uint8Array, from: number): void {
    let at = from;
    let packedAt = 0;
    for (let index = 0; index * CHUNK_ENTRY_BYTES < table.byteLength; index++) {
      const word = table.getUint32(index * CHUNK_ENTRY_BYTES, true);
      const packed = word >= CHUNK_PACKED;
      const length = packed ? word - CHUNK_PACKED : word;
      into.set(packed ? this.#packed.subarray(packedAt, packedAt + length) : this.#chunk(index), at);
      if (packed) packedAt += length;
      at += length;
    }
  }

  #clear(): void {
    this.#chainBefore = this.#chain;
    this.#chained = 0;
    this.#flags = 0;
    this.#count = 0;
    this.#payloadBytes = 0;
  }
}

/** Memory that is about to be overwritten whole. */
function unsetBytes(length: number): Uint8Array {
  return new Uint8Array(Buffer.allocUnsafeSlow(length).buffer);
}
