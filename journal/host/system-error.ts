import { type ErrorCode, TidemarkError } from '../base/errors.ts';

const CODES: Readonly<Record<string, ErrorCode>> = {
  ENOENT: 'not-found',
  EEXIST: 'already-exists',
  ENOSPC: 'no-space',
  EDQUOT: 'no-space',
  EFBIG: 'no-space',
  EROFS: 'read-only',
  EACCES: 'precondition-failed',
  EPERM: 'precondition-failed',
  ENODEV: 'device-gone',
  ENXIO: 'device-gone',
};

/** The operating error behind an error of node:fs; what the list does not know is a failed device. */
export function fromSystemError(cause: unknown, what: string, fallback: ErrorCode = 'device-failed'): TidemarkError {
  if (cause instanceof TidemarkError) return cause;
  const errno = cause instanceof Error && 'code' in cause && typeof cause.code === 'string' ? cause.code : 'unknown';
  return new TidemarkError(CODES[errno] ?? fallback, `${what}: ${errno}`, { cause, details: { errno } });
}
