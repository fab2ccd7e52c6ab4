import { FRAME_VERSION } from '../../journal/frame-codec.ts';
import type { Lsn } from '../../journal/position.ts';
import type { FrameSourceStart, ReplicaFeedback } from '../../journal/stream.ts';
import type { DurablePosition } from '../store/position-mark.ts';
import type { Halt } from '../store/replica-state.ts';
import type { ReceiverOptions } from './receiver-parts.ts';

/** The state the source and the operator are told, the gravest first. Texts are empty when they do not apply. */
export function receiverState(known: {
  readonly failed: string;
  readonly halt: Halt | undefined;
  readonly full: string;
  readonly lost: string;
  readonly missingFrom: Lsn;
}): Pick<ReplicaFeedback, 'state' | 'reason'> {
  if (known.failed !== '') return { state: 'stopped', reason: known.failed };
  if (known.halt !== undefined) return known.halt;
  if (known.full !== '') return { state: 'replica-full', reason: known.full };
  if (known.lost !== '') return { state: 'receiving', reason: `the stream lost frames: ${known.lost}` };
  if (known.missingFrom !== 0) return { state: 'receiving', reason: `waiting for LSN ${known.missingFrom}` };
  return { state: 'receiving', reason: '' };
}

/** Feedback tells only what is durable. */
export function feedbackOf(
  options: Pick<ReceiverOptions, 'replica' | 'groupId'>,
  durable: DurablePosition,
  state: Pick<ReplicaFeedback, 'state' | 'reason'>,
  missingFrom: Lsn,
  damagedFrom: Lsn,
): ReplicaFeedback {
  return {
    replica: options.replica,
    groupId: options.groupId,
    epoch: durable.epoch,
    incarnation: durable.incarnation.counter,
    durableLsn: durable.durableLsn,
    chain: durable.chain,
    state: state.state,
    reason: state.reason,
    missingFrom,
    ...(damagedFrom === 0 ? {} : { damagedFrom }),
    heartbeatMs: durable.heartbeatMs,
    resumeOffset: durable.resumeOffset,
  };
}

/** What a stream is told at the start: who we are, what we hold, what we can give. */
export function startOf(
  options: Pick<ReceiverOptions, 'replica' | 'groupId'>,
  { durableLsn, resumeOffset }: DurablePosition,
  framesFrom: FrameSourceStart['framesFrom'],
): FrameSourceStart {
  const { replica, groupId } = options;
  return { replica, groupId, durableLsn, resumeOffset, frameVersion: FRAME_VERSION, framesFrom };
}
