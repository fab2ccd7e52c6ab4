import { TidemarkError } from '../../journal/base/errors.ts';
import type { BlockDevice } from '../../journal/block-device.ts';
import type { Host } from '../../journal/host/host.ts';
import type { ReplicaGroup } from '../../replica/replica-group.ts';
import { assertAllowed, describePlan, planRestore, type RestorePlan } from '../../replica/restore/restore-plan.ts';
import { RESTORE_DEFAULTS, runRestore } from '../../replica/restore/restore-run.ts';
import { parseRestoreTarget } from '../../replica/restore/restore-target.ts';
import { targetName } from '../../replica/restore/restore-target-port.ts';
import type { GroupView } from '../../replica/view/view-manager.ts';
import { toApiError } from '../control/api-errors.ts';
import type { RestoreJobReply, RestorePlanReply, RestoreReply, RestoreRequest } from '../control/control-api.ts';
import { isoNow, isoTime } from '../times.ts';
import { type RestoreTargets, targetSpec } from './restore-targets.ts';

interface Job {
  reply: RestoreJobReply;
  readonly abort: AbortController;
  running: Promise<void> | undefined;
}

/** Jobs that have ended are remembered up to this many, the newest. */
const ENDED_MAX = 100;
const RUNNING_MAX = 8;
const EXTENT_STEP_BYTES = 1024 ** 3;

/** Restores of one group: planned, started, watched, cancelled. */
export class RestoreJobs {
  readonly #host: Host;
  readonly #group: ReplicaGroup;
  readonly #groupName: string;
  readonly #targets: RestoreTargets;
  readonly #onBug: (error: unknown) => void;
  readonly #jobs = new Map<string, Job>();
  #lastId = 0;

  constructor(
    host: Host,
    group: ReplicaGroup,
    groupName: string,
    targets: RestoreTargets,
    onBug: (error: unknown) => void,
  ) {
    this.#host = host;
    this.#group = group;
    this.#groupName = groupName;
    this.#targets = targets;
    this.#onBug = onBug;
  }

