import type { Command } from 'commander';
import type {
  AlarmReply,
  AlarmsReply,
  JournalReply,
  LagReply,
  ReplicaStatusReply,
  SourceStatusReply,
  StatusReply,
  TopicReply,
} from '../../daemon/control/control-api.ts';
import type { RpoReply } from '../../daemon/control/counters-api.ts';
import type { DegreeReply, RpoClaimReply, StandbyReply } from '../../daemon/control/degree-api.ts';
import { type ClientOptions, clientFor, clientOptions } from '../command-options.ts';
import { bytes, count, known, point, print, printJson, seconds, shortTime } from '../output.ts';
import { bold, paint, table } from '../table.ts';

/** `tidemark status`, `tidemark alarms`. */
export function addStatusCommands(program: Command): void {
  clientOptions(program.command('status'))
    .description('groups, volumes, head, floor, lag, backlog and state of the daemon')
    .action(async (options: ClientOptions) => {
      const status = await clientFor(options, 'any').get<StatusReply>('/v1/status');
      if (options.output === 'json') printJson(status);
      else print(statusText(status));
    });
  clientOptions(program.command('alarms'))
    .description('what needs a person now')
    .action(async (options: ClientOptions) => {
      const reply = await clientFor(options, 'any').get<AlarmsReply>('/v1/alarms');
      if (options.output === 'json') printJson(reply);
      else print(reply.alarms.length === 0 ? 'no alarms' : alarmTable(reply.alarms));
    });
}

/** What a person is shown: the tables of a group stand indented below it. */
export function statusText(status: StatusReply): string {
  return status.role === 'source' ? sourceText(status) : replicaText(status);
}

function sourceText(status: SourceStatusReply): string {
  const parts = [heading(status)];
  for (const group of status.groups) {
    const head = group.head;
    parts.push(
      '',
      table(
        ['group', 'state', 'head', 'unsynced', 'written out to', 'backlog', 'journal', 'stream'],
        [
          [
            bold(group.name),
            state(group.state),
            known(head, (at) => String(at.durableLsn)),
            known(head, (at) => String(at.unsyncedRecords)),
            known(head, (at) => String(at.checkpointLsn)),
            lag(group.backlog),
            known(group.journal, (journal) => `${bytes(journal.usedBytes)} of ${bytes(journal.budgetBytes)}`),
            `${group.stream.kind} ${state(group.stream.state)}`,
          ],
        ],
      ),
      ...reasons([
        group.reason,
        ...degreeLines(group.degree),
        ...rpoLine(group.rpo),
        ...budgetLine(group.journal),
        group.stream.reason,
        ...topicLine(group.topic),
        ...group.notes,
      ]),
      '',
      table(
        ['  volume', 'size', 'state', 'address'],
        group.volumes.map((volume) => [
          `  ${volume.name}`,
          known(volume.sizeBytes, bytes),
          volume.seed === null
            ? state(volume.state)
            : `seeding ${bytes(volume.seed.doneBytes)} of ${bytes(volume.seed.totalBytes)}`,
          volume.uri ?? '-',
        ]),
      ),
      '',
      table(
        ['  replica', 'required', 'state', 'holds', 'behind by'],
        group.replicas.map((replica) => [
          `  ${replica.name}`,
          replica.required ? 'yes' : 'no',
          state(replica.state),
          known(replica.durableLsn, String),
          lag(replica.lag),
        ]),
      ),
      ...reasons(group.replicas.map((replica) => replica.reason)),
    );
  }
  return [...parts, ...alarmLines(status.alarms)].join('\n');
}

/** What guests' answers wait for; nothing while they wait for nobody and nothing is to change. */
function degreeLines(degree: DegreeReply | null): string[] {
  if (degree === null || (degree.policy.ack === 'local' && degree.next === null)) return [];
  const { policy, next, state: now, brokenFromLsn, answersHeld, unshippedBytes, unshippedBytesBound } = degree;
  const { ack, ackAt, onStall, stallAfterMs } = policy;
  const promise = `ack ${ack} at ${ackAt} (${degree.meaning}), ${onStall} after ${stallAfterMs / 1000} s`;
  const bound = unshippedBytesBound === null ? '' : ` of at most ${bytes(unshippedBytesBound)}`;
  const onTheWay = unshippedBytes === null ? '' : `, ${bytes(unshippedBytes)}${bound} on the way`;
  const broken = brokenFromLsn === null ? '' : `, not kept since LSN ${brokenFromLsn}: ${degree.reason}`;
  const waiting = answersHeld === 0 ? '' : `, ${count(answersHeld, 'answer')} waiting`;
  return [
    `${promise}: ${state(now)}${waiting}${onTheWay}${broken}`,
    ...(next === null ? [] : [`soon: ack ${next.ack} at ${next.ackAt}, ${next.onStall}`]),
    ...degree.brokenStretches
      .slice(-3)
      .map(({ fromLsn, toLsn, reason }) => `not kept from LSN ${fromLsn} to ${toLsn}: ${reason}`),
  ];
}

/** What the budget means in time, while something goes into the journal. */
function budgetLine(journal: JournalReply | null): string[] {
  if (journal === null || journal.budgetSeconds === null) return [];
  const { budgetBytes, budgetSeconds, leftSeconds, bytesPerSecond } = journal;
  const rate = `${known(bytesPerSecond, bytes)}/s`;
  const left = `${known(leftSeconds, seconds)} of it left`;
  return [`at ${rate} the budget of ${bytes(budgetBytes)} holds an outage of ${seconds(budgetSeconds)}, ${left}`];
}

