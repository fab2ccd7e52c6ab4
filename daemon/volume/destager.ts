import { TidemarkError } from '../../journal/base/errors.ts';
import type { BlockDevice } from '../../journal/block-device.ts';
import { delay, type Host, type Timer } from '../../journal/host/host.ts';
import type { JournalReader } from '../../journal/journal-reader.ts';
import type { Marks } from '../../journal/marks.ts';
import { type JournalAddress, type Lsn, SECTOR_BYTES } from '../../journal/position.ts';
import { RecordFlag, RecordKind } from '../../journal/record.ts';
import { type Checkpoint, type WrittenOut, writeCheckpoint } from './checkpoint.ts';
import { DestagePace } from './destage-pace.ts';
import { DestageWindow } from './destage-window.ts';
import { Drains } from './drains.ts';
import { nextHealthyBatch } from './healthy-batches.ts';
import { type AbandonedRequest, type Effect, JournalEffects } from './journal-effects.ts';
import type { StatePlace } from './state-file.ts';

/** What the destager needs of a journal. */
export interface DestageSource {
  reader(from: JournalAddress): JournalReader;
  readInto(address: JournalAddress, length: number, into: Uint8Array, offset: number): void;
}

export interface DestagerOptions {
  /** Where the checkpoint is kept. */
  readonly place: StatePlace;
  /** Payload bytes sorted together; 1 MiB or more. */
  readonly windowBytes: number;
  /** The backings are synced when so much of the journal was written to them, ... */
  readonly flushBytes: number;
  /** ... or so long after the last of it. */
  readonly flushAgeMs: number;
  /** 0: nothing waits for room, 1: a bound is reached; from a half on, syncs come early. */
  readonly pressure: () => number;
  /** Journal bytes that may wait while guests write fast; at that, and when they are quiet, writing out takes all the time it can. */
  readonly lagBytesMax: number;
  /** Whether what stands further on in the journal, and is durable, overwrites all of it: then it need not be written out. */
  readonly isOverwritten: (effect: Effect) => boolean;
  /** Told at every change of state, for status and alarms. */
  readonly onState: (state: DestageState) => void;
}

export interface DestageState {
  /** `failed`: the journal cannot be read, a person has to decide. */
  readonly state: 'running' | 'retrying' | 'failed' | 'stopped';
  readonly reason: string;
  readonly code?: string;
  /** With `journal-damaged`: where. */
  readonly address?: JournalAddress;
}

const RETRY_FIRST_MS = 100;
const RETRY_MOST_MS = 5_000;
/** Bytes taken into a window before the event loop gets a turn: of small writes half a millisecond, in which guests wait. */
const FILL_SLICE_BYTES = 512 * 1024;
const URGENT_FROM = 0.5;

/**
 * Writes the journal to the backings, behind what is durable and never ahead of it.
 *
 *   journal   ----|checkpoint----|applied-------|position---------|durable----|written
 *                  replay begins  synced in the  written to the
 *                  here           backings       backings, not synced
 *
 * One loop: fill a window, write it out, and now and then sync the backings and move the marks. The overlay answers
 * for everything above `applied`, so no read depends on what was written and not synced. When a backing fails, what it
 * was given since `applied` counts as lost: the loop waits a little and begins again from the checkpoint (DESIGN rule
 * 9), passing over what lies below `applied`. The checkpoint stays below the oldest open piece (rule 5).
 */
