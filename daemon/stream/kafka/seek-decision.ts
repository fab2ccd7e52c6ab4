import { type Lsn } from '../../../journal/position.ts';
import { type ReplicaFeedback } from '../../../journal/stream.ts';
import { type LogBounds } from './log-ports.ts';
import { parseStreamOffset } from './stream-offset.ts';

export interface SeekInput {
  readonly bounds: LogBounds;
  /** The topic holds everything up to here without a gap, as far back as it reaches; 0: no frame of ours. */
  readonly tailLsn: Lsn;
  /** What a replica asked for, some time ago. */
  readonly requested: Seek | undefined;
  /** Why acknowledged frames are gone from the topic, or undefined. */
  readonly lost: string | undefined;
  /** Acknowledged by the topic in this run; what counts after a loss when there is no replica. */
  readonly acceptedLsn: Lsn;
  /** One for every registered replica; undefined: it never said anything. */
  readonly replicas: readonly (ReplicaFeedback | undefined)[];
}

export interface Seek {
  readonly fromLsn: Lsn;
  readonly reason: string;
  /** What the topic holds is not what the journal holds: it is not believed. */
  readonly isForked?: boolean;
}

/**
 * Where to send from. Normally behind what the topic holds. What a replica can no longer read there (rule 19: topic
 * replaced, truncated, or frames lost on the way) is sent again from that replica's durable position.
 */
export function decideSeek(input: SeekInput): Seek {
  const durable = input.replicas.map((feedback) => feedback?.durableLsn ?? 0);
  const lowest = durable.length === 0 ? input.acceptedLsn : Math.min(...durable);
  if (input.requested !== undefined) {
    // Sends were settled since, which may take long: what every replica has by now is not asked for any more.
    return { ...input.requested, fromLsn: Math.max(input.requested.fromLsn, lowest + 1) };
  }
  if (input.lost !== undefined) {
    return { fromLsn: lowest + 1, reason: `${input.lost}: sending again what not every replica holds` };
  }
  let fromLsn = Math.max(input.tailLsn, lowest) + 1;
  let reason = input.tailLsn === 0 ? 'the topic holds no frame' : `the topic holds everything up to ${input.tailLsn}`;
  for (const feedback of input.replicas) {
    if (feedback === undefined) continue;
    const needed = neededFrom(feedback, input.bounds);
    if (needed !== undefined && needed.fromLsn < fromLsn) ({ fromLsn, reason } = needed);
  }
  return { fromLsn, reason };
}

/** Where one replica would have us send from, if there were no other. */
export function neededBy(feedback: ReplicaFeedback | undefined, { bounds, tailLsn, lost }: SeekInput): Lsn {
  const resume = feedback && parseStreamOffset(feedback.resumeOffset);
  const durableLsn = feedback?.durableLsn ?? 0;
  const needed = feedback && neededFrom(feedback, bounds);
  if (needed !== undefined) return needed.fromLsn;
  // of one that stands nowhere in a topic that lost something nobody knows that it finds what it needs
  return (lost !== undefined && resume === undefined ? durableLsn : Math.max(tailLsn, durableLsn)) + 1;
}

/** What every replica that was ever heard holds; 0: nothing, or none was heard. */
export function heldByAll(replicas: readonly (ReplicaFeedback | undefined)[]): Lsn {
  const held = replicas.flatMap((feedback) => feedback?.durableLsn ?? []);
  return held.length === 0 ? 0 : Math.min(...held);
}

/** Why a topic does not have what it acknowledged (rule 19), or undefined. */
export function lossOf(
  topic: string,
  acknowledged: { readonly offset: bigint; readonly topicId: string },
  bounds: LogBounds,
): string | undefined {
  if (bounds.topicId !== acknowledged.topicId) return `topic ${topic} was deleted and made again`;
  if (bounds.end > acknowledged.offset) return undefined;
  return `topic ${topic} was truncated: it ends at ${bounds.end}, offset ${acknowledged.offset} was acknowledged`;
}

function neededFrom(feedback: ReplicaFeedback, bounds: LogBounds): Seek | undefined {
  if (feedback.missingFrom > 0) {
    return { fromLsn: feedback.missingFrom, reason: `replica ${feedback.replica} misses ${feedback.missingFrom}` };
  }
  const resume = parseStreamOffset(feedback.resumeOffset);
  if (resume === undefined) return undefined;
  if (resume.topicId === bounds.topicId && resume.offset >= bounds.start && resume.offset <= bounds.end)
    return undefined;
  return {
    fromLsn: feedback.durableLsn + 1,
    reason: `replica ${feedback.replica} stands at an offset that the topic does not have`,
  };
}
