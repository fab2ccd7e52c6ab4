import { TidemarkError } from '../../journal/base/errors.ts';
import type { Host } from '../../journal/host/host.ts';
import type { RpoClaim } from '../../replica/receive/promise-of-source.ts';
import { REPLICA_DEFAULTS, ReplicaGroup } from '../../replica/replica-group.ts';
import type { StandbyStatus } from '../../replica/standby/standby-image.ts';
import type { GroupState, ReplicaGroupReply, StreamReply } from '../control/control-api.ts';
import type { RpoClaimReply, StandbyReply } from '../control/degree-api.ts';
import { pinGroupId, readGroupId } from '../group-identity.ts';
import { NbdServer } from '../nbd/server.ts';
import { nbdListener } from '../nbd-setup.ts';
import { countReplica } from '../telemetry/channel-counters.ts';
import type { WorkerSide } from '../worker/worker-side.ts';
import type { ReplicaWorkerData } from './group-worker-protocol.ts';
import { learnGroupId } from './learn-group-id.ts';
import { MountedViews } from './mounted-views.ts';
import { openReplicaStream, type ReplicaStream } from './replica-stream.ts';
import { RestoreJobs } from './restore-jobs.ts';
import { RestoreTargets } from './restore-targets.ts';
import { pointReply } from './timeline-reply.ts';
import { unknownReplicaGroup } from './unknown-group.ts';

const RETENTION_INTERVAL_MS = 60_000;

/** What is there once the group's id is known. */
export interface OpenReplica {
  readonly group: ReplicaGroup;
  readonly views: MountedViews;
  readonly restores: RestoreJobs;
}

/**
 * One group at the replica: stream, store, views, restores, on the thread of its worker. Order of the start: the stream
 * listens, the group's id is known (pinned, configured, or learnt from the first frame), the store is recovered, views
 * are served, receiving begins.
 */
export class ReplicaDataPath {
  readonly #host: Host;
  readonly #data: ReplicaWorkerData;
  readonly #side: Pick<WorkerSide<ReplicaGroupReply>, 'log'>;
  readonly #closing = new AbortController();
  readonly #counters = countReplica();
  readonly #ended = Promise.withResolvers<void>();
  #stream: ReplicaStream | undefined;
  #server: NbdServer | undefined;
  #open: OpenReplica | undefined;
  #retention: NodeJS.Timeout | undefined;
  #running: Promise<void> | undefined;
  #phase = 'starting';

  constructor(host: Host, data: ReplicaWorkerData, side: Pick<WorkerSide<ReplicaGroupReply>, 'log'>) {
    this.#host = host;
    this.#data = data;
    this.#side = side;
  }

  /** Runs until `close`; rejects when the group cannot go on. */
  async run(): Promise<void> {
    this.#running = this.#start();
    await this.#running;
    await this.#ended.promise;
  }

