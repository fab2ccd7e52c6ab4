import { TidemarkError } from '../../journal/base/errors.ts';
import { FRAME_HEADER_BYTES, framePrefixBytes, readFrameHeader } from '../../journal/frame-codec.ts';
import { copyOverlap, FrameLayout } from '../../journal/frame-layout.ts';
import { ByteCache } from './byte-cache.ts';
import type { SegmentStore } from './segment-store.ts';

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
  readonly #layouts: ByteCache<FrameLayout>;
  readonly #chunks: ByteCache<Uint8Array>;

  constructor(store: SegmentStore, options: FrameReaderOptions) {
    this.#store = store;
    this.#layouts = new ByteCache(
      options.layoutBytesMax,
      ({ header }) => 1024 + header.listPlainBytes * 1.1 + header.chunkCount * 12,
    );
    this.#chunks = new ByteCache(options.chunkBytesMax, (chunk) => chunk.length);
  }

  /** Header, record list and chunk table of the frame at a byte of a segment. */
  async layout(segment: number, offset: number): Promise<FrameLayout> {
    const key = `${segment}:${offset}`;
    return (
      this.#layouts.now(key) ??
      this.#layouts.load(key, async () => {
        const head = new Uint8Array(FRAME_HEADER_BYTES);
        await this.#store.read(segment, offset, head);
        const prefix = new Uint8Array(framePrefixBytes(readFrameHeader(head)));
        await this.#store.read(segment, offset, prefix);
        return FrameLayout.parse(prefix);
      })
    );
  }

  /** Copies [payload, payload + into.length) of a frame's plain payload. */
  async read(segment: number, offset: number, payload: number, into: Uint8Array): Promise<void> {
    if (into.length === 0) return;
    const layout = await this.layout(segment, offset);
    const { chunkBytes, payloadPlainBytes } = layout.header;
    if (payload + into.length > payloadPlainBytes) {
      const what = `segment ${segment}, frame at ${offset}: the index names payload byte ${payload} of ${payloadPlainBytes}`;
      throw new TidemarkError('journal-damaged', what);
    }
    const range = layout.chunkRange(payload, into.length);
    for (let chunk = range.first; chunk <= range.last; chunk += 1) {
      const key = `${segment}:${offset}:${chunk}`;
      const plain =
        this.#chunks.now(key) ??
        (await this.#chunks.load(key, async () => {
          const stored = layout.chunkRange(chunk * chunkBytes, 1);
          const bytes = new Uint8Array(stored.storedBytes);
          await this.#store.read(segment, offset + stored.storedOffset, bytes);
          return layout.unpackChunk(chunk, bytes, 0);
        }));
      copyOverlap(plain, chunk * chunkBytes, payload, into.length, into, 0);
    }
  }
}
