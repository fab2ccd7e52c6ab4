import { subscribe } from 'node:diagnostics_channel';
import type { ChannelPayloads } from '../../journal/base/channels.ts';
import type { ReplicaChannelPayloads } from '../../replica/replica-channels.ts';
import type { ReplicaCountersReply, SourceCountersReply } from '../control/counters-api.ts';

/** Sums of what the low layers publish per group commit and per frame, in the thread of the data path. */

type Sums<T> = { -readonly [Key in keyof T]: number };

/** Counts until the thread ends. */
export function countSource(): SourceCountersReply {
  const sums: Sums<SourceCountersReply> = {
    journalSyncs: 0,
    journalSyncSeconds: 0,
    framesSealed: 0,
    framePlainBytes: 0,
    frameStoredBytes: 0,
  };
  listen<ChannelPayloads['tidemark:journal:sync']>('tidemark:journal:sync', ({ durationMs }) => {
    sums.journalSyncs += 1;
    sums.journalSyncSeconds += durationMs / 1000;
  });
  listen<ChannelPayloads['tidemark:ship:frame']>('tidemark:ship:frame', ({ plainBytes, storedBytes }) => {
    sums.framesSealed += 1;
    sums.framePlainBytes += plainBytes;
    sums.frameStoredBytes += storedBytes;
  });
  return sums;
}

/** Counts until the thread ends. */
export function countReplica(): ReplicaCountersReply {
  const sums: Sums<ReplicaCountersReply> = {
    storeSyncs: 0,
    storeSyncSeconds: 0,
    framesReceived: 0,
    receivedBytes: 0,
    framesRejected: 0,
  };
  listen<ReplicaChannelPayloads['tidemark:replica:sync']>('tidemark:replica:sync', ({ bytes, frames, durationMs }) => {
    sums.storeSyncs += 1;
    sums.storeSyncSeconds += durationMs / 1000;
    sums.framesReceived += frames;
    sums.receivedBytes += bytes;
  });
  listen<ReplicaChannelPayloads['tidemark:replica:rejected']>('tidemark:replica:rejected', () => {
    sums.framesRejected += 1;
  });
  return sums;
}

function listen<Payload>(name: string, run: (payload: Payload) => void): void {
  subscribe(name, (payload) => run(payload as Payload));
}
