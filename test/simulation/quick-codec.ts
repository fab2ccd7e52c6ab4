import { createRequire, syncBuiltinESMExports } from 'node:module';
import type { ZstdOptions } from 'node:zlib';

const BLOCK_BYTES = 256;
const MAGIC = 0x51;
const REPEATS = 1;
const PLAIN = 0;

const zlib = createRequire(import.meta.url)('node:zlib') as typeof import('node:zlib');
const { zstdCompressSync, zstdDecompressSync } = zlib;
let quick = false;

/**
 * Node makes a zstd context of some hundred KiB for every call: a third of the time of a run whose chunks are small.
 * Most runs therefore pack by something cheap under the same name, and all around it stays as it is; the others, and all
 * other tests, use zstd.
 */
export function packQuickly(wanted: boolean): void {
  if (wanted === quick) return;
  quick = wanted;
  zlib.zstdCompressSync = wanted ? packBlocks : zstdCompressSync;
  zlib.zstdDecompressSync = wanted ? unpackBlocks : zstdDecompressSync;
  syncBuiltinESMExports();
}

/** `MAGIC`, then per 256 bytes: 1 and four bytes when those repeat through all of them, else 0 and the bytes. */
function packBlocks(input: unknown): NonSharedBuffer {
  const plain = input as Uint8Array;
  const view = new DataView(plain.buffer, plain.byteOffset, plain.byteLength);
  const out = Buffer.allocUnsafe(1 + plain.length + Math.ceil(plain.length / BLOCK_BYTES));
  out[0] = MAGIC;
  let end = 1;
  for (let at = 0; at < plain.length; at += BLOCK_BYTES) {
    const repeats = at + BLOCK_BYTES <= plain.length && repeatsItself(view, at);
    const bytes = repeats ? 4 : Math.min(BLOCK_BYTES, plain.length - at);
    out[end] = repeats ? REPEATS : PLAIN;
    out.set(plain.subarray(at, at + bytes), end + 1);
    end += 1 + bytes;
  }
  return out.subarray(0, end);
}

function repeatsItself(view: DataView, at: number): boolean {
  const first = view.getInt32(at, true);
  for (let offset = at + 4; offset < at + BLOCK_BYTES; offset += 4) {
    if (view.getInt32(offset, true) !== first) return false;
  }
  return true;
}

function unpackBlocks(input: unknown, options: ZstdOptions = {}): NonSharedBuffer {
  const packed = input as Uint8Array;
  // The sealer packs by a context that it keeps: that is zstd, and quick enough.
  if (packed[0] !== MAGIC) return zstdDecompressSync(packed, options);
  const words = new DataView(packed.buffer, packed.byteOffset, packed.byteLength);
  const out = Buffer.allocUnsafe(options.maxOutputLength ?? 0);
  const view = new DataView(out.buffer, out.byteOffset, out.byteLength);
  let end = 0;
  for (let at = 1; at < packed.length; ) {
    const repeats = packed[at] === REPEATS;
    const bytes = repeats ? BLOCK_BYTES : Math.min(BLOCK_BYTES, packed.length - at - 1);
    if (end + bytes > out.length) throw new Error('more comes out than allowed');
    if (repeats) {
      const word = words.getInt32(at + 1);
      for (let offset = end; offset < end + bytes; offset += 4) view.setInt32(offset, word);
    } else out.set(packed.subarray(at + 1, at + 1 + bytes), end);
    at += repeats ? 5 : 1 + bytes;
    end += bytes;
  }
  return out.subarray(0, end);
}
