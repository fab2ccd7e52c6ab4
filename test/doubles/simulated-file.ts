import { crc32 } from '@node-rs/crc32';
import { assert } from '../../journal/base/assert.ts';
import { TidemarkError } from '../../journal/base/errors.ts';
import type { DiskFile } from '../../journal/host/host.ts';
import type { Scheduler } from '../simulation/scheduler.ts';
import { Violation } from '../simulation/violation.ts';
import type { SimulatedContent } from './simulated-content.ts';
import type { SimulatedDisk } from './simulated-disk.ts';
import type { SimulatedProcess } from './simulated-process.ts';

/** An open file of a simulated disk, as one process holds it. */
export class SimulatedFile implements DiskFile {
  readonly path: string;
  readonly #content: SimulatedContent;
  readonly #writable: boolean;
  readonly #disk: SimulatedDisk;
  readonly #scheduler: Scheduler;
  readonly #process: SimulatedProcess;
  #underWay = 0;
  #closing = false;
  #drained: (() => void) | undefined;

  constructor(
    path: string,
    content: SimulatedContent,
    writable: boolean,
    disk: SimulatedDisk,
    scheduler: Scheduler,
    process: SimulatedProcess,
  ) {
    this.path = path;
    this.#content = content;
    this.#writable = writable;
    this.#disk = disk;
    this.#scheduler = scheduler;
    this.#process = process;
  }

  readSync(buffer: Uint8Array, offset: number, length: number, position: number): number {
    this.#checkOpen();
    return this.#read(buffer.subarray(offset, offset + length), position);
  }

  writeSync(buffer: Uint8Array, offset: number, length: number, position: number): number {
    this.#checkOpen();
    const bytes = buffer.subarray(offset, offset + length);
    this.#disk.onWrite(this.path, bytes);
    return this.#write(bytes, position);
  }

  read(buffer: Uint8Array, offset: number, length: number, position: number): Promise<number> {
    return this.#asynchronous(() => this.#read(buffer.subarray(offset, offset + length), position));
  }

  write(buffer: Uint8Array, offset: number, length: number, position: number): Promise<number> {
    return this.#asynchronous(() => this.#write(buffer.subarray(offset, offset + length), position));
  }

  dataSync(): Promise<void> {
    this.#checkOpen();
    const sync = this.#content.beginSync();
    return this.#asynchronous(() => this.#endSync(sync));
  }

  dataSyncSync(): void {
    this.#checkOpen();
    this.#endSync(this.#content.beginSync());
  }

  size(): number {
    this.#checkOpen();
    return this.#content.size;
  }

  truncate(length: number): void {
    this.#checkOpen();
    this.#content.truncate(length);
    this.#scheduler.trace(`truncate ${this.path}`, length);
  }

  punchHole(position: number, length: number): boolean {
    this.#checkOpen();
    const end = Math.min(this.#content.size, position + length);
    if (end > position) this.#content.write(new Uint8Array(end - position), position);
    return true;
  }

  async close(): Promise<void> {
    this.#closing = true;
    if (this.#underWay === 0) return;
    await new Promise<void>((resolve) => {
      const before = this.#drained;
      this.#drained = () => {
        before?.();
        resolve();
      };
    });
  }

  #endSync(sync: ReturnType<SimulatedContent['beginSync']>): void {
    const fails = this.#scheduler.random.chance(this.#disk.faults.syncFails);
    this.#content.endSync(sync, !fails);
    this.#scheduler.trace(`sync ${this.path}`, fails ? 0 : 1);
    if (!fails) return;
    this.#disk.onSyncFailed(this.path);
    throw new TidemarkError('sync-failed', `fdatasync ${this.path}: simulated EIO`);
  }

  #read(into: Uint8Array, position: number): number {
    if (!this.#process.isObserver && this.#scheduler.random.chance(this.#disk.faults.readFails)) {
      this.#scheduler.trace(`read fails ${this.path}`, position);
      throw new TidemarkError('device-failed', `read ${this.path}: simulated EIO`);
    }
    const length = this.#content.read(into, position);
    // What an observer reads is the model's own business, and much.
    if (!this.#process.isObserver) {
      this.#disk.onRead(this.path, length);
      this.#scheduler.trace(`read ${this.path}`, position, length, crc32(into.subarray(0, length)));
    }
    return length;
  }

  #write(from: Uint8Array, position: number): number {
    assert(this.#writable, `${this.path} was opened for reading`);
    const random = this.#scheduler.random;
    if (random.chance(this.#disk.faults.writeFails)) {
      const length = random.below(from.length + 1);
      this.#content.write(from.subarray(0, length), position);
      this.#scheduler.trace(`write fails ${this.path}`, position, length);
      throw new TidemarkError('device-failed', `write ${this.path}: simulated EIO`);
    }
    let length = from.length;
    const growth = position + from.length - this.#content.size;
    if (growth > 0) length = Math.max(0, length - Math.max(0, growth - this.#disk.freeBytes()));
    if (length === 0 && from.length > 0) throw new TidemarkError('no-space', `write ${this.path}: no space left`);
    if (random.chance(this.#disk.faults.writeShort)) length = random.below(length + 1);
    this.#put(from.subarray(0, length), position);
    this.#scheduler.trace(`write ${this.path}`, position, length, crc32(from.subarray(0, length)));
    return length;
  }

  #put(bytes: Uint8Array, position: number): void {
    const landing = this.#disk.landingOf(this.path, position, bytes.length);
    if (landing.path === this.path && landing.position === position) this.#content.write(bytes, position);
    else this.#disk.files.get(landing.path)?.write(bytes, landing.position);
  }

  async #asynchronous<T>(action: () => T): Promise<T> {
    this.#checkOpen();
    this.#underWay++;
    try {
      return await this.#process.call(this.#disk.drawLatencyMicros(), action);
    } finally {
      this.#underWay--;
      if (this.#underWay === 0) this.#drained?.();
    }
  }

  #checkOpen(): void {
    if (this.#closing) throw new Violation('D7', `${this.path} is used after close`);
    assert(this.#process.alive, `${this.path} is used by a process that is dead`);
  }
}
