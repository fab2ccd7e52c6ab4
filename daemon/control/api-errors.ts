import type { ErrorCode } from '../../journal/base/errors.ts';
import { ERROR_CODES, TidemarkError } from '../../journal/base/errors.ts';
import type { ApiError } from './control-api.ts';

/** Operating errors as HTTP answers. A code that is not named here is the server's own trouble: 500 or 503. */

const STATUS: Partial<Record<ErrorCode, number>> = {
  'invalid-argument': 400,
  'config-invalid': 400,
  'out-of-range': 400,
  'not-found': 404,
  trimmed: 404,
  'already-exists': 409,
  'target-exists': 409,
  'precondition-failed': 412,
  'target-in-use': 412,
  'target-is-ours': 412,
  'target-too-small': 412,
  'backing-changed': 412,
  'backing-not-empty': 412,
  'read-only': 412,
  'needs-resync': 412,
  unsupported: 501,
  'timed-out': 504,
};

/** 503 asks the client to come again: whatever is marked `retry`. */
export function httpStatusOf(code: ErrorCode): number {
  return STATUS[code] ?? (ERROR_CODES[code] === 'retry' ? 503 : 500);
}

export function toApiError(error: TidemarkError): ApiError {
  return { code: error.code, next: error.next, message: error.message, details: error.details };
}

/** The error a reply stood for; an unknown code (a newer daemon) is kept as unsupported with its words. */
export function fromApiError(error: ApiError): TidemarkError {
  const code = error.code in ERROR_CODES ? error.code : 'unsupported';
  return new TidemarkError(code, error.message, { details: { ...error.details } });
}
