import { Packr } from 'msgpackr';
import { type ReplicaFeedback } from '../../../journal/stream.ts';

/*
 * A record of the feedback topic: key `<group id>/<replica>`, value a msgpack map of `ReplicaFeedback`. The newest
 * value of a key is all there is to know, which is what a compacted topic keeps.
 */

const packr = new Packr({ useRecords: false });

const STATES: readonly string[] = [
  'receiving',
  'replica-full',
  'needs-resync',
  'diverged',
  'upgrade-required',
  'stopped',
] satisfies ReplicaFeedback['state'][];

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
  if (!isFeedback(body) || body.groupId !== groupId || feedbackKey(groupId, body.replica) !== key) return undefined;
  return body;
}

function isFeedback(body: unknown): body is ReplicaFeedback {
  if (typeof body !== 'object' || body === null) return false;
  const fields = body as Record<string, unknown>;
  const texts = ['replica', 'groupId', 'chain', 'reason', 'resumeOffset'];
  const counts = ['epoch', 'incarnation', 'durableLsn', 'missingFrom'];
  return (
    texts.every((name) => typeof fields[name] === 'string') &&
    counts.every((name) => Number.isSafeInteger(fields[name]) && (fields[name] as number) >= 0) &&
    typeof fields['heartbeatMs'] === 'number' &&
    typeof fields['state'] === 'string' &&
    STATES.includes(fields['state'])
  );
}
