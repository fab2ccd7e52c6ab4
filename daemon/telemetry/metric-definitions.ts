import type {
  AlarmReply,
  LagReply,
  ReplicaGroupReply,
  SourceGroupReply,
  SourceVolumeReply,
  StatusReply,
} from '../control/control-api.ts';

/**
 * Every metric, read from a status at the moment of the scrape: figures per write are plain numbers of the data path and
 * never pass through OpenTelemetry. A figure that is not known (null) is left out, not exported as zero (promise 9).
 * docs/metrics.md lists them; a test compares the two.
 */
export interface MetricDefinition {
  readonly name: string;
  readonly kind: 'gauge' | 'counter';
  readonly help: string;
  readonly read: (status: StatusReply) => readonly Sample[];
}

export interface Sample {
  readonly value: number;
  readonly labels: Readonly<Record<string, string>>;
}

type Value = number | null | undefined;

function sample(value: Value, labels: Record<string, string>): Sample[] {
  return value === null || value === undefined ? [] : [{ value, labels }];
}

function ofSource(read: (group: SourceGroupReply) => Value): MetricDefinition['read'] {
  return (status) =>
    status.role === 'source' ? status.groups.flatMap((group) => sample(read(group), { group: group.name })) : [];
}

function ofReplica(read: (group: ReplicaGroupReply) => Value): MetricDefinition['read'] {
  return (status) =>
    status.role === 'replica' ? status.groups.flatMap((group) => sample(read(group), { group: group.name })) : [];
}

function ofVolume(read: (volume: SourceVolumeReply) => Value): MetricDefinition['read'] {
  return (status) =>
    status.role !== 'source'
      ? []
      : status.groups.flatMap((group) =>
          group.volumes.flatMap((volume) => sample(read(volume), { group: group.name, volume: volume.name })),
        );
}

function ofLag(read: (lag: LagReply) => Value): MetricDefinition['read'] {
  return (status) =>
    status.role !== 'source'
      ? []
      : status.groups.flatMap((group) =>
          group.replicas.flatMap((replica) => sample(read(replica.lag), { group: group.name, replica: replica.name })),
        );
}

function alarmSample(alarm: AlarmReply): Sample {
  const { code, severity, subject } = alarm;
  return { value: 1, labels: { code, severity, group: alarm.group ?? '', subject } };
}

const gauge = (name: string, help: string, read: MetricDefinition['read']): MetricDefinition => ({
  name: `tidemark_${name}`,
  kind: 'gauge',
  help,
  read,
});

const counter = (name: string, help: string, read: MetricDefinition['read']): MetricDefinition => ({
  name: `tidemark_${name}_total`,
  kind: 'counter',
  help,
  read,
});

