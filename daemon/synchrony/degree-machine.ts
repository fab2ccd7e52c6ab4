import type { Lsn } from '../../journal/position.ts';
import type { DegreePolicy } from './degree-policy.ts';

/**
 * What a group does about its degree of synchrony:
 *
 *   off        nothing is promised beyond this host
 *   in-sync    answers wait for the far side
 *   blocked    the same, and nothing has moved for too long
 *   failing    answers that would have to wait are errors
 *   degraded   answers do not wait: the promise does not hold
 */
export const DEGREE_STATES = ['off', 'in-sync', 'blocked', 'failing', 'degraded'] as const;
export type DegreeState = (typeof DEGREE_STATES)[number];

/** Everything the decisions rest on, beside what is seen: plain data. */
export interface DegreeStanding {
  readonly state: DegreeState;
  /** The promise does not hold from this LSN on; 0: it holds. */
  readonly brokenFromLsn: Lsn;
  /** As seen last. */
  readonly positionLsn: Lsn;
  /** When something moved last, or had not to. */
  readonly movedMs: number;
  /** Since when the far side has kept up; null: it does not. */
  readonly levelSinceMs: number | null;
  /** How long it has to before it is believed: now, and for one that does not fail again soon after. */
  readonly resumeMs: number;
  readonly firstResumeMs: number;
  /** When the promise held again last; null: never in this run. */
  readonly resumedMs: number | null;
}

/** One look, on one monotonic clock. */
export interface DegreeSight {
  readonly nowMs: number;
  /** Up to here the far side has reached the degree; it may go back. */
  readonly positionLsn: Lsn;
  /** Durable there, when the degree asks for more than that: a standby image that is settled anew loses nothing. */
  readonly heldLsn?: Lsn;
  /** The newest durable record here: what the far side should have soon. */
  readonly durableLsn: Lsn;
  /** What was durable here a while ago: who has that keeps up. */
  readonly earlierLsn: Lsn;
  /** The newest record that was answered because the far side had it. */
  readonly answeredLsn: Lsn;
  /** A required replica has lost what it had acknowledged. */
  readonly lost: boolean;
  /** Until then a replica may take for granted that nothing is answered that it does not hold. */
  readonly leasedUntilMs: number;
}

export interface DegreeChange {
  readonly to: DegreeState;
  /** Of the new state; 0: the promise holds. */
  readonly brokenFromLsn: Lsn;
  readonly reason: string;
}

/** A far side that keeps failing has to keep up twice as long each time, up to this. */
const RESUME_MS_MAX = 300_000;
/** Who fails within so long after it was relied on again is not trusted so soon the next time. */
const FLAP_MS = 600_000;
/** A guest that waits is let go as soon as the far side moves again. */
const UNBLOCK_MS = 1_000;

export function standingAt(
  state: DegreeState,
  brokenFromLsn: Lsn,
  nowMs: number,
  firstResumeMs: number,
): DegreeStanding {
  return {
    state,
    brokenFromLsn,
    positionLsn: 0,
    movedMs: nowMs,
    levelSinceMs: null,
    resumeMs: firstResumeMs,
    firstResumeMs,
    resumedMs: null,
  };
}

/**
 * Takes note of what is seen, and says which state the group should be in instead of the present one; nothing: this one.
 * The caller brings the change about, durable before it acts on it, and says so with `changed`.
 */
export function look(
  standing: DegreeStanding,
  policy: DegreePolicy,
  sight: DegreeSight,
): { readonly standing: DegreeStanding; readonly change: DegreeChange | undefined } {
  const { nowMs, positionLsn, durableLsn } = sight;
  const moves = positionLsn > standing.positionLsn || positionLsn >= durableLsn;
  const level = positionLsn >= sight.earlierLsn && !isLost(standing, sight);
  const seen: DegreeStanding = {
    ...standing,
    positionLsn,
    movedMs: moves ? nowMs : standing.movedMs,
    levelSinceMs: level ? (standing.levelSinceMs ?? nowMs) : null,
  };
  return { standing: seen, change: policy.ack === 'local' ? undefined : decide(seen, policy, sight) };
}

