import type { JournalTime, Lsn } from '../../journal/position.ts';
import type { UnvouchedTime } from '../catalog/catalog.ts';
import type { Lease } from './leases.ts';

export interface RetentionSegment {
  readonly sequence: number;
  readonly firstLsn: Lsn;
  readonly lastLsn: Lsn;
  readonly lastTime: JournalTime;
  readonly bytes: number;
  readonly sealed: boolean;
}

export interface RetentionPolicy {
  /** History kept at least, unless `bytesMax` is reached first. */
  readonly windowMs: number;
  /** Bytes of segments kept at most; 0: no bound. Views and pins still hold what they need. */
  readonly bytesMax: number;
}

export interface RetentionDecision {
  /** Where the floor goes; the present floor when nothing is to be done. */
  readonly floorLsn: Lsn;
  readonly segments: readonly { readonly sequence: number; readonly keep: boolean; readonly reason: string }[];
}

/**
 * Which segments go and why the others stay. Pure: the caller prints it (`--dry-run`) or acts on it. The floor stands
 * at a segment's end, so a window is kept whole and up to one segment more. `segments` in order of LSN; `now` is the
 * journal's time, not the wall clock's: history of a source that stopped is not thrown away by waiting. Nor does time
 * count that no running clock of the source vouches for (`unvouched`): a wall clock set forward ages nothing.
 */
export function decideRetention(
  segments: readonly RetentionSegment[],
  leases: readonly Lease[],
  policy: RetentionPolicy,
  floorLsn: Lsn,
  now: JournalTime,
  unvouched: readonly UnvouchedTime[] = [],
): RetentionDecision {
  let bytes = segments.reduce((sum, segment) => sum + segment.bytes, 0);
  let floor = floorLsn;
  let stopped = false;
  const decided: { sequence: number; keep: boolean; reason: string }[] = [];
  for (const segment of segments) {
    // `now` less the window, in the time of this segment.
    const passed = unvouched.reduce((sum, { lsn, micros }) => sum + (lsn > segment.lastLsn ? micros : 0), 0);
    const windowStart = now - passed - policy.windowMs * 1000;
    const reason = stopped ? 'behind a kept segment' : keepReason(segment, leases, policy, windowStart, bytes);
    if (reason === '') {
      floor = Math.max(floor, segment.lastLsn);
      bytes -= segment.bytes;
      const why = segment.lastTime < windowStart ? 'older than the window' : 'over the bound in bytes';
      decided.push({ sequence: segment.sequence, keep: false, reason: why });
    } else {
      stopped = true;
      decided.push({ sequence: segment.sequence, keep: true, reason });
    }
  }
  return { floorLsn: floor, segments: decided };
}

function keepReason(
  segment: RetentionSegment,
  leases: readonly Lease[],
  policy: RetentionPolicy,
  windowStart: JournalTime,
  bytes: number,
): string {
  if (!segment.sealed) return 'being written';
  const lease = leases.find((held) => held.lsn < segment.lastLsn);
  if (lease !== undefined) return `${lease.kind}: ${lease.owner} at LSN ${lease.lsn}`;
  const tooMany = policy.bytesMax > 0 && bytes > policy.bytesMax;
  if (segment.lastTime >= windowStart && !tooMany) return 'inside the window';
  return '';
}