export class Destager {
  readonly #host: Host;
  readonly #source: DestageSource;
  readonly #marks: Marks;
  readonly #targets: ReadonlyMap<number, BlockDevice>;
  readonly #options: DestagerOptions;
  readonly #window: DestageWindow;
  /** Requests that will never be closed, by id. */
  readonly #abandoned: Map<number, AbandonedRequest> = new Map();
  #effects: JournalEffects = new JournalEffects(this.#abandoned);
  #reader: JournalReader;
  /** Effects of the batch read last that the window had no room for yet. */
  #pending: Effect[] = [];
  #pendingAt = 0;
  #windowEnd: Checkpoint;
  /** The oldest request that was open there: one that closes in an unfinished batch still is. */
  #windowOpen: Checkpoint | undefined;
  #position: Checkpoint;
  #positionOpen: Checkpoint | undefined;
  #applied: Checkpoint;
  #checkpoint: Checkpoint;
  readonly #dirty: Set<BlockDevice> = new Set();
  #dirtySinceMs = 0;
  readonly #drains = new Drains();
  #state: DestageState = { state: 'running', reason: '' };
  #retryMs = RETRY_FIRST_MS;
  #stopping = false;
  #wake: (() => void) | undefined;
  #moved = false;
  #running: Promise<void> | undefined;
  #destagedBytes = 0;
  readonly #pace: DestagePace;

  constructor(
    host: Host,
    source: DestageSource,
    marks: Marks,
    targets: ReadonlyMap<number, BlockDevice>,
    start: WrittenOut,
    options: DestagerOptions,
  ) {
    this.#host = host;
    this.#source = source;
    this.#marks = marks;
    this.#targets = targets;
    this.#options = options;
    this.#window = new DestageWindow(options.windowBytes);
    this.#pace = new DestagePace(host.clock, marks, options.lagBytesMax, options.pressure);
    this.#reader = source.reader(start.checkpoint.address);
    this.#windowEnd = start.checkpoint;
    this.#position = start.checkpoint;
    this.#applied = start.applied;
    this.#checkpoint = start.checkpoint;
  }

  get state(): DestageState {
    return this.#state;
  }

  /** Synced in the backings. */
  get applied(): Checkpoint {
    return this.#applied;
  }

