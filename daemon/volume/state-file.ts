import { crc32 } from '@node-rs/crc32';
import { pack, unpack } from 'msgpackr';
import { TidemarkError } from '../../journal/base/errors.ts';
import type { Host } from '../../journal/host/host.ts';

/*
 * A small durable value beside the journal: replaced as a whole, never changed in place. Little endian.
 *
 *   0 u32 magic 'TMS2'
 *   4 u32 crc32 of the rest
 *   8 u16 version 2
 *  10 u16 0
 *  12 16B group id
 *  28 body, msgpack
 *
 * Version 1 has the magic 'TMS1' and its body at 8; it names no group. It is read, and replaced at the next write.
 */
const MAGIC = 0x32534d54;
const VERSION = 2;
const HEADER_BYTES = 28;
const MAGIC_1 = 0x31534d54;
const HEADER_1_BYTES = 8;
const BODY_BYTES_MAX = 1024 * 1024;

/** Where a group's state files are, and whose they are; the options of a journal are one. */
export interface StatePlace {
  readonly directory: string;
  /** 32 hex digits. */
  readonly groupId: string;
}

/**
 * Reads the value; undefined when the file does not exist. Throws `journal-damaged` when it cannot be believed: a state
 * file is replaced atomically, so a torn one is damage, never a crash. Throws `journal-foreign` for another group's, and
 * `format-too-new`.
 */
export function readStateFile(host: Host, place: StatePlace, name: string): unknown {
  const path = `${place.directory}/${name}`;
  if (!host.disk.exists(path)) return undefined;
  const file = host.disk.open(path, 'read');
  try {
    const size = file.size();
    if (size < HEADER_1_BYTES || size > HEADER_BYTES + BODY_BYTES_MAX) throw damaged(path, `it has ${size} bytes`);
    const bytes = Buffer.alloc(size);
    if (file.readSync(bytes, 0, size, 0) !== size) throw damaged(path, 'it cannot be read to its end');
    return unpackBody(bodyOf(bytes, path, place.groupId), path);
  } finally {
    void file.close();
  }
}

function bodyOf(bytes: Buffer, path: string, groupId: string): Buffer {
  const magic = bytes.readUInt32LE(0);
  if (magic !== MAGIC && magic !== MAGIC_1) throw damaged(path, 'it is no state file');
  if (bytes.readUInt32LE(4) !== crc32(bytes.subarray(8))) throw damaged(path, 'its crc is wrong');
  if (magic === MAGIC_1) return bytes.subarray(HEADER_1_BYTES);
  if (bytes.length < HEADER_BYTES) throw damaged(path, `it has ${bytes.length} bytes`);
  const version = bytes.readUInt16LE(8);
  if (version > VERSION) {
    throw new TidemarkError('format-too-new', `${path}: version ${version}, this program knows ${VERSION}`);
  }
  if (version !== VERSION) throw damaged(path, `it has version ${version}`);
  const owner = bytes.toString('hex', 12, HEADER_BYTES);
  if (owner !== groupId) {
    throw new TidemarkError('journal-foreign', `${path} belongs to group ${owner}, not ${groupId}`);
  }
  return bytes.subarray(HEADER_BYTES);
}

function unpackBody(body: Buffer, path: string): unknown {
  try {
    return unpack(body);
  } catch (cause) {
    throw damaged(path, 'its body is no msgpack', cause);
  }
}

/** Replaces the value; durable when the promise resolves. Writes to one path must not overlap. */
export async function writeStateFile(host: Host, place: StatePlace, name: string, value: object): Promise<void> {
  const body = pack(value);
  const bytes = Buffer.alloc(HEADER_BYTES + body.length);
  bytes.writeUInt32LE(MAGIC, 0);
  bytes.writeUInt16LE(VERSION, 8);
  bytes.write(place.groupId, 12, 'hex');
  bytes.set(body, HEADER_BYTES);
  bytes.writeUInt32LE(crc32(bytes.subarray(8)), 4);
  const path = `${place.directory}/${name}`;
  const temporary = `${path}.new`;
  host.disk.unlink(temporary);
  const file = host.disk.open(temporary, 'create');
  try {
    const written = await file.write(bytes, 0, bytes.length, 0);
    if (written !== bytes.length)
      throw new TidemarkError('no-space', `${temporary}: ${written} of ${bytes.length} bytes`);
    await file.dataSync();
  } finally {
    await file.close();
  }
  host.disk.rename(temporary, path);
  await host.disk.syncDirectory(place.directory);
}

/** Fields of a state value, checked by name; `path` names the file in the error. */
export class StateFields {
  readonly #path: string;
  readonly #map: Record<string, unknown>;

  constructor(path: string, value: unknown) {
    this.#path = path;
    if (typeof value !== 'object' || value === null || Array.isArray(value)) throw damaged(path, 'it is not a map');
    this.#map = value as Record<string, unknown>;
  }

  has(name: string): boolean {
    return this.#map[name] !== undefined;
  }

  count(name: string): number {
    const value = this.#map[name];
    if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0) throw this.#wrong(name);
    return value;
  }

  text(name: string): string {
    const value = this.#map[name];
    if (typeof value !== 'string') throw this.#wrong(name);
    return value;
  }

  oneOf<T extends string>(name: string, allowed: readonly T[]): T {
    const value = this.#map[name];
    const found = allowed.find((one) => one === value);
    if (found === undefined) throw this.#wrong(name);
    return found;
  }

  /** Of fields of its own, checked by who reads them. */
  map(name: string): unknown {
    return this.#map[name];
  }

  list(name: string): unknown[] {
    const value = this.#map[name];
    if (!Array.isArray(value)) throw this.#wrong(name);
    return value;
  }

  #wrong(name: string): TidemarkError {
    return damaged(this.#path, `the field '${name}' is wrong or missing`);
  }
}

function damaged(path: string, what: string, cause?: unknown): TidemarkError {
  return new TidemarkError('journal-damaged', `${path}: ${what}`, { details: { path }, cause });
}
