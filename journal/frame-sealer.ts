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
  /** Where a frame is made that gets memory of its own afterwards. */
  #room: Uint8Array | undefined;
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
   * Seals what was collected (one record or more) and begins the next frame behind it. `memoryFor` may give memory of so many
   * bytes at least, where the frame is made and stays; without it the frame has memory of its own.
   *
   * Everything is packed where it will stand, the list first: where chunks begin hangs on it. To pack them elsewhere and copy
   * them cost a fifth of all sealing where the frame's memory is shared, which is copied byte by byte.
   */
  seal(sourceDurableLsn: Lsn, memoryFor: (bytes: number) => Uint8Array | undefined = noMemory): SealedFrame {
    assert(this.#count > 0 && this.#chainBefore !== undefined, 'an empty frame is never sealed');
    const entries = this.#entries.subarray(0, this.#count * FRAME_ENTRY_BYTES);
    const chainAfter = this.chain;
    const { compress } = this.#options;
    const chunkCount = Math.ceil(this.#payloadBytes / this.#options.chunkBytes);
    const roomBytes = FRAME_HEADER_BYTES + entries.length + chunkCount * CHUNK_ENTRY_BYTES + this.#payloadBytes;
    const given = memoryFor(roomBytes);
    const room = given ?? this.#roomOf(roomBytes);
    const listRoom = room.subarray(FRAME_HEADER_BYTES, FRAME_HEADER_BYTES + entries.length);
    const listPacked = compress ? packCarefully(listRoom, entries) : undefined;
    if (listPacked === undefined) listRoom.set(entries);
    const list = listRoom.subarray(0, listPacked ?? entries.length);
    const tableAt = FRAME_HEADER_BYTES + list.length;
    const tableBytes = room.subarray(tableAt, tableAt + chunkCount * CHUNK_ENTRY_BYTES);
    const payloadStoredBytes = this.#packChunks(tableBytes, room.subarray(tableAt + tableBytes.length));
    const frameBytes = tableAt + tableBytes.length + payloadStoredBytes;
    const bytes = given === undefined ? unsetBytes(frameBytes) : given.subarray(0, frameBytes);
    if (given === undefined) bytes.set(room.subarray(0, frameBytes));
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

  /** Chunks one behind the other, and the table that tells them apart. Returns the bytes they take. */
  #packChunks(tableBytes: Uint8Array, room: Uint8Array): number {
    const table = new DataView(tableBytes.buffer, tableBytes.byteOffset, tableBytes.length);
    let at = 0;
    for (let index = 0; index * CHUNK_ENTRY_BYTES < table.byteLength; index++) {
      const plain = this.#chunk(index);
      const packed = this.#options.compress
        ? this.#packer.packInto(room.subarray(at, at + plain.length), plain)
        : undefined;
      if (packed === undefined) room.set(plain, at);
      const stored = room.subarray(at, at + (packed ?? plain.length));
      table.setUint32(index * CHUNK_ENTRY_BYTES, stored.length + (packed === undefined ? 0 : CHUNK_PACKED), true);
      table.setUint32(index * CHUNK_ENTRY_BYTES + 4, crc32c(stored), true);
      at += stored.length;
    }
    return at;
  }

  /** Used again for every frame that then gets memory of its own at its final size. */
  #roomOf(bytes: number): Uint8Array {
    if (this.#room === undefined || this.#room.length < bytes) this.#room = unsetBytes(bytes);
    return this.#room;
  }

  #clear(): void {
    this.#chainBefore = this.#chain;
    this.#chained = 0;
    this.#flags = 0;
    this.#count = 0;
    this.#payloadBytes = 0;
  }
}

function noMemory(): undefined {
  return undefined;
}

/** Memory that is about to be overwritten whole. */
function unsetBytes(length: number): Uint8Array {
  return new Uint8Array(Buffer.allocUnsafeSlow(length).buffer);
}
