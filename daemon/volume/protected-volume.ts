import { assert } from '../../journal/base/assert.ts';
import { type ErrorCode, TidemarkError } from '../../journal/base/errors.ts';
import type { BlockDevice, DeviceExtent } from '../../journal/block-device.ts';
import type { Appended, Journal } from '../../journal/journal.ts';
import { type JournalAddress, SECTOR_BYTES } from '../../journal/position.ts';
import type { ExportClient, ReplyPort } from '../nbd/export.ts';
import type { AckGate } from '../synchrony/ack-gate.ts';
import { ExtentMap, NO_SOURCE } from './extent-map.ts';
import type { SharedSync } from './shared-sync.ts';
import type { Throttle } from './throttle.ts';
import type { UnreadableStretches } from './unreadable-stretches.ts';
import { VolumeClient, type WritableVolume } from './volume-client.ts';
import type { Barrier } from './window-records.ts';

/** What a volume shares with the others of its group. */
export interface VolumeGroup {
  readonly journal: Journal;
  readonly syncs: SharedSync;
  readonly throttle: Throttle;
  readonly gate: AckGate;
  /** Ids for requests in pieces; unique within this run of the source. */
  readonly nextRequestId: () => number;
  /** The rest of a request in pieces will never come: nothing has to be kept for it. */
  readonly abandonRequest: (id: number) => void;
  /** Known to be damaged: nothing may be read from there. */
  readonly unreadable: UnreadableStretches;
}

/** Extents reported at once; what lies behind them is called data, which is always true enough. */
const EXTENTS_MAX = 65_536;

/**
 * One protected disk: what the guest wrote lately stands in the journal, the rest in the backing, and the overlay says
 * which. Writes are `VolumeClient`'s; this is the reading half and what all clients share.
 */
export class ProtectedVolume implements WritableVolume {
  readonly id: number;
  readonly name: string;
  /** Bytes. */
  readonly size: number;
  readonly backing: BlockDevice;
  readonly overlay: ExtentMap = new ExtentMap();
  readonly barrier: Barrier = { changed: true };
  readonly syncs: SharedSync;
  readonly throttle: Throttle;
  readonly gate: AckGate;
  readonly nextRequestId: () => number;
  readonly abandonRequest: (id: number) => void;
  /** Counts windows that changed the overlay. */
  changes = 0;
  /** Why nobody may use the volume now; undefined: open. */
  refusal: ErrorCode | undefined = 'precondition-failed';
  refusalReason = 'the volume is being opened';
  readonly #journal: Journal;
  readonly #unreadable: UnreadableStretches;
  readonly #clients: Set<ExportClient> = new Set();

  constructor(group: VolumeGroup, id: number, name: string, backing: BlockDevice) {
    this.id = id;
    this.name = name;
    this.size = backing.size;
    this.backing = backing;
    this.#journal = group.journal;
    this.#unreadable = group.unreadable;
    this.syncs = group.syncs;
    this.throttle = group.throttle;
    this.gate = group.gate;
    this.nextRequestId = group.nextRequestId;
    this.abandonRequest = group.abandonRequest;
  }

  get clients(): number {
    return this.#clients.size;
  }

  open(): void {
    this.refusal = undefined;
    this.refusalReason = '';
  }

  /** From now on every request and every new client is refused. */
  shut(code: ErrorCode, reason: string): void {
    this.refusal = code;
    this.refusalReason = reason;
  }

  /** Throws the refusal while the volume is shut. */
  attach(replies: ReplyPort): ExportClient {
    if (this.refusal !== undefined) {
      throw new TidemarkError(this.refusal, `volume ${this.name}: ${this.refusalReason}`);
    }
    const client = new VolumeClient(this, replies);
    this.#clients.add(client);
    return client;
  }

  left(client: ExportClient): void {
    this.#clients.delete(client);
  }

  append(slab: Buffer, start: number, end: number, count: number, changes: boolean): JournalAddress {
    const appended: Appended = this.#journal.appendInPlace(slab, start, end, count);
    if (changes) this.gate.appended(appended.lastLsn, end - start);
    return appended.address;
  }

  get poisoned(): boolean {
    return this.#journal.poisonedBy !== undefined;
  }

  /** What lies below `applied` is read from the backing from now on. */
  forgetBelow(applied: JournalAddress): void {
    this.overlay.deadBelow = applied;
    this.overlay.sweep();
  }

