import { crc32 } from '@node-rs/crc32';
import { pack, unpack } from 'msgpackr';
import { TidemarkError } from '../../journal/base/errors.ts';
import type { Host } from '../../journal/host/host.ts';

/*
 * A small durable value beside the journal: replaced as a whole, never changed in place.
 *
 *   0 u32 magic 'TMS1'
 *   4 u32 crc32 of the body
 *   8 body, msgpack
 */
const MAGIC = 0x31534d54;
const HEADER_BYTES = 8;
const BODY_BYTES_MAX = 1024 * 1024;

/**
 * Reads the value; undefined when the file does not exist. Throws `journal-damaged` when it cannot be believed: a state
 * file is replaced atomically, so a torn one is damage, never a crash.
 */
export function readStateFile(host: Host, path: string): unknown {
  if (!host.disk.exists(path)) return undefined;
  const file = host.disk.open(path, 'read');
  try {
    const size = file.size();
    if (size < HEADER_BYTES || size > HEADER_BYTES + BODY_BYTES_MAX) throw damaged(path, `it has ${size} bytes`);
    const bytes = Buffer.alloc(size);
    if (file.readSync(bytes, 0, size, 0) !== size) throw damaged(path, 'it cannot be read to its end');
    const body = bytes.subarray(HEADER_BYTES);
    if (bytes.readUInt32LE(0) !== MAGIC) throw damaged(path, 'it is no state file');
    if (bytes.readUInt32LE(4) !== crc32(body)) throw damaged(path, 'its crc is wrong');
    return unpackBody(body, path);
  } finally {
    void file.close();
  }
}

function unpackBody(body: Buffer, path: string): unknown {
  try {
    return unpack(body);
  } catch (cause) {
    throw damaged(path, 'its body is no msgpack', cause);
  }
}

/** Replaces the value; durable when the promise resolves. Writes to one path must not overlap. */
export async function writeStateFile(host: Host, directory: string, name: string, value: object): Promise<void> {
  const body = pack(value);
  const bytes = Buffer.alloc(HEADER_BYTES + body.length);
  bytes.writeUInt32LE(MAGIC, 0);
  bytes.writeUInt32LE(crc32(body), 4);
  bytes.set(body, HEADER_BYTES);
  const temporary = `${directory}/${name}.new`;
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
  host.disk.rename(temporary, `${directory}/${name}`);
  await host.disk.syncDirectory(directory);
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
