import type { ErrorCode } from '../../journal/base/errors.ts';
import type { DeviceExtent } from '../../journal/block-device.ts';

/**
 * What an NBD session serves. The session speaks the protocol: it parses, refuses what the protocol refuses (range,
 * flags, read-only, length) and sends replies; an export does the work. Two implementations: a protected volume, whose
 * modifications become one journal batch per window, and `DeviceExport`, which puts any BlockDevice (a view, a backing)
 * on the network.
 */
export interface NbdExport {
  readonly name: string;
  readonly description: string;
  /** Bytes, a multiple of 512. */
  readonly size: number;
  readonly readOnly: boolean;
  /** FAST_ZERO is offered: zeroing without payload is always quicker than writing. */
  readonly fastZero: boolean;
  /** A flush on one connection covers what was answered on all others (NBD_FLAG_CAN_MULTI_CONN). */
  readonly multiConn: boolean;
  readonly minimumBlockBytes: number;
  readonly preferredBlockBytes: number;
  /** A client takes the export; throws `shutting-down` or `precondition-failed` when it is shut (rule 12). */
  attach(replies: ReplyPort): ExportClient;
}

/** One connection's hold on an export. */
export interface ExportClient {
  /**
   * Does the modifications of one window, in order: WRITE, WRITE_ZEROES, TRIM, FLUSH, CACHE never. Everything in the
   * window's buffer between `window.start` and `window.end` may be overwritten during the call, and 64 bytes before
   * `start`; after it returns the buffer belongs to the session again. Each request is answered exactly once through
   * the ReplyPort, during the call or later. A piece (`window.part`) that is not the last is not answered.
   */
  submit(window: RequestWindow): void;
  /** Fills `into`. Returns nothing when it was done at once (page cache), else the promise of it. */
  read(offset: number, into: Uint8Array): undefined | Promise<void>;
  extents(offset: number, length: number): Promise<DeviceExtent[]>;
  /** Bytes may be read ahead; a hint. */
  cache(offset: number, length: number): Promise<void>;
  /** The connection is gone. A request whose last piece never came has no effect. Answers still due are dropped. */
  detach(): void;
}

/** How an export answers. Answers are collected and leave with one socket write at `send`. */
export interface ReplyPort {
  ok(cookieHigh: number, cookieLow: number): void;
  fail(cookieHigh: number, cookieLow: number, code: ErrorCode): void;
  /** Sends what is collected; the session calls it itself after `submit`, an export only for answers it gives later. */
  send(): void;
  /** Back-pressure: no further bytes are taken from this client until `resume`; calls nest by count. */
  pause(): void;
  resume(): void;
  /** Closes the connection, for a reason that is logged: the export waits for this client no longer. */
  close(reason: string): void;
}

export const WindowKind = {
  write: 1,
  trim: 4,
  flush: 3,
  writeZeroes: 6,
} as const;

export const WindowPart = {
  /** The request stands in this window whole. */
  whole: 0,
  /** More of its payload follows in later windows. */
  more: 1,
  /** The last part: the request is complete and must be answered. */
  last: 2,
} as const;

/** NBD command flags as on the wire. */
export const CommandFlag = { fua: 1, noHole: 2, df: 4, reqOne: 8, fastZero: 16, payloadLength: 32 } as const;

/** Requests per window at most; a client with more outstanding waits for the next read. */
export const WINDOW_REQUESTS_MAX = 4096;

/**
 * The modifications found in one read of a socket, as parallel arrays (an object per request would be most of the cost
 * of a 4 KiB write). A write's payload lies at `headerAt + 28`; the 28 bytes before every payload, and those of every
 * other request, may be overwritten (they become record headers). Ranges between requests that belong to none (reads,
 * refused requests and their payloads) are at least 28 bytes long and may be overwritten too.
 */
export class RequestWindow {
  buffer: Buffer;
  view: DataView;
  /** Where the first request's 28 bytes begin; at least 64 bytes of headroom lie before it. */
  start = 0;
  /** Behind the last byte of the last request. */
  end = 0;
  count = 0;
  readonly kind: Uint8Array = new Uint8Array(WINDOW_REQUESTS_MAX);
  readonly part: Uint8Array = new Uint8Array(WINDOW_REQUESTS_MAX);
  readonly flags: Uint16Array = new Uint16Array(WINDOW_REQUESTS_MAX);
  readonly cookieHigh: Uint32Array = new Uint32Array(WINDOW_REQUESTS_MAX);
  readonly cookieLow: Uint32Array = new Uint32Array(WINDOW_REQUESTS_MAX);
  /** Bytes: of this part, for a request in parts. */
  readonly offset: Float64Array = new Float64Array(WINDOW_REQUESTS_MAX);
  /** Bytes: of this part; equals the payload present for a write. */
  readonly length: Float64Array = new Float64Array(WINDOW_REQUESTS_MAX);
  readonly headerAt: Uint32Array = new Uint32Array(WINDOW_REQUESTS_MAX);

  constructor(buffer: Buffer) {
    this.buffer = buffer;
    this.view = new DataView(buffer.buffer, buffer.byteOffset, buffer.byteLength);
  }

  /** Empties the window and points it at the slab the next requests lie in. */
  reset(buffer: Buffer, view: DataView): void {
    this.buffer = buffer;
    this.view = view;
    this.start = 0;
    this.end = 0;
    this.count = 0;
  }
}
