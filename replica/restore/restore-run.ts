import { createHash } from 'node:crypto';
import { TidemarkError } from '../../journal/base/errors.ts';
import type { BlockDevice } from '../../journal/block-device.ts';
import type { Clock } from '../../journal/host/host.ts';

export interface RestoreRunOptions {
  readonly clock: Clock;
  /** Chunks copied at the same time. */
  readonly readers: number;
  readonly chunkBytes: number;
  /** The target reads as zeroes where nothing was written. */
  readonly targetZeroed: boolean;
  readonly verify: boolean;
  readonly signal: AbortSignal;
  readonly onProgress: (progress: RestoreProgress) => void;
}

export interface RestoreProgress {
  readonly phase: 'copy' | 'verify';
  /** Bytes of the volume that are done in this phase, zeroes included. */
  readonly doneBytes: number;
  readonly totalBytes: number;
  readonly copiedBytes: number;
  readonly elapsedMs: number;
}

export interface RestoreReport {
  readonly totalBytes: number;
  readonly copiedBytes: number;
  readonly zeroBytes: number;
  readonly verifiedBytes: number;
  /** Over the hashes of all chunks of data, in order of place. */
  readonly sha256: string;
  readonly elapsedMs: number;
}

export const RESTORE_DEFAULTS: Pick<RestoreRunOptions, 'readers' | 'chunkBytes'> = {
  readers: 4,
  chunkBytes: 4 * 1024 * 1024,
};

/** What an unfinished target begins with; the volume's own first bytes are written last. */
const UNFINISHED = 'TIDEMARK UNFINISHED RESTORE: the content of this disk is not complete\n';
const MARK_BYTES = 4096;
const EXTENT_STEP_BYTES = 1024 * 1024 * 1024;

interface Chunk {
  readonly offset: number;
  readonly length: number;
  readonly data: boolean;
}

/**
 * Copies `source` onto `target`: N chunks at a time, zeroes not at all where the target has them already, then reads
 * everything back and compares hashes. The target bears the mark of an unfinished restore in its first 4 KiB until all
 * the rest is durable and verified. Throws `cancelled`, `verification-failed`, and what the devices throw.
 */
export async function runRestore(
  source: BlockDevice,
  target: BlockDevice,
  options: RestoreRunOptions,
): Promise<RestoreReport> {
  if (target.size < source.size) {
    throw new TidemarkError('target-too-small', `the target has ${target.size} bytes, the volume has ${source.size}`);
  }
  const began = options.clock.monotonicMs();
  const head = Math.min(MARK_BYTES, source.size);
  const hashes = new Map<number, Buffer>();
  const totals = { done: 0, copied: 0, zero: 0, verified: 0 };
  const report = (phase: RestoreProgress['phase']): void => {
    options.onProgress({
      phase,
      doneBytes: phase === 'copy' ? totals.done : totals.verified,
      totalBytes: source.size,
      copiedBytes: totals.copied,
      elapsedMs: options.clock.monotonicMs() - began,
    });
  };

  await target.write(0, markOf(head));
  await target.flush();
  await eachChunk(source, head, options, async ({ offset, length, data }, memory) => {
    if (data) {
      const bytes = memory.subarray(0, length);
      await source.read(offset, bytes);
      hashes.set(offset, sha256(bytes));
      await target.write(offset, bytes);
      totals.copied += length;
    } else {
      if (!options.targetZeroed) await target.zero(offset, length, true);
      totals.zero += length;
    }
    totals.done += length;
    report('copy');
  });
  await target.flush();
  if (options.verify) {
    await eachChunk(source, head, options, async (chunk, memory) => {
      await verifyChunk(target, chunk, hashes.get(chunk.offset), memory);
      totals.verified += chunk.length;
      report('verify');
    });
  }
  const first = new Uint8Array(head);
  await source.read(0, first);
  hashes.set(0, sha256(first));
  await target.write(0, first);
  await target.flush();
  if (options.verify) await verifyChunk(target, { offset: 0, length: head, data: true }, hashes.get(0), first);
  totals.copied += head;
  totals.done += head;
  totals.verified += options.verify ? head : 0;
  report(options.verify ? 'verify' : 'copy');
  const all = createHash('sha256');
  for (const offset of [...hashes.keys()].sort((a, b) => a - b)) all.update(hashes.get(offset) ?? '');
  return {
    totalBytes: source.size,
    copiedBytes: totals.copied,
    zeroBytes: totals.zero,
    verifiedBytes: totals.verified,
    sha256: all.digest('hex'),
    elapsedMs: options.clock.monotonicMs() - began,
  };
}

