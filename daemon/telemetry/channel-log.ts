import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import type { ChannelName, ChannelPayloads } from '../../journal/base/channels.ts';
import type { ReplicaChannelName, ReplicaChannelPayloads } from '../../replica/replica-channels.ts';
import type { LogMessage } from '../worker/worker-messages.ts';

/**
 * What the low layers publish, as log lines. It runs in the thread of the data path (channels belong to a thread) and
 * hands each line on; a channel that speaks too often is thinned, and the number of lines left out is told.
 */

interface Line {
  readonly level: LogMessage['level'];
  readonly message: string;
}

/** null: figures per batch or frame, which are counted (channel-counters.ts) and make no line. */
const LINES: Readonly<Record<ChannelName | ReplicaChannelName, Line | null>> = {
  'tidemark:journal:append': null,
  'tidemark:journal:sync': null,
  'tidemark:journal:roll': { level: 'debug', message: 'the journal went on to the next file' },
  'tidemark:journal:poisoned': { level: 'error', message: 'the journal takes nothing any more until it is recovered' },
  'tidemark:journal:full': { level: 'error', message: 'the journal has no room' },
  'tidemark:journal:prepare-failed': { level: 'warn', message: 'the next journal file could not be made ready' },
  'tidemark:journal:recovered': { level: 'info', message: 'the journal was recovered' },
  'tidemark:journal:damage': { level: 'error', message: 'records that were durable cannot be read' },
  'tidemark:journal:mended': { level: 'info', message: 'records that could not be read were put back' },
  'tidemark:journal:unmended': { level: 'error', message: 'nobody has given back records that cannot be read' },
  'tidemark:journal:given-up': { level: 'warn', message: 'records that nobody holds were given up by an operator' },
  'tidemark:journal:clock-jump': { level: 'warn', message: 'the wall clock jumped' },
  'tidemark:group:room': { level: 'warn', message: "the journal's budget passed a mark" },
  'tidemark:group:unprotected': { level: 'error', message: 'history was given up for lack of room' },
  'tidemark:group:destage': { level: 'info', message: 'writing out to the backings changed its state' },
  'tidemark:group:degree': { level: 'warn', message: 'the degree of synchrony has another state' },
  'tidemark:group:degree-failed': {
    level: 'error',
    message: 'a change of the degree of synchrony could not be written down',
  },
  'tidemark:group:seeding': { level: 'info', message: 'seeding goes on' },
  'tidemark:ship:frame': null,
  'tidemark:ship:seek': { level: 'info', message: 'the stream is sent from another position' },
  'tidemark:ship:state': { level: 'info', message: 'the stream changed its state' },
  'tidemark:ship:replica': { level: 'info', message: 'a replica changed its state' },
  'tidemark:ship:went-back': { level: 'error', message: 'a replica lost what it had acknowledged' },
  'tidemark:ship:unregistered': {
    level: 'warn',
    message: 'somebody unregistered reads the stream: nothing is kept for it',
  },
  'tidemark:ship:released': { level: 'debug', message: 'every required replica holds the journal up to here' },
  'tidemark:ship:state-file': { level: 'warn', message: 'the state of shipping could not be written down' },
  'tidemark:replica:sync': null,
  'tidemark:replica:rejected': { level: 'warn', message: 'a frame was not taken' },
  'tidemark:replica:halted': { level: 'error', message: 'no further frame is taken' },
  'tidemark:replica:space': { level: 'warn', message: 'the space for history passed a mark' },
  'tidemark:replica:full': { level: 'warn', message: 'the replica is at its reserve, or left it' },
  'tidemark:replica:floor': { level: 'info', message: 'the floor moved: older history was merged into the base' },
  'tidemark:replica:repaired': { level: 'info', message: 'damaged history was put back' },
  'tidemark:replica:unrepaired': { level: 'error', message: 'nobody has given back damaged history' },
  'tidemark:replica:standby': { level: 'info', message: 'the standby image has another state' },
  'tidemark:replica:damage': { level: 'error', message: 'history that was durable cannot be read' },
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
    if (line === null) return () => undefined;
    const listener = thinned((payload, leftOut) => {
      sink(line.level, codeOf(name), line.message, { ...fieldsOf(payload), ...(leftOut === 0 ? {} : { leftOut }) });
    });
    subscribe(name, listener);
    return () => {
      unsubscribe(name, listener);
    };
  });
  return () => {
    for (const run of undo) run();
  };
}

type Payload = (ChannelPayloads & ReplicaChannelPayloads)[ChannelName | ReplicaChannelName];

/** The line has a code and a group of its own: a payload's code is the error's. */
function fieldsOf(payload: Payload): Record<string, unknown> {
  const { group: _group, code, ...fields } = payload as Record<string, unknown>;
  return code === undefined || code === '' ? fields : { ...fields, errorCode: code };
}

/** Lets two per second through; the next one says how many were left out. */
function thinned(pass: (payload: Payload, leftOut: number) => void): (payload: unknown) => void {
  let second = 0;
  let lines = 0;
  let leftOut = 0;
  return (payload) => {
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
    pass(payload as Payload, leftOut);
    leftOut = 0;
  };
}

/** `tidemark:journal:clock-jump` -> `journal-clock-jump`. */
function codeOf(name: string): string {
  return name.replace(/^tidemark:/, '').replaceAll(':', '-');
}
