import type { Writable } from 'node:stream';
import { assert } from '../../journal/base/assert.ts';

/** Payload that one reply buffer takes besides headers: as much as a window. */
export const REPLY_PAYLOAD_BYTES: number = 256 * 1024;
const ARENA_BYTES = REPLY_PAYLOAD_BYTES + 4096;
/** Idle buffers kept for the next connection. */
const POOLED_MAX = 32;

/** One output buffer; `holds` counts who still needs its bytes. */
export interface Arena {
  readonly buffer: Buffer;
  readonly view: DataView;
  holds: number;
}

/** Output buffers of all connections: page faults of a fresh 256 KiB cost more than the replies in it. */
export class ArenaPool {
  readonly #idle: Arena[] = [];

  take(): Arena {
    const idle = this.#idle.pop();
    if (idle !== undefined) return idle;
    const buffer = Buffer.from(new ArrayBuffer(ARENA_BYTES));
    return { buffer, view: new DataView(buffer.buffer), holds: 0 };
  }

  release(arena: Arena): void {
    arena.holds -= 1;
    if (arena.holds === 0 && this.#idle.length < POOLED_MAX) this.#idle.push(arena);
  }
}

/** A piece of an arena that is filled later and sent then. */
export interface Region {
  readonly arena: Arena;
  readonly at: number;
}

/**
 * Replies of one connection on their way out: collected in one buffer, sent with one socket write. A reply whose bytes
 * come later keeps its region while those behind it leave; a long reply that must not be interrupted takes the `lock`.
 */
export class ReplyBuffer {
  readonly #socket: Writable;
  readonly #pool: ArenaPool;
  readonly #bytesMax: number;
  #arena: Arena;
  /** [#from, #at) of the arena is collected and not sent. */
  #from = 0;
  #at = 0;
  #segments: Buffer[] = [];
  #segmentArenas: Arena[] = [];
  #segmentBytes = 0;
  /** Arenas of writes the socket has not finished, in order; `#ignored` callbacks belong to writes settled already. */
  readonly #writing: Arena[] = [];
  #ignored = 0;
  #locked = false;
  #closed = false;
  #drainWaiters: (() => void)[] = [];
  readonly #written = (): void => {
    if (this.#ignored > 0) this.#ignored -= 1;
    else {
      const arena = this.#writing.shift();
      if (arena !== undefined) this.#pool.release(arena);
    }
  };

  constructor(socket: Writable, pool: ArenaPool, bytesMax: number) {
    this.#socket = socket;
    this.#pool = pool;
    this.#bytesMax = bytesMax;
    this.#arena = this.#takeArena();
  }

  /** The client takes its replies too slowly, or a long one holds the others up: nothing more should be produced. */
  get full(): boolean {
    return this.#socket.writableLength + this.#segmentBytes > this.#bytesMax;
  }

  /** The client takes its replies too slowly: the holder of the lock should wait, too. */
  get clogged(): boolean {
    return this.#socket.writableLength > this.#bytesMax;
  }

  /** What `reserve` points into. */
  get buffer(): Buffer {
    return this.#arena.buffer;
  }

  /** The same memory as `buffer`. */
  get view(): DataView {
    return this.#arena.view;
  }

