import { TidemarkError } from '../../../journal/base/errors.ts';
import { type Clock } from '../../../journal/host/host.ts';

export interface TimeLimit {
  readonly timeoutMs: number;
  /** What the error says when the time is over. */
  readonly late: string;
  /** Resolves when nobody wants the answer any more. */
  readonly closing: Promise<void>;
}

/** The answer; rejects with `stream-unavailable` when the time is over or the stream closes before it is there. */
export async function withinTime<T>(clock: Clock, limit: TimeLimit, asking: Promise<T>): Promise<T> {
  const expired = Promise.withResolvers<never>();
  const timer = clock.after(limit.timeoutMs, () => {
    expired.reject(new TidemarkError('stream-unavailable', limit.late));
  });
  const closed = limit.closing.then((): never => {
    throw new TidemarkError('stream-unavailable', 'the stream is being closed');
  });
  try {
    return await Promise.race([asking, expired.promise, closed]);
  } finally {
    timer.cancel();
  }
}
