import { CommandFlag, RequestWindow, WINDOW_REQUESTS_MAX, WindowPart } from './export.ts';
import { Command, Errno, type NbdErrno, PAYLOAD_BYTES_MAX, REQUEST_BYTES, REQUEST_MAGIC } from './protocol.ts';
import type { Slab } from './slab.ts';

/** What requests are checked against. */
export interface RequestRules {
  /** Bytes. */
  readonly size: number;
  readonly minimumBlockBytes: number;
  readonly readOnly: boolean;
  readonly fastZero: boolean;
  /** Structured replies were negotiated: DF is known. */
  readonly structured: boolean;
  /** `base:allocation` was selected: BLOCK_STATUS is known. */
  readonly allocation: boolean;
  /** A request longer than this, header included, is cut into parts. */
  readonly windowBytes: number;
}

/** Requests that modify nothing, and refusals, as parallel arrays. */
export class OtherRequests {
  count = 0;
  /** Command.read, cache or blockStatus; for a refusal the command refused. */
  readonly command: Uint16Array = new Uint16Array(WINDOW_REQUESTS_MAX);
  /** 0, or the error the request is refused with. */
  readonly errno: Uint8Array = new Uint8Array(WINDOW_REQUESTS_MAX);
  readonly flags: Uint16Array = new Uint16Array(WINDOW_REQUESTS_MAX);
  readonly cookieHigh: Uint32Array = new Uint32Array(WINDOW_REQUESTS_MAX);
  readonly cookieLow: Uint32Array = new Uint32Array(WINDOW_REQUESTS_MAX);
  readonly offset: Float64Array = new Float64Array(WINDOW_REQUESTS_MAX);
  readonly length: Float64Array = new Float64Array(WINDOW_REQUESTS_MAX);
}

const SECTOR_BYTES = 512;

/**
 * Takes the requests of a slab apart (section "Request message"), checks each, and sorts them into modifications (a
 * RequestWindow, in place), other requests, and refusals. The payload of a refused write is skipped, across windows too:
 * the stream stays in step. Touches no socket.
 *
 * request: magic 4 | flags 2 | type 2 | cookie 8 | offset 8 | length 4 | payload of a WRITE
 */
export class RequestParser {
  readonly window: RequestWindow;
  readonly others: OtherRequests = new OtherRequests();
  /** The client said DISC. */
  goodbye = false;
  /** Why the connection cannot go on, once it cannot. */
  violation: string | undefined;
  readonly #rules: RequestRules;
  readonly #blockMask: number;
  /** A request under way across windows: its payload that is still to come, and whether it is skipped or passed on. */
  #restBytes = 0;
  #restErrno = 0;
  #restOffset = 0;
  #restFlags = 0;
  #restHigh = 0;
  #restLow = 0;

  constructor(rules: RequestRules, slab: Slab) {
    this.#rules = rules;
    this.#blockMask = rules.minimumBlockBytes - 1;
    this.window = new RequestWindow(slab.buffer);
  }

  /** More bytes are needed to end a request that has begun. */
  midRequest(slab: Slab): boolean {
    return this.#restBytes > 0 || slab.unparsedBytes > 0;
  }

