/**
 * The closed list of what can go wrong, each with the next action.
 *
 * `retry`: the same thing may work later and nobody has to do anything; `stop`: this object is finished and must not be
 * used again; `ask-operator`: going on needs a decision of a person. Everything that crosses a layer is a
 * `TidemarkError`; anything else that is thrown is a programming error and ends the process.
 */
export const ERROR_CODES = {
  // input of an operator or a client
  'invalid-argument': 'ask-operator',
  'config-invalid': 'ask-operator',
  'not-found': 'ask-operator',
  'already-exists': 'ask-operator',
  unsupported: 'ask-operator',
  'precondition-failed': 'ask-operator',
  // block devices
  'out-of-range': 'ask-operator',
  'read-only': 'ask-operator',
  'no-space': 'retry',
  'device-failed': 'retry',
  'device-gone': 'retry',
  'shutting-down': 'retry',
  'timed-out': 'retry',
  'backing-changed': 'ask-operator',
  'backing-not-empty': 'ask-operator',
  // journal
  'journal-poisoned': 'stop',
  'journal-full': 'retry',
  'journal-locked': 'ask-operator',
  'journal-damaged': 'ask-operator',
  'journal-foreign': 'ask-operator',
  'format-too-new': 'ask-operator',
  'short-write': 'stop',
  'sync-failed': 'stop',
  'network-file-system': 'ask-operator',
  trimmed: 'ask-operator',
  // frames and streams
  'frame-damaged': 'retry',
  'frame-foreign': 'stop',
  'stale-incarnation': 'stop',
  'stale-epoch': 'stop',
  gap: 'retry',
  divergence: 'stop',
  'needs-resync': 'ask-operator',
  'stream-unavailable': 'retry',
  'stream-misconfigured': 'ask-operator',
  'stream-refused': 'ask-operator',
  'replica-full': 'retry',
  'upgrade-replica-first': 'ask-operator',
  // restore
  'target-in-use': 'ask-operator',
  'target-is-ours': 'ask-operator',
  'target-exists': 'ask-operator',
  'target-too-small': 'ask-operator',
  'verification-failed': 'stop',
  cancelled: 'stop',
} as const;

export type ErrorCode = keyof typeof ERROR_CODES;
export type NextAction = (typeof ERROR_CODES)[ErrorCode];

/** An operating error: something the surroundings did, never a bug. */
export class TidemarkError extends Error {
  readonly code: ErrorCode;
  /** The place and the figures, as plain JSON values: shown by `-o json` and put into the log line. */
  readonly details: Readonly<Record<string, string | number | boolean>>;

  constructor(
    code: ErrorCode,
    message: string,
    options: { cause?: unknown; details?: Record<string, string | number | boolean> } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'TidemarkError';
    this.code = code;
    this.details = options.details ?? {};
  }

  get next(): NextAction {
    return ERROR_CODES[this.code];
  }
}

/** True when `error` is an operating error with this code. */
export function hasCode(error: unknown, code: ErrorCode): error is TidemarkError {
  return error instanceof TidemarkError && error.code === code;
}
