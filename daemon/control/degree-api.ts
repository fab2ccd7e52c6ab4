import type { DegreeState } from '../synchrony/degree-machine.ts';
import type { AckAnswers, AckDegree, BrokenStretch, DegreePolicy, StallAction } from '../synchrony/degree-policy.ts';

/** What a group's answers wait for, over the control socket; conventions as in control-api.ts. */
export interface DegreeReply {
  readonly policy: DegreePolicy;
  /** As the configuration says; another one than `policy`: an operator has changed it while running. */
  readonly configured: DegreePolicy;
  /** In force as soon as no replica relies on the present one any more; null: nothing is to change. */
  readonly next: DegreePolicy | null;
  /** What it is that answers wait for, in words. */
  readonly meaning: string;
  readonly state: DegreeState;
  readonly reason: string;
  readonly sinceLsn: number;
  /** The promise is kept now; null: nothing is promised. */
  readonly holds: boolean | null;
  /** Since when it is not; null: it is, or nothing is promised. */
  readonly brokenFromLsn: number | null;
  /** Stretches without the far side that are over, the newest last. */
  readonly brokenStretches: readonly BrokenStretch[];
  /** Answers, and clients, that wait for the far side now. */
  readonly answersHeld: number;
  readonly clientsHeldBack: number;
  /** Guests' bytes the far side does not have, and what they may be; null: not counted, for nothing waits for them. */
  readonly unshippedBytes: number | null;
  readonly unshippedBytesBound: number | null;
}

/** What is left out stays as it is. */
export interface DegreeRequest {
  readonly ack?: AckDegree | undefined;
  readonly ackAt?: AckAnswers | undefined;
  readonly onStall?: StallAction | undefined;
  readonly stallAfterMs?: number | undefined;
  readonly unshippedBytesMax?: number | undefined;
  /** Begin from what the configuration says instead of what is so now. */
  readonly toConfiguration?: boolean | undefined;
  readonly dryRun?: boolean | undefined;
}

/**
 * What a replica may say of its own loss if the source were gone this very moment: `zero` when it holds everything a
 * guest was answered under the promise of its source, and knows it; else `unknown`.
 */
export interface RpoClaimReply {
  readonly rpo: 'zero' | 'unknown';
  /** What the source promises, like "replica at flush"; null: nothing, or nothing is known of it. */
  readonly promise: string | null;
  readonly reason: string;
  /** For how long it is sure without hearing more; null: it is not. */
  readonly sureForSeconds: number | null;
}

/** Raw files at the head of a group's history, for who wants disks that boot without this software. */
export interface StandbyReply {
  readonly mode: 'async' | 'sync';
  readonly directory: string;
  /** `copying`, `settling`: not to be booted; `applying`, `settled`: the disks as they were at one position. */
  readonly state: string;
  /** Why it stands still; empty while it does not. */
  readonly reason: string;
  /** Everything up to here is in the files, synced. */
  readonly appliedLsn: number | null;
  /** Of the first copy; null: none is under way. */
  readonly copiedBytes: number | null;
}
