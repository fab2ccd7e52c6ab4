import { TidemarkError } from '../../journal/base/errors.ts';
import { errnoOf } from './errno.ts';
import { CommandFlag, type ExportClient } from './export.ts';
import type { NbdLimits } from './limits.ts';
import { SIMPLE_REPLY_BYTES } from './protocol.ts';
import { REPLY_PAYLOAD_BYTES, type Region, type ReplyBuffer } from './reply-buffer.ts';
import {
  DATA_CHUNK_BYTES,
  ERROR_CHUNK_BYTES,
  encodeDataChunk,
  encodeErrorChunk,
  encodeSimpleReply,
} from './reply-encoder.ts';

export interface ReadRepliesHooks {
  /** One READ has been answered, or given up because the client is gone. */
  settled(): void;
  /** A simple reply broke off behind its header: there is no way to say so but to disconnect. */
  broken(reason: string): void;
}

interface QueuedRead {
  readonly high: number;
  readonly low: number;
  readonly flags: number;
  readonly offset: number;
  readonly length: number;
}

/**
 * Answers READs. What the export has at hand goes straight into the output buffer behind its header; what it has later
 * keeps its place there and leaves when it is whole, behind others. Above 256 KiB a reply goes out piece by piece, one such
 * read at a time: with structured replies as chunks between which others may leave, else without interruption.
 */
export class ReadReplies {
  readonly #output: ReplyBuffer;
  readonly #client: ExportClient;
  readonly #structured: boolean;
  readonly #limits: NbdLimits;
  readonly #hooks: ReadRepliesHooks;
  /** Bounded by the session, which stops taking requests while anything waits here. */
  readonly #queue: QueuedRead[] = [];
  readonly #headerBytes: number;
  /** Bytes of reads that the export answers later. */
  #laterBytes = 0;
  #longRunning = false;

  constructor(
    output: ReplyBuffer,
    client: ExportClient,
    structured: boolean,
    limits: NbdLimits,
    hooks: ReadRepliesHooks,
  ) {
    this.#output = output;
    this.#client = client;
    this.#structured = structured;
    this.#limits = limits;
    this.#hooks = hooks;
    this.#headerBytes = structured ? DATA_CHUNK_BYTES : SIMPLE_REPLY_BYTES;
  }

  /** Reads wait for the client to take replies or for the export to answer. */
  get waiting(): boolean {
    return this.#queue.length > 0;
  }

  add(high: number, low: number, flags: number, offset: number, length: number): void {
    if (this.#queue.length > 0 || !this.#may(length)) this.#queue.push({ high, low, flags, offset, length });
    else this.#start(high, low, flags, offset, length);
  }

  /** Starts what waits and may now go; the session calls it when the client has taken replies. */
  pump(): void {
    for (let next = this.#queue[0]; next !== undefined && this.#may(next.length); next = this.#queue[0]) {
      this.#queue.shift();
      this.#start(next.high, next.low, next.flags, next.offset, next.length);
    }
  }

  #may(length: number): boolean {
    if (length > REPLY_PAYLOAD_BYTES) return !this.#longRunning;
    return !this.#output.full && (this.#laterBytes === 0 || this.#laterBytes + length <= this.#limits.readBytesMax);
  }

  #start(high: number, low: number, flags: number, offset: number, length: number): void {
    if (this.#output.closed) this.#hooks.settled();
    else if (length > REPLY_PAYLOAD_BYTES) void this.#long(high, low, flags, offset, length);
    else this.#short(high, low, offset, length);
  }

  #short(high: number, low: number, offset: number, length: number): void {
    const output = this.#output;
    const dataAt = this.#headerBytes;
    const at = output.reserve(dataAt + length);
    let later: undefined | Promise<void>;
    try {
      later = this.#client.read(offset, output.buffer.subarray(at + dataAt, at + dataAt + length));
    } catch (error) {
      output.shrink(at + this.#refuse(output.view, at, high, low, error));
      this.#hooks.settled();
      return;
    }
    if (later === undefined) {
      this.#header(output.view, at, high, low, offset, length);
      this.#hooks.settled();
      return;
    }
    const region = output.setAside(at);
    this.#laterBytes += length;
    void later
      .then(
        () => {
          this.#header(region.arena.view, region.at, high, low, offset, length);
          return dataAt + length;
        },
        (error: unknown) => this.#refuse(region.arena.view, region.at, high, low, error),
      )
      .then((bytes) => this.#answerLater(region, bytes, length));
  }

  #answerLater(region: Region, bytes: number, length: number): void {
    this.#laterBytes -= length;
    if (this.#output.closed) this.#output.drop(region);
    else {
      this.#output.sendRegion(region, bytes);
      this.#output.send();
    }
    this.pump();
    this.#output.send();
    this.#hooks.settled();
  }

  async #long(high: number, low: number, flags: number, offset: number, length: number): Promise<void> {
    this.#longRunning = true;
    const output = this.#output;
    const whole = !this.#structured || (flags & CommandFlag.df) !== 0;
    for (let done = 0; done < length && !output.closed; ) {
      if (output.clogged) await output.drained();
      const region = output.separate();
      const { buffer, view } = region.arena;
      const dataAt = whole && done > 0 ? 0 : this.#headerBytes;
      const bytes = Math.min(REPLY_PAYLOAD_BYTES, length - done);
      const last = done + bytes === length;
      try {
        const later = this.#client.read(offset + done, buffer.subarray(dataAt, dataAt + bytes));
        if (later !== undefined) await later;
      } catch (error) {
        const refusalBytes = this.#refuse(view, 0, high, low, error);
        if (whole && done > 0) {
          output.drop(region);
          this.#hooks.broken('a read failed behind the header of its reply');
        } else if (output.closed) output.drop(region);
        else output.sendRegion(region, refusalBytes);
        break;
      }
      if (output.closed) {
        output.drop(region);
        break;
      }
      if (whole) {
        if (done === 0) {
          this.#header(view, 0, high, low, offset, length);
          output.lock();
        }
        output.sendLocked(region, dataAt + bytes);
      } else {
        encodeDataChunk(view, 0, last, high, low, offset + done, bytes);
        output.sendRegion(region, dataAt + bytes);
        output.send();
      }
      done += bytes;
    }
    this.#longRunning = false;
    if (output.locked) output.unlock();
    this.pump();
    output.send();
    this.#hooks.settled();
  }

  #header(view: DataView, at: number, high: number, low: number, offset: number, length: number): void {
    if (this.#structured) encodeDataChunk(view, at, true, high, low, offset, length);
    else encodeSimpleReply(view, at, 0, high, low);
  }

  /** Writes the refusal and returns its bytes. Anything but an operating error is a bug and goes on upwards. */
  #refuse(view: DataView, at: number, high: number, low: number, error: unknown): number {
    if (!(error instanceof TidemarkError)) throw error;
    const errno = errnoOf(error.code);
    if (this.#structured) {
      encodeErrorChunk(view, at, errno, high, low);
      return ERROR_CHUNK_BYTES;
    }
    encodeSimpleReply(view, at, errno, high, low);
    return SIMPLE_REPLY_BYTES;
  }
}
