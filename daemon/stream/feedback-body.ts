import type { ReplicaFeedback } from '../../journal/stream.ts';

const STATES: readonly string[] = [
  'receiving',
  'replica-full',
  'needs-resync',
  'diverged',
  'upgrade-required',
  'stopped',
] satisfies ReplicaFeedback['state'][];

const TEXT_LENGTH_MAX = 4096;

/** A decoded msgpack value as a feedback, every field checked; undefined when it is none. */
export function asFeedback(value: unknown): ReplicaFeedback | undefined {
  if (typeof value !== 'object' || value === null) return undefined;
  const fields = value as Readonly<Record<keyof ReplicaFeedback, unknown>>;
  if (
    isText(fields.replica) &&
    isText(fields.groupId) &&
    isText(fields.reason) &&
    isText(fields.resumeOffset) &&
    isText(fields.chain) &&
    /^[0-9a-f]{16}$/.test(fields.chain) &&
    isCount(fields.epoch) &&
    isCount(fields.incarnation) &&
    isCount(fields.durableLsn) &&
    isCount(fields.missingFrom) &&
    typeof fields.heartbeatMs === 'number' &&
    Number.isFinite(fields.heartbeatMs) &&
    isState(fields.state) &&
    (fields.damagedFrom === undefined || isCount(fields.damagedFrom)) &&
    (fields.sent === undefined || isStateName(fields.sent)) &&
    (fields.appliedLsn === undefined || isCount(fields.appliedLsn))
  ) {
    return {
      replica: fields.replica,
      groupId: fields.groupId,
      epoch: fields.epoch,
      incarnation: fields.incarnation,
      durableLsn: fields.durableLsn,
      chain: fields.chain,
      state: fields.state,
      reason: fields.reason,
      missingFrom: fields.missingFrom,
      ...(fields.damagedFrom === undefined ? {} : { damagedFrom: fields.damagedFrom }),
      heartbeatMs: fields.heartbeatMs,
      ...(fields.sent === undefined ? {} : { sent: { run: fields.sent.run, sentMs: fields.sent.sentMs } }),
      ...(fields.appliedLsn === undefined ? {} : { appliedLsn: fields.appliedLsn }),
      resumeOffset: fields.resumeOffset,
    };
  }
  return undefined;
}

function isText(value: unknown): value is string {
  return typeof value === 'string' && value.length <= TEXT_LENGTH_MAX;
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function isStateName(value: unknown): value is NonNullable<ReplicaFeedback['sent']> {
  if (typeof value !== 'object' || value === null) return false;
  const { run, sentMs } = value as Readonly<Record<string, unknown>>;
  const isRun = typeof run === 'string' && /^[0-9a-f]{16}$/.test(run);
  return isRun && typeof sentMs === 'number' && Number.isFinite(sentMs) && sentMs >= 0;
}

function isState(value: unknown): value is ReplicaFeedback['state'] {
  return typeof value === 'string' && STATES.includes(value);
}
