import type { Journal } from '../../journal/journal.ts';
import type { SourceGroupConfig } from '../config/config-types.ts';
import type {
  GroupState,
  JournalReply,
  SourceGroupReply,
  SourceVolumeReply,
  StreamReply,
} from '../control/control-api.ts';
import type { SourceCountersReply } from '../control/counters-api.ts';
import type { DegreeReply } from '../control/degree-api.ts';
import { listenText } from '../nbd-setup.ts';
import type { ShipReplicaStatus, ShipStatus } from '../ship/ship-status.ts';
import type { AckDegree } from '../synchrony/degree-policy.ts';
import type { DegreeStatus } from '../synchrony/degree-status.ts';
import { GUESTS_WAIT_NOTE } from '../telemetry/alarm-conditions.ts';
import { isoTime } from '../times.ts';
import type { GroupStatus, VolumeStatus } from '../volume/group-status.ts';
import type { CountedExport } from './counted-export.ts';

/** A group of which nothing is known yet. */
export function unknownSourceGroup(config: SourceGroupConfig): SourceGroupReply {
  const unknown = { records: null, bytes: null, seconds: null };
  return {
    name: config.name,
    groupId: null,
    state: 'starting',
    reason: 'starting',
    code: null,
    ageSeconds: null,
    epoch: null,
    incarnation: null,
    head: null,
    journal: null,
    overlay: null,
    volumes: config.volumes.map(({ name, backing, size }) => ({
      name,
      id: null,
      sizeBytes: size,
      backing,
      state: 'starting',
      seed: null,
      uri: null,
      traffic: null,
    })),
    listen: listenText(config.listen),
    clients: null,
    stream: { kind: kindOf(config), state: 'connecting', reason: '', code: null },
    topic: unknownTopic(config),
    replicas: config.replicas.map(({ name, required }) => ({
      name,
      required,
      state: 'unknown',
      reason: '',
      durableLsn: null,
      lag: unknown,
      stoodStillSeconds: null,
    })),
    backlog: unknown,
    rpo: [],
    degree: null,
    counters: null,
    notes: [],
  };
}

function unknownTopic({ stream }: SourceGroupConfig): SourceGroupReply['topic'] {
  const capBytes = stream.kafka?.retentionBytes ?? null;
  return capBytes === null ? null : { capBytes, usedBytes: null, estimated: false };
}

/** What the data path knows at one moment. */
export interface SourceFacts {
  readonly config: SourceGroupConfig;
  readonly groupId: string;
  readonly journal: Journal;
  readonly group: GroupStatus;
  readonly ship: ShipStatus;
  readonly exports: ReadonlyMap<string, CountedExport>;
  readonly uriOf: (volume: string) => string;
  readonly listen: string;
  readonly clients: number;
  readonly notes: readonly string[];
  readonly counters: SourceCountersReply;
  /** Into the journal; null: not known yet. */
  readonly bytesPerSecond: number | null;
  /** Microseconds since 1970 by the wall clock: only to name moments to a person. */
  readonly nowMicros: number;
}

/** A replica tells its state at every heartbeat, one a second. */
const SILENT_SECONDS = 5;
const MICROS = 1_000_000;

export function sourceGroupReply(facts: SourceFacts): SourceGroupReply {
  const { config, journal, group, ship } = facts;
  const [state, reason, code] = stateOf(facts);
  const open = new Map(group.volumes.map((volume) => [volume.name, volume]));
  return {
    name: config.name,
    groupId: facts.groupId,
    state,
    reason,
    code,
    ageSeconds: 0,
    epoch: journal.epoch,
    incarnation: journal.incarnation?.counter ?? null,
    head: {
      durableLsn: group.durableLsn,
      unsyncedRecords: group.headLsn - group.durableLsn,
      checkpointLsn: group.checkpointLsn,
    },
    journal: {
      directory: config.journal.directory,
      usedBytes: group.journalUsedBytes,
      budgetBytes: config.journal.budgetBytes,
      oldestLsn: journal.oldestLsn,
      ...budgetTimes(facts.bytesPerSecond, config.journal.budgetBytes, ship.backlog.bytes),
    },
    overlay: {
      bytes: group.volumes.reduce((sum, volume) => sum + volume.overlayBytes, 0),
      bytesMax: config.overlayMemoryBytes,
    },
    volumes: config.volumes.map(({ name, backing }) => volumeReply(name, backing, open.get(name), facts)),
    listen: facts.listen,
    clients: facts.clients,
    stream: streamReply(config, ship),
    topic: ship.topic,
    replicas: ship.replicas.map(
      ({ name, required, state: replicaState, reason: why, durableLsn, lag, stoodStillSeconds }) => ({
        name,
        required,
        state: durableLsn === null ? 'unknown' : replicaState,
        reason: why,
        durableLsn,
        lag,
        stoodStillSeconds,
      }),
    ),
    backlog: ship.backlog,
    rpo: ship.rpo,
    degree: degreeReply(config, group.degree),
    counters: { ...facts.counters },
    notes: [
      ...facts.notes,
      ...(group.heldForRoom && WORSE_THAN_BLOCKED.has(state) ? [GUESTS_WAIT_NOTE] : []),
      ...(group.givenUp === undefined ? [] : ['history was given up for lack of room: seed the group anew']),
      ...ship.unregistered.map((name) => `${name} reads the stream without being registered: nothing is kept for it`),
    ],
  };
}

/** Beside one of these a group may be blocked, and its state does not say so. */
const WORSE_THAN_BLOCKED: ReadonlySet<GroupState> = new Set(['held', 'unprotected', 'backing-failed']);

