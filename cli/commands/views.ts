import type { Command } from 'commander';
import type { ViewReply, ViewsReply } from '../../daemon/control/control-api.ts';
import { type ClientOptions, clientFor, clientOptions, segment } from '../command-options.ts';
import { bytes, known, point, print, printJson, shortTime } from '../output.ts';
import { table } from '../table.ts';

interface MountOptions extends ClientOptions {
  readonly at: string;
  readonly volume?: string;
  readonly writable?: boolean;
  readonly name?: string;
}

/** `tidemark mount`, `tidemark unmount`, `tidemark views`. */
export function addViewCommands(program: Command): void {
  clientOptions(program.command('mount'))
    .description('export any point of a group over NBD, at once')
    .argument('<group>')
    .requiredOption('--at <point>', 'an LSN, epoch:lsn, a time with its zone, "latest", or a bookmark')
    .option('--volume <name>', 'one volume only')
    .option('--writable', 'take writes into a scratch area that ends with the view')
    .option('--name <name>', "the view's name")
    .addHelpText('after', '\nExample:\n  tidemark mount shop --at before-upgrade\n  qemu-img info nbd+unix:///...')
    .action(async (group: string, options: MountOptions) => {
      const { at, volume, writable, name } = options;
      const path = `/v1/groups/${segment(group)}/views`;
      const view = await clientFor(options, 'replica').post<ViewReply>(path, { at, volume, writable, name });
      if (options.output === 'json') printJson(view);
      else print(viewText([view]));
    });
  clientOptions(program.command('unmount'))
    .description('end a view; its scratch writes are gone')
    .argument('<group>')
    .argument('<view>')
    .action(async (group: string, view: string, options: ClientOptions) => {
      const path = `/v1/groups/${segment(group)}/views/${segment(view)}`;
      const ended = await clientFor(options, 'replica').delete<ViewReply>(path);
      if (options.output === 'json') printJson(ended);
      else print(`view ${ended.name} at ${point(ended.at)} unmounted`);
    });
  clientOptions(program.command('views'))
    .description('the views that are mounted')
    .argument('<group>')
    .action(async (group: string, options: ClientOptions) => {
      const reply = await clientFor(options, 'replica').get<ViewsReply>(`/v1/groups/${segment(group)}/views`);
      if (options.output === 'json') printJson(reply);
      else print(reply.views.length === 0 ? 'no views' : viewText(reply.views));
    });
}

function viewText(views: readonly ViewReply[]): string {
  return table(
    ['view', 'at', 'time', 'volume', 'size', 'mode', 'address'],
    views.flatMap((view) =>
      view.exports.map((entry) => [
        view.name,
        point(view.at),
        known(view.at.time, shortTime),
        entry.volume,
        bytes(entry.sizeBytes),
        view.writable ? 'scratch' : 'read-only',
        entry.uri,
      ]),
    ),
  );
}