export const METRICS: readonly MetricDefinition[] = [
  gauge('ready', '1 when every group serves or receives', (status) => [
    { value: status.daemon.ready ? 1 : 0, labels: {} },
  ]),
  gauge('alarm', '1 for every alarm that stands', (status) => status.alarms.map(alarmSample)),
  gauge('group_state', '1 for the state a group is in', (status) =>
    status.groups.map((group) => ({ value: 1, labels: { group: group.name, state: group.state } })),
  ),
  gauge('status_age_seconds', 'Age of what the data path last reported', (status) =>
    status.groups.flatMap((group) => sample(group.ageSeconds, { group: group.name })),
  ),
  gauge('head_lsn', 'Newest durable record of the group', (status) =>
    status.role === 'source'
      ? status.groups.flatMap((group) => sample(group.head?.durableLsn, { group: group.name }))
      : status.groups.flatMap((group) => sample(group.head?.lsn, { group: group.name })),
  ),
  gauge(
    'unsynced_records',
    'Records that a power loss at the source may take: in the page cache only',
    ofSource((group) => group.head?.unsyncedRecords),
  ),
  gauge(
    'checkpoint_lsn',
    'Newest record synced in its backing',
    ofSource((group) => group.head?.checkpointLsn),
  ),
  gauge(
    'journal_used_bytes',
    'Bytes the journal takes',
    ofSource((group) => group.journal?.usedBytes),
  ),
  gauge(
    'journal_budget_bytes',
    'Bytes the journal may take',
    ofSource((group) => group.journal?.budgetBytes),
  ),
  gauge(
    'journal_append_bytes_per_second',
    'Bytes that go into the journal, over the last minute',
    ofSource((group) => group.journal?.bytesPerSecond),
  ),
  gauge(
    'journal_budget_seconds',
    'How long an outage the whole budget holds at the present rate',
    ofSource((group) => group.journal?.budgetSeconds),
  ),
  gauge(
    'journal_left_seconds',
    'How long what is left of the budget lasts at the present rate',
    ofSource((group) => group.journal?.leftSeconds),
  ),
  gauge(
    'overlay_bytes',
    'Memory of the overlay index',
    ofSource((group) => group.overlay?.bytes),
  ),
  gauge(
    'overlay_limit_bytes',
    'Memory the overlay index may take',
    ofSource((group) => group.overlay?.bytesMax),
  ),
  gauge(
    'clients',
    'NBD connections',
    ofSource((group) => group.clients),
  ),
  gauge(
    'replica_lag_seconds',
    'Measured age of the newest heartbeat durable at the replica: the RPO',
    ofLag((lag) => lag.seconds),
  ),
  gauge(
    'replica_lag_bytes',
    'Journal bytes the replica does not hold',
    ofLag((lag) => lag.bytes),
  ),
  gauge(
    'replica_lag_records',
    'Records the replica does not hold',
    ofLag((lag) => lag.records),
  ),
  gauge(
    'backlog_seconds',
    'Lag of the slowest required replica',
    ofSource((group) => group.backlog.seconds),
  ),
  gauge(
    'backlog_bytes',
    'Journal bytes that a required replica does not hold',
    ofSource((group) => group.backlog.bytes),
  ),
  gauge(
    'backlog_records',
    'Records that a required replica does not hold',
    ofSource((group) => group.backlog.records),
  ),
  gauge(
    'topic_used_bytes',
    'Bytes a capped topic takes at its leader; estimated where no broker tells',
    ofSource((group) => group.topic?.usedBytes),
  ),
  gauge(
    'topic_cap_bytes',
    'Bytes a capped topic may take',
    ofSource((group) => group.topic?.capBytes),
  ),
  gauge('rpo_seconds', 'Seconds of writes that would have been lost, over a window, by quantile', (status) =>
    status.role === 'source'
      ? status.groups.flatMap(({ name, rpo }) =>
          rpo.flatMap(({ windowSeconds, p50Seconds, p99Seconds }) => [
            ...sample(p50Seconds, { group: name, window: `${windowSeconds}s`, quantile: '0.5' }),
            ...sample(p99Seconds, { group: name, window: `${windowSeconds}s`, quantile: '0.99' }),
          ]),
        )
      : [],
  ),
  gauge(
    'promise_held',
    '1 while the degree of synchrony is kept, 0 while it is not; nothing while nothing is promised',
    ofSource((group) => asNumber(group.degree?.holds)),
  ),
  gauge('degree_state', '1 for the state of the degree of synchrony', (status) =>
    status.role === 'source'
      ? status.groups.flatMap(({ name, degree }) =>
          degree === null ? [] : [{ value: 1, labels: { group: name, ack: degree.policy.ack, state: degree.state } }],
        )
      : [],
  ),
  gauge(
    'answers_held',
    'Answers to guests that wait for the far side',
    ofSource((group) => group.degree?.answersHeld),
  ),
  gauge(
    'unshipped_bytes',
    'Bytes of guests that the far side does not have while answers wait for it',
    ofSource((group) => group.degree?.unshippedBytes),
  ),
  gauge(
    'unshipped_limit_bytes',
    'What they may be: writers are slowed down before it',
    ofSource((group) => group.degree?.unshippedBytesBound),
  ),
  counter(
    'volume_reads',
    'Reads answered',
    ofVolume((volume) => volume.traffic?.reads),
  ),
  counter(
    'volume_read_bytes',
    'Bytes read',
    ofVolume((volume) => volume.traffic?.readBytes),
  ),
  counter(
    'volume_writes',
    'Writes, zeroes and trims taken',
    ofVolume((volume) => volume.traffic?.writes),
  ),
  counter(
    'volume_write_bytes',
    'Bytes written',
    ofVolume((volume) => volume.traffic?.writeBytes),
  ),
  counter(
    'volume_flushes',
    'Flushes answered',
    ofVolume((volume) => volume.traffic?.flushes),
  ),
  gauge(
    'seed_done_bytes',
    'Bytes of the first copy already journalled',
    ofVolume((volume) => volume.seed?.doneBytes),
  ),
  gauge(
    'seed_size_bytes',
    'Bytes of the first copy',
    ofVolume((volume) => volume.seed?.totalBytes),
  ),
  gauge(
    'floor_lsn',
    'Oldest point that can be restored',
    ofReplica((group) => group.floor?.lsn),
  ),
  gauge(
    'lag_at_least_seconds',
    'Age of the newest record at the replica: a lower bound of the lag',
    ofReplica((group) => group.lagSecondsAtLeast),
  ),
  gauge(
    'rpo_zero',
    '1 while the replica knows that it holds all a guest was answered under the promise of its source, else 0',
    ofReplica((group) => (group.rpoClaim === null ? null : Number(group.rpoClaim.rpo === 'zero'))),
  ),
  gauge(
    'standby_applied_lsn',
    'Newest record in the standby image, synced',
    ofReplica((group) => group.standby?.appliedLsn),
  ),
  gauge('standby_state', '1 for the state of the standby image', (status) =>
    status.role === 'replica'
      ? status.groups.flatMap(({ name, standby }) =>
          standby === null ? [] : [{ value: 1, labels: { group: name, state: standby.state } }],
        )
      : [],
  ),
  gauge('history_seconds', 'Time between floor and head', ofReplica(historySeconds)),
  gauge(
    'store_used_bytes',
    'Bytes history and base take',
    ofReplica((group) => group.store?.usedBytes),
  ),
  gauge(
    'store_free_bytes',
    'Bytes free on the file system of the store',
    ofReplica((group) => group.store?.freeBytes),
  ),
  gauge(
    'store_reserve_bytes',
    'Bytes that are kept free',
    ofReplica((group) => group.store?.reserveBytes),
  ),
  gauge(
    'views',
    'Views mounted',
    ofReplica((group) => group.views.length),
  ),
  gauge('restores_running', 'Restores under way', ofReplica(runningRestores)),
];

function asNumber(value: boolean | null | undefined): Value {
  return value === null || value === undefined ? value : Number(value);
}

function historySeconds(group: ReplicaGroupReply): number | null {
  const head = group.head?.time;
  const floor = group.floor?.time;
  return head && floor ? (Date.parse(head) - Date.parse(floor)) / 1000 : null;
}

function runningRestores(group: ReplicaGroupReply): number {
  return group.restores.filter((job) => job.state === 'running' || job.state === 'verifying').length;
}
