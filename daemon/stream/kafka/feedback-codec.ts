import { crc32c } from '@node-rs/crc32';
import { Packr } from 'msgpackr';
import { type ReplicaFeedback } from '../../../journal/stream.ts';
import { asFeedback } from '../feedback-body.ts';

/*
 * A record of the feedback topic: key `<group id>/<replica>`, value a msgpack map of `ReplicaFeedback` and behind it its
 * crc32c (u32, little endian): a bit that turned before the record was sent must not become a position. The newest value
 * of a key is all there is to know, which is what a compacted topic keeps.
 */

export const FEEDBACK_CRC_BYTES = 4;

const packr = new Packr({ useRecords: false });

export function feedbackKey(groupId: string, replica: string): string {
  return `${groupId}/${replica}`;
}

export function encodeFeedback(feedback: ReplicaFeedback): Uint8Array {
  const body = packr.pack(feedback);
  const value = Buffer.allocUnsafe(body.length + FEEDBACK_CRC_BYTES);
  body.copy(value);
  value.writeUInt32LE(crc32c(body), body.length);
  return value;
}

/** Undefined for a tombstone, for another group's record, and for anything that is no feedback. */
export function decodeFeedback(key: string, value: Uint8Array, groupId: string): ReplicaFeedback | undefined {
  if (value.length <= FEEDBACK_CRC_BYTES) return undefined;
  const bytes = value.subarray(0, -FEEDBACK_CRC_BYTES);
  const view = new DataView(value.buffer, value.byteOffset, value.byteLength);
  if (view.getUint32(bytes.length, true) !== crc32c(bytes)) return undefined;
  let body: unknown;
  try {
    body = packr.unpack(bytes);
  } catch {
    return undefined;
  }
  const feedback = asFeedback(body);
  if (feedback?.groupId !== groupId || feedbackKey(groupId, feedback.replica) !== key) return undefined;
  return feedback;
}
