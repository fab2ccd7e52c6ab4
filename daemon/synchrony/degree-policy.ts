import type { Lsn } from '../../journal/position.ts';

/**
 * What has to have happened to a write before a guest is answered, beyond its being in the journal here:
 *
 *   local     nothing
 *   stream    the stream has taken it: Kafka with acks=all; over direct it was received by the replica's process, which
 *             is not durable there yet
 *   replica   it is durable in the journal of every required replica
 *   applied   it is also in the standby image of every required replica
 */
export const ACK_DEGREES = ['local', 'stream', 'replica', 'applied'] as const;
export type AckDegree = (typeof ACK_DEGREES)[number];

/** Which answers wait: those to FLUSH and FUA, or those to every write. */
export const ACK_ANSWERS = ['write', 'flush'] as const;
export type AckAnswers = (typeof ACK_ANSWERS)[number];

/**
 * When nothing has moved for `stallAfterMs`: go on with what `local` promises, let the guest wait, or answer it with an
 * error.
 */
export const STALL_ACTIONS = ['degrade', 'block', 'fail'] as const;
export type StallAction = (typeof STALL_ACTIONS)[number];

export interface DegreePolicy {
  readonly ack: AckDegree;
  readonly ackAt: AckAnswers;
  readonly onStall: StallAction;
  readonly stallAfterMs: number;
  /** Of the guests' writes that the far side does not have, when only flushes wait: they are slowed down before it. */
  readonly unshippedBytesMax: number;
}

/** How a far side is looked at. */
export interface DegreeTimes {
  readonly lookMs: number;
  /** Who has what was durable here so long ago keeps up. */
  readonly levelMs: number;
  /** So long it has to keep up before it is relied on again; longer when it fails again soon. */
  readonly resumeMs: number;
}

export const DEGREE_TIMES: DegreeTimes = { lookMs: 100, levelMs: 1_000, resumeMs: 5_000 };

/** A stretch of history that was answered without the far side. */
export interface BrokenStretch {
  readonly fromLsn: Lsn;
  readonly toLsn: Lsn;
  readonly reason: string;
}

export const LOCAL_POLICY: DegreePolicy = {
  ack: 'local',
  ackAt: 'flush',
  onStall: 'degrade',
  stallAfterMs: 10_000,
  unshippedBytesMax: 64 * 1024 * 1024,
};

/** Nothing about two policies is different. */
export function samePolicy(one: DegreePolicy, other: DegreePolicy): boolean {
  return (
    samePromise(one, other) &&
    one.onStall === other.onStall &&
    one.stallAfterMs === other.stallAfterMs &&
    one.unshippedBytesMax === other.unshippedBytesMax
  );
}

/** They promise the same, whatever they do when it cannot be held. */
export function samePromise(one: DegreePolicy, other: DegreePolicy): boolean {
  return one.ack === other.ack && (one.ack === 'local' || one.ackAt === other.ackAt);
}

/** For a person. */
export function policyText({ ack, ackAt, onStall, stallAfterMs }: DegreePolicy): string {
  if (ack === 'local') return 'ack local: nothing waits for the far side';
  return `ack ${ack} at ${ackAt}, ${onStall} after ${stallAfterMs / 1000} s`;
}
