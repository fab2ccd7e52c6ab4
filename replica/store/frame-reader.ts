import { TidemarkError } from '../../journal/base/errors.ts';
import { CHUNK_BYTES_MAX, FRAME_HEADER_BYTES, framePrefixBytes, readFrameHeader } from '../../journal/frame-codec.ts';
import { copyOverlap, FrameLayout, type PlainRecord } from '../../journal/frame-layout.ts';
import { FrameView } from '../../journal/frame-view.ts';
import type { Lsn } from '../../journal/position.ts';
import { ByteCache } from './byte-cache.ts';
import type { RepairedFrames } from './repaired-frames.ts';
import type { FrameRef } from './segment-info.ts';
import type { SegmentStore } from './segment-store.ts';

/** The file ends early, the medium errs, or a checksum is wrong. */
export const DAMAGE: readonly string[] = ['frame-damaged', 'journal-damaged', 'device-failed'];

/** A record up to this long is read by itself, not with its chunk. */
const ALONE_BYTES_MAX = 16 * 1024;

export interface FrameReaderOptions {
  /** Plain chunks kept in memory, for all views of the group together. */
  readonly chunkBytesMax: number;
  /** Record lists and chunk tables kept in memory. */
  readonly layoutBytesMax: number;
}

/**
 * Reads pieces of frames on disk: the prefix of a frame once, then only the chunks that are asked for, each checked and
 * unpacked once while it stays in the cache. Throws `frame-damaged`, `journal-damaged`, `trimmed`.
 */
export class FrameReader {
  readonly #store: SegmentStore;
  readonly #repaired: RepairedFrames;
  readonly #layouts: ByteCache<FrameLayout>;
  readonly #chunks: ByteCache<Uint8Array>;
  /** Chunks that only reads have seen that do not wait: nobody holds them once they gave way. */
  readonly #reusable = new WeakSet<Uint8Array>();
  #spare: Uint8Array | undefined;
  /** For stored bytes of reads that do not wait: nothing else runs before they are unpacked. */
  readonly #scratch: Uint8Array = new Uint8Array(CHUNK_BYTES_MAX);

  /** Told of every frame that could not be read, before the reader is. */
  onDamage: (segment: number, offset: number, reason: string) => void = () => undefined;