  /** Throws precondition-failed before the first contact with the source. */
  get opened(): OpenReplica {
    if (this.#open === undefined) throw new TidemarkError('precondition-failed', `nothing to show yet: ${this.#phase}`);
    return this.#open;
  }

  async close(): Promise<void> {
    this.#closing.abort();
    // a start that failed has told so already
    await this.#running?.catch(() => undefined);
    clearInterval(this.#retention);
    await this.#open?.restores.close();
    await this.#server?.close();
    await this.#open?.group.close();
    await this.#stream?.close();
    this.#ended.resolve();
  }

  async #start(): Promise<void> {
    const { config, stateDir, replica } = this.#data;
    this.#stream = await openReplicaStream(this.#host, config.stream, `tidemark-replica-${replica}`);
    if (this.#stream.listen !== null) {
      this.#side.log('info', 'stream-listening', `sources connect to ${this.#stream.listen}`, {
        listen: this.#stream.listen,
      });
    }
    const groupId = await this.#groupId(stateDir);
    if (groupId === undefined) return;
    this.#phase = 'recovering the store';
    const group = await ReplicaGroup.open(this.#host, {
      ...REPLICA_DEFAULTS,
      directory: config.directory,
      groupId,
      replica,
      reserveBytes: config.reserveBytes,
      apply: config.apply,
      // views are closed by it; the index is built again at the opening
      onReopen: () => {
        const reason = 'damaged history was put back: the group opens anew with all of it';
        this.#ended.reject(new TidemarkError('frame-damaged', reason));
      },
      policy: { windowMs: config.history.windowMs, bytesMax: config.history.bytesMax ?? config.budgetBytes ?? 0 },
    });
    try {
      const listener = await nbdListener(config.views);
      this.#server = await NbdServer.start({ listeners: [listener] });
      const address = this.#server.addresses[0] ?? listener.address;
      const views = new MountedViews(group, { server: this.#server, address, tls: config.views.tls !== null });
      const own = {
        directories: [config.directory, stateDir],
        sockets: config.views.unix === null ? [] : [config.views.unix],
      };
      const targets = new RestoreTargets(this.#host, own);
      const restores = new RestoreJobs(this.#host, group, config.name, targets, (error) => this.#ended.reject(error));
      this.#open = { group, views, restores };
    } catch (error) {
      await group.close();
      throw error;
    }
    group.start(this.#stream.source(config.name, groupId));
    this.#retention = setInterval(() => void this.#retain(group), RETENTION_INTERVAL_MS);
    this.#phase = 'receiving';
    this.#side.log('info', 'receiving', 'the replica receives', { groupId, headLsn: group.headLsn });
  }

  /** Nothing when the daemon stops before the source made contact. */
  async #groupId(stateDir: string): Promise<string | undefined> {
    const { config, replica } = this.#data;
    const pinned = await readGroupId(stateDir, config.name);
    if (pinned !== undefined && config.groupId !== null && pinned !== config.groupId) {
      throw new TidemarkError(
        'config-invalid',
        `group ${config.name}: the configuration says id ${config.groupId}, but ${pinned} was met first and is pinned`,
      );
    }
    const known = config.groupId ?? pinned;
    if (known !== undefined) {
      if (pinned === undefined) await pinGroupId(stateDir, config.name, known);
      return known;
    }
    this.#phase = 'no source has made contact yet';
    const source = this.#stream?.source(config.name, null);
    const learnt = source === undefined ? undefined : await learnGroupId(source, replica, this.#closing.signal);
    if (learnt === undefined) return undefined;
    await pinGroupId(stateDir, config.name, learnt);
    this.#side.log('info', 'group-pinned', `group ${config.name} is ${learnt}`, { groupId: learnt });
    return learnt;
  }

  async #retain(group: ReplicaGroup): Promise<void> {
    try {
      await group.retain();
    } catch (error) {
      if (!(error instanceof TidemarkError)) {
        this.#ended.reject(error);
        return;
      }
      this.#side.log('warn', 'retention-failed', error.message, { reason: error.code });
    }
  }

  async status(): Promise<ReplicaGroupReply> {
    const { config } = this.#data;
    const stream = this.#stream;
    const base: ReplicaGroupReply = {
      ...unknownReplicaGroup(config.name, config.stream.kafka === null ? 'direct' : 'kafka'),
      listen: stream?.listen ?? null,
    };
    if (this.#open === undefined) {
      const waiting = this.#phase !== 'starting' && this.#phase !== 'recovering the store';
      return { ...base, state: waiting ? 'receiving' : 'starting', reason: this.#phase };
    }
    const { group, views, restores } = this.#open;
    const now = await group.status();
    const { receiver } = now;
    if (receiver.state === 'stopped' && !this.#closing.signal.aborted) {
      this.#ended.reject(new TidemarkError('sync-failed', receiver.reason));
    }
    const { epoch } = receiver.durable;
    const state: GroupState =
      receiver.state !== 'receiving' ? 'stopped' : receiver.lost === '' ? 'receiving' : 'behind';
    // Lost frames may still be in the source's journal: the source says so, or that a resync is needed.
    const lostCode = receiver.lost === '' ? null : 'gap';
    return {
      ...base,
      groupId: now.groupId,
      state,
      reason: receiver.reason,
      code: receiver.state === 'receiving' ? lostCode : receiver.state,
      stream: streamReply(base.stream.kind, receiver.stream),
      head: pointReply(epoch, now.headLsn, now.headTime),
      floor: pointReply(epoch, now.floorLsn, now.floorTime),
      lagSecondsAtLeast: now.heartbeatAgeMs === undefined ? null : now.heartbeatAgeMs / 1000,
      rpoClaim: claimReply(group.rpoClaim),
      standby: now.standby === undefined ? null : standbyReply(now.standby),
      volumes: now.volumes.map(({ id, name, size }) => ({ id, name, sizeBytes: size })),
      store: {
        directory: config.directory,
        usedBytes: now.segmentBytes + now.baseBytes,
        budgetBytes: config.budgetBytes,
        freeBytes: now.freeBytes,
        reserveBytes: config.reserveBytes,
      },
      views: views.list(),
      restores: restores.list(),
      counters: { ...this.#counters },
      notes: [
        ...now.orphans.map((orphan) => `orphan branch from ${orphan.sourceLsn} to ${orphan.toLsn}: ${orphan.reason}`),
        ...now.damage.map(({ fromLsn, toLsn, where, reason }) => {
          const refusal = now.refusalOf(fromLsn);
          const why = refusal === '' ? reason : `${reason}; not put back: ${refusal}`;
          return `damage: ${fromLsn}-${toLsn} at ${where}: ${why}`;
        }),
      ],
    };
  }
}

function standbyReply({ mode, directory, state, reason, appliedLsn, copiedBytes }: StandbyStatus): StandbyReply {
  // before the stamp was read nothing is known of the files
  if (state === undefined) return { mode, directory, state: 'starting', reason, appliedLsn: null, copiedBytes: null };
  return { mode, directory, state, reason, appliedLsn, copiedBytes: state === 'copying' ? copiedBytes : null };
}

function claimReply({ rpo, promise, reason, sureForMs }: RpoClaim): RpoClaimReply {
  const sureForSeconds = rpo === 'zero' ? sureForMs / 1000 : null;
  return { rpo, promise: promise === '' ? null : promise, reason, sureForSeconds };
}

function streamReply(
  kind: 'direct' | 'kafka',
  status: { state: string; reason: string; code?: string } | undefined,
): StreamReply {
  return { kind, state: status?.state ?? 'connecting', reason: status?.reason ?? '', code: status?.code ?? null };
}
