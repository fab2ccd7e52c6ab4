import type { Command } from 'commander';
import type { ActionReply } from '../../daemon/control/control-api.ts';
import { type ClientOptions, clientFor, clientOptions, segment } from '../command-options.ts';
import { print, printJson } from '../output.ts';

interface ActionOptions extends ClientOptions {
  readonly dryRun?: boolean;
}

/** `tidemark detach`, `tidemark release`: both say what they will do with --dry-run. */
export function addGroupActions(program: Command): void {
  action(program, 'detach', 'end protection: write everything out, stamp the disks and give them back as plain disks');
  action(program, 'release', 'open exports that are held since a power loss, once the remote guest has been looked at');
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
      else
        print(`${reply.dryRun ? `would ${verb}:` : `${verb}:`}\n${reply.steps.map((step) => `  ${step}`).join('\n')}`);
    });
}
