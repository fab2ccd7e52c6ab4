import type { DeviceExtent } from '../../journal/block-device.ts';
import {
  AllocationFlag,
  CHUNK_DONE,
  CHUNK_HEADER_BYTES,
  Chunk,
  EXTENTS_PER_REPLY_MAX,
  SIMPLE_REPLY_MAGIC,
  STRUCTURED_REPLY_MAGIC,
} from './protocol.ts';

/** A data chunk's header with the offset before its data; an error chunk without a message. */
export const DATA_CHUNK_BYTES: number = CHUNK_HEADER_BYTES + 8;
export const ERROR_CHUNK_BYTES: number = CHUNK_HEADER_BYTES + 6;

/** Simple reply: magic 4 | error 4 | cookie 8. */
export function encodeSimpleReply(view: DataView, at: number, errno: number, high: number, low: number): void {
  view.setUint32(at, SIMPLE_REPLY_MAGIC);
  view.setUint32(at + 4, errno);
  view.setUint32(at + 8, high);
  view.setUint32(at + 12, low);
}

/** Chunk header: magic 4 | flags 2 | type 2 | cookie 8 | payload length 4. */
function encodeChunk(
  view: DataView,
  at: number,
  flags: number,
  type: number,
  high: number,
  low: number,
  length: number,
): void {
  view.setUint32(at, STRUCTURED_REPLY_MAGIC);
  view.setUint16(at + 4, flags);
  view.setUint16(at + 6, type);
  view.setUint32(at + 8, high);
  view.setUint32(at + 12, low);
  view.setUint32(at + 16, length);
}

/** OFFSET_DATA: chunk header | offset 8; `dataBytes` of data follow. */
export function encodeDataChunk(
  view: DataView,
  at: number,
  last: boolean,
  high: number,
  low: number,
  offset: number,
  dataBytes: number,
): void {
  encodeChunk(view, at, last ? CHUNK_DONE : 0, Chunk.offsetData, high, low, 8 + dataBytes);
  view.setUint32(at + 20, Math.floor(offset / 0x1_0000_0000));
  view.setUint32(at + 24, offset >>> 0);
}

/** ERROR, always the last chunk: chunk header | error 4 | message length 2. */
export function encodeErrorChunk(view: DataView, at: number, errno: number, high: number, low: number): void {
  encodeChunk(view, at, CHUNK_DONE, Chunk.error, high, low, 6);
  view.setUint32(at + 20, errno);
  view.setUint16(at + 24, 0);
}

/** Bytes of a block status chunk with so many extents. */
export function statusChunkBytes(extents: number): number {
  return CHUNK_HEADER_BYTES + 4 + 8 * extents;
}

/** BLOCK_STATUS: chunk header | context id 4 | (length 4 | flags 4) for each of `pairs`. */
export function encodeStatusChunk(
  view: DataView,
  at: number,
  high: number,
  low: number,
  contextId: number,
  pairs: readonly number[],
): void {
  encodeChunk(view, at, CHUNK_DONE, Chunk.blockStatus, high, low, 4 + 4 * pairs.length);
  view.setUint32(at + 20, contextId);
  for (let i = 0; i < pairs.length; i++) view.setUint32(at + 24 + 4 * i, pairs[i] ?? 0);
}

/**
 * Extents as pairs of length and `base:allocation` flags: neighbours that look alike are merged, at most `countMax`, never
 * beyond `length`.
 */
export function statusPairs(extents: readonly DeviceExtent[], length: number, countMax: number): number[] {
  const most = Math.min(countMax, EXTENTS_PER_REPLY_MAX);
  const pairs: number[] = [];
  let left = length;
  for (const extent of extents) {
    const bytes = Math.min(extent.length, left);
    if (bytes === 0) continue;
    const flags =
      extent.kind === 'data'
        ? 0
        : extent.kind === 'zero'
          ? AllocationFlag.zero
          : AllocationFlag.zero | AllocationFlag.hole;
    const last = pairs.length - 2;
    if (last >= 0 && pairs[last + 1] === flags) pairs[last] = (pairs[last] ?? 0) + bytes;
    else if (pairs.length === 2 * most) break;
    else pairs.push(bytes, flags);
    left -= bytes;
  }
  return pairs;
}
