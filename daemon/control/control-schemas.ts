import { z } from 'zod';
import { ACK_ANSWERS, ACK_DEGREES, STALL_ACTIONS } from '../synchrony/degree-policy.ts';
import type { BookmarkRequest, DryRunRequest, GiveUpRequest, MountRequest, RestoreRequest } from './control-api.ts';
import type { DegreeRequest } from './degree-api.ts';

/** The requests of control-api.ts as schemas: what the server checks, and what /openapi.json describes. */

/** Names of bookmarks and views: printable, no position could be taken for one. */
const pointName = z
  .string()
  .regex(
    /^[A-Za-z_][A-Za-z0-9._ -]{0,126}$/,
    'must begin with a letter or "_" and hold at most 127 letters, digits, blanks, ".", "_" or "-"',
  )
  .refine((text) => text !== 'latest', '"latest" is the newest point and cannot be a name');

const at = z
  .string()
  .min(1)
  .max(256)
  .describe('An LSN, epoch:lsn, a time with its zone (2026-11-20T10:00:00Z), "latest", or the name of a bookmark');

const volume = z.string().min(1).max(64).optional();

export const bookmarkRequest: z.ZodType<BookmarkRequest> = z.strictObject({
  name: pointName,
  note: z.string().max(4096).optional(),
  labels: z.record(z.string().min(1).max(64), z.string().max(256)).optional(),
});

export const dryRunRequest: z.ZodType<DryRunRequest> = z.strictObject({ dryRun: z.boolean().optional() });

export const giveUpRequest: z.ZodType<GiveUpRequest> = z.strictObject({
  reason: z.string().trim().min(1).max(1000),
  dryRun: z.boolean().optional(),
});

export const degreeRequest: z.ZodType<DegreeRequest> = z.strictObject({
  ack: z.enum(ACK_DEGREES).optional(),
  ackAt: z.enum(ACK_ANSWERS).optional(),
  onStall: z.enum(STALL_ACTIONS).optional(),
  stallAfterMs: z.number().int().min(1_000).max(60_000).optional(),
  unshippedBytesMax: z
    .number()
    .int()
    .min(4 * 1024 ** 2)
    .optional(),
  toConfiguration: z.boolean().optional(),
  dryRun: z.boolean().optional(),
});

export const mountRequest: z.ZodType<MountRequest> = z.strictObject({
  at,
  volume,
  writable: z.boolean().optional(),
  name: pointName.optional(),
});

export const restoreRequest: z.ZodType<RestoreRequest> = z.strictObject({
  at,
  volume,
  to: z
    .string()
    .min(1)
    .max(4096)
    .regex(/^(\/|nbds?(\+unix)?:\/\/)/, 'must be an absolute path or an nbd URI')
    .refine((text) => !text.includes('\0'), 'must not hold a zero byte'),
  format: z.enum(['raw', 'qcow2']).optional(),
  overwrite: z.boolean().optional(),
  dryRun: z.boolean().optional(),
});

export const groupParameter: z.ZodType<{ group: string }> = z.strictObject({ group: z.string().min(1).max(64) });

export const viewParameters: z.ZodType<{ group: string; view: string }> = z.strictObject({
  group: z.string().min(1).max(64),
  view: z.string().min(1).max(200),
});

export const restoreParameters: z.ZodType<{ group: string; job: string }> = z.strictObject({
  group: z.string().min(1).max(64),
  job: z.string().min(1).max(64),
});

/** Of the timeline: times with their zone, and how wide an interval is, at most 10,000 of them. */
export interface PointsQuery {
  readonly from?: string | undefined;
  readonly to?: string | undefined;
  readonly everyMs?: number | undefined;
}

const zonedTime = z.iso.datetime({ offset: true, error: 'must be a time with its zone, like 2026-11-20T10:00:00Z' });

export const pointsQuery: z.ZodType<PointsQuery> = z.strictObject({
  from: zonedTime.optional(),
  to: zonedTime.optional(),
  everyMs: z.coerce.number().int().min(10).max(31_536_000_000).optional(),
});
