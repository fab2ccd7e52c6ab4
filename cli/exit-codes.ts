import type { ErrorCode } from '../journal/base/errors.ts';

/** What a script can tell apart. Stable: part of the interface, listed in `tidemark --help`. */
export const ExitCode = {
  ok: 0,
  failure: 1,
  usage: 2,
  notFound: 3,
  precondition: 4,
  unreachable: 5,
  timeout: 6,
} as const;

export const EXIT_CODE_HELP = `
Exit codes:
  0  done
  1  failed; the message says at what
  2  usage: arguments, configuration
  3  not found: group, bookmark, point, view
  4  refused: a precondition does not hold, or --overwrite is needed
  5  the daemon cannot be reached
  6  not done within the time limit

Times are ISO 8601 with their zone; sizes are binary (1 KiB = 1024 B). JSON: "null" means "not known", never 0.`;

const BY_ERROR: Partial<Record<ErrorCode, number>> = {
  'invalid-argument': ExitCode.usage,
  'config-invalid': ExitCode.usage,
  'out-of-range': ExitCode.usage,
  'not-found': ExitCode.notFound,
  trimmed: ExitCode.notFound,
  'precondition-failed': ExitCode.precondition,
  'already-exists': ExitCode.precondition,
  'target-exists': ExitCode.precondition,
  'target-in-use': ExitCode.precondition,
  'target-is-ours': ExitCode.precondition,
  'target-too-small': ExitCode.precondition,
  'backing-changed': ExitCode.precondition,
  'backing-not-empty': ExitCode.precondition,
  'needs-resync': ExitCode.precondition,
  'journal-locked': ExitCode.precondition,
  'timed-out': ExitCode.timeout,
};

export function exitCodeOf(code: ErrorCode): number {
  return BY_ERROR[code] ?? ExitCode.failure;
}
