import { hasCode, TidemarkError } from '../../../journal/base/errors.ts';
import { sameChain } from '../../../journal/chain.ts';
import { FrameView } from '../../../journal/frame-view.ts';
import { type Epoch, type Lsn } from '../../../journal/position.ts';
import { type OutgoingFrame, type SourceIdentity } from '../../../journal/stream.ts';
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
  /** Largest LSN in any frame that is not late: somebody was shown it. */
  readonly highestLsn: Lsn;
  /** Late ones too. */
  readonly frames: readonly FrameView[];
}

/** A start of a source, in the order of rule 1. */
export interface SourceStart {
  readonly epoch: Epoch;
  /** The counter of the incarnation. */
  readonly incarnation: number;
}

/**
 * Finds the frames that come late: of a source start before one that was seen already. A source that was replaced still
 * had them on their way, or still runs. No replica takes them (rule 1), so they say nothing of what the stream holds.
 */
export class LateFrames {
  #newest: SourceStart = { epoch: 0, incarnation: 0 };

  /** `seen`: starts that replicas have seen, whatever the topic shows of them. */
  constructor(seen: Iterable<SourceStart>) {
    for (const start of seen) this.#see(start);
  }

  /** To be asked in the order of the topic. */
  isLate(frame: FrameView): boolean {
    const start = { epoch: frame.epoch, incarnation: frame.incarnation.counter };
    if (isBefore(start, this.#newest)) return true;
    this.#see(start);
    return false;
  }

  #see(start: SourceStart): void {
    if (isBefore(this.#newest, start)) this.#newest = start;
  }
}

function isBefore(one: SourceStart, other: SourceStart): boolean {
  return one.epoch < other.epoch || (one.epoch === other.epoch && one.incarnation < other.incarnation);
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
 * every replica refuses it, and it does not stop the group. `seen` is what replicas say they have seen.
 */
export async function readTail(
  reader: LogReader,
  bounds: LogBounds,
  groupId: string,
  seen: Iterable<SourceStart>,
): Promise<StreamTail> {
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
  const late = new LateFrames(seen);
  return summarize(
    frames,
    frames.filter((frame) => !late.isLate(frame)),
  );
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

function summarize(frames: readonly FrameView[], believed: readonly FrameView[]): StreamTail {
  const inOrder = believed.toSorted((left, right) => left.firstLsn - right.firstLsn);
  let last = inOrder[0];
  for (const frame of inOrder) {
    if (last === undefined || frame.firstLsn > last.lastLsn + 1) break;
    if (frame.lastLsn > last.lastLsn) last = frame;
  }
  return { last, highestLsn: Math.max(0, ...believed.map((frame) => frame.lastLsn)), frames };
}

/**
 * Why this frame cannot follow the last one of a topic, or undefined when it does, or lies elsewhere. `divergence`: this
 * very start of the source wrote other records there. `gap`: another start did, perhaps after it was replaced and unseen
 * by any replica; then the topic is not believed, and what replicas hold is compared with what is sent to them again.
 */
export function forkAt(tail: FrameView, frame: OutgoingFrame): TidemarkError | undefined {
  if (frame.firstLsn !== tail.lastLsn + 1) return undefined;
  const ours = openFrame(frame.bytes);
  if (ours === undefined || sameChain(ours.chainBefore, tail.chainAfter)) return undefined;
  const { lastLsn, incarnation, epoch } = tail;
  const same = incarnation.counter === ours.incarnation.counter && incarnation.nonce === ours.incarnation.nonce;
  if (same && epoch === ours.epoch) {
    const reason = `the topic and this journal hold different records up to ${lastLsn}`;
    return new TidemarkError('divergence', reason, { details: { lsn: lastLsn } });
  }
  const reason = `source start ${epoch}:${incarnation.counter} wrote other records up to ${lastLsn} into the topic`;
  return new TidemarkError('gap', reason, { details: { lsn: lastLsn } });
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