  /** What a start would begin with. */
  get writtenOut(): WrittenOut {
    return { checkpoint: this.#checkpoint, applied: this.#applied };
  }

  /** Bytes written to the backings since the start. */
  get destagedBytes(): number {
    return this.#destagedBytes;
  }

  start(): void {
    const unsubscribe = this.#marks.onMove(() => this.#notify());
    this.#running = this.#run().finally(unsubscribe);
  }

  /** Resolves when everything up to record `lsn` is synced in its backing; rejects when a backing fails meanwhile. */
  drainTo(lsn: Lsn): Promise<void> {
    if (this.#applied.lsn >= lsn) return Promise.resolve();
    if (this.#stopping || this.#state.state === 'failed') {
      return Promise.reject(new TidemarkError('shutting-down', 'the write-out to the backings has stopped'));
    }
    const drained = this.#drains.add(lsn);
    this.#notify();
    return drained;
  }

  /** The sender of a request in pieces is gone: its pieces no longer hold the checkpoint. */
  abandonRequest(id: number, request: AbandonedRequest): void {
    this.#abandoned.set(id, request);
    this.#effects.abandon(id, request.incarnation);
    if (this.#unfinished === undefined) this.#windowOpen = this.#effects.oldestOpen;
    if (this.#windowEnd === this.#position) this.#positionOpen = this.#windowOpen;
    this.#notify();
  }

  /** Ends the loop behind the window under way and syncs once more; a failing backing does not hold it up. */
  async stop(): Promise<void> {
    this.#stopping = true;
    this.#notify();
    await this.#running;
    this.#drains.reject(new TidemarkError('shutting-down', 'the write-out to the backings has stopped'));
    await this.#reader.close();
    if (this.#state.state !== 'failed') this.#enter({ state: 'stopped', reason: this.#state.reason });
  }

  async #run(): Promise<void> {
    while (!this.#stopping) {
      try {
        this.#pace.begin();
        const moved = await this.#fill();
        if (moved) await this.#writeWindow();
        await this.#rest();
        if (this.#mustFlush(!moved)) await this.#flush();
        else if (!moved) await this.#sleep();
        if (this.#state.state === 'retrying' && this.#dirty.size === 0) this.#recovered();
      } catch (error) {
        if (!(error instanceof TidemarkError)) throw error;
        if (error.code === 'journal-damaged' || error.code === 'trimmed') {
          this.#fail(error);
          return;
        }
        await this.#beginAgain(error);
      }
    }
    try {
      if (this.#state.state === 'running') await this.#flush();
    } catch (error) {
      if (!(error instanceof TidemarkError)) throw error;
      this.#enter({ state: 'retrying', reason: error.message, code: error.code });
    }
  }

  /** Takes durable batches into the window until it is full; false when there is nothing new. */
  async #fill(): Promise<boolean> {
    let sliceBytes = 0;
    // the rest of a batch that filled the window before is new, too
    let moved = this.#unfinished !== undefined;
    for (;;) {
      if (!this.#placePending()) return true;
      if (sliceBytes >= FILL_SLICE_BYTES) {
        await delay(this.#host.clock, 0);
        if (this.#stopping) return moved;
        sliceBytes = 0;
      }
      const batch = nextHealthyBatch(this.#reader, this.#marks.address('durable'));
      if (batch === undefined) return moved;
      for (const record of batch) {
        this.#effects.feed(record, batch, (effect) => {
          if (effect.stamp >= this.#applied.address) this.#pending.push(effect);
        });
        sliceBytes += record.payload.length;
      }
      const end = { address: this.#reader.address, lsn: Math.max(batch.lastLsn, this.#windowEnd.lsn) };
      moved = true;
      if (!this.#placePending()) {
        this.#unfinished = end;
        return true;
      }
      this.#endWindow(end);
    }
  }

  /** The end of a batch whose effects are not all in a window yet. */
  #unfinished: Checkpoint | undefined;

  /** False when the window is full before the pending effects end. */
  #placePending(): boolean {
    while (this.#pendingAt < this.#pending.length) {
      if (!this.#place(this.#pending[this.#pendingAt]!)) return false;
      this.#pendingAt++;
    }
    this.#pending.length = 0;
    this.#pendingAt = 0;
    if (this.#unfinished !== undefined) this.#endWindow(this.#unfinished);
    this.#unfinished = undefined;
    return true;
  }

  #endWindow(end: Checkpoint): void {
    this.#windowEnd = end;
    this.#windowOpen = this.#effects.oldestOpen;
  }

  #place(effect: Effect): boolean {
    const device = this.#targets.get(effect.volume);
    // Only a detached volume has no target, and all of it was written before it was detached.
    if (device === undefined) return true;
    if (effect.kind !== RecordKind.write) {
      const keep = effect.kind === RecordKind.zero && (effect.flags & RecordFlag.noHole) !== 0;
      this.#window.zero(device, effect.sector, effect.sectors, keep);
    } else {
      const bytes = effect.sectors * SECTOR_BYTES;
      if (bytes > this.#window.freeBytes) return false;
      if (this.#options.isOverwritten(effect)) return true;
      const slot = this.#window.take(device, effect.sector, bytes);
      if (effect.payload === undefined) this.#source.readInto(effect.payloadAddress, bytes, slot, 0);
      else slot.set(effect.payload);
    }
    if (this.#dirty.size === 0) this.#dirtySinceMs = this.#host.clock.monotonicMs();
    this.#dirty.add(device);
    return true;
  }

  async #writeWindow(): Promise<void> {
    await this.#window.writeOut((bytes) => {
      this.#destagedBytes += bytes;
    });
    this.#window.clear();
    this.#position = this.#windowEnd;
    this.#positionOpen = this.#windowOpen;
  }

  #mustFlush(caughtUp: boolean): boolean {
    const ahead = this.#position.address - this.#applied.address;
    // a request was given up: nothing is to be written, and yet room comes free
    if (ahead === 0) return caughtUp && this.#reachable.address > this.#checkpoint.address;
    if (ahead < 0) return false;
    if (ahead >= this.#options.flushBytes) return true;
    if (this.#drains.waitsFor(this.#position.lsn)) return true;
    if (this.#options.pressure() >= URGENT_FROM && (caughtUp || ahead >= this.#options.flushBytes / 8)) return true;
    if (!caughtUp) return false;
    if (this.#dirty.size > 0) return this.#host.clock.monotonicMs() - this.#dirtySinceMs >= this.#options.flushAgeMs;
    // what held the checkpoint back is gone; no write may come that takes it along
    return this.#checkpoint.address < this.#applied.address && this.#reachable.address > this.#checkpoint.address;
  }

  /** Where the checkpoint may go when all up to the position is synced. */
  get #reachable(): Checkpoint {
    const open = this.#positionOpen;
    return open !== undefined && open.address < this.#position.address ? open : this.#position;
  }

  /** Backings first, then the durable checkpoint, then the marks that everybody sees. */
  async #flush(): Promise<void> {
    const reached = this.#position;
    if (reached.address < this.#applied.address) return;
    const results = await Promise.allSettled([...this.#dirty].map((device) => device.flush()));
    for (const result of results) if (result.status === 'rejected') throw result.reason;
    const checkpoint = this.#reachable;
    if (checkpoint.address > this.#checkpoint.address) {
      await writeCheckpoint(this.#host, this.#options.place, { checkpoint, applied: reached });
      this.#checkpoint = checkpoint;
    }
    for (const [id, { lastLsn }] of this.#abandoned) if (lastLsn <= checkpoint.lsn) this.#abandoned.delete(id);
    this.#applied = reached;
    this.#dirty.clear();
    this.#marks.advanceAddress('applied', reached.address);
    this.#marks.advanceAddress('checkpoint', this.#checkpoint.address);
    this.#marks.advanceLsn('checkpoint', this.#checkpoint.lsn);
    this.#drains.reached(reached.lsn);
  }

  async #beginAgain(error: TidemarkError): Promise<void> {
    this.#enter({ state: 'retrying', reason: error.message, code: error.code });
    this.#drains.reject(error);
    this.#window.clear();
    this.#pending.length = 0;
    this.#pendingAt = 0;
    this.#unfinished = undefined;
    this.#effects = new JournalEffects(this.#abandoned);
    this.#reader.seek(this.#checkpoint.address);
    this.#position = this.#checkpoint;
    this.#positionOpen = undefined;
    this.#windowEnd = this.#checkpoint;
    this.#windowOpen = undefined;
    const retryMs = this.#retryMs;
    this.#retryMs = Math.min(retryMs * 2, RETRY_MOST_MS);
    await this.#sleep(retryMs);
  }

  #recovered(): void {
    this.#retryMs = RETRY_FIRST_MS;
    this.#enter({ state: 'running', reason: '' });
  }

  #fail(error: TidemarkError): void {
    const address = error.details['address'];
    const where = typeof address === 'number' ? { address } : {};
    this.#enter({ state: 'failed', reason: error.message, code: error.code, ...where });
    this.#drains.reject(error);
  }

  #enter(state: DestageState): void {
    this.#state = state;
    this.#options.onState(state);
  }

  #notify(): void {
    this.#moved = true;
    this.#wake?.();
  }

  async #rest(): Promise<void> {
    const ms = this.#drains.areWaiting ? 0 : this.#pace.restMs(this.#position.address);
    if (ms >= 1) await this.#sleep(ms, () => this.#drains.areWaiting);
  }

  /** Until something moves or a sync becomes due by its age; with `ms`: that long, or until `stop`. */
  async #sleep(ms?: number, mayEnd = () => false): Promise<void> {
    if (this.#stopping || (ms === undefined && this.#moved)) {
      this.#moved = false;
      return;
    }
    const untilDue =
      this.#dirty.size === 0
        ? undefined
        : Math.max(1, this.#dirtySinceMs + this.#options.flushAgeMs - this.#host.clock.monotonicMs());
    let timer: Timer | undefined;
    await new Promise<void>((resolve) => {
      this.#wake = () => {
        if (ms === undefined || this.#stopping || mayEnd()) resolve();
      };
      const waitMs = ms ?? untilDue;
      if (waitMs !== undefined) timer = this.#host.clock.after(waitMs, resolve);
    });
    timer?.cancel();
    this.#wake = undefined;
    this.#moved = false;
  }
}
