import { formatDuration } from '../config/units.ts';
import type { GroupState, ReplicaGroupReply, SourceGroupReply, StreamReply } from '../control/control-api.ts';
import type { AlarmCode } from './alarm-codes.ts';
import type { AlarmCondition } from './alarms.ts';

/** What a status says is wrong: pure, so that status, metric, log line and hook can never disagree. */

const STATE_ALARMS: Partial<Record<GroupState, AlarmCode>> = {
  failed: 'group-failed',
  stalled: 'group-stalled',
  held: 'group-held',
  blocked: 'group-blocked',
  unprotected: 'unprotected',
  'backing-failed': 'backing-failed',
};

const REPLICA_ALARMS: Readonly<Record<string, AlarmCode>> = {
  'replica-full': 'replica-full',
  'needs-resync': 'needs-resync',
  diverged: 'diverged',
  gap: 'frames-lost',
  'upgrade-required': 'upgrade-required',
  stopped: 'stream-stopped',
};

/** Among a group's notes while guests wait for room and its state tells something worse. */
export const GUESTS_WAIT_NOTE = 'guests wait: the journal has spent its budget, or its file system is full';

/** Share of a budget or of a reserve at which an alarm is raised (rule 24). */
const SPACE_STEPS = [95, 80, 50] as const;

export function sourceConditions(groups: readonly SourceGroupReply[]): AlarmCondition[] {
  return groups.flatMap((group) => [
    ...stateConditions(group),
    ...waitingConditions(group),
    ...streamConditions(group.name, group.stream),
    ...topicConditions(group),
    ...journalConditions(group),
    ...degreeConditions(group),
    ...standstillConditions(group),
    ...group.replicas.flatMap((replica) => {
      const code = REPLICA_ALARMS[replica.state];
      if (code === undefined) return [];
      return [{ code, group: group.name, subject: replica.name, message: `${replica.state}: ${replica.reason}` }];
    }),
  ]);
}

export function replicaConditions(groups: readonly ReplicaGroupReply[]): AlarmCondition[] {
  return groups.flatMap((group) => [
    ...stateConditions(group),
    ...streamConditions(group.name, group.stream),
    ...reserveConditions(group),
    ...damageConditions(group, 'history-damaged'),
    ...standbyConditions(group),
    ...group.restores
      .filter((job) => job.state === 'failed')
      .map((job) => condition('restore-failed', group.name, job.error?.message ?? 'failed', job.id)),
  ]);
}

function condition(code: AlarmCode, group: string, message: string, subject = ''): AlarmCondition {
  return { code, group, subject, message };
}

function stateConditions(group: SourceGroupReply | ReplicaGroupReply): AlarmCondition[] {
  const byCode = group.code === null ? undefined : REPLICA_ALARMS[group.code];
  // what guests wait for is told by an alarm of its own
  if (group.state === 'blocked' && group.code === 'timed-out') return [];
  const code = STATE_ALARMS[group.state] ?? (group.state === 'stopped' ? (byCode ?? 'stream-stopped') : byCode);
  return code === undefined ? [] : [condition(code, group.name, group.reason)];
}

/** Beside the alarm of a worse state: what failed is one thing, that guests stand still another. */
function waitingConditions({ name, notes }: SourceGroupReply): AlarmCondition[] {
  return notes.includes(GUESTS_WAIT_NOTE) ? [condition('group-blocked', name, GUESTS_WAIT_NOTE)] : [];
}

function streamConditions(group: string, stream: StreamReply): AlarmCondition[] {
  const found = REPLICA_ALARMS[stream.state];
  if (found !== undefined) return [condition(found, group, stream.reason)];
  return stream.state === 'retrying' ? [condition('stream-away', group, stream.reason)] : [];
}

