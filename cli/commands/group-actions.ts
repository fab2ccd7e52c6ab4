import { type Command, Option } from 'commander';
import type { ActionReply, GiveUpReply } from '../../daemon/control/control-api.ts';
import type { DegreeRequest } from '../../daemon/control/degree-api.ts';
import { ACK_ANSWERS, ACK_DEGREES, STALL_ACTIONS } from '../../daemon/synchrony/degree-policy.ts';
import { type ClientOptions, clientFor, clientOptions, duration, segment, size } from '../command-options.ts';
import { print, printJson } from '../output.ts';

interface ActionOptions extends ClientOptions {
  readonly dryRun?: boolean;
}

interface GiveUpOptions extends ActionOptions {
  readonly reason: string;
}

interface DegreeOptions extends ActionOptions {
  readonly ack?: DegreeRequest['ack'];
  readonly at?: DegreeRequest['ackAt'];
  readonly onStall?: DegreeRequest['onStall'];
  readonly stallAfter?: number;
  readonly unshippedMax?: number;
  readonly reset?: boolean;
}

/** `tidemark detach`, `release`, `give-up`, `degree`: all say what they will do with --dry-run. */
export function addGroupActions(program: Command): void {
  addDegree(program);
  action(program, 'detach', 'end protection: write everything out, stamp the disks and give them back as plain disks');
  action(program, 'release', 'open exports that are held since a power loss, once the remote guest has been looked at');
  clientOptions(program.command('give-up'))
    .description(
      'go on without damaged journal records that nobody holds: a gap in history, and a new seed of every volume',
    )
    .argument('<group>')
    .requiredOption('--reason <text>', 'for the timeline: who decided it, and why')
    .option('--dry-run', 'say what would be lost and done, and change nothing')
    .action(async (group: string, { reason, dryRun, ...options }: GiveUpOptions) => {
      const path = `/v1/groups/${segment(group)}/give-up`;
      const reply = await clientFor(options, 'source').post<GiveUpReply>(path, { reason, dryRun });
      if (options.output === 'json') printJson(reply);
      else print(actionText('give up', reply));
    });
}

function addDegree(program: Command): void {
  clientOptions(program.command('degree'))
    .description('change what answers to guests wait for; until the configuration says something else')
    .argument('<group>')
    .addOption(new Option('--ack <degree>', 'what has to have happened before').choices(ACK_DEGREES))
    .addOption(new Option('--at <answers>', 'which answers wait').choices(ACK_ANSWERS))
    .addOption(new Option('--on-stall <action>', 'what to do when the far side stands still').choices(STALL_ACTIONS))
    .addOption(new Option('--stall-after <duration>', 'for how long, like 10s').argParser(duration))
    .addOption(new Option('--unshipped-max <size>', 'writes that may be on the way, like 64MiB').argParser(size))
    .option('--reset', 'back to what the configuration says; other options change that')
    .option('--dry-run', 'say what would be done and change nothing')
    .action(async (group: string, options: DegreeOptions) => {
      const request: DegreeRequest = {
        ack: options.ack,
        ackAt: options.at,
        onStall: options.onStall,
        stallAfterMs: options.stallAfter,
        unshippedBytesMax: options.unshippedMax,
        toConfiguration: options.reset,
        dryRun: options.dryRun,
      };
      const path = `/v1/groups/${segment(group)}/degree`;
      const reply = await clientFor(options, 'source').post<ActionReply>(path, request);
      if (options.output === 'json') printJson(reply);
      else print(actionText('change the degree', reply));
    });
}

function action(program: Command, verb: 'detach' | 'release', description: string): void {
  clientOptions(program.command(verb))
    .description(description)
    .argument('<group>')
    .option('--dry-run', 'say what would be done and change nothing')
    .action(async (group: string, options: ActionOptions) => {
      const path = `/v1/groups/${segment(group)}/${verb}`;
      const reply = await clientFor(options, 'source').post<ActionReply>(path, { dryRun: options.dryRun });
      if (options.output === 'json') printJson(reply);
      else print(actionText(verb, reply));
    });
}

function actionText(verb: string, { dryRun, steps }: ActionReply): string {
  return `${dryRun ? `would ${verb}:` : `${verb}:`}\n${steps.map((step) => `  ${step}`).join('\n')}`;
}