  /** Replaces `window` and `others` by what the slab holds next. False: nothing could be taken. */
  parse(slab: Slab): boolean {
    this.window.reset(slab.buffer, slab.view);
    this.others.count = 0;
    const from = slab.readAt;
    if (this.#restBytes > 0) this.#continue(slab);
    while (
      this.#restBytes === 0 &&
      slab.unparsedBytes >= REQUEST_BYTES &&
      this.window.count < WINDOW_REQUESTS_MAX &&
      this.others.count < WINDOW_REQUESTS_MAX &&
      !this.goodbye &&
      this.violation === undefined
    ) {
      if (!this.#request(slab)) break;
    }
    return slab.readAt !== from;
  }

  /** Takes one request; false when its payload is not there yet. */
  #request(slab: Slab): boolean {
    const view = slab.view;
    const at = slab.readAt;
    if (view.getUint32(at) !== REQUEST_MAGIC) {
      this.violation = 'a request has a wrong magic';
      return false;
    }
    const flags = view.getUint16(at + 4);
    const command = view.getUint16(at + 6);
    const offset = view.getUint32(at + 16) * 0x1_0000_0000 + view.getUint32(at + 20);
    const length = view.getUint32(at + 24);
    if (command === Command.write) return this.#write(slab, flags, offset, length);
    slab.readAt = at + REQUEST_BYTES;
    if (command === Command.disconnect) {
      this.goodbye = true;
      return false;
    }
    const high = view.getUint32(at + 8);
    const low = view.getUint32(at + 12);
    const errno = this.#check(command, flags, offset, length);
    if (
      errno === Errno.none &&
      (command === Command.flush || command === Command.trim || command === Command.writeZeroes)
    ) {
      this.#modification(command, WindowPart.whole, flags, high, low, offset, length, at, at + REQUEST_BYTES);
    } else this.#other(command, errno, flags, high, low, offset, length);
    return true;
  }

  #write(slab: Slab, flags: number, offset: number, length: number): boolean {
    const view = slab.view;
    const at = slab.readAt;
    if (length > PAYLOAD_BYTES_MAX) {
      this.violation = `a write of ${length} bytes`;
      return false;
    }
    const high = view.getUint32(at + 8);
    const low = view.getUint32(at + 12);
    const errno = this.#check(Command.write, flags, offset, length);
    const present = slab.unparsedBytes - REQUEST_BYTES;
    if (errno !== Errno.none) {
      this.#rest(errno, flags, high, low, offset, length);
      slab.readAt = at + REQUEST_BYTES;
      this.#skip(slab);
      return true;
    }
    if (present >= length) {
      const end = at + REQUEST_BYTES + length;
      this.#modification(Command.write, WindowPart.whole, flags, high, low, offset, length, at, end);
      slab.readAt = end;
      return true;
    }
    if (REQUEST_BYTES + length <= this.#rules.windowBytes || present < this.#partBytesMin()) return false;
    this.#rest(Errno.none, flags, high, low, offset, length);
    slab.readAt = at + REQUEST_BYTES;
    this.#continue(slab);
    return true;
  }

  #continue(slab: Slab): void {
    if (this.#restErrno !== Errno.none) this.#skip(slab);
    else this.#part(slab);
  }

  #skip(slab: Slab): void {
    const skipped = Math.min(this.#restBytes, slab.unparsedBytes);
    slab.readAt += skipped;
    this.#restBytes -= skipped;
    if (this.#restBytes > 0) return;
    this.#other(Command.write, this.#restErrno, this.#restFlags, this.#restHigh, this.#restLow, 0, 0);
  }

  /** Passes on what is there of a long write. The 28 bytes before it are done with: header, earlier part or headroom. */
  #part(slab: Slab): void {
    const at = slab.readAt;
    let bytes = Math.min(this.#restBytes, slab.unparsedBytes);
    const last = bytes === this.#restBytes;
    if (!last) {
      if (bytes < this.#partBytesMin()) return;
      bytes -= bytes % SECTOR_BYTES;
    }
    const part = last ? WindowPart.last : WindowPart.more;
    const headerAt = at - REQUEST_BYTES;
    const { write } = Command;
    const [high, low] = [this.#restHigh, this.#restLow];
    this.#modification(write, part, this.#restFlags, high, low, this.#restOffset, bytes, headerAt, at + bytes);
    slab.readAt = at + bytes;
    this.#restOffset += bytes;
    this.#restBytes -= bytes;
  }

  /** Half a window: fewer, longer records, and never so long that the slab is full before. */
  #partBytesMin(): number {
    return this.#rules.windowBytes / 2;
  }

  #rest(errno: number, flags: number, high: number, low: number, offset: number, length: number): void {
    this.#restBytes = length;
    this.#restErrno = errno;
    this.#restFlags = flags;
    this.#restHigh = high;
    this.#restLow = low;
    this.#restOffset = offset;
  }

  #modification(
    kind: number,
    part: number,
    flags: number,
    high: number,
    low: number,
    offset: number,
    length: number,
    headerAt: number,
    end: number,
  ): void {
    const window = this.window;
    const i = window.count;
    if (i === 0) window.start = headerAt;
    window.end = end;
    window.kind[i] = kind;
    window.part[i] = part;
    window.flags[i] = flags;
    window.cookieHigh[i] = high;
    window.cookieLow[i] = low;
    window.offset[i] = offset;
    window.length[i] = length;
    window.headerAt[i] = headerAt;
    window.count = i + 1;
  }

  #other(
    command: number,
    errno: number,
    flags: number,
    high: number,
    low: number,
    offset: number,
    length: number,
  ): void {
    const others = this.others;
    const i = others.count;
    others.command[i] = command;
    others.errno[i] = errno;
    others.flags[i] = flags;
    others.cookieHigh[i] = high;
    others.cookieLow[i] = low;
    others.offset[i] = offset;
    others.length[i] = length;
    others.count = i + 1;
  }

  /** 0, or what the protocol refuses the request with. FUA is legal on every command. */
  #check(command: number, flags: number, offset: number, length: number): NbdErrno | 0 {
    const rules = this.#rules;
    let known: number = CommandFlag.fua;
    switch (command) {
      case Command.read:
        if (rules.structured) known |= CommandFlag.df;
        if (length > PAYLOAD_BYTES_MAX) return Errno.einval;
        break;
      case Command.writeZeroes:
        known |= CommandFlag.noHole | (rules.fastZero ? CommandFlag.fastZero : 0);
        break;
      case Command.write:
      case Command.trim:
      case Command.cache:
        break;
      case Command.flush:
        return (flags & ~known) !== 0 || offset !== 0 || length !== 0 ? Errno.einval : Errno.none;
      case Command.blockStatus:
        if (!rules.allocation) return Errno.einval;
        known |= CommandFlag.reqOne;
        break;
      default:
        return Errno.einval;
    }
    if ((flags & ~known) !== 0) return Errno.einval;
    const allocates = command === Command.write || command === Command.writeZeroes;
    if (rules.readOnly && (allocates || command === Command.trim)) return Errno.eperm;
    // A 64-bit offset is inexact above 2^53, and far beyond every size there.
    if (offset + length > rules.size) return allocates ? Errno.enospc : Errno.einval;
    if (length === 0 || (offset & this.#blockMask) !== 0 || (length & this.#blockMask) !== 0) return Errno.einval;
    return Errno.none;
  }
}