/** A promise of a degree that is not kept, or that guests pay for. */
function degreeConditions({ name, degree }: SourceGroupReply): AlarmCondition[] {
  if (degree === null) return [];
  const { state, reason, brokenFromLsn } = degree;
  if (state === 'blocked' || state === 'failing') {
    const what = state === 'blocked' ? 'guests wait' : 'guests get errors';
    return [condition('far-side-stalled', name, `${what}: ${reason}`)];
  }
  if (state !== 'degraded') return [];
  return [condition('degraded', name, `ack ${degree.policy.ack} has not held since LSN ${brokenFromLsn}: ${reason}`)];
}

/** Longer than an idle source is silent: it sends a heartbeat at least once a minute, and once a second as a rule. */
const STANDS_SECONDS = 15;

function standstillConditions({ name, replicas }: SourceGroupReply): AlarmCondition[] {
  return replicas
    .filter(({ stoodStillSeconds }) => (stoodStillSeconds ?? 0) >= STANDS_SECONDS)
    .map((replica) => condition('replica-stalled', name, `nothing has advanced for ${STANDS_SECONDS} s`, replica.name));
}

function standbyConditions({ name, standby }: ReplicaGroupReply): AlarmCondition[] {
  return standby === null || standby.reason === '' ? [] : [condition('standby-stalled', name, standby.reason)];
}

function journalConditions(group: SourceGroupReply): AlarmCondition[] {
  const { journal } = group;
  const found = damageConditions(group, 'journal-damaged');
  if (journal === null || journal.budgetBytes === 0) return found;
  const used = (journal.usedBytes / journal.budgetBytes) * 100;
  const missing = ((group.backlog.bytes ?? 0) / journal.budgetBytes) * 100;
  // a journal recycles its files only in whole: half full is its ordinary state when the budget is small
  const step = SPACE_STEPS.find((limit) => missing >= limit || (used >= limit && limit > 50));
  if (step === undefined) return found;
  const { leftSeconds } = journal;
  const left =
    leftSeconds === null ? '' : `; at the present rate it lasts for ${formatDuration(leftSeconds * 1000)} more`;
  const what =
    missing >= step ? `more than ${step} % of the budget is backlog` : `the journal is more than ${step} % full`;
  return [...found, condition('journal-space', group.name, `${what}${left}`)];
}

/** Rule 21. An unknown fill raises nothing: status and metrics show it as unknown. */
function topicConditions({ name, topic }: SourceGroupReply): AlarmCondition[] {
  if (topic === null || topic.usedBytes === null) return [];
  const percent = (topic.usedBytes / topic.capBytes) * 100;
  const step = SPACE_STEPS.find((limit) => percent >= limit);
  if (step === undefined) return [];
  const how = topic.estimated ? ', as estimated from what was sent' : '';
  return [condition('topic-space', name, `the topic is more than ${step} % full of its cap${how}`)];
}

/** One for each stretch; cleared when it was put back. */
function damageConditions(group: SourceGroupReply | ReplicaGroupReply, code: AlarmCode): AlarmCondition[] {
  const damaged = group.notes.filter((note) => note.startsWith('damage'));
  return damaged.map((note, index) => condition(code, group.name, note, String(index)));
}

function reserveConditions(group: ReplicaGroupReply): AlarmCondition[] {
  const { store } = group;
  if (store === null) return [];
  const room = roomOf(store);
  if (room === null) return [];
  const percent = (store.usedBytes / (store.usedBytes + room)) * 100;
  if (room <= 0) return [condition('replica-full', group.name, 'at the reserve: nothing is acknowledged any more')];
  const step = SPACE_STEPS.find((limit) => percent >= limit);
  if (step === undefined) return [];
  return [condition('replica-space', group.name, `more than ${step} % of the space for history is used`)];
}

/** Bytes history may still grow by; null when neither is known. */
function roomOf(store: NonNullable<ReplicaGroupReply['store']>): number | null {
  const byBudget = store.budgetBytes === null ? Number.POSITIVE_INFINITY : store.budgetBytes - store.usedBytes;
  const byReserve = store.freeBytes === null ? Number.POSITIVE_INFINITY : store.freeBytes - store.reserveBytes;
  const room = Math.min(byBudget, byReserve);
  return room === Number.POSITIVE_INFINITY ? null : room;
}
