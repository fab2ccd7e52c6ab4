import { crc32c } from '@node-rs/crc32';
import { TidemarkError } from '../../journal/base/errors.ts';
import type { Host } from '../../journal/host/host.ts';
import type { Lsn } from '../../journal/position.ts';
import type { Catalog } from '../catalog/catalog.ts';
import { readWhole, replaceFile } from './file-io.ts';

/** Records of ours that the source does not have: kept, readable, never merged (DESIGN rule 4). */
export interface OrphanBranch {
  /** The source's position at the fork; ours go on from here. */
  readonly sourceLsn: Lsn;
  readonly toLsn: Lsn;
  /** The incarnation counter that wrote them. */
  readonly incarnation: number;
  readonly reason: string;
}

/** A stretch of history that was found damaged. */
export interface Damage {
  readonly fromLsn: Lsn;
  readonly toLsn: Lsn;
  /** The file and byte, for a person. */
  readonly where: string;
  readonly reason: string;
}

/** Why a group takes no more frames until a person decides. */
export interface Halt {
  readonly state: 'needs-resync' | 'diverged' | 'upgrade-required';
  readonly reason: string;
}

/** What changes rarely; replaced as a whole, durable before anybody acts on it. */
export interface ReplicaState {
  readonly groupId: string;
  /** Everything at or below is in the base images. */
  readonly floorLsn: Lsn;
  /** A floor move under way: the base is a mixture of floor and intent; no view below the intent may be opened. */
  readonly floorIntentLsn: Lsn;
  /** Records below may not be read any more; at or below the floor + 1, lower when a request was open at the floor. */
  readonly oldestNeededLsn: Lsn;
  readonly halt: Halt | undefined;
  readonly orphans: readonly OrphanBranch[];
  readonly damage: readonly Damage[];
  /** Control records up to `catalog.upToLsn`; what came later is read from the segments again. */
  readonly catalog: Catalog;
}

const NAME = 'state';
const MAGIC = 0x53534d54;
const VERSION = 1;
const HEADER_BYTES = 16;

/** Throws `journal-damaged`, `journal-foreign`, `format-too-new`; nothing when there is no state yet. */
export async function readReplicaState(
  host: Host,
  directory: string,
  groupId: string,
): Promise<ReplicaState | undefined> {
  const path = `${directory}/${NAME}`;
  const bytes = await readWhole(host.disk, path);
  if (bytes === undefined) return undefined;
  if (bytes.length < HEADER_BYTES || bytes.readUInt32LE(0) !== MAGIC) throw damaged(path, 'not a replica state');
  if (bytes.readUInt16LE(4) > VERSION) {
    throw new TidemarkError(
      'format-too-new',
      `${path}: version ${bytes.readUInt16LE(4)}, this program knows ${VERSION}`,
    );
  }
  if (bytes.readUInt16LE(4) === 0) throw damaged(path, 'there is no version 0');
  const body = bytes.subarray(HEADER_BYTES);
  if (body.length !== bytes.readUInt32LE(12) || crc32c(body) !== bytes.readUInt32LE(8)) {
    throw damaged(path, 'the checksum does not match');
  }
  const state = parseState(body, path);
  if (state.groupId !== groupId) {
    throw new TidemarkError('journal-foreign', `${path} belongs to group ${state.groupId}, not ${groupId}`);
  }
  return state;
}

/** A whole checksum says that nobody damaged the bytes, not that a program without faults wrote them. */
function parseState(body: Buffer, path: string): ReplicaState {
  let value: unknown;
  try {
    value = JSON.parse(body.toString('utf8'));
  } catch (cause) {
    throw new TidemarkError('journal-damaged', `${path}: the body is no JSON`, { cause });
  }
  if (!isState(value)) throw damaged(path, 'a field is wrong or missing');
  return value;
}

type Fields = Readonly<Partial<Record<keyof ReplicaState, unknown>>>;

function isState(value: unknown): value is ReplicaState {
  if (!isObject(value)) return false;
  const { groupId, floorLsn, floorIntentLsn, oldestNeededLsn, halt, orphans, damage, catalog } = value as Fields;
  return (
    typeof groupId === 'string' &&
    [floorLsn, floorIntentLsn, oldestNeededLsn].every(isLsn) &&
    (halt === undefined || isObject(halt)) &&
    isList(orphans) &&
    isList(damage) &&
    isObject(catalog) &&
    [catalog['upToLsn'], catalog['epoch']].every(isLsn) &&
    [catalog['volumes'], catalog['bookmarks'], catalog['events'], catalog['unvouched'] ?? []].every(isList)
  );
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isList(value: unknown): boolean {
  return Array.isArray(value) && value.every(isObject);
}

function isLsn(value: unknown): boolean {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

/**
 * File: 0 u32 magic 'TMSS' | 4 u16 version 1 | 6 u16 0 | 8 u32 crc32c of the body | 12 u32 body bytes | 16 JSON, UTF-8.
 */
async function writeReplicaState(host: Host, directory: string, state: ReplicaState): Promise<void> {
  const body = Buffer.from(JSON.stringify(state), 'utf8');
  const bytes = Buffer.alloc(HEADER_BYTES + body.length);
  bytes.writeUInt32LE(MAGIC, 0);
  bytes.writeUInt16LE(VERSION, 4);
  bytes.writeUInt32LE(crc32c(body), 8);
  bytes.writeUInt32LE(body.length, 12);
  bytes.set(body, HEADER_BYTES);
  await replaceFile(host.disk, directory, NAME, bytes);
}

function damaged(path: string, why: string): TidemarkError {
  return new TidemarkError('journal-damaged', `${path}: ${why}`);
}

/** The state in memory and on disk; changes go to the disk one after the other, memory follows. */
export class StateKeeper {
  readonly #host: Host;
  readonly #directory: string;
  #state: ReplicaState;
  #last: Promise<void> = Promise.resolve();

  constructor(host: Host, directory: string, state: ReplicaState) {
    this.#host = host;
    this.#directory = directory;
    this.#state = state;
  }

  get state(): ReplicaState {
    return this.#state;
  }

  /** Resolves when the changed state is durable; only then is it what `state` tells. */
  update(change: (state: ReplicaState) => Partial<ReplicaState>): Promise<void> {
    const done = this.#last.then(async () => {
      const next = { ...this.#state, ...change(this.#state) };
      await writeReplicaState(this.#host, this.#directory, next);
      this.#state = next;
    });
    this.#last = done.catch(() => undefined);
    return done;
  }
}
