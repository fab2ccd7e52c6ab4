import { type ErrorCode, hasCode, TidemarkError } from '../../journal/base/errors.ts';
import { BATCH_HEADER_BYTES } from '../../journal/batch-codec.ts';
import type { DeviceExtent } from '../../journal/block-device.ts';
import { type JournalAddress, type Lsn, SECTOR_BYTES } from '../../journal/position.ts';
import { RECORD_HEADER_BYTES } from '../../journal/record.ts';
import {
  CommandFlag,
  type ExportClient,
  type ReplyPort,
  type RequestWindow,
  WindowKind,
  WindowPart,
} from '../nbd/export.ts';
import type { AckGate } from '../synchrony/ack-gate.ts';
import { type ExtentMap, ZERO_SOURCE } from './extent-map.ts';
import type { SharedSync } from './shared-sync.ts';
import type { Throttle } from './throttle.ts';
import { type Barrier, layOutRecords, type OpenRequest } from './window-records.ts';

/** What a connection needs of its volume; everything but the reading half is shared by all its connections. */
export interface WritableVolume {
  readonly id: number;
  readonly overlay: ExtentMap;
  readonly barrier: Barrier;
  readonly syncs: SharedSync;
  readonly throttle: Throttle;
  /** What answers wait for beyond the journal here. */
  readonly gate: AckGate;
  readonly nextRequestId: () => number;
  readonly abandonRequest: (id: number) => void;
  /** Counts windows that changed the overlay. */
  changes: number;
  /** Why nobody may use the volume now; undefined: open. */
  readonly refusal: ErrorCode | undefined;
  /** The journal has failed: nobody is answered well any more. */
  readonly poisoned: boolean;
  /** `changes`: something that a flush has to cover; a barrier alone is nothing. */
  append(slab: Buffer, start: number, end: number, count: number, changes: boolean): JournalAddress;
  read(offset: number, into: Uint8Array): undefined | Promise<void>;
  extents(offset: number, length: number): Promise<DeviceExtent[]>;
  left(client: ExportClient): void;
}

interface HeldPiece {
  readonly start: number;
  readonly end: number;
  readonly source: JournalAddress;
}

/**
 * The write path of one connection. One window of requests is one journal batch:
 *
 *   lay out     headers become record headers in place            window-records.ts
 *   append      one synchronous write, which gives LSNs            journal.appendInPlace
 *   overlay     where the newest bytes of each sector stand        extent-map.ts
 *   answer      plain writes at once; FUA and FLUSH behind the next sync, shared by all that wait; what the degree of
 *               synchrony asks for, when the far side has it          synchrony/ack-gate.ts
 *
 * Nothing is answered that is not in the journal, and nothing is in the overlay that is not.
 */
export class VolumeClient implements ExportClient {
  readonly #volume: WritableVolume;
  readonly #replies: ReplyPort;
  readonly #open: OpenRequest = { id: 0 };
  /** The batch of its first piece. */
  #openAt: JournalAddress = 0;
  #pieces: HeldPiece[] = [];
  /** Why the request that is still arriving has failed already. */
  #brokenBy: ErrorCode | undefined;
  #attached = true;

  constructor(volume: WritableVolume, replies: ReplyPort) {
    this.#volume = volume;
    this.#replies = replies;
  }

