import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { RecordFlag, RecordKind } from '../../journal/record.ts';
import { encodeBookmark, encodeHeartbeat, encodeSeedEnd, encodeVolumeAdded } from '../../journal/record-bodies.ts';
import { REPLICA_DEFAULTS, ReplicaGroup, type ReplicaGroupOptions } from '../../replica/replica-group.ts';
import { GROUP, HandSource, History, seal, VOLUMES } from '../replica/support/history.ts';
import { memoryHost } from '../replica/support/memory-host.ts';

/*
 * Makes test/golden/replica-v1: node test/golden/make-replica.ts --write. Run once per format version; the result is
 * kept, and every later version of the code must read it: sealed segments and one that is still written, index runs,
 * position, state, and base images with their maps, of a floor that has moved.
 */

export const goldenReplica: string = path.join(import.meta.dirname, 'replica-v1');

export function goldenReplicaOptions(directory: string): ReplicaGroupOptions {
  return {
    ...REPLICA_DEFAULTS,
    directory,
    groupId: GROUP,
    replica: 'golden',
    segmentBytes: 5 * 1024,
    policy: { windowMs: 1000, bytesMax: 10 * 1024 },
    memtableEntries: 24,
  };
}

/** Seeds, whole writes, a request in pieces and one that never closes, trims, bookmarks, heartbeats; 160 records. */
export function goldenReplicaHistory(): History {
  const history = new History(1);
  for (const { id, name, sectors } of VOLUMES) {
    history.push(RecordKind.volumeAdded, {
      payload: encodeVolumeAdded({ id, name, size: sectors * 512, blockBytes: 512 }),
    });
  }
  for (let sector = 0; sector < 32; sector += 8) write(history, RecordKind.seed, 1, sector, 8);
  history.push(RecordKind.seedEnd, { payload: encodeSeedEnd({ volume: 1 }) });
  for (let round = 0; history.lastLsn < 160; round += 1) {
    write(history, RecordKind.write, 1 + (round % 2), (round * 5) % 96, 1 + (round % 7));
    if (round % 9 === 4) history.push(RecordKind.trim, { volume: 1, sector: round % 64, sectors: 24 });
    if (round % 11 === 5) history.push(RecordKind.zero, { volume: 2, sector: round % 32, sectors: 4000 });
    if (round % 12 === 6) pieces(history, round, round < 80);
    if (round % 15 === 7) {
      history.push(RecordKind.heartbeat, { payload: encodeHeartbeat({ monotonicMs: round, wallMicros: 1 }) });
      history.push(RecordKind.bookmark, {
        payload: encodeBookmark({ name: `point-${round}`, kind: 'application', note: 'kept' }),
      });
    }
  }
  return history;
}

function pieces(history: History, requestId: number, closes: boolean): void {
  for (let piece = 0; piece < 3; piece += 1) {
    const flags = RecordFlag.piece | (piece === 2 && closes ? RecordFlag.closes : 0);
    write(history, RecordKind.write, 2, 64 + piece * 2, 2, { flags, requestId });
  }
}

function write(
  history: History,
  kind: RecordKind,
  volume: number,
  sector: number,
  sectors: number,
  more: { flags?: number; requestId?: number } = {},
): void {
  const payload = new Uint8Array(sectors * 512).fill(history.lastLsn % 251, 0, sectors * 300);
  history.push(kind, { volume, sector, sectors, payload, ...more });
}

/** The files of a replica that received the history and moved its floor once on the way. */
export async function makeReplica(): Promise<Map<string, Uint8Array>> {
  const host = memoryHost(1);
  const history = goldenReplicaHistory();
  const group = await ReplicaGroup.open(host, goldenReplicaOptions('/r'));
  const source = new HandSource();
  group.start(source);
  const frames = seal(history, { recordsPerFrame: (random) => 2 + random.below(6) });
  for (const [i, frame] of frames.entries()) {
    source.push(frame);
    await group.idle();
    if (i === Math.floor(frames.length * 0.7)) await group.retain();
  }
  await group.close();
  const files = new Map<string, Uint8Array>();
  for (const [file, { bytes, length }] of host.disk.files) files.set(file.slice('/r/'.length), bytes.subarray(0, length));
  return files;
}

if (process.argv[2] === '--write') {
  rmSync(goldenReplica, { recursive: true, force: true });
  for (const [name, bytes] of await makeReplica()) {
    const file = path.join(goldenReplica, name);
    mkdirSync(path.dirname(file), { recursive: true });
    writeFileSync(file, bytes);
  }
}
