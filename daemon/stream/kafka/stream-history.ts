import { TidemarkError } from '../../../journal/base/errors.ts';
import { type Lsn } from '../../../journal/position.ts';
import { type LogReader } from './log-ports.ts';
import { LateFrames, openFrame, readRange, type SourceStart, TAIL_FRAMES } from './stream-tail.ts';

/** Frames that arrived before their turn and wait for it. */
const HELD_MAX = 16;

/** Which starts of the source count; all, in the order of the topic, when nothing is said. */
interface WantedStarts {
  /** Starts that replicas have seen: what one before them sent is late, wherever it stands. */
  readonly seen?: Iterable<SourceStart>;
  /** The incarnation that wrote the first record: no start before it had it to send. */
  readonly writtenBy?: number;
}

/**
 * The group's frames in the topic from an LSN on, in LSN order and without repeats, up to the end as it is at the call;
 * rubbish and late frames between them are passed over. Throws `trimmed` when the topic begins later, `gap` when a frame is missing inside.
 */
export async function* framesFrom(
  reader: LogReader,
  groupId: string,
  fromLsn: Lsn,
  { seen = [], writtenBy = 0 }: WantedStarts,
  signal: AbortSignal,
): AsyncIterable<Uint8Array> {
  const bounds = await reader.bounds();
  if (bounds === undefined) throw new TidemarkError('trimmed', 'the topic is gone', { details: { lsn: fromLsn } });
  const { start, end } = bounds;
  const held = new Map<Lsn, Uint8Array>();
  const late = new LateFrames(seen);
  let next = fromLsn;
  let begun = false;
  for await (const record of readRange(reader, await offsetBefore(reader, groupId, start, end, fromLsn), end)) {
    if (signal.aborted) throw new TidemarkError('cancelled', 'reading the stream was cancelled');
    const frame = openFrame(record.value);
    if (frame?.groupId !== groupId || late.isLate(frame) || frame.lastLsn < next) continue;
    if (frame.incarnation.counter < writtenBy) continue;
    held.set(frame.firstLsn, record.value);
    if (held.size > HELD_MAX) break;
    for (let ready = takeReady(held, next); ready !== undefined; ready = takeReady(held, next)) {
      begun = true;
      next = ready.lastLsn + 1;
      yield ready.bytes;
    }
  }
  if (held.size === 0) return;
  if (begun) throw new TidemarkError('gap', `the stream has no record ${next}`, { details: { lsn: next } });
  throw new TidemarkError('trimmed', `the stream begins after record ${fromLsn}`, { details: { lsn: fromLsn } });
}

function takeReady(held: Map<Lsn, Uint8Array>, next: Lsn): { bytes: Uint8Array; lastLsn: Lsn } | undefined {
  for (const [firstLsn, bytes] of held) {
    const frame = openFrame(bytes);
    if (frame === undefined || frame.lastLsn < next) held.delete(firstLsn);
    else if (firstLsn <= next) {
      held.delete(firstLsn);
      return { bytes, lastLsn: frame.lastLsn };
    }
  }
  return undefined;
}

/**
 * An offset from which every record at or above `lsn` follows, by binary search. LSNs go back where frames were sent
 * again, so the search may end at any of several places; whatever lies behind each of them is complete up to the end.
 */
async function offsetBefore(reader: LogReader, groupId: string, start: bigint, end: bigint, lsn: Lsn): Promise<bigint> {
  let low = start;
  let high = end;
  while (low + 1n < high) {
    const middle = (low + high) / 2n;
    const { records } = await reader.read(middle, 1, 0);
    const first = records[0] === undefined ? undefined : openFrame(records[0].value);
    if (first?.groupId === groupId && first.firstLsn <= lsn) low = middle;
    else high = middle;
  }
  const early = low - TAIL_FRAMES;
  return early < start ? start : early;
}
