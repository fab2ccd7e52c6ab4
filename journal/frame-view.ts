import { crc32c } from '@node-rs/crc32';
import type { Chain } from './chain.ts';
import { frameDamaged, type RecordEntry } from './frame-codec.ts';
import { copyOverlap, FrameLayout } from './frame-layout.ts';
import type { Epoch, JournalTime, Lsn } from './position.ts';
import type { Incarnation } from './stream.ts';

/** A whole frame in memory. The bytes are kept, not copied: they must not change while the view is used. */
export class FrameView {
  readonly bytes: Uint8Array;
  readonly layout: FrameLayout;
  /** The chunk unpacked last: records of a few KiB are read one behind the other. */
  #chunk = -1;
  #chunkPlain: Uint8Array = new Uint8Array(0);

  private constructor(bytes: Uint8Array, layout: FrameLayout) {
    this.bytes = bytes;
    this.layout = layout;
  }

  /**
   * Checks header, record list and chunk table; chunks are checked when read. `bytes` is exactly one frame. Throws
   * `frame-damaged`, or `upgrade-replica-first` for a frame of a newer format.
   */
  static open(bytes: Uint8Array): FrameView {
    const layout = FrameLayout.parse(bytes);
    if (layout.header.frameBytes !== bytes.length) {
      throw frameDamaged(`a frame of ${layout.header.frameBytes} bytes came as ${bytes.length}`);
    }
    return new FrameView(bytes, layout);
  }

  get groupId(): string {
    return this.layout.header.groupId;
  }

  get firstLsn(): Lsn {
    return this.layout.firstLsn;
  }

  get lastLsn(): Lsn {
    return this.layout.lastLsn;
  }

  get recordCount(): number {
    return this.layout.recordCount;
  }

  get epoch(): Epoch {
    return this.layout.header.epoch;
  }

  get incarnation(): Incarnation {
    return this.layout.header.incarnation;
  }

  /** The source's durable LSN when it sealed the frame. */
  get sourceDurableLsn(): Lsn {
    return this.layout.header.sourceDurableLsn;
  }

  get firstTime(): JournalTime {
    return this.layout.header.firstTime;
  }

  get lastTime(): JournalTime {
    return this.layout.header.lastTime;
  }

  get chainBefore(): Chain {
    return this.layout.header.chainBefore;
  }

  get chainAfter(): Chain {
    return this.layout.header.chainAfter;
  }

  get payloadBytes(): number {
    return this.layout.header.payloadPlainBytes;
  }

  record(index: number): RecordEntry {
    return this.layout.record(index);
  }

  forEach(run: (record: RecordEntry, index: number) => void): void {
    this.layout.forEach(run);
  }

  payloadOffset(index: number): number {
    return this.layout.payloadOffset(index);
  }

  chainAt(lsn: Lsn): Chain {
    return this.layout.chainAt(lsn);
  }

  /** The plain payload of one record, its crc checked; a copy. Throws `frame-damaged`. */
  payloadOf(index: number): Uint8Array {
    const record = this.record(index);
    const payload = new Uint8Array(record.payloadBytes);
    this.readPayload(record.payloadOffset, record.payloadBytes, payload, 0);
    checkPayload(record, payload);
    return payload;
  }

  /**
   * Copies `length` bytes of the plain payload at `offset` into `into` at `at`; only the chunks touched are checked and
   * unpacked. Throws `frame-damaged`.
   */
  readPayload(offset: number, length: number, into: Uint8Array, at: number): void {
    if (length === 0) return;
    const range = this.layout.chunkRange(offset, length);
    const chunkBytes = this.layout.header.chunkBytes;
    for (let chunk = range.first; chunk <= range.last; chunk++) {
      copyOverlap(this.#plainChunk(chunk), chunk * chunkBytes, offset, length, into, at);
    }
  }

  /** Checks the crc of every stored chunk and unpacks nothing: enough to know that the bytes are those of the source. */
  verifyChunks(): void {
    const { chunkCount, chunkBytes } = this.layout.header;
    for (let chunk = 0; chunk < chunkCount; chunk++) {
      this.layout.verifyChunk(chunk, this.bytes, this.layout.chunkRange(chunk * chunkBytes, 1).storedOffset);
    }
  }

  /** Checks everything: every chunk and the crc of every record's plain payload. Throws `frame-damaged`. */
  verifyPayload(): void {
    const plain = new Uint8Array(this.payloadBytes);
    this.readPayload(0, plain.length, plain, 0);
    this.forEach((record) => {
      checkPayload(record, plain.subarray(record.payloadOffset, record.payloadOffset + record.payloadBytes));
    });
  }

  #plainChunk(chunk: number): Uint8Array {
    if (this.#chunk !== chunk) {
      const at = this.layout.chunkRange(chunk * this.layout.header.chunkBytes, 1).storedOffset;
      this.#chunkPlain = this.layout.unpackChunk(chunk, this.bytes, at);
      this.#chunk = chunk;
    }
    return this.#chunkPlain;
  }
}

function checkPayload(record: RecordEntry, payload: Uint8Array): void {
  if (crc32c(payload) !== record.payloadCrc) {
    throw frameDamaged(`the payload of record ${record.lsn} is damaged`, { lsn: record.lsn });
  }
}