  /** Room for `bytes` in a row; returns where it begins in `buffer` and `view`, both valid until the next call. */
  reserve(bytes: number): number {
    assert(bytes <= ARENA_BYTES, 'a reply fits a reply buffer');
    if (this.#at + bytes > ARENA_BYTES) {
      this.send();
      if (this.#at > 0) this.#nextArena();
    }
    const at = this.#at;
    this.#at += bytes;
    return at;
  }

  /** Gives back what was reserved last, from `at` on. */
  shrink(at: number): void {
    this.#at = at;
  }

  /** What was reserved last, from `at` on, is sent later, by `sendRegion`; what is reserved next may leave before it. */
  setAside(at: number): Region {
    const arena = this.#arena;
    arena.holds += 1;
    this.#cut(at);
    this.#from = this.#at;
    return { arena, at };
  }

  /** A whole buffer of its own, to be sent by `sendRegion`. */
  separate(): Region {
    return { arena: this.#takeArena(), at: 0 };
  }

  /** Queues the first `bytes` of a region behind what is collected; `send` lets them go. */
  sendRegion(region: Region, bytes: number): void {
    this.#cut(this.#at);
    this.#from = this.#at;
    this.#segments.push(region.arena.buffer.subarray(region.at, region.at + bytes));
    this.#segmentArenas.push(region.arena);
    this.#segmentBytes += bytes;
  }

  /** Gives a region back unsent. */
  drop(region: Region): void {
    this.#pool.release(region.arena);
  }

  /** Sends a region at once, past everything collected: for the holder of the lock. */
  sendLocked(region: Region, bytes: number): void {
    if (this.#closed) {
      this.drop(region);
      return;
    }
    this.#write(region.arena.buffer.subarray(region.at, region.at + bytes), region.arena);
    this.#settleWritten();
  }

  /** Everything collected so far leaves; what is collected from now on waits for `unlock`. */
  lock(): void {
    this.send();
    this.#locked = true;
  }

  /** What was collected meanwhile leaves. */
  unlock(): void {
    this.#locked = false;
    this.send();
  }

  /** Somebody holds the lock. */
  get locked(): boolean {
    return this.#locked;
  }

  /** One socket write for all that is collected. */
  send(): void {
    if (this.#locked || this.#closed) return;
    if (this.#segments.length === 0) {
      if (this.#from === this.#at) return;
      this.#arena.holds += 1;
      this.#write(this.#arena.buffer.subarray(this.#from, this.#at), this.#arena);
    } else {
      this.#cut(this.#at);
      const [segments, arenas] = [this.#segments, this.#segmentArenas];
      this.#segments = [];
      this.#segmentArenas = [];
      this.#segmentBytes = 0;
      this.#socket.cork();
      for (let i = 0; i < segments.length; i++) this.#write(segments[i] as Buffer, arenas[i] as Arena);
      this.#socket.uncork();
    }
    this.#from = this.#at;
    this.#settleWritten();
    if (this.#arena.holds === 1) {
      this.#from = 0;
      this.#at = 0;
    }
  }

  /** Resolves when the client has taken everything, or is gone. */
  async drained(): Promise<void> {
    if (!this.#closed && this.clogged) await new Promise<void>((resolve) => this.#drainWaiters.push(resolve));
  }

  /** The connection is gone: nothing is sent any more. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const arena of this.#segmentArenas.splice(0)) this.#pool.release(arena);
    this.#segments = [];
    // The buffer in hand is left to the collector, not to another connection: a late answer may still write into it.
    this.socketDrained();
  }

  /** Replies go nowhere. */
  get closed(): boolean {
    return this.#closed;
  }

  #takeArena(): Arena {
    const arena = this.#pool.take();
    arena.holds += 1;
    return arena;
  }

  /** [#from, at) becomes a segment. */
  #cut(at: number): void {
    if (this.#from === at) return;
    this.#arena.holds += 1;
    this.#segments.push(this.#arena.buffer.subarray(this.#from, at));
    this.#segmentArenas.push(this.#arena);
    this.#segmentBytes += at - this.#from;
    this.#from = at;
  }

  #nextArena(): void {
    this.#cut(this.#at);
    this.#pool.release(this.#arena);
    this.#arena = this.#takeArena();
    this.#from = 0;
    this.#at = 0;
  }

  #write(bytes: Buffer, arena: Arena): void {
    this.#writing.push(arena);
    this.#socket.write(bytes, this.#written);
  }

  /** Most writes are done when `write` returns; their callbacks come a tick later, too late to reuse the buffer. */
  #settleWritten(): void {
    if (this.#socket.writableLength > 0) return;
    this.#ignored += this.#writing.length;
    for (const arena of this.#writing) this.#pool.release(arena);
    this.#writing.length = 0;
  }

  /** To be called at the socket's `drain` event. */
  socketDrained(): void {
    for (const resolve of this.#drainWaiters.splice(0)) resolve();
  }
}
