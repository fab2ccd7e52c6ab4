/** What one check of `tidemark doctor` found. */
export interface Finding {
  readonly verdict: 'ok' | 'warning' | 'problem';
  /** What was looked at: a key of the configuration, a guest, a directory. */
  readonly subject: string;
  readonly message: string;
  /** What to do; empty when nothing. */
  readonly advice: string;
}

export function ok(subject: string, message: string): Finding {
  return { verdict: 'ok', subject, message, advice: '' };
}

export function warning(subject: string, message: string, advice: string): Finding {
  return { verdict: 'warning', subject, message, advice };
}

export function problem(subject: string, message: string, advice: string): Finding {
  return { verdict: 'problem', subject, message, advice };
}
