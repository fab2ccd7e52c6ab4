import { z } from 'zod';
import {
  ACK_ANSWERS,
  ACK_DEGREES,
  type AckAnswers,
  type AckDegree,
  LOCAL_POLICY,
  STALL_ACTIONS,
  type StallAction,
} from '../synchrony/degree-policy.ts';
import { durationBetween, sizeAtLeast } from './schema-parts.ts';

/** The keys of a group that say what its guests' answers wait for. */
export const degreeKeys: {
  readonly ack: z.ZodType<AckDegree>;
  readonly ackAt: z.ZodType<AckAnswers>;
  readonly onStall: z.ZodType<StallAction>;
  readonly stallAfter: z.ZodType<number>;
  readonly unshippedMax: z.ZodType<number>;
} = {
  ack: z.enum(ACK_DEGREES).default(LOCAL_POLICY.ack),
  ackAt: z.enum(ACK_ANSWERS).default(LOCAL_POLICY.ackAt),
  onStall: z.enum(STALL_ACTIONS).default(LOCAL_POLICY.onStall),
  stallAfter: durationBetween('1s', '60s').default(LOCAL_POLICY.stallAfterMs),
  unshippedMax: sizeAtLeast('4MiB', 1).default(LOCAL_POLICY.unshippedBytesMax),
};
