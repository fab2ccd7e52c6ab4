import { hasCode, TidemarkError } from '../../../journal/base/errors.ts';
import { FrameView } from '../../../journal/frame-view.ts';
import { type Lsn } from '../../../journal/position.ts';
import { type SourceIdentity } from '../../../journal/stream.ts';
import { type LogBounds, type LogReader, type LogRecord } from './log-ports.ts';

const READ_BYTES = 8 * 1024 * 1024;
const WAIT_MS = 500;

/**
 * How many frames of a topic's end are looked at. The sender has at most 8 unacknowledged, and a resend repeats at most
 * those: three windows hold whatever order a crash of the sender left.
 */
export const TAIL_FRAMES = 24n;

/** What stands at the end of a topic. */
export interface StreamTail {
  /** The frame in front of the first gap, or of the end; undefined when the tail holds no frame of the group. */
  readonly last: FrameView | undefined;
  /** Largest LSN in any frame: somebody was shown it. */
  readonly highestLsn: Lsn;
  readonly frames: readonly FrameView[];
}

/** Every record from `from` up to `end`; fails rather than skips. */
export async function* readRange(reader: LogReader, from: bigint, end: bigint): AsyncIterable<LogRecord> {
  let next = from;
  while (next < end) {
    const { records } = await reader.read(next, READ_BYTES, WAIT_MS);
    if (records.length === 0) throw new TidemarkError('stream-unavailable', `no record at offset ${next} of ${end}`);
    for (const record of records) {
      next = record.offset + 1n;
      yield record;
    }
  }
}

/**
 * Throws `frame-foreign` when the tail is another group's. A foreign frame among ours is rubbish that somebody wrote:
 * every replica refuses it, and it does not stop the group.
 */
export async function readTail(reader: LogReader, bounds: LogBounds, groupId: string): Promise<StreamTail> {
  const from = bounds.end - TAIL_FRAMES;
  const frames: FrameView[] = [];
  let foreign: FrameView | undefined;
  for await (const record of readRange(reader, from < bounds.start ? bounds.start : from, bounds.end)) {
    const frame = openFrame(record.value);
    if (frame === undefined) continue;
    if (frame.groupId === groupId) frames.push(frame);
    else foreign = frame;
  }
  if (foreign !== undefined && frames.length === 0) {
    throw new TidemarkError('frame-foreign', `the topic belongs to group ${foreign.groupId}, not to ${groupId}`);
  }
  return summarize(frames);
}

/**
 * The frame in a record, or undefined when it is none: anybody with the right may write rubbish to a topic. A frame of
 * a newer format is no rubbish: throws what `FrameView` says.
 */
export function openFrame(bytes: Uint8Array): FrameView | undefined {
  try {
    return FrameView.open(bytes);
  } catch (error) {
    if (hasCode(error, 'frame-damaged')) return undefined;
    throw error;
  }
}

function summarize(frames: readonly FrameView[]): StreamTail {
  const inOrder = frames.toSorted((left, right) => left.firstLsn - right.firstLsn);
  let last = inOrder[0];
  for (const frame of inOrder) {
    if (last === undefined || frame.firstLsn > last.lastLsn + 1) break;
    if (frame.lastLsn > last.lastLsn) last = frame;
  }
  return { last, highestLsn: Math.max(0, ...frames.map((frame) => frame.lastLsn)), frames };
}

/** Throws when the topic shows that another source writes, or wrote later than this one started (rules 1 and 19). */
export function checkSuccession(tail: StreamTail, identity: SourceIdentity): void {
  for (const frame of tail.frames) {
    const theirs = `epoch ${frame.epoch}, incarnation ${frame.incarnation.counter}/${frame.incarnation.nonce}`;
    const ours = `epoch ${identity.epoch}, incarnation ${identity.incarnation.counter}/${identity.incarnation.nonce}`;
    if (frame.epoch > identity.epoch) {
      throw new TidemarkError('stale-epoch', `the topic was written by ${theirs}; this source is ${ours}`);
    }
    if (frame.epoch < identity.epoch) continue;
    const newer = frame.incarnation.counter - identity.incarnation.counter;
    if (newer > 0 || (newer === 0 && frame.incarnation.nonce !== identity.incarnation.nonce)) {
      throw new TidemarkError('stale-incarnation', `the topic was written by ${theirs}; this source is ${ours}`);
    }
  }
}