/** Of windows that have begun to be measured. */
function rpoLine(rpo: readonly RpoReply[]): string[] {
  const parts = rpo
    .filter(({ covered }) => covered > 0)
    .map(({ windowSeconds, p50Seconds, p99Seconds, covered }) => {
      const since = covered < 1 ? ` (${Math.floor(covered * 100)} % of it measured)` : '';
      return `${seconds(windowSeconds)}: p50 ${known(p50Seconds, seconds)}, p99 ${known(p99Seconds, seconds)}${since}`;
    });
  return parts.length === 0 ? [] : [`RPO over ${parts.join('; ')}`];
}

function claimLine(claim: RpoClaimReply | null): string[] {
  if (claim === null || claim.promise === null) return [];
  const { rpo, promise, reason, sureForSeconds } = claim;
  if (rpo === 'zero') return [`RPO 0 (${promise}), sure for ${known(sureForSeconds, seconds)} more`];
  return [`RPO unknown (${promise}): ${reason}`];
}

function standbyLine(standby: StandbyReply | null): string[] {
  if (standby === null) return [];
  const { mode, directory, state: now, appliedLsn, copiedBytes, reason } = standby;
  const copied = copiedBytes === null ? '' : `, ${bytes(copiedBytes)} copied`;
  const why = reason === '' ? '' : `, stands still: ${reason}`;
  return [
    `standby image (${mode}) in ${directory}: ${state(now)} up to LSN ${known(appliedLsn, String)}${copied}${why}`,
  ];
}

function topicLine(topic: TopicReply | null): string[] {
  if (topic === null) return [];
  const used = known(topic.usedBytes, (value) => `${topic.estimated ? 'about ' : ''}${bytes(value)}`);
  return [`topic: ${used} of its cap of ${bytes(topic.capBytes)} used`];
}

function replicaText(status: ReplicaStatusReply): string {
  const parts = [heading(status)];
  for (const group of status.groups) {
    parts.push(
      '',
      table(
        ['group', 'state', 'head', 'floor', 'newest', 'age at least', 'used', 'stream'],
        [
          [
            bold(group.name),
            state(group.state),
            known(group.head, point),
            known(group.floor, point),
            known(group.head?.time, shortTime),
            known(group.lagSecondsAtLeast, seconds),
            known(group.store, (store) => bytes(store.usedBytes)),
            `${group.stream.kind} ${state(group.stream.state)}`,
          ],
        ],
      ),
      ...reasons([
        group.reason,
        ...claimLine(group.rpoClaim),
        ...standbyLine(group.standby),
        group.stream.reason,
        ...group.notes,
      ]),
    );
    const views = group.views.flatMap((view) =>
      view.exports.map((entry) => [
        `  ${view.name}`,
        point(view.at),
        entry.volume,
        view.writable ? 'scratch' : 'read-only',
        entry.uri,
      ]),
    );
    if (views.length > 0) parts.push('', table(['  view', 'at', 'volume', 'mode', 'address'], views));
    const jobs = group.restores.map((job) => [
      `  ${job.id}`,
      state(job.state),
      `${bytes(job.doneBytes)} of ${bytes(job.totalBytes)}`,
      job.plan.to,
    ]);
    if (jobs.length > 0) parts.push('', table(['  restore', 'state', 'done', 'to'], jobs));
  }
  return [...parts, ...alarmLines(status.alarms)].join('\n');
}

function heading(status: StatusReply): string {
  const name = status.role === 'replica' ? `replica ${status.name}` : 'source';
  const { version, pid, now, ready } = status.daemon;
  return `${bold(name)}  tidemark ${version}, pid ${pid}, ${ready ? 'ready' : 'not ready'}, ${shortTime(now)}`;
}

function lag(value: LagReply): string {
  const parts = [
    known(value.records, (records) => count(records, 'record')),
    known(value.bytes, bytes),
    known(value.seconds, seconds),
  ];
  return parts.every((part) => part === 'unknown') ? 'unknown' : parts.join(', ');
}

const GOOD = new Set(['in-sync', 'applying', 'settled', 'protecting', 'receiving', 'serving', 'streaming', 'done']);
const PASSING = new Set([
  'copying',
  'settling',
  'starting',
  'seeding',
  'behind',
  'connecting',
  'retrying',
  'running',
  'verifying',
  'stopping',
  'unknown',
]);

function state(text: string): string {
  if (GOOD.has(text)) return paint('green', text);
  return paint(PASSING.has(text) ? 'yellow' : 'red', text);
}

function reasons(texts: readonly string[]): string[] {
  return [...new Set(texts)].filter((text) => text !== '').map((text) => `  ${text}`);
}

function alarmLines(alarms: readonly AlarmReply[]): string[] {
  return alarms.length === 0 ? [] : ['', alarmTable(alarms)];
}

function alarmTable(alarms: readonly AlarmReply[]): string {
  return table(
    ['alarm', 'severity', 'group', 'since', 'message'],
    alarms.map((alarm) => [
      paint(alarm.severity === 'critical' ? 'red' : 'yellow', alarm.code),
      alarm.severity,
      [alarm.group ?? '-', alarm.subject].filter((text) => text !== '').join('/'),
      shortTime(alarm.since),
      alarm.message,
    ]),
  );
}