  submit(window: RequestWindow): void {
    const volume = this.#volume;
    const refusal = volume.refusal;
    if (refusal !== undefined) {
      this.#failFrom(window, 0, refusal);
      return;
    }
    const skip = this.#brokenBy === undefined ? 0 : this.#failBroken(window, this.#brokenBy);
    if (skip === window.count) return;
    const openBefore = this.#open.id;
    let base: number;
    try {
      const count = layOutRecords(window, skip, volume.id, this.#open, volume.nextRequestId, volume.barrier);
      const changes = window.count > skip + 1 || window.kind[skip] !== WindowKind.flush;
      const { buffer, start, end } = window;
      base = count === 0 ? 0 : volume.append(buffer, start, end, count, changes) - start;
    } catch (error) {
      if (!(error instanceof TidemarkError)) throw error;
      volume.barrier.changed = true;
      if (openBefore !== 0) volume.abandonRequest(openBefore);
      this.#open.id = 0;
      this.#failFrom(window, skip, hasCode(error, 'journal-full') ? 'no-space' : 'device-failed');
      return;
    }
    if (this.#open.id !== openBefore) this.#openAt = base + window.start - BATCH_HEADER_BYTES;
    this.#takeEffect(window, skip, base);
    volume.throttle.charge(this.#replies, window.end - window.start, this.#open.id === 0 ? undefined : this.#openAt);
    // in the middle of a request others may wait for the rest of it
    if (this.#open.id === 0) volume.gate.charge(this.#replies, window.end - window.start);
  }

  read(offset: number, into: Uint8Array): undefined | Promise<void> {
    return this.#volume.read(offset, into);
  }

  extents(offset: number, length: number): Promise<DeviceExtent[]> {
    return this.#volume.extents(offset, length);
  }

  /** Nothing to do: what was written lately is in the page cache, and a hint is not worth a read of the backing. */
  cache(_offset: number, _length: number): Promise<void> {
    return Promise.resolve();
  }

  detach(): void {
    if (!this.#attached) return;
    this.#attached = false;
    this.#abandonOpen();
    this.#volume.throttle.forget(this.#replies);
    this.#volume.gate.forget(this.#replies);
    this.#volume.left(this);
  }

  /** `base`: what turns a place in the slab into a journal address. */
  #takeEffect(window: RequestWindow, skip: number, base: number): void {
    const { kind, part, flags, offset, length, headerAt, cookieHigh, cookieLow } = window;
    const overlay = this.#volume.overlay;
    const { holdsWrites } = this.#volume.gate;
    let due: number[] | undefined;
    for (let index = skip; index < window.count; index++) {
      const stamp = base + headerAt[index]!;
      const start = offset[index]! / SECTOR_BYTES;
      const end = start + length[index]! / SECTOR_BYTES;
      if (kind[index] === WindowKind.write) {
        const source = stamp + RECORD_HEADER_BYTES;
        if (part[index] === WindowPart.more) {
          this.#pieces.push({ start, end, source });
          continue;
        }
        if (part[index] === WindowPart.last) {
          for (const piece of this.#pieces) overlay.insert(piece.start, piece.end, piece.source, stamp);
          this.#pieces = [];
        }
        if (end > start) overlay.insert(start, end, source, stamp);
      } else if (kind[index] !== WindowKind.flush && end > start) {
        overlay.insert(start, end, ZERO_SOURCE, stamp);
      }
      if (holdsWrites || kind[index] === WindowKind.flush || (flags[index]! & CommandFlag.fua) !== 0) {
        due ??= [];
        due.push(cookieHigh[index]!, cookieLow[index]!);
      } else {
        this.#replies.ok(cookieHigh[index]!, cookieLow[index]!);
      }
    }
    this.#volume.changes++;
    if (due !== undefined) this.#answerDurable(due, window.count === 1 && kind[0] === WindowKind.flush);
  }

  /** A lone flush is worth blocking for: it saves the way through the thread pool. All others share a sync. */
  #answerDurable(cookies: number[], alone: boolean): void {
    const volume = this.#volume;
    const coversLsn = volume.gate.newestLsn;
    if (alone && volume.syncs.waiting === 0) {
      try {
        volume.syncs.syncNow();
      } catch (error) {
        if (!(error instanceof TidemarkError)) throw error;
        this.#answer(cookies, 'device-failed');
        return;
      }
      if (volume.gate.mode === 'open') this.#answer(cookies, undefined);
      else this.#answerHeld(cookies, coversLsn);
      return;
    }
    volume.syncs.sync().then(
      () => this.#answerHeld(cookies, coversLsn),
      (error: unknown) => {
        if (!(error instanceof TidemarkError)) throw error;
        this.#answerLater(cookies, 'device-failed');
      },
    );
  }

  /** It is durable here. The journal may fail while the far side is waited for: then nobody is answered well (D4). */
  #answerHeld(cookies: number[], coversLsn: Lsn): void {
    const volume = this.#volume;
    volume.gate.hold(coversLsn, (code) => {
      this.#answerLater(cookies, code ?? (volume.poisoned ? 'device-failed' : undefined));
    });
  }

  #answerLater(cookies: number[], code: ErrorCode | undefined): void {
    if (!this.#attached) return;
    this.#answer(cookies, code);
    this.#replies.send();
  }

  #answer(cookies: number[], code: ErrorCode | undefined): void {
    for (let at = 0; at < cookies.length; at += 2) {
      if (code === undefined) this.#replies.ok(cookies[at]!, cookies[at + 1]!);
      else this.#replies.fail(cookies[at]!, cookies[at + 1]!, code);
    }
  }

  /** Passes over what still comes of a request that has failed; returns how many entries of the window that are. */
  #failBroken(window: RequestWindow, code: ErrorCode): number {
    for (let index = 0; index < window.count; index++) {
      if (window.part[index] !== WindowPart.last) continue;
      this.#brokenBy = undefined;
      this.#replies.fail(window.cookieHigh[index]!, window.cookieLow[index]!, code);
      return index + 1;
    }
    return window.count;
  }

  /** A request whose last piece will not come has no effect (DESIGN rule 5). */
  #abandonOpen(): void {
    if (this.#open.id !== 0) this.#volume.abandonRequest(this.#open.id);
    this.#open.id = 0;
    this.#pieces = [];
  }

  #failFrom(window: RequestWindow, from: number, code: ErrorCode): void {
    this.#abandonOpen();
    for (let index = from; index < window.count; index++) {
      if (window.part[index] === WindowPart.more) {
        this.#brokenBy = code;
        continue;
      }
      this.#brokenBy = undefined;
      this.#replies.fail(window.cookieHigh[index]!, window.cookieLow[index]!, code);
    }
  }
}
