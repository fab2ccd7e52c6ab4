import { type ChannelName, type ChannelPayloads, channel } from '../../journal/base/channels.ts';
import type { LogMessage } from '../worker/worker-messages.ts';

/**
 * What the low layers publish, as log lines. It runs in the thread of the data path (channels belong to a thread) and
 * hands each line on; a channel that speaks too often is thinned, and the number of lines left out is told.
 */

interface Line {
  readonly level: LogMessage['level'];
  readonly message: string;
}

/** Channels that make no line: figures per batch. */
type Counted = 'tidemark:journal:append' | 'tidemark:journal:sync';

const LINES: Partial<Record<Exclude<ChannelName, Counted>, Line>> = {
  'tidemark:journal:roll': { level: 'debug', message: 'the journal went on to the next file' },
  'tidemark:journal:poisoned': { level: 'error', message: 'the journal takes nothing any more until it is recovered' },
  'tidemark:journal:full': { level: 'error', message: 'the journal has spent its budget' },
  'tidemark:journal:prepare-failed': { level: 'warn', message: 'the next journal file could not be made ready' },
  'tidemark:journal:recovered': { level: 'info', message: 'the journal was recovered' },
  'tidemark:journal:damage': { level: 'error', message: 'records that were durable cannot be read' },
  'tidemark:journal:clock-jump': { level: 'warn', message: 'the wall clock jumped' },
};

const LINES_PER_SECOND_MAX = 2;

export type LogSink = (
  level: LogMessage['level'],
  code: string,
  message: string,
  fields: Record<string, unknown>,
) => void;

/** Subscribes to every channel that makes a line. Returns the unsubscribe. */
export function logChannels(sink: LogSink): () => void {
  const undo = Object.entries(LINES).map(([name, line]) => {
    let second = 0;
    let lines = 0;
    let leftOut = 0;
    const listener = (payload: unknown): void => {
      const now = Math.floor(performance.now() / 1000);
      if (now !== second) {
        second = now;
        lines = 0;
      }
      lines += 1;
      if (lines > LINES_PER_SECOND_MAX) {
        leftOut += 1;
        return;
      }
      const fields = { ...(payload as ChannelPayloads[ChannelName]), ...(leftOut === 0 ? {} : { leftOut }) };
      leftOut = 0;
      sink(line.level, name.replace(/^tidemark:/, '').replaceAll(':', '-'), line.message, fields);
    };
    const published = channel(name as ChannelName);
    published.subscribe(listener);
    return () => {
      published.unsubscribe(listener);
    };
  });
  return () => {
    for (const run of undo) run();
  };
}