/** True when a device's first bytes say that a restore onto it was not finished. */
export function isUnfinished(first: Uint8Array): boolean {
  return Buffer.from(first.subarray(0, UNFINISHED.length)).toString('latin1') === UNFINISHED;
}

/**
 * Runs `work` for every stretch of the source behind `from`, `readers` at a time; the first failure ends all. Each reader
 * has the memory of one chunk of data: made anew for every chunk it was a fifth of a restore's CPU.
 */
async function eachChunk(
  source: BlockDevice,
  from: number,
  options: RestoreRunOptions,
  work: (chunk: Chunk, memory: Uint8Array) => Promise<void>,
): Promise<void> {
  const chunks = chunksOf(source, from, options.chunkBytes);
  let failure: { error: unknown } | undefined;
  const reader = async (): Promise<void> => {
    const memory = new Uint8Array(options.chunkBytes);
    for (;;) {
      if (failure !== undefined) return;
      if (options.signal.aborted) throw new TidemarkError('cancelled', 'the restore was cancelled');
      const next = await chunks.next();
      if (next.done === true) return;
      await work(next.value, memory);
    }
  };
  const readers = Array.from({ length: options.readers }, () =>
    reader().catch((error: unknown) => {
      failure ??= { error };
    }),
  );
  await Promise.all(readers);
  if (failure !== undefined) throw (failure as { error: unknown }).error;
}

async function* chunksOf(source: BlockDevice, from: number, chunkBytes: number): AsyncGenerator<Chunk> {
  for (let at = from; at < source.size; ) {
    const step = Math.min(EXTENT_STEP_BYTES, source.size - at);
    for (const extent of await source.extents(at, step)) {
      const data = extent.kind === 'data';
      // Zeroes are one piece: nothing is read for them.
      const piece = data ? chunkBytes : extent.length;
      for (let done = 0; done < extent.length; done += piece) {
        yield { offset: at + done, length: Math.min(piece, extent.length - done), data };
      }
      at += extent.length;
    }
  }
}

async function verifyChunk(
  target: BlockDevice,
  chunk: Chunk,
  hash: Buffer | undefined,
  memory: Uint8Array,
): Promise<void> {
  if (chunk.data) {
    const bytes = memory.subarray(0, chunk.length);
    await target.read(chunk.offset, bytes);
    if (hash === undefined || !sha256(bytes).equals(hash)) throw differs(chunk);
    return;
  }
  // What the target calls a hole reads as zeroes by its own word; the rest is looked at.
  let at = chunk.offset;
  for (const extent of await target.extents(chunk.offset, chunk.length)) {
    for (let done = 0; extent.kind === 'data' && done < extent.length; done += memory.length) {
      const bytes = memory.subarray(0, Math.min(memory.length, extent.length - done));
      await target.read(at + done, bytes);
      if (!isZero(bytes)) throw differs(chunk);
    }
    at += extent.length;
  }
}

const ZEROES = new Uint8Array(64 * 1024);

/** By memcmp: byte by byte a gibibyte of zeroes took seconds of the thread that also receives. */
function isZero(bytes: Uint8Array): boolean {
  for (let at = 0; at < bytes.length; at += ZEROES.length) {
    const part = bytes.subarray(at, at + ZEROES.length);
    if (Buffer.compare(part, ZEROES.subarray(0, part.length)) !== 0) return false;
  }
  return true;
}

function differs({ offset, length }: Chunk): TidemarkError {
  return new TidemarkError('verification-failed', `the target reads differently at ${offset}, ${length} bytes`, {
    details: { offset, length },
  });
}

function markOf(length: number): Uint8Array {
  const mark = Buffer.alloc(length);
  mark.write(UNFINISHED, 'latin1');
  return mark;
}

function sha256(bytes: Uint8Array): Buffer {
  return createHash('sha256').update(bytes).digest();
}
