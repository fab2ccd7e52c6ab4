import { assert } from '../../journal/base/assert.ts';
import { TidemarkError } from '../../journal/base/errors.ts';
import { errnoOf } from './errno.ts';
import { CommandFlag, type ExportClient } from './export.ts';
import { ALLOCATION_CONTEXT_ID } from './negotiation.ts';
import { Command, EXTENTS_PER_REPLY_MAX, SIMPLE_REPLY_BYTES } from './protocol.ts';
import type { ReplyBuffer } from './reply-buffer.ts';
import {
  ERROR_CHUNK_BYTES,
  encodeErrorChunk,
  encodeSimpleReply,
  encodeStatusChunk,
  statusChunkBytes,
  statusPairs,
} from './reply-encoder.ts';

interface Query {
  readonly command: number;
  readonly high: number;
  readonly low: number;
  readonly flags: number;
  readonly offset: number;
  readonly length: number;
}

/** Looked at for one block status: a shorter answer is legal, and bounds the list an export must build. */
const STATUS_RANGE_BYTES_MAX = 256 * 1024 * 1024;

/** Answers BLOCK_STATUS and CACHE, one after the other. */
export class QueryReplies {
  readonly #output: ReplyBuffer;
  readonly #client: ExportClient;
  readonly #settled: () => void;
  /** Bounded by the session's requests in flight. */
  readonly #queue: Query[] = [];
  #running = false;

  constructor(output: ReplyBuffer, client: ExportClient, settled: () => void) {
    this.#output = output;
    this.#client = client;
    this.#settled = settled;
  }

  add(command: number, high: number, low: number, flags: number, offset: number, length: number): void {
    this.#queue.push({ command, high, low, flags, offset, length });
    if (!this.#running) void this.#run();
  }

  async #run(): Promise<void> {
    this.#running = true;
    for (let query = this.#queue.shift(); query !== undefined; query = this.#queue.shift()) {
      if (!this.#output.closed) await this.#answer(query);
      this.#output.send();
      this.#settled();
    }
    this.#running = false;
  }

  async #answer(query: Query): Promise<void> {
    const { high, low, offset, length } = query;
    const output = this.#output;
    const structured = query.command === Command.blockStatus;
    try {
      if (!structured) {
        await this.#client.cache(offset, length);
        if (output.closed) return;
        const at = output.reserve(SIMPLE_REPLY_BYTES);
        encodeSimpleReply(output.view, at, 0, high, low);
        return;
      }
      const looked = Math.min(length, STATUS_RANGE_BYTES_MAX);
      const countMax = (query.flags & CommandFlag.reqOne) === 0 ? EXTENTS_PER_REPLY_MAX : 1;
      const pairs = statusPairs(await this.#client.extents(offset, looked), looked, countMax);
      assert(pairs.length > 0, 'the extents cover the range');
      if (output.closed) return;
      const at = output.reserve(statusChunkBytes(pairs.length / 2));
      encodeStatusChunk(output.view, at, high, low, ALLOCATION_CONTEXT_ID, pairs);
    } catch (error) {
      if (!(error instanceof TidemarkError)) throw error;
      if (output.closed) return;
      const at = output.reserve(structured ? ERROR_CHUNK_BYTES : SIMPLE_REPLY_BYTES);
      if (structured) encodeErrorChunk(output.view, at, errnoOf(error.code), high, low);
      else encodeSimpleReply(output.view, at, errnoOf(error.code), high, low);
    }
  }
}
