import { constants, zstdCompressSync, zstdDecompressSync } from 'node:zlib';
import koffi from 'koffi';

/**
 * zstd with one context per thread and level. Node's own call makes a context, an output buffer and a copy of the result
 * for every piece: measured on 64 KiB of half-compressible data that is twice the CPU of the compression itself, and its
 * buffers alone make the collector mark the whole heap every few MiB (a quarter of the source's CPU under 1 MiB writes).
 * The functions are those that the node binary carries for node:zlib; where they are missing node:zlib does the work.
 */

interface Library {
  readonly createCCtx: () => unknown;
  readonly setParameter: (context: unknown, parameter: number, value: number) => number | bigint;
  readonly compress2: (
    context: unknown,
    into: Uint8Array,
    capacity: number,
    from: Uint8Array,
    length: number,
  ) => number | bigint;
  readonly createDCtx: () => unknown;
  readonly decompress: (
    context: unknown,
    into: Uint8Array,
    capacity: number,
    from: Uint8Array,
    length: number,
  ) => number | bigint;
}

let library: Library | undefined | 'missing';
const contexts = new Map<number, unknown>();
let unpacking: unknown;

function load(): Library | 'missing' {
  try {
    const node = koffi.load(null);
    return {
      createCCtx: node.func('void *ZSTD_createCCtx()'),
      setParameter: node.func('size_t ZSTD_CCtx_setParameter(void *context, int parameter, int value)'),
      compress2: node.func(
        'size_t ZSTD_compress2(void *context, void *into, size_t capacity, const void *from, size_t length)',
      ),
      createDCtx: node.func('void *ZSTD_createDCtx()'),
      decompress: node.func(
        'size_t ZSTD_decompressDCtx(void *context, void *into, size_t capacity, const void *from, size_t length)',
      ),
    };
  } catch {
    return 'missing';
  }
}

/**
 * Compresses `from` into the front of `into` and returns the bytes written; undefined when they do not fit there, which
 * is how a caller says what compression has to yield.
 */
export function zstdInto(into: Uint8Array, from: Uint8Array, level: number): number | undefined {
  library ??= load();
  if (library === 'missing') return zstdIntoByZlib(into, from, level);
  let context = contexts.get(level);
  if (context === undefined) {
    context = library.createCCtx();
    library.setParameter(context, constants.ZSTD_c_compressionLevel, level);
    contexts.set(level, context);
  }
  // an error is a number just below 2^64
  const length = Number(library.compress2(context, into, into.length, from, from.length));
  return length > into.length ? undefined : length;
}

/** The same without the native functions. The output buffer is given its final size: Node's 16 KiB pieces cost four times as much. */
export function zstdIntoByZlib(into: Uint8Array, from: Uint8Array, level: number): number | undefined {
  const packed = zstdCompressSync(from, {
    chunkSize: from.length + 8192,
    params: { [constants.ZSTD_c_compressionLevel]: level },
  });
  if (packed.length > into.length) return undefined;
  into.set(packed);
  return packed.length;
}

/** Fills `into` with what `from` unpacks to; false when `from` is no zstd or anything else comes out than so many bytes. */
export function zstdOut(into: Uint8Array, from: Uint8Array): boolean {
  library ??= load();
  if (library === 'missing') return zstdOutByZlib(into, from);
  unpacking ??= library.createDCtx();
  return Number(library.decompress(unpacking, into, into.length, from, from.length)) === into.length;
}

/** The same without the native functions. Never allocates more than `into` has. */
export function zstdOutByZlib(into: Uint8Array, from: Uint8Array): boolean {
  try {
    const plain = zstdDecompressSync(from, { chunkSize: Math.max(64, into.length), maxOutputLength: into.length });
    if (plain.length !== into.length) return false;
    into.set(plain);
    return true;
  } catch {
    return false;
  }
}
