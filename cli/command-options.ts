import { type Command, InvalidArgumentError, Option } from 'commander';
import { parseDuration, parseSize } from '../daemon/config/units.ts';
import { ControlClient, defaultSocket, type Role } from './control-client.ts';
import type { OutputFormat } from './output.ts';

/** What every command that talks to a daemon takes. */
export interface ClientOptions {
  readonly socket?: string;
  readonly timeout: number;
  readonly output: OutputFormat;
}

export function clientOptions(command: Command): Command {
  return command
    .addOption(new Option('--socket <path>', "the daemon's control socket").env('TIDEMARK_SOCKET'))
    .addOption(
      new Option('--timeout <duration>', 'give up on an answer after this long')
        .argParser(duration)
        .default(30_000, '30s'),
    )
    .addOption(outputOption());
}

export function outputOption(): Option {
  return new Option('-o, --output <format>', 'how to print').choices(['table', 'json']).default('table');
}

export function clientFor(options: ClientOptions, role: Role | 'any'): ControlClient {
  return new ControlClient(options.socket ?? defaultSocket(role), options.timeout);
}

/** Commander's parser for `15s`: milliseconds. */
export function duration(text: string): number {
  const parsed = parseDuration(text);
  if (!parsed.ok) throw new InvalidArgumentError(parsed.problem);
  return parsed.value;
}

/** Commander's parser for `64MiB`: bytes. */
export function size(text: string): number {
  const parsed = parseSize(text);
  if (!parsed.ok) throw new InvalidArgumentError(parsed.problem);
  return parsed.value;
}

/** One segment of a URL. */
export function segment(text: string): string {
  return encodeURIComponent(text);
}