  constructor(store: SegmentStore, repaired: RepairedFrames, options: FrameReaderOptions) {
    this.#store = store;
    this.#repaired = repaired;
    this.#layouts = new ByteCache(
      options.layoutBytesMax,
      ({ header }) => 1024 + header.listPlainBytes * 1.1 + header.chunkCount * 12,
    );
    this.#chunks = new ByteCache(
      options.chunkBytesMax,
      (chunk) => chunk.length,
      (chunk) => {
        if (this.#reusable.has(chunk)) this.#spare = chunk;
      },
    );
  }

  /** Header, record list and chunk table of a frame. One with other records, whole as it may be, is damage. */
  async layout(frame: FrameRef): Promise<FrameLayout> {
    const { firstLsn, lastLsn, offset, segment } = frame;
    const layout = await this.#layoutOf(segment, offset, this.#repaired.size(segment, offset));
    if (layout.header.firstLsn > firstLsn || layout.lastLsn !== lastLsn) {
      return this.#told(segment, offset, () => Promise.reject(anotherFrame(layout, frame)));
    }
    return layout;
  }

  /** `standIn`: bytes of the frame that stands in for this one; what is kept in memory is of the one or of the other. */
  async #layoutOf(segment: number, offset: number, standIn: number | undefined): Promise<FrameLayout> {
    const key = `${segment}:${offset}:${standIn ?? 0}`;
    return (
      this.#layouts.now(key) ??
      this.#layouts.load(key, async () => {
        const head = new Uint8Array(FRAME_HEADER_BYTES);
        return this.#told(segment, offset, async () => {
          await this.#readBytes(segment, offset, standIn, 0, head);
          const prefix = new Uint8Array(framePrefixBytes(readFrameHeader(head)));
          await this.#readBytes(segment, offset, standIn, 0, prefix);
          return FrameLayout.parse(prefix);
        });
      })
    );
  }

  /** Copies [payload, payload + into.length) of a frame's plain payload. */
  async read(segment: number, offset: number, payload: number, into: Uint8Array): Promise<void> {
    if (into.length === 0) return;
    const standIn = this.#repaired.size(segment, offset);
    const layout = await this.#layoutOf(segment, offset, standIn);
    const { chunkBytes, payloadPlainBytes } = layout.header;
    if (payload + into.length > payloadPlainBytes) {
      const what = `segment ${segment}, frame at ${offset}: the index names payload byte ${payload} of ${payloadPlainBytes}`;
      throw new TidemarkError('journal-damaged', what);
    }
    const range = layout.chunkRange(payload, into.length);
    const alone = this.#alone(layout, payload, into.length);
    if (alone !== undefined && this.#chunks.now(chunkKey(segment, offset, standIn, range.first)) === undefined) {
      const bytes = alone.bytes === into.length ? into : new Uint8Array(alone.bytes);
      await this.#told(segment, offset, async () => {
        await this.#readBytes(segment, offset, standIn, alone.storedOffset, bytes);
        layout.verifyRecord(alone, bytes);
      });
      if (bytes !== into) copyOverlap(bytes, alone.payload, payload, into.length, into, 0);
      return;
    }
    for (let chunk = range.first; chunk <= range.last; chunk += 1) {
      const key = chunkKey(segment, offset, standIn, chunk);
      const plain =
        this.#chunks.now(key) ??
        (await this.#chunks.load(key, async () => {
          const stored = layout.chunkRange(chunk * chunkBytes, 1);
          const bytes = unsetBytes(stored.storedBytes);
          return this.#told(segment, offset, async () => {
            await this.#readBytes(segment, offset, standIn, stored.storedOffset, bytes);
            return layout.unpackChunk(chunk, bytes, 0);
          });
        }));
      copyOverlap(plain, chunk * chunkBytes, payload, into.length, into, 0);
    }
  }

  /**
   * As `read` when nothing has to be waited for: the frame's list is in the cache, and its bytes are in memory. False: ask
   * `read`, which also tells of what is damaged. Most reads of a view are of this kind, and cost a third so.
   */
  readNow(segment: number, offset: number, payload: number, into: Uint8Array): boolean {
    if (into.length === 0) return true;
    const layout = this.#repaired.size(segment, offset) === undefined && this.#layouts.now(`${segment}:${offset}:0`);
    if (!layout || payload + into.length > layout.header.payloadPlainBytes) return false;
    const range = layout.chunkRange(payload, into.length);
    try {
      for (let chunk = range.first; chunk <= range.last; chunk += 1) {
        const key = chunkKey(segment, offset, undefined, chunk);
        let plain = this.#chunks.now(key);
        if (plain === undefined) {
          if (this.#readAloneNow(layout, segment, offset, payload, into)) return true;
          const stored = layout.chunkRange(chunk * layout.header.chunkBytes, 1);
          const memory = this.#memoryOf(layout.header.chunkBytes);
          const bytes = (layout.isPacked(chunk) ? this.#scratch : memory).subarray(0, stored.storedBytes);
          if (!this.#store.readNow(segment, offset + stored.storedOffset, bytes)) return false;
          plain = layout.unpackChunkInto(chunk, bytes, memory);
          this.#reusable.add(plain);
          this.#chunks.keep(key, plain);
        }
        copyOverlap(plain, chunk * layout.header.chunkBytes, payload, into.length, into, 0);
      }
    } catch (error) {
      if (!(error instanceof TidemarkError)) throw error;
      return false;
    }
    return true;
  }

  /** Memory of a chunk that gave way, or new. */
  #memoryOf(chunkBytes: number): Uint8Array {
    const spare = this.#spare;
    this.#spare = undefined;
    return spare?.length === chunkBytes ? spare : unsetBytes(chunkBytes);
  }

  #readAloneNow(layout: FrameLayout, segment: number, offset: number, payload: number, into: Uint8Array): boolean {
    const alone = this.#alone(layout, payload, into.length);
    if (alone === undefined) return false;
    const bytes = alone.bytes === into.length ? into : this.#scratch.subarray(0, alone.bytes);
    if (!this.#store.readNow(segment, offset + alone.storedOffset, bytes)) return false;
    layout.verifyRecord(alone, bytes);
    if (bytes !== into) copyOverlap(bytes, alone.payload, payload, into.length, into, 0);
    return true;
  }

  /** The one small record that is asked for, where it is stored as it is: a sixteenth of its chunk is read and checked. */
  #alone(layout: FrameLayout, payload: number, length: number): PlainRecord | undefined {
    const record = length > ALONE_BYTES_MAX ? undefined : layout.plainRecord(payload, length);
    return record === undefined || record.bytes > ALONE_BYTES_MAX ? undefined : record;
  }

  /** All bytes of a frame, as they came or as they were put back; checked whole. */
  async whole(frame: FrameRef): Promise<FrameView> {
    const { segment, offset } = frame;
    const standIn = this.#repaired.size(segment, offset);
    const bytes = new Uint8Array(standIn ?? frame.bytes);
    return this.#told(segment, offset, async () => {
      await this.#readBytes(segment, offset, standIn, 0, bytes);
      const view = FrameView.open(bytes);
      if (view.firstLsn > frame.firstLsn || view.lastLsn !== frame.lastLsn) throw anotherFrame(view, frame);
      view.verifyChunks();
      return view;
    });
  }

  /** From now on another frame stands in for this one; durable when it resolves. */
  replace(segment: number, offset: number, frame: Uint8Array): Promise<void> {
    return this.#repaired.put(segment, offset, frame);
  }

  async #readBytes(
    segment: number,
    offset: number,
    standIn: number | undefined,
    position: number,
    into: Uint8Array,
  ): Promise<void> {
    if (standIn === undefined) await this.#store.read(segment, offset + position, into);
    else await this.#repaired.read(segment, offset, position, into);
  }

  async #told<T>(segment: number, offset: number, read: () => Promise<T>): Promise<T> {
    try {
      return await read();
    } catch (error) {
      const damaged = error instanceof TidemarkError && DAMAGE.includes(error.code);
      if (damaged) this.onDamage(segment, offset, error.message);
      throw error;
    }
  }
}

function chunkKey(segment: number, offset: number, standIn: number | undefined, chunk: number): string {
  return `${segment}:${offset}:${standIn ?? 0}:${chunk}`;
}

/** Memory that is about to be overwritten whole. */
function unsetBytes(length: number): Uint8Array {
  return new Uint8Array(Buffer.allocUnsafeSlow(length).buffer);
}

function anotherFrame(found: { readonly lastLsn: Lsn }, { firstLsn, lastLsn }: FrameRef): TidemarkError {
  return new TidemarkError(
    'frame-damaged',
    `a frame up to LSN ${found.lastLsn} stands where ${firstLsn} to ${lastLsn} should`,
  );
}
