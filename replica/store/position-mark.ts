import { isUtf8 } from 'node:buffer';
import { crc32c } from '@node-rs/crc32';
import { assert } from '../../journal/base/assert.ts';
import { TidemarkError } from '../../journal/base/errors.ts';
import type { DiskFile, Host } from '../../journal/host/host.ts';
import { type Epoch, type Lsn, readU64, writeU64 } from '../../journal/position.ts';
import type { Incarnation } from '../../journal/stream.ts';
import { readFully, writeFully } from './file-io.ts';

/** What the replica holds durably, and from whom. */
export interface DurablePosition {
  readonly durableLsn: Lsn;
  /** The chain value after `durableLsn`, 16 hex digits. */
  readonly chain: string;
  readonly epoch: Epoch;
  /** The highest incarnation seen. */
  readonly incarnation: Incarnation;
  /** Where the stream is read from after a restart; at most 400 bytes. */
  readonly resumeOffset: string;
  /** The source's monotonic clock in the newest durable heartbeat, 0: none. */
  readonly heartbeatMs: number;
}

/**
 * Slot, 512 bytes: 0 u32 magic 'TMPM' | 4 u32 crc32c (field 0) | 8 u64 generation | 16 group id | 32 u64 durable LSN
 * | 40 chain, 8 bytes as its hex digits stand | 48 u32 epoch | 52 u32 incarnation | 56 nonce, 8 bytes
 * | 64 f64 heartbeat ms | 72 u16 length, 74 resume offset in UTF-8
 */
const MAGIC = 0x4d504d54;
const SLOT_BYTES = 512;
const SLOT_PITCH = 4096;
const RESUME_OFFSET_BYTES_MAX = 400;

/**
 * The durable position, in two slots written by turns, so that a torn write leaves the one before. It is written after
 * the segments are synced, and synced before the position is told: after a power loss it is never ahead of the segments
 * and never behind what was acknowledged; recovery keeps whole frames beyond it, and calls damage at or below it by its
 * name. A start, too, tells what it recovered only when that stands in the mark.
 */
export class PositionMark {
  readonly #file: DiskFile;
  readonly #groupId: string;
  #generation: number;
  /** The newest position on disk; nothing in a fresh replica. */
  readonly initial: DurablePosition | undefined;

  private constructor(file: DiskFile, groupId: string, generation: number, initial: DurablePosition | undefined) {
    this.#file = file;
    this.#groupId = groupId;
    this.#generation = generation;
    this.initial = initial;
  }

  /** Throws `journal-foreign` for another group's mark, `journal-damaged` when neither slot of a used mark is whole. */
  static async open(host: Host, directory: string, groupId: string): Promise<PositionMark> {
    const path = `${directory}/position`;
    if (!host.disk.exists(path)) {
      const file = host.disk.open(path, 'create');
      await writeFully(file, Buffer.alloc(SLOT_PITCH * 2), 0);
      await file.dataSync();
      await host.disk.syncDirectory(directory);
      return new PositionMark(file, groupId, 0, undefined);
    }
    const file = host.disk.open(path, 'write');
    const bytes = Buffer.alloc(SLOT_PITCH * 2);
    if (file.size() < bytes.length) {
      // Killed while it was made: nothing was ever acknowledged.
      await writeFully(file, bytes, 0);
      return new PositionMark(file, groupId, 0, undefined);
    }
    await readFully(file, bytes, 0);
    const slots = [bytes.subarray(0, SLOT_BYTES), bytes.subarray(SLOT_PITCH, SLOT_PITCH + SLOT_BYTES)];
    const whole = slots.map(decodeSlot).filter((slot) => slot !== undefined);
    const newest = whole.sort((a, b) => b.generation - a.generation)[0];
    if (newest === undefined) {
      if (slots.every((slot) => slot.every((byte) => byte === 0))) return new PositionMark(file, groupId, 0, undefined);
      await file.close();
      throw new TidemarkError('journal-damaged', `${path}: no slot is whole`);
    }
    if (newest.groupId !== groupId) {
      await file.close();
      throw new TidemarkError('journal-foreign', `${path} belongs to group ${newest.groupId}, not ${groupId}`);
    }
    return new PositionMark(file, groupId, newest.generation, newest.position);
  }

  /** Into the page cache; durable with the next `sync`. */
  async write(position: DurablePosition): Promise<void> {
    this.#generation += 1;
    const slot = encodeSlot(this.#groupId, this.#generation, position);
    await writeFully(this.#file, slot, (this.#generation % 2) * SLOT_PITCH);
  }

  sync(): Promise<void> {
    return this.#file.dataSync();
  }

  close(): Promise<void> {
    return this.#file.close();
  }
}

function encodeSlot(groupId: string, generation: number, position: DurablePosition): Buffer {
  const slot = Buffer.alloc(SLOT_BYTES);
  const view = new DataView(slot.buffer, slot.byteOffset, slot.byteLength);
  const offset = Buffer.from(position.resumeOffset, 'utf8');
  assert(offset.length <= RESUME_OFFSET_BYTES_MAX, 'a stream offset is a short string');
  slot.writeUInt32LE(MAGIC, 0);
  writeU64(view, 8, generation);
  slot.write(groupId, 16, 'hex');
  writeU64(view, 32, position.durableLsn);
  slot.write(position.chain, 40, 'hex');
  slot.writeUInt32LE(position.epoch, 48);
  slot.writeUInt32LE(position.incarnation.counter, 52);
  slot.write(position.incarnation.nonce, 56, 'hex');
  slot.writeDoubleLE(position.heartbeatMs, 64);
  slot.writeUInt16LE(offset.length, 72);
  offset.copy(slot, 74);
  slot.writeUInt32LE(crc32c(slot), 4);
  return slot;
}

function decodeSlot(slot: Buffer): { generation: number; groupId: string; position: DurablePosition } | undefined {
  if (slot.readUInt32LE(0) !== MAGIC) return undefined;
  const copy = Buffer.from(slot);
  copy.writeUInt32LE(0, 4);
  if (crc32c(copy) !== slot.readUInt32LE(4)) return undefined;
  const resumeBytes = slot.subarray(74, 74 + slot.readUInt16LE(72));
  if (resumeBytes.length > RESUME_OFFSET_BYTES_MAX || !isUtf8(resumeBytes)) return undefined;
  const view = new DataView(slot.buffer, slot.byteOffset, slot.byteLength);
  return {
    generation: readU64(view, 8, 'mark generation'),
    groupId: slot.toString('hex', 16, 32),
    position: {
      durableLsn: readU64(view, 32, 'durable LSN'),
      chain: slot.toString('hex', 40, 48),
      epoch: slot.readUInt32LE(48),
      incarnation: { counter: slot.readUInt32LE(52), nonce: slot.toString('hex', 56, 64) },
      heartbeatMs: slot.readDoubleLE(64),
      resumeOffset: resumeBytes.toString('utf8'),
    },
  };
}