  list(): RestoreJobReply[] {
    return [...this.#jobs.values()].map(({ reply }) => reply);
  }

  get(id: string): RestoreJobReply {
    return this.#job(id).reply;
  }

  /** Resolves when the job runs, or with the plan alone for a dry run. Rejects with why it may not be done. */
  async start(request: RestoreRequest): Promise<RestoreReply> {
    const running = [...this.#jobs.values()].filter((job) => job.running !== undefined).length;
    if (running >= RUNNING_MAX && request.dryRun !== true) {
      throw new TidemarkError('precondition-failed', `${running} restores run already: wait for one or cancel it`);
    }
    // taken at once: another may be planned meanwhile, and who asks for one must not be told of the other
    this.#lastId += 1;
    const id = `restore-${this.#lastId}`;
    const { plan, view, device } = await this.#plan(request, id);
    const reply = planReply(this.#groupName, plan);
    try {
      assertAllowed(plan);
      this.#assertAlone(reply.to);
    } catch (error) {
      await this.#group.views.close(view.id);
      throw error;
    }
    if (request.dryRun === true) {
      await this.#group.views.close(view.id);
      return { plan: reply, job: null };
    }
    const job: Job = {
      reply: {
        id,
        plan: reply,
        state: 'running',
        doneBytes: 0,
        totalBytes: plan.volume.size,
        startedAt: isoNow(),
        endedAt: null,
        error: null,
      },
      abort: new AbortController(),
      running: undefined,
    };
    this.#jobs.set(id, job);
    this.#forgetOld();
    job.running = this.#run(job, plan, device, view);
    job.running.catch(this.#onBug);
    return { plan: reply, job: job.reply };
  }

  /** Resolves when the job has ended; an ended one stays as it is. */
  async cancel(id: string): Promise<RestoreJobReply> {
    const job = this.#job(id);
    job.abort.abort();
    await job.running;
    return job.reply;
  }

  /** Cancels what runs, and waits for it. */
  async close(): Promise<void> {
    for (const job of this.#jobs.values()) job.abort.abort();
    await Promise.all([...this.#jobs.values()].map(async (job) => job.running));
  }

  /** Two restores into one target would rename each other's unfinished file into place. */
  #assertAlone(to: string): void {
    for (const { reply, running } of this.#jobs.values()) {
      if (running === undefined || reply.plan.to !== to) continue;
      throw new TidemarkError('target-in-use', `${reply.id} writes ${to}: wait for it or cancel it`);
    }
  }

  async #plan(
    request: RestoreRequest,
    id: string,
  ): Promise<{ plan: RestorePlan; view: GroupView; device: BlockDevice }> {
    const choice = await this.#group.resolve(parseRestoreTarget(request.at));
    const spec = await targetSpec(request.to, request.format);
    const names = request.volume === undefined ? {} : { volumes: [request.volume] };
    const view = this.#group.openView({ lsn: choice.lsn, ...names, owner: id, scratchBytesMax: 0, kind: 'restore' });
    try {
      const [only, ...others] = view.volumes;
      if (only === undefined || others.length > 0) {
        const list = view.volumes.map(({ volume }) => volume.name).join(', ');
        throw new TidemarkError('invalid-argument', `the group has several volumes, name one: ${list}`);
      }
      const plan = planRestore({
        volume: only.volume,
        choice,
        spec,
        facts: await this.#targets.inspect(spec),
        overwrite: request.overwrite ?? false,
        verify: true,
        readers: RESTORE_DEFAULTS.readers,
        dataBytes: await dataBytesOf(only.device),
      });
      return { plan, view, device: only.device };
    } catch (error) {
      await this.#group.views.close(view.id);
      throw error;
    }
  }

  async #run(job: Job, plan: RestorePlan, source: BlockDevice, view: GroupView): Promise<void> {
    try {
      const target = await this.#targets.open(plan.spec, plan.volume.size, plan.overwrite);
      try {
        await runRestore(source, target.device, {
          clock: this.#host.clock,
          ...RESTORE_DEFAULTS,
          targetZeroed: target.zeroed,
          verify: plan.verify,
          signal: job.abort.signal,
          onProgress: ({ phase, doneBytes, totalBytes }) => {
            const state = phase === 'copy' ? 'running' : 'verifying';
            job.reply = { ...job.reply, state, doneBytes, totalBytes };
          },
        });
      } catch (error) {
        await target.abandon();
        throw error;
      }
      await target.finish();
      job.reply = { ...job.reply, state: 'done', doneBytes: job.reply.totalBytes, endedAt: isoNow() };
    } catch (error) {
      if (!(error instanceof TidemarkError)) throw error;
      const state = error.code === 'cancelled' ? 'cancelled' : 'failed';
      job.reply = { ...job.reply, state, error: toApiError(error), endedAt: isoNow() };
    } finally {
      job.running = undefined;
      await this.#group.views.close(view.id);
    }
  }

  #job(id: string): Job {
    const job = this.#jobs.get(id);
    if (job === undefined) throw new TidemarkError('not-found', `there is no restore "${id}"`);
    return job;
  }

  #forgetOld(): void {
    const ended = [...this.#jobs].filter(([, job]) => job.reply.endedAt !== null);
    for (const [id] of ended.slice(0, Math.max(0, ended.length - ENDED_MAX))) this.#jobs.delete(id);
  }
}

async function dataBytesOf(device: BlockDevice): Promise<number> {
  let data = 0;
  for (let offset = 0; offset < device.size; ) {
    const extents = await device.extents(offset, Math.min(EXTENT_STEP_BYTES, device.size - offset));
    for (const extent of extents) {
      offset += extent.length;
      if (extent.kind === 'data') data += extent.length;
    }
  }
  return data;
}

function planReply(group: string, plan: RestorePlan): RestorePlanReply {
  const { choice, spec, volume } = plan;
  return {
    group,
    volume: volume.name,
    at: { epoch: choice.epoch, lsn: choice.lsn, time: choice.at === undefined ? null : isoTime(choice.at.time) },
    chosen: choice.text,
    to: targetName(spec),
    format: spec.kind === 'qcow2' ? 'qcow2' : 'raw',
    sizeBytes: volume.size,
    copyBytes: plan.dataBytes,
    steps: describePlan(plan),
  };
}
