import { Packr } from 'msgpackr';
import { type ReplicaFeedback } from '../../../journal/stream.ts';
import { asFeedback } from '../feedback-body.ts';

/*
 * A record of the feedback topic: key `<group id>/<replica>`, value a msgpack map of `ReplicaFeedback`. The newest
 * value of a key is all there is to know, which is what a compacted topic keeps.
 */

const packr = new Packr({ useRecords: false });

export function feedbackKey(groupId: string, replica: string): string {
  return `${groupId}/${replica}`;
}

export function encodeFeedback(feedback: ReplicaFeedback): Uint8Array {
  return packr.pack(feedback);
}

/** Undefined for a tombstone, for another group's record, and for anything that is no feedback. */
export function decodeFeedback(key: string, value: Uint8Array, groupId: string): ReplicaFeedback | undefined {
  if (value.length === 0) return undefined;
  let body: unknown;
  try {
    body = packr.unpack(value);
  } catch {
    return undefined;
  }
  const feedback = asFeedback(body);
  if (feedback?.groupId !== groupId || feedbackKey(groupId, feedback.replica) !== key) return undefined;
  return feedback;
}