/** The change is durable. */
export function changed(standing: DegreeStanding, { to, brokenFromLsn }: DegreeChange, nowMs: number): DegreeStanding {
  const isResumed = to === 'in-sync';
  const isBroken = to === 'degraded' || to === 'failing';
  return {
    ...standing,
    state: to,
    brokenFromLsn,
    levelSinceMs: null,
    // what is waited for from now on has all the time again
    movedMs: isResumed ? nowMs : standing.movedMs,
    resumedMs: isResumed ? nowMs : standing.resumedMs,
    resumeMs: isBroken && standing.state !== 'off' ? nextResumeMs(standing, nowMs) : standing.resumeMs,
  };
}

function nextResumeMs({ firstResumeMs, resumedMs, resumeMs, state }: DegreeStanding, nowMs: number): number {
  if (state === 'degraded' || state === 'failing') return resumeMs;
  const flaps = resumedMs !== null && nowMs - resumedMs < FLAP_MS;
  return flaps ? Math.min(RESUME_MS_MAX, 2 * resumeMs) : firstResumeMs;
}

/** What was answered because the far side had it is not there any more. */
function isLost({ state }: DegreeStanding, { positionLsn, heldLsn, answeredLsn, lost }: DegreeSight): boolean {
  return state !== 'degraded' && state !== 'off' && (lost || (heldLsn ?? positionLsn) < answeredLsn);
}

function decide(standing: DegreeStanding, policy: DegreePolicy, sight: DegreeSight): DegreeChange | undefined {
  const { state, brokenFromLsn, levelSinceMs, resumeMs } = standing;
  // it is only about to promise something
  if (state === 'off') return undefined;
  const levelMs = levelSinceMs === null ? -1 : sight.nowMs - levelSinceMs;
  if (state === 'in-sync') {
    const stalled = stall(standing, policy, sight);
    // a start waits again, for what had been lost before it too
    if (stalled !== undefined || brokenFromLsn === 0 || levelMs < resumeMs) return stalled;
  }
  if (levelMs >= (state === 'blocked' ? Math.min(UNBLOCK_MS, resumeMs) : resumeMs)) {
    return { to: 'in-sync', brokenFromLsn: 0, reason: 'the far side keeps up' };
  }
  if (state === 'degraded') return undefined;
  const other = stall(standing, policy, sight);
  // who stood still may come back with less than was answered
  return other?.to === state && other.brokenFromLsn === brokenFromLsn ? undefined : other;
}

function stall(standing: DegreeStanding, policy: DegreePolicy, sight: DegreeSight): DegreeChange | undefined {
  const { nowMs, positionLsn, leasedUntilMs } = sight;
  const lost = isLost(standing, sight);
  if (!lost && nowMs - standing.movedMs < policy.stallAfterMs) return undefined;
  const reason = lost
    ? `the far side lost what it had acknowledged: it has records up to ${positionLsn}`
    : `nothing has moved at the far side for ${policy.stallAfterMs / 1000} s: it has records up to ${positionLsn}`;
  const { brokenFromLsn } = standing;
  const lostFromLsn = brokenFromLsn === 0 ? positionLsn + 1 : Math.min(brokenFromLsn, positionLsn + 1);
  const broken = lost ? lostFromLsn : brokenFromLsn;
  if (policy.onStall === 'block') return { to: 'blocked', brokenFromLsn: broken, reason };
  if (policy.onStall === 'fail') return { to: 'failing', brokenFromLsn: broken, reason };
  // A replica that relies on the lease must have stopped before anything is answered that it does not hold.
  if (nowMs < leasedUntilMs) return undefined;
  return { to: 'degraded', brokenFromLsn: positionLsn + 1, reason };
}
