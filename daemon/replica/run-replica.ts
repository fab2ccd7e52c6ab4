import { TidemarkError } from '../../journal/base/errors.ts';
import type { ReplicaConfig, ReplicaGroupConfig } from '../config/config-types.ts';
import type { ReplicaGroupReply, ReplicaStatusReply } from '../control/control-api.ts';
import { type ReplicaControl, replicaRoutes } from '../control/replica-routes.ts';
import { DaemonRuntime } from '../daemon-runtime.ts';
import { replicaConditions } from '../telemetry/alarm-conditions.ts';
import type { Log } from '../telemetry/log.ts';
import { GroupHost } from '../worker/group-host.ts';
import { findGroup, fresh, healthReason, isStalled } from '../worker/group-replies.ts';
import { workerFile } from '../worker/worker-file.ts';
import type { ReplicaMethods, ReplicaWorkerData } from './group-worker-protocol.ts';
import { unknownReplicaGroup } from './unknown-group.ts';

type Group = GroupHost<ReplicaMethods, ReplicaGroupReply>;

const CALL_TIMEOUT_MS = 60_000;
const STOP_TIMEOUT_MS = 120_000;

/** The replica's control plane: one worker per group, the control API over them. Resolves with the exit code. */
export async function runReplica(config: ReplicaConfig, log: Log): Promise<number> {
  const groups = config.groups.map((group) => startGroup(config, group, log));
  const replies = (): ReplicaGroupReply[] => groups.map(replyOf);
  const control: ReplicaControl = {
    status: async () => {
      await Promise.all(groups.map(fresh));
      return runtime.status() as ReplicaStatusReply;
    },
    alarms: () => ({ alarms: runtime.alarms.standing }),
    points: (group, query) => call(group, 'points', query),
    bookmarks: (group) => call(group, 'bookmarks', null),
    views: async (group) => ({ views: (await call(group, 'status', null)).views }),
    mount: (group, request) => operation('mount', group, { at: request.at }, () => call(group, 'mount', request)),
    unmount: (group, view) => operation('unmount', group, { view }, () => call(group, 'unmount', { view })),
    restores: async (group) => ({ restores: (await call(group, 'status', null)).restores }),
    restore: (group, request) => {
      const name = request.dryRun === true ? 'restore-plan' : 'restore';
      return operation(name, group, { at: request.at, to: request.to }, () => call(group, 'restore', request));
    },
    restoreJob: (group, job) => call(group, 'restoreJob', { job }),
    cancelRestore: (group, job) =>
      operation('restore-cancel', group, { job }, () => call(group, 'cancelRestore', { job })),
  };
  const call = async <Name extends keyof ReplicaMethods>(
    group: string,
    method: Name,
    params: ReplicaMethods[Name]['params'],
  ): Promise<ReplicaMethods[Name]['result']> => findGroup(groups, group).rpc.call(method, params, CALL_TIMEOUT_MS);
  const operation = <T>(
    name: string,
    group: string,
    fields: Record<string, string>,
    work: () => Promise<T>,
  ): Promise<T> => runtime.operation(name, { group, ...fields }, work);
  const runtime = new DaemonRuntime(log, config, {
    role: 'replica',
    groups: groups.map((group) => ({
      group: group.group,
      get health() {
        return group.health;
      },
      stop: (hurry) => (hurry ? group.terminate() : group.stop(() => group.rpc.call('stop', null, STOP_TIMEOUT_MS))),
    })),
    ready: () => groups.every((group) => group.health.state === 'running' && group.status.state !== 'starting'),
    // a source is configured with the port that the kernel gave: the first status has it
    presentable: () => groups.every((group) => group.health.state !== 'running' || group.status.state !== 'starting'),
    status: (daemon, alarms) => ({ role: 'replica', name: config.name, daemon, groups: replies(), alarms }),
    conditions: () => replicaConditions(replies()),
    routes: () => replicaRoutes(control),
  });
  return runtime.run();
}

function startGroup(config: ReplicaConfig, group: ReplicaGroupConfig, log: Log): Group {
  const data: ReplicaWorkerData = { config: group, stateDir: config.stateDir, replica: config.name };
  return new GroupHost({
    group: group.name,
    file: workerFile('./group-worker.ts', import.meta.url),
    workerData: data,
    initial: unknownReplicaGroup(group.name, group.stream.kafka === null ? 'direct' : 'kafka'),
    log,
  });
}

/** What the worker last said, corrected by what the control plane knows of the worker. */
function replyOf(group: Group): ReplicaGroupReply {
  const reply: ReplicaGroupReply = { ...group.status, ageSeconds: group.ageSeconds };
  const { health } = group;
  if (health.state === 'failed') {
    const code = health.error instanceof TidemarkError ? health.error.code : 'bug';
    return { ...reply, state: 'failed', reason: healthReason(health), code, views: [] };
  }
  if (health.state === 'stopped') return { ...reply, state: 'stopping', reason: 'stopped' };
  return isStalled(group) ? { ...reply, state: 'stalled', reason: 'the data path gives no answer' } : reply;
}
