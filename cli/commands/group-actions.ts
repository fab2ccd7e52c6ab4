import type { Command } from 'commander';
import type { ActionReply, GiveUpReply } from '../../daemon/control/control-api.ts';
import { type ClientOptions, clientFor, clientOptions, segment } from '../command-options.ts';
import { print, printJson } from '../output.ts';

interface ActionOptions extends ClientOptions {
  readonly dryRun?: boolean;
}

interface GiveUpOptions extends ActionOptions {
  readonly reason: string;
}

/** `tidemark detach`, `tidemark release`, `tidemark give-up`: all say what they will do with --dry-run. */
export function addGroupActions(program: Command): void {
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
