import { TidemarkError } from '../../journal/base/errors.ts';
import type { SourceConfig, SourceGroupConfig } from '../config/config-types.ts';
import type { SourceGroupReply, SourceStatusReply } from '../control/control-api.ts';
import { type SourceControl, sourceRoutes } from '../control/source-routes.ts';
import { DaemonRuntime } from '../daemon-runtime.ts';
import { sourceConditions } from '../telemetry/alarm-conditions.ts';
import type { Log } from '../telemetry/log.ts';
import { GroupHost } from '../worker/group-host.ts';
import { findGroup, fresh, healthReason, isStalled } from '../worker/group-replies.ts';
import { workerFile } from '../worker/worker-file.ts';
import type { SourceMethods, SourceWorkerData } from './group-worker-protocol.ts';
import { unknownSourceGroup } from './source-status.ts';

type Group = GroupHost<SourceMethods, SourceGroupReply>;

const CALL_TIMEOUT_MS = 30_000;
/** Detaching writes a whole journal out. */
const DETACH_TIMEOUT_MS = 3_600_000;
/** Everybody is asked for every damaged stretch, and the journal behind the first is read. */
const GIVE_UP_TIMEOUT_MS = 600_000;
const STOP_TIMEOUT_MS = 120_000;

const NOT_READY: ReadonlySet<string> = new Set(['starting', 'seeding', 'stopping', 'failed']);

/** The source's control plane: one worker per group, the control API over them. Resolves with the exit code. */
export async function runSource(config: SourceConfig, log: Log): Promise<number> {
  const groups = config.groups.map((group) => startGroup(config, group, log));
  const replies = (): SourceGroupReply[] => groups.map(replyOf);
  const rpc = (group: string): Group['rpc'] => findGroup(groups, group).rpc;
  const control: SourceControl = {
    status: async () => {
      await Promise.all(groups.map(fresh));
      return runtime.status() as SourceStatusReply;
    },
    alarms: () => ({ alarms: runtime.alarms.standing }),
    bookmark: (group, request) =>
      runtime.operation('bookmark', { group, name: request.name }, async () =>
        rpc(group).call('bookmark', request, CALL_TIMEOUT_MS),
      ),
    detach: (group, dryRun) =>
      runtime.operation(dryRun ? 'detach-plan' : 'detach', { group }, async () =>
        rpc(group).call('detach', { dryRun }, DETACH_TIMEOUT_MS),
      ),
    release: (group, dryRun) =>
      runtime.operation(dryRun ? 'release-plan' : 'release', { group }, async () =>
        rpc(group).call('release', { dryRun }, CALL_TIMEOUT_MS),
      ),
    giveUp: (group, request) =>
      runtime.operation(request.dryRun === true ? 'give-up-plan' : 'give-up', { group, reason: request.reason }, () =>
        rpc(group).call('giveUp', request, GIVE_UP_TIMEOUT_MS),
      ),
    degree: (group, request) =>
      runtime.operation(request.dryRun === true ? 'degree-plan' : 'degree', { group }, async () =>
        rpc(group).call('changeDegree', request, CALL_TIMEOUT_MS),
      ),
  };
  const runtime = new DaemonRuntime(log, config, {
    role: 'source',
    groups: groups.map((group) => ({
      group: group.group,
      get health() {
        return group.health;
      },
      stop: (hurry) => (hurry ? group.terminate() : group.stop(() => group.rpc.call('stop', null, STOP_TIMEOUT_MS))),
    })),
    ready: () => groups.every((group) => group.health.state === 'running' && !NOT_READY.has(group.status.state)),
    presentable: () => groups.every((group) => group.health.state !== 'running' || group.ageSeconds !== null),
    status: (daemon, alarms) => ({ role: 'source', daemon, groups: replies(), alarms }),
    conditions: () => sourceConditions(replies()),
    routes: () => sourceRoutes(control),
  });
  return runtime.run();
}

function startGroup(config: SourceConfig, group: SourceGroupConfig, log: Log): Group {
  const data: SourceWorkerData = { config: group, stateDir: config.stateDir };
  return new GroupHost({
    group: group.name,
    file: workerFile('./group-worker.ts', import.meta.url),
    workerData: data,
    initial: unknownSourceGroup(group),
    log,
  });
}

/** What the worker last said, corrected by what the control plane knows of the worker. */
function replyOf(group: Group): SourceGroupReply {
  const reply: SourceGroupReply = { ...group.status, ageSeconds: group.ageSeconds };
  const { health } = group;
  if (health.state === 'failed') {
    const code = health.error instanceof TidemarkError ? health.error.code : 'bug';
    const volumes = reply.volumes.map((volume) => ({ ...volume, state: 'shut', uri: null }));
    return { ...reply, state: 'failed', reason: healthReason(health), code, volumes };
  }
  if (health.state === 'stopped') return { ...reply, state: 'stopping', reason: 'stopped' };
  return isStalled(group) ? { ...reply, state: 'stalled', reason: 'the data path gives no answer' } : reply;
}