function budgetTimes(
  bytesPerSecond: number | null,
  budgetBytes: number,
  backlogBytes: number | null,
): Pick<JournalReply, 'bytesPerSecond' | 'budgetSeconds' | 'leftSeconds'> {
  const flows = bytesPerSecond !== null && bytesPerSecond > 0;
  const seconds = (bytes: number): number | null => (flows ? Math.max(0, bytes) / bytesPerSecond : null);
  const leftSeconds = backlogBytes === null ? null : seconds(budgetBytes - backlogBytes);
  return { bytesPerSecond, budgetSeconds: seconds(budgetBytes), leftSeconds };
}

/** The worst that is true, and why. */
function stateOf({ config, group, ship, nowMicros }: SourceFacts): [GroupState, string, string | null] {
  if (group.volumes.length === 0) return ['detached', 'every volume was given back', null];
  if (group.remoteHeld && config.listen.tcp !== null) {
    return ['held', 'after a power loss remote guests are kept out until `tidemark release`', 'precondition-failed'];
  }
  switch (group.state) {
    case 'failed':
      return ['failed', group.reason, 'journal-poisoned'];
    case 'closed':
      return ['stopping', 'stopping', null];
    case 'unprotected':
      return ['unprotected', group.reason, null];
    case 'backing-failed':
      return ['backing-failed', group.reason, group.destage.code ?? null];
    case 'seeding':
    case 'protecting':
  }
  if (group.heldForRoom) {
    return ['blocked', 'the journal has spent its budget, or its file system is full: the guest waits', 'journal-full'];
  }
  const { degree } = group;
  if (degree.state === 'blocked' || degree.state === 'failing') {
    const what = degree.state === 'blocked' ? 'guests wait for the far side' : 'guests are answered with errors';
    return ['blocked', `${what}: ${degree.reason}`, 'timed-out'];
  }
  if (group.state === 'seeding') return ['seeding', `all of ${group.reason} is being journalled`, null];
  if (ship.state !== 'streaming') return ['behind', ship.reason, ship.code];
  for (const replica of ship.replicas) {
    const why = replica.required ? whyBehind(replica, nowMicros) : undefined;
    if (why !== undefined) return ['behind', `replica ${replica.name} ${why}`, null];
  }
  return ['protecting', '', null];
}

/** A stream can be connected, or in the broker's hands, while the replica stands still; undefined: it follows. */
function whyBehind(
  { durableLsn, heardSecondsAgo, state, reason, lag }: ShipReplicaStatus,
  now: number,
): string | undefined {
  if (durableLsn === null || heardSecondsAgo === null) return 'has not been heard since the start';
  if (lag.records === 0) return undefined;
  if (heardSecondsAgo > SILENT_SECONDS) return `has not been heard since ${moment(now - heardSecondsAgo * MICROS)}`;
  if (state !== 'receiving') return `is ${state}: ${reason}`;
  if ((lag.seconds ?? 0) <= SILENT_SECONDS) return undefined;
  return `holds what was written before ${moment(now - (lag.seconds ?? 0) * MICROS)} and receives the rest`;
}

/** To the second: the same text in every status of one outage. */
function moment(micros: number): string {
  return isoTime(Math.round(micros / MICROS) * MICROS).replace('.000000Z', 'Z');
}

function volumeReply(
  name: string,
  backing: string,
  volume: VolumeStatus | undefined,
  facts: SourceFacts,
): SourceVolumeReply {
  if (volume === undefined) {
    return { name, id: null, sizeBytes: null, backing, state: 'detached', seed: null, uri: null, traffic: null };
  }
  const seeding = volume.state === 'seeding';
  const failed = facts.group.state === 'backing-failed';
  return {
    name,
    id: volume.id,
    sizeBytes: volume.size,
    backing,
    state: volume.state === 'open' ? (failed ? 'failed' : 'serving') : volume.state,
    seed: seeding ? { doneBytes: volume.seededBytes ?? 0, totalBytes: volume.size } : null,
    uri: volume.state === 'open' ? facts.uriOf(name) : null,
    traffic: {
      ...(facts.exports.get(name)?.traffic ?? { reads: 0, readBytes: 0, writes: 0, writeBytes: 0, flushes: 0 }),
    },
  };
}

function degreeReply(config: SourceGroupConfig, degree: DegreeStatus): DegreeReply {
  const { policy, configured, next, state, reason, sinceLsn, holds, brokenFromLsn } = degree;
  return {
    policy,
    configured,
    next: next ?? null,
    meaning: meaningOf(policy.ack, kindOf(config)),
    state,
    reason,
    sinceLsn,
    holds,
    brokenFromLsn: brokenFromLsn === 0 ? null : brokenFromLsn,
    brokenStretches: degree.stretches,
    answersHeld: degree.waiting,
    clientsHeldBack: degree.heldBack,
    unshippedBytes: degree.unshippedBytes,
    unshippedBytesBound: degree.unshippedBytesBound === 0 ? null : degree.unshippedBytesBound,
  };
}

function meaningOf(ack: AckDegree, kind: StreamReply['kind']): string {
  if (ack === 'local') return 'in the journal here';
  if (ack === 'replica') return 'durable at every required replica';
  if (ack === 'applied') return 'in the standby image of every required replica';
  return kind === 'kafka'
    ? 'taken by the topic from all in-sync brokers: in their page cache'
    : "received by the replica's process, not yet durable there";
}

function streamReply(config: SourceGroupConfig, ship: ShipStatus): StreamReply {
  return { kind: kindOf(config), state: ship.state, reason: ship.reason, code: ship.code };
}

function kindOf(config: SourceGroupConfig): StreamReply['kind'] {
  return config.stream.kafka === null ? 'direct' : 'kafka';
}
