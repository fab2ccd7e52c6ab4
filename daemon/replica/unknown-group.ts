import type { ReplicaGroupReply, StreamReply } from '../control/control-api.ts';

/** A group of which nothing is known yet. */
export function unknownReplicaGroup(name: string, kind: StreamReply['kind']): ReplicaGroupReply {
  return {
    name,
    groupId: null,
    state: 'starting',
    reason: 'starting',
    code: null,
    ageSeconds: null,
    stream: { kind, state: 'connecting', reason: '', code: null },
    listen: null,
    head: null,
    floor: null,
    lagSecondsAtLeast: null,
    rpoClaim: null,
    standby: null,
    volumes: [],
    store: null,
    views: [],
    restores: [],
    counters: null,
    notes: [],
  };
}