  /**
   * As `ExportClient.read`: at once when journal and page cache hold all of it. In one turn of the event loop nothing is
   * written in between, so nothing has to be laid over it afterwards.
   */
  read(offset: number, into: Uint8Array): undefined | Promise<void> {
    const start = offset / SECTOR_BYTES;
    const end = start + into.length / SECTOR_BYTES;
    assert(Number.isInteger(start) && Number.isInteger(end) && offset + into.length <= this.size, 'a read in sectors');
    if (this.refusal !== undefined) return Promise.reject(new TidemarkError(this.refusal, this.refusalReason));
    let misses: number[] | undefined;
    try {
      this.overlay.forEachRun(start, end, (from, to, source) => {
        if (source === NO_SOURCE) {
          if (this.backing.readNow?.(from * SECTOR_BYTES, part(into, from - start, to - start)) === true) return;
          misses ??= [];
          misses.push(from, to);
        } else {
          this.#readRun(source, from, to, start, into);
        }
      });
    } catch (error) {
      return Promise.reject(error);
    }
    if (misses === undefined) return undefined;
    return this.#readBacking(start, end, into, misses);
  }

  /**
   * Overlay over backing; cut off at a bound, the rest is called data. The overlay is asked first: what leaves it while
   * the backing answers may not be in that answer.
   */
  async extents(offset: number, length: number): Promise<DeviceExtent[]> {
    const start = offset / SECTOR_BYTES;
    const runs: number[] = [];
    this.overlay.forEachRun(start, start + length / SECTOR_BYTES, (from, to, source) => {
      runs.push((to - from) * SECTOR_BYTES, source);
    });
    const below = await this.backing.extents(offset, length);
    const extents: { length: number; kind: DeviceExtent['kind'] }[] = [];
    const add = (kind: DeviceExtent['kind'], bytes: number): void => {
      const last = extents.at(-1);
      if (last !== undefined && (last.kind === kind || extents.length >= EXTENTS_MAX)) {
        if (last.kind !== kind) last.kind = 'data';
        last.length += bytes;
      } else if (bytes > 0) {
        extents.push({ kind, length: bytes });
      }
    };
    let index = 0;
    /** Bytes of `below[index]` that were passed already. */
    let within = 0;
    for (let run = 0; run < runs.length; run += 2) {
      const source = runs[run + 1]!;
      if (source !== NO_SOURCE) add(source < 0 ? 'zero' : 'data', runs[run]!);
      for (let left = runs[run]!; left > 0; ) {
        const extent = below[index];
        assert(extent !== undefined, 'a backing maps all that was asked for');
        const bytes = Math.min(left, extent.length - within);
        if (source === NO_SOURCE) add(extent.kind, bytes);
        left -= bytes;
        within += bytes;
        if (within === extent.length) {
          index++;
          within = 0;
        }
      }
    }
    return extents;
  }

  #readRun(source: JournalAddress, from: number, to: number, start: number, into: Uint8Array): void {
    const at = (from - start) * SECTOR_BYTES;
    const bytes = (to - from) * SECTOR_BYTES;
    if (source < 0) {
      into.fill(0, at, at + bytes);
      return;
    }
    this.#refuseDoubtful(source);
    this.#unreadable.refuse(source, bytes);
    this.#journal.readInto(source, bytes, into, at);
  }

  /**
   * A read of the backing takes time, in which newer bytes may be written, and even reach the backing: what the journal
   * holds by then is laid over what came back, so that nothing acknowledged meanwhile is missed (invariant D6).
   */
  async #readBacking(start: number, end: number, into: Uint8Array, misses: number[]): Promise<void> {
    const { changes } = this;
    if (misses.length === 2) {
      await this.#readMiss(start, misses[0]!, misses[1]!, into);
    } else {
      const reads: Promise<void>[] = [];
      for (let at = 0; at < misses.length; at += 2)
        reads.push(this.#readMiss(start, misses[at]!, misses[at + 1]!, into));
      const results = await Promise.allSettled(reads);
      for (const result of results) if (result.status === 'rejected') throw result.reason;
    }
    if (this.changes === changes) return;
    this.overlay.forEachRun(start, end, (from, to, source) => {
      if (source !== NO_SOURCE) this.#readRun(source, from, to, start, into);
    });
  }

  #readMiss(start: number, from: number, to: number, into: Uint8Array): Promise<void> {
    return this.backing.read(from * SECTOR_BYTES, part(into, from - start, to - start));
  }

  /** After a failed sync the page cache may drop what was never written and show what lay there before. */
  #refuseDoubtful(source: JournalAddress): void {
    const why = this.#journal.poisonedBy;
    if (why !== 'sync-failed' && why !== 'device-failed') return;
    if (source < this.#journal.marks.address('durable')) return;
    throw new TidemarkError('device-failed', `volume ${this.name}: the journal failed, these bytes may be lost`);
  }
}

/** The bytes of the sectors [from, to) of a buffer. */
function part(bytes: Uint8Array, from: number, to: number): Uint8Array {
  const [start, end] = [from * SECTOR_BYTES, to * SECTOR_BYTES];
  return start === 0 && end === bytes.length ? bytes : bytes.subarray(start, end);
}
