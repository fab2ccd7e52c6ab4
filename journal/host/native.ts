import { constants } from 'node:os';
import koffi from 'koffi';

/**
 * The few system calls that Node does not have, through libc by koffi. Every function says `undefined` or `false` where
 * the call or its symbol is missing, and the caller falls back to plain reads, writes and zeroes; only the directory
 * lock has no fallback.
 */

interface Libc {
  readonly flock: (fd: number, operation: number) => number;
  readonly fallocate: (fd: number, mode: number, offset: number, length: number) => number;
  readonly lseek: (fd: number, offset: number, whence: number) => number;
  readonly ioctl: (fd: number, request: number, argument: BigUint64Array) => number;
  readonly preadv2: (fd: number, vector: BigUint64Array, count: number, offset: number, flags: number) => number;
}

const LOCK_EXCLUSIVE_NONBLOCKING = 2 | 4;
const KEEP_SIZE_PUNCH_HOLE = 1 | 2;
const SEEK_DATA = 3;
const SEEK_HOLE = 4;
const BLKZEROOUT = 0x127f;
const RWF_NOWAIT = 8;

let loaded: Libc | undefined | 'missing';

function libc(): Libc | undefined {
  if (loaded === undefined) loaded = load() ?? 'missing';
  return loaded === 'missing' ? undefined : loaded;
}

function load(): Libc | undefined {
  try {
    const library = koffi.load('libc.so.6');
    return {
      flock: library.func('int flock(int fd, int operation)'),
      fallocate: library.func('int fallocate(int fd, int mode, int64_t offset, int64_t length)'),
      lseek: library.func('int64_t lseek(int fd, int64_t offset, int whence)'),
      ioctl: library.func('int ioctl(int fd, unsigned long request, _Inout_ void *argument)'),
      preadv2: library.func('int64_t preadv2(int fd, void *vector, int count, int64_t offset, int flags)'),
    };
  } catch {
    return undefined;
  }
}

/** 'taken': ours until the descriptor is closed; 'busy': another open file holds it; 'unsupported': no such lock here. */
export function lockExclusive(fd: number): 'taken' | 'busy' | 'unsupported' {
  const library = libc();
  if (library === undefined) return 'unsupported';
  if (library.flock(fd, LOCK_EXCLUSIVE_NONBLOCKING) === 0) return 'taken';
  return koffi.errno() === constants.errno.EWOULDBLOCK ? 'busy' : 'unsupported';
}

/** Frees the range of a regular file; false when the file system cannot. */
export function punchHole(fd: number, position: number, length: number): boolean {
  return libc()?.fallocate(fd, KEEP_SIZE_PUNCH_HOLE, position, length) === 0;
}

/**
 * Where the next data (or hole) of a file begins at or behind `offset`: 'none' when there is no more data before the
 * end, undefined when the file system cannot say.
 */
export function seekData(fd: number, offset: number): number | 'none' | undefined {
  return seek(fd, offset, SEEK_DATA);
}

export function seekHole(fd: number, offset: number): number | 'none' | undefined {
  return seek(fd, offset, SEEK_HOLE);
}

function seek(fd: number, offset: number, whence: number): number | 'none' | undefined {
  const library = libc();
  if (library === undefined) return undefined;
  const found = Number(library.lseek(fd, offset, whence));
  if (found >= 0) return found;
  return koffi.errno() === constants.errno.ENXIO ? 'none' : undefined;
}

/** Zeroes a range of a block device inside the kernel; false when it cannot. Blocks: slice long ranges. */
export function blockZeroOut(fd: number, position: number, length: number): boolean {
  return libc()?.ioctl(fd, BLKZEROOUT, new BigUint64Array([BigInt(position), BigInt(length)])) === 0;
}

/** One struct iovec, used by every call: base address and length. */
const vector = new BigUint64Array(2);

/**
 * Fills `into` from the page cache without ever waiting for a disk: 'cached' when all of it came, 'cold' when part of it
 * would have to be read or lies beyond the end (`into` may be half filled then), 'unsupported' when this file or kernel
 * does not answer such a question. A cached 4 KiB costs 1.4 us of CPU so, 20 with all it wakes through the thread pool.
 */
export function readCached(fd: number, position: number, into: Uint8Array): 'cached' | 'cold' | 'unsupported' {
  const library = libc();
  if (library === undefined) return 'unsupported';
  const base = koffi.address(into);
  for (let done = 0; done < into.length; ) {
    vector[0] = base + BigInt(done);
    vector[1] = BigInt(into.length - done);
    const bytes = Number(library.preadv2(fd, vector, 1, position + done, RWF_NOWAIT));
    if (bytes > 0) {
      done += bytes;
      continue;
    }
    if (bytes === 0) return 'cold';
    const { EINTR, EOPNOTSUPP, ENOSYS } = constants.errno;
    const errno = koffi.errno();
    if (errno === EINTR) continue;
    return errno === EOPNOTSUPP || errno === ENOSYS ? 'unsupported' : 'cold';
  }
  return 'cached';
}
