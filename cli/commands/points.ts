import { type Command, Option } from 'commander';
import type { BookmarkReply, PointsReply } from '../../daemon/control/control-api.ts';
import { type ClientOptions, clientFor, clientOptions, duration, segment } from '../command-options.ts';
import { bytes, count, known, point, print, printJson, shortTime } from '../output.ts';
import { paint, table } from '../table.ts';

interface PointsOptions extends ClientOptions {
  readonly from?: string;
  readonly to?: string;
  readonly every?: number;
}

interface BookmarkOptions extends ClientOptions {
  readonly note?: string;
  readonly label: readonly string[];
}

/** `tidemark points`, `tidemark bookmark`. */
export function addPointCommands(program: Command): void {
  clientOptions(program.command('points'))
    .description("a group's timeline at the replica: writes per interval, bookmarks, gaps")
    .argument('<group>')
    .option('--from <time>', 'begin here: a time with its zone, like 2026-11-20T10:00:00Z')
    .option('--to <time>', 'end here')
    .addOption(new Option('--every <duration>', 'width of an interval, like 1s or 5m').argParser(duration))
    .action(async (group: string, options: PointsOptions) => {
      const query = new URLSearchParams();
      if (options.from !== undefined) query.set('from', options.from);
      if (options.to !== undefined) query.set('to', options.to);
      if (options.every !== undefined) query.set('everyMs', String(options.every));
      const path = `/v1/groups/${segment(group)}/points?${query.toString()}`;
      const reply = await clientFor(options, 'replica').get<PointsReply>(path);
      if (options.output === 'json') printJson(reply);
      else print(timeline(reply));
    });
  clientOptions(program.command('bookmark'))
    .description('name the present moment of a group at the source')
    .argument('<group>')
    .argument('<name>')
    .option('--note <text>', 'why')
    .option('--label <key=value>', 'may be given again', (text: string, all: string[]) => [...all, text], [])
    .action(async (group: string, name: string, options: BookmarkOptions) => {
      const labels = Object.fromEntries(options.label.map(splitLabel));
      const body = { name, note: options.note, labels: options.label.length === 0 ? undefined : labels };
      const path = `/v1/groups/${segment(group)}/bookmarks`;
      const reply = await clientFor(options, 'source').post<BookmarkReply>(path, body);
      if (options.output === 'json') printJson(reply);
      else print(`bookmark ${reply.name} at ${point(reply)}, ${known(reply.time, shortTime)}`);
    });
}

function splitLabel(text: string): [string, string] {
  const at = text.indexOf('=');
  return at < 0 ? [text, ''] : [text.slice(0, at), text.slice(at + 1)];
}

interface Row {
  readonly lsn: number;
  readonly cells: readonly string[];
}

/** Intervals, bookmarks and gaps in the order of their positions. */
function timeline(reply: PointsReply): string {
  const rows: Row[] = [
    ...reply.intervals
      .filter((interval) => interval.writes > 0)
      .map((interval) => ({
        lsn: interval.firstLsn,
        cells: [
          shortTime(interval.from),
          `${interval.firstLsn}-${interval.lastLsn}`,
          count(interval.writes, 'write'),
          bytes(interval.bytes),
          '',
        ],
      })),
    ...reply.bookmarks.map((bookmark) => ({
      lsn: bookmark.lsn,
      cells: [known(bookmark.time, shortTime), String(bookmark.lsn), '', '', paint('green', `* ${bookmark.name}`)],
    })),
    ...reply.events.map((event) => ({
      lsn: event.lsn,
      cells: [
        shortTime(event.time),
        String(event.lsn),
        '',
        '',
        paint(event.kind === 'gap' ? 'red' : 'dim', `${event.kind}: ${event.text}`),
      ],
    })),
  ];
  rows.sort((a, b) => a.lsn - b.lsn);
  const ends = `any of the writes between floor ${known(reply.floor, point)} and head ${known(reply.head, point)} can be mounted`;
  return `${table(
    ['time', 'lsn', 'writes', 'bytes', 'event'],
    rows.map((row) => row.cells),
  )}\n\n${ends}`;
}
