import { resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Command, Option } from 'commander';
import { fromApiError } from '../../daemon/control/api-errors.ts';
import type { RestoreJobReply, RestorePlanReply, RestoreReply } from '../../daemon/control/control-api.ts';
import { TidemarkError } from '../../journal/base/errors.ts';
import { type ClientOptions, clientFor, clientOptions, duration, segment } from '../command-options.ts';
import type { ControlClient } from '../control-client.ts';
import { bytes, known, point, print, printJson, say } from '../output.ts';
import { pairs } from '../table.ts';

interface RestoreOptions extends ClientOptions {
  readonly at: string;
  readonly to: string;
  readonly volume?: string;
  readonly format?: 'raw' | 'qcow2';
  readonly overwrite?: boolean;
  readonly dryRun?: boolean;
  readonly wait: boolean;
  readonly waitTimeout?: number;
}

const POLL_MS = 200;

/** `tidemark restore`: plan, run, show progress, verify. The daemon does the work; Ctrl-C cancels it. */
export function addRestoreCommand(program: Command): void {
  clientOptions(program.command('restore'))
    .description('copy any point of a volume into a file, block device or NBD export, verified by reading back')
    .argument('<group>')
    .requiredOption('--at <point>', 'an LSN, epoch:lsn, a time with its zone, "latest", or a bookmark')
    .requiredOption('--to <target>', 'a path on the replica host, or an nbd URI')
    .option('--volume <name>', 'which volume; needed when the group has several')
    .addOption(new Option('--format <format>', 'of a file').choices(['raw', 'qcow2']))
    .option('--overwrite', 'replace an existing file, or write over a device')
    .option('--dry-run', 'print the plan and change nothing')
    .option('--no-wait', 'start it and return; `tidemark status` shows how far it is')
    .addOption(
      new Option('--wait-timeout <duration>', 'stop waiting after this long; the restore goes on').argParser(duration),
    )
    .addHelpText(
      'after',
      '\nExample:\n  tidemark restore shop --volume root --at before-upgrade --to /images/root.raw --dry-run',
    )
    .action(async (group: string, options: RestoreOptions) => {
      const { at, volume, format, overwrite, dryRun } = options;
      const to = options.to.includes('://') ? options.to : resolve(options.to);
      const client = clientFor(options, 'replica');
      const path = `/v1/groups/${segment(group)}/restores`;
      const { plan, job } = await client.post<RestoreReply>(path, { at, volume, to, format, overwrite, dryRun });
      if (job === null || !options.wait) {
        if (options.output === 'json') printJson({ plan, job });
        else print(`${planText(plan)}\n${job === null ? '\nnothing was changed (--dry-run)' : `\nstarted: ${job.id}`}`);
        return;
      }
      if (options.output === 'table') print(planText(plan));
      const ended = await follow(client, `${path}/${segment(job.id)}`, options);
      if (options.output === 'json') printJson({ plan, job: ended });
      if (ended.error !== null) throw fromApiError(ended.error);
      if (ended.state === 'cancelled') throw new TidemarkError('cancelled', 'the restore was cancelled');
      if (options.output === 'table') print(`restored and verified: ${plan.to} is ${plan.volume} at ${point(plan.at)}`);
    });
}

/** Polls the job until it ends; SIGINT cancels it at the daemon first. */
async function follow(client: ControlClient, path: string, options: RestoreOptions): Promise<RestoreJobReply> {
  const cancel = (): void => {
    say('cancelling');
    client.delete(path).catch((error: unknown) => say(error instanceof Error ? error.message : String(error)));
  };
  process.once('SIGINT', cancel);
  const progress = progressLine();
  const endAt = options.waitTimeout === undefined ? Number.POSITIVE_INFINITY : performance.now() + options.waitTimeout;
  try {
    for (;;) {
      const job = await client.get<RestoreJobReply>(path);
      progress.show(job);
      if (job.endedAt !== null) return job;
      if (performance.now() > endAt) {
        throw new TidemarkError(
          'timed-out',
          `restore ${job.id} still runs: ${bytes(job.doneBytes)} of ${bytes(job.totalBytes)}`,
        );
      }
      await sleep(POLL_MS);
    }
  } finally {
    progress.end();
    process.off('SIGINT', cancel);
  }
}

/** One line that is written over, on a terminal only. */
function progressLine(): { show(job: RestoreJobReply): void; end(): void } {
  if (!process.stderr.isTTY) return { show: () => undefined, end: () => undefined };
  return {
    show: (job) => {
      const percent = job.totalBytes === 0 ? 100 : Math.floor((job.doneBytes / job.totalBytes) * 100);
      process.stderr.write(`\r\u001b[K${job.state} ${percent} % (${bytes(job.doneBytes)} of ${bytes(job.totalBytes)})`);
    },
    end: () => {
      process.stderr.write('\r\u001b[K');
    },
  };
}

function planText(plan: RestorePlanReply): string {
  return pairs([
    ['volume', `${plan.group}/${plan.volume}, ${bytes(plan.sizeBytes)}`],
    ['point', plan.chosen],
    ['target', `${plan.to} (${plan.format})`],
    ['copy', `${known(plan.copyBytes, bytes)} of data; zeroes are not copied`],
    ['verify', 'every byte is read back and compared'],
  ]);
}
