import type { Lsn } from '../../journal/position.ts';
import type { FrameSource } from '../../journal/stream.ts';

/** The replica's end of a stream, with an eye on what the replica says there that it holds durably. */
export function notingTold(
  source: FrameSource,
  told: (durableLsn: Lsn, appliedLsn: Lsn | undefined) => void,
): FrameSource {
  return {
    open: (start, events) => source.open(start, events),
    pause: () => source.pause(),
    resume: () => source.resume(),
    feedback: (feedback) => {
      told(feedback.durableLsn, feedback.appliedLsn);
      source.feedback(feedback);
    },
    ...(source.fetch === undefined ? {} : { fetch: (fromLsn, signal) => source.fetch!(fromLsn, signal) }),
    status: () => source.status(),
    close: () => source.close(),
  };
}
