import type { ErrorCode } from '../../journal/base/errors.ts';
import { errnoOf } from './errno.ts';
import { type ExportClient, type NbdExport, type ReplyPort, WindowPart } from './export.ts';
import type { NbdLimits } from './limits.ts';
import { Command, SIMPLE_REPLY_BYTES } from './protocol.ts';
import { QueryReplies } from './query-replies.ts';
import { ReadReplies } from './read-replies.ts';
import type { ReplyBuffer } from './reply-buffer.ts';
import { ERROR_CHUNK_BYTES, encodeErrorChunk, encodeSimpleReply } from './reply-encoder.ts';
import { RequestParser } from './request-parser.ts';
import type { Slab } from './slab.ts';

export interface TransmissionHooks {
  /** It may take requests again, or has answered what it owed. */
  progress(): void;
  /** The connection must end at once. */
  broken(reason: string): void;
}

/**
 * The transmission phase of one connection: requests from the slab to the export, window by window, and answers to the
 * reply buffer. `attach` of the export happens in the constructor and throws what it throws.
 */
export class Transmission implements ReplyPort {
  readonly #slab: Slab;
  readonly #output: ReplyBuffer;
  readonly #limits: NbdLimits;
  readonly #hooks: TransmissionHooks;
  readonly #structured: boolean;
  readonly #parser: RequestParser;
  readonly #client: ExportClient;
  readonly #reads: ReadReplies;
  readonly #queries: QueryReplies;
  /** Requests taken and not answered. */
  #inFlight = 0;
  #pauses = 0;
  #inWindow = false;
  #detached = false;

  constructor(
    of: NbdExport,
    agreed: { readonly structured: boolean; readonly allocation: boolean },
    slab: Slab,
    output: ReplyBuffer,
    limits: NbdLimits,
    hooks: TransmissionHooks,
  ) {
    this.#slab = slab;
    this.#output = output;
    this.#limits = limits;
    this.#hooks = hooks;
    this.#structured = agreed.structured;
    this.#parser = new RequestParser(
      {
        size: of.size,
        minimumBlockBytes: of.minimumBlockBytes,
        readOnly: of.readOnly,
        fastZero: of.fastZero,
        structured: agreed.structured,
        allocation: agreed.allocation,
        windowBytes: limits.windowBytes,
      },
      slab,
    );
    this.#client = of.attach(this);
    const settled = (): void => this.#settled();
    this.#reads = new ReadReplies(output, this.#client, agreed.structured, limits, {
      settled,
      broken: (reason) => hooks.broken(reason),
    });
    this.#queries = new QueryReplies(output, this.#client, settled);
  }

  /** Bytes must wait: the export, the client or a bound says so. */
  get blocked(): boolean {
    return this.#pauses > 0 || this.#inFlight >= this.#limits.inFlightMax || this.#reads.waiting || this.#output.full;
  }

  /** Requests taken and not answered. */
  get inFlight(): number {
    return this.#inFlight;
  }

  get goodbye(): boolean {
    return this.#parser.goodbye;
  }

  get violation(): string | undefined {
    return this.#parser.violation;
  }

  /** A request has begun and its end is still to come. */
  get midRequest(): boolean {
    return this.#parser.midRequest(this.#slab);
  }

  /** Takes what the slab holds, as far as it may. */
  run(): void {
    this.#inWindow = true;
    while (!this.blocked && !this.#detached && this.#parser.parse(this.#slab)) this.#window();
    this.#inWindow = false;
  }

  /** The client has taken replies: reads that waited for it go on. */
  drained(): void {
    this.#output.socketDrained();
    this.#reads.pump();
    this.#output.send();
  }

  /** The connection is gone; idempotent. */
  detach(): void {
    if (this.#detached) return;
    this.#detached = true;
    this.#output.close();
    this.#client.detach();
  }

  /** Modifications first, in one call; then what must see them. All answers that are ready leave together. */
  #window(): void {
    const { window, others } = this.#parser;
    let open = 0;
    for (let i = 0; i < window.count; i++) if (window.part[i] === WindowPart.more) open += 1;
    this.#inFlight += window.count - open + others.count;
    if (window.count > 0) this.#client.submit(window);
    for (let i = 0; i < others.count; i++) {
      const command = others.command[i] ?? 0;
      const high = others.cookieHigh[i] ?? 0;
      const low = others.cookieLow[i] ?? 0;
      const errno = others.errno[i] ?? 0;
      const flags = others.flags[i] ?? 0;
      if (errno !== 0) this.#refuse(command, errno, high, low);
      else if (command === Command.read)
        this.#reads.add(high, low, flags, others.offset[i] ?? 0, others.length[i] ?? 0);
      else this.#queries.add(command, high, low, flags, others.offset[i] ?? 0, others.length[i] ?? 0);
    }
    this.#output.send();
  }

  /** READ and BLOCK_STATUS are answered by chunks once structured replies are agreed on, errors included. */
  #refuse(command: number, errno: number, high: number, low: number): void {
    this.#inFlight -= 1;
    if (this.#structured && (command === Command.read || command === Command.blockStatus)) {
      const at = this.#output.reserve(ERROR_CHUNK_BYTES);
      encodeErrorChunk(this.#output.view, at, errno, high, low);
    } else this.#simple(errno, high, low);
  }

  #simple(errno: number, high: number, low: number): void {
    const at = this.#output.reserve(SIMPLE_REPLY_BYTES);
    encodeSimpleReply(this.#output.view, at, errno, high, low);
  }

  #settled(): void {
    this.#inFlight -= 1;
    this.#progress();
  }

  #progress(): void {
    if (!this.#inWindow) this.#hooks.progress();
  }

  ok(cookieHigh: number, cookieLow: number): void {
    this.#inFlight -= 1;
    if (!this.#output.closed) this.#simple(0, cookieHigh, cookieLow);
  }

  fail(cookieHigh: number, cookieLow: number, code: ErrorCode): void {
    this.#inFlight -= 1;
    if (!this.#output.closed) this.#simple(errnoOf(code), cookieHigh, cookieLow);
  }

  send(): void {
    this.#output.send();
    this.#progress();
  }

  pause(): void {
    this.#pauses += 1;
  }

  resume(): void {
    this.#pauses -= 1;
    this.#progress();
  }

  close(reason: string): void {
    this.#hooks.broken(reason);
  }
}
