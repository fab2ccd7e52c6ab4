import type { ErrorCode } from '../../journal/base/errors.ts';
import { Errno, type NbdErrno } from './protocol.ts';

/**
 * What a client is told for every error of the program. Everything that is no fault of the request is EIO: the guest
 * sees an I/O error, the log and `status` carry the reason.
 */
const ERRNO_OF = {
  'invalid-argument': Errno.einval,
  'config-invalid': Errno.eio,
  'not-found': Errno.eio,
  'already-exists': Errno.eio,
  unsupported: Errno.enotsup,
  'precondition-failed': Errno.eperm,
  'out-of-range': Errno.einval,
  'read-only': Errno.eperm,
  'no-space': Errno.enospc,
  'device-failed': Errno.eio,
  'device-gone': Errno.eio,
  'shutting-down': Errno.eshutdown,
  'timed-out': Errno.eio,
  'backing-changed': Errno.eio,
  'backing-not-empty': Errno.eio,
  'journal-poisoned': Errno.eio,
  'journal-full': Errno.enospc,
  'journal-locked': Errno.eio,
  'journal-damaged': Errno.eio,
  'journal-foreign': Errno.eio,
  'format-too-new': Errno.eio,
  'short-write': Errno.eio,
  'sync-failed': Errno.eio,
  'network-file-system': Errno.eio,
  trimmed: Errno.eio,
  'frame-damaged': Errno.eio,
  'frame-foreign': Errno.eio,
  'stale-incarnation': Errno.eio,
  'stale-epoch': Errno.eio,
  gap: Errno.eio,
  divergence: Errno.eio,
  'needs-resync': Errno.eio,
  'stream-unavailable': Errno.eio,
  'stream-misconfigured': Errno.eio,
  'stream-refused': Errno.eio,
  'replica-full': Errno.enospc,
  'upgrade-replica-first': Errno.eio,
  'target-in-use': Errno.eio,
  'target-is-ours': Errno.eio,
  'target-exists': Errno.eio,
  'target-too-small': Errno.enospc,
  'verification-failed': Errno.eio,
  cancelled: Errno.eio,
} as const satisfies Record<ErrorCode, NbdErrno>;

/** The number sent to a client. */
export function errnoOf(code: ErrorCode): NbdErrno {
  return ERRNO_OF[code];
}

/** What an upstream server's number means to us; a number outside the list counts as EINVAL (section "Error values"). */
export function codeOfErrno(errno: number): ErrorCode {
  switch (errno) {
    case Errno.eperm:
      return 'read-only';
    case Errno.eio:
    case Errno.enomem:
      return 'device-failed';
    case Errno.enospc:
      return 'no-space';
    case Errno.enotsup:
      return 'unsupported';
    case Errno.eshutdown:
      return 'shutting-down';
    default:
      return 'invalid-argument';
  }
}

const NAMES: ReadonlyMap<number, string> = new Map([
  [Errno.eperm, 'EPERM'],
  [Errno.eio, 'EIO'],
  [Errno.enomem, 'ENOMEM'],
  [Errno.einval, 'EINVAL'],
  [Errno.enospc, 'ENOSPC'],
  [Errno.eoverflow, 'EOVERFLOW'],
  [Errno.enotsup, 'ENOTSUP'],
  [Errno.eshutdown, 'ESHUTDOWN'],
]);

/** For messages. */
export function errnoName(errno: number): string {
  return NAMES.get(errno) ?? `error ${errno}`;
}
