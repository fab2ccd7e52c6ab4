import { type Channel, channel as diagnosticsChannel } from 'node:diagnostics_channel';

/** What the replica tells about itself; the same rules as journal/base/channels.ts. */
export interface ReplicaChannelPayloads {
  /** A group of frames became durable. */
  'tidemark:replica:sync': { group: string; durableLsn: number; bytes: number; frames: number; durationMs: number };
  /** A frame was not taken: damaged, foreign, stale. History is untouched. */
  'tidemark:replica:rejected': { group: string; code: string; message: string };
  /** No further frame is taken until a person decides. */
  'tidemark:replica:halted': { group: string; state: string; reason: string };
  /** Space for history: level is the highest of 0, 50, 80, 95 that is reached. */
  'tidemark:replica:space': { group: string; level: number; usedBytes: number; freeBytes: number };
  'tidemark:replica:full': { group: string; full: boolean; reason: string };
  /** History below was merged into the base. */
  'tidemark:replica:floor': { group: string; floorLsn: number; mergedBytes: number; durationMs: number };
  /** History that was durable cannot be read. */
  /** Another frame with the same records stands in for a damaged one. */
  'tidemark:replica:repaired': { group: string; fromLsn: number; toLsn: number; where: string };
  /** Nobody has given a damaged frame's records; they are asked for again. */
  'tidemark:replica:unrepaired': { group: string; fromLsn: number; toLsn: number; reason: string };
  /** The standby image has another state, or stands still because of `reason`. */
  'tidemark:replica:standby': { group: string; state: string; lsn: number; reason: string };
  'tidemark:replica:damage': { group: string; fromLsn: number; toLsn: number; where: string; reason: string };
}

export type ReplicaChannelName = keyof ReplicaChannelPayloads;

export function replicaChannel<Name extends ReplicaChannelName>(
  name: Name,
): Channel<string, ReplicaChannelPayloads[Name]> {
  return diagnosticsChannel(name) as Channel<string, ReplicaChannelPayloads[Name]>;
}
