import { Worker } from 'node:worker_threads';
import type { SealedFrame, SealerOptions } from '../../journal/frame-sealer.ts';
import type { SourceIdentity } from '../../journal/stream.ts';
import type { SealJob, SealPart } from '../ship/frame-maker.ts';
import type { LocalSealing, SealRunner } from '../ship/seal-runner.ts';
import { fromWireError, type WireError } from '../worker/rpc.ts';
import { workerFile } from '../worker/worker-file.ts';
import { FrameSlots } from './frame-slots.ts';

/** What the thread has to know of a lane before its first job. */
export interface SealLane {
  /** Of the journal. */
  readonly directory: string;
  readonly fileBytes: number;
  readonly identity: SourceIdentity;
  readonly sealer: SealerOptions;
  /** Where frames are to be made while there is room; absent: each in memory of its own. */
  readonly slots: SharedArrayBuffer | undefined;
}

/** What the thread is told. `open` comes with the first job of a lane. */
export interface SealOrder {
  readonly lane: number;
  /** Of this job among all of its lane: parts of one that nobody wants any more may still be on their way. */
  readonly number: number;
  readonly open?: SealLane;
  readonly job: SealJob;
}

/** What it answers. */
export interface SealedPart {
  readonly lane: number;
  readonly number: number;
  readonly part: Omit<SealPart, 'error' | 'frame'> & { readonly error?: WireError; readonly frame?: Told };
}

/** A frame, or where it stands. */
export type Told = SealedFrame | (Omit<SealedFrame, 'bytes'> & { readonly slot: number; readonly length: number });

/** Less than this is done at once: waking a thread and being woken costs as much as reading and sealing it. */
const THREAD_FROM_BYTES: number = 128 * 1024;
/** Bytes read for one job: some milliseconds in which nothing else can be asked of the thread. */
const JOB_BYTES: number = 4 * 1024 * 1024;

let worker: Worker | undefined;
let lanes = 0;
const waiting = new Map<number, Waiter>();
const slotsOf = new Map<number, FrameSlots>();

interface Waiter {
  readonly number: number;
  readonly onPart: (part: SealPart) => boolean;
}

/**
 * Large jobs of a lane on a thread of its own, one for all lanes of a group, started when the first comes: reading,
 * checking, compressing and checksumming a MiB takes a millisecond, in which a guest would wait. Small ones are done here,
 * so that a group with little to do has no such thread.
 */
export class ThreadSealing implements SealRunner {
  readonly jobBytes: number = JOB_BYTES;
  readonly #lane: Omit<SealLane, 'slots'>;
  readonly #releases: boolean;
  readonly #local: LocalSealing;
  readonly #id: number;
  #jobs = 0;

  /** `releases`: the lane's stream says when it has done with a frame, which may then stand in memory used again. */
  constructor(lane: Omit<SealLane, 'slots'>, releases: boolean, local: LocalSealing) {
    this.#id = ++lanes;
    this.#local = local;
    this.#lane = lane;
    this.#releases = releases;
  }

  run(job: SealJob, onPart: (part: SealPart) => boolean): void {
    if (job.limit - job.place.address < THREAD_FROM_BYTES) {
      this.#local.run(job, onPart);
      return;
    }
    worker ??= start();
    const number = ++this.#jobs;
    waiting.set(this.#id, { number, onPart });
    const order: SealOrder = { lane: this.#id, number, job, ...(number > 1 ? {} : { open: this.#open() }) };
    worker.postMessage(order);
  }

  #open(): SealLane {
    if (this.#releases) slotsOf.set(this.#id, new FrameSlots());
    return { ...this.#lane, slots: slotsOf.get(this.#id)?.memory };
  }

  close(): Promise<void> {
    waiting.delete(this.#id);
    slotsOf.delete(this.#id);
    return this.#local.close();
  }
}

function start(): Worker {
  const started = new Worker(workerFile('./seal-worker.ts', import.meta.url), {
    name: 'seal',
    // it holds a batch of the journal and a frame for each lane
    resourceLimits: { maxOldGenerationSizeMb: 64, maxYoungGenerationSizeMb: 8 },
  });
  started.on('message', ({ lane, number, part }: SealedPart) => {
    const waiter = waiting.get(lane);
    const whole = asPart(part, slotsOf.get(lane));
    if (waiter?.number !== number) {
      whole.frame?.release?.();
      return;
    }
    if (part.last) waiting.delete(lane);
    waiter.onPart(whole);
  });
  // a bug: it ends the group's thread, as it would have there
  started.on('error', (error) => {
    throw error;
  });
  started.on('exit', (code) => {
    worker = undefined;
    if (waiting.size > 0) throw new Error(`the sealing thread ended with ${code}`);
  });
  // whoever waits for it has other things that keep the group's thread alive
  started.unref();
  return started;
}

function asPart({ error, frame, ...part }: SealedPart['part'], slots: FrameSlots | undefined): SealPart {
  return {
    ...part,
    ...(error === undefined ? {} : { error: fromWireError(error) }),
    ...(frame === undefined ? {} : { frame: asFrame(frame, slots) }),
  };
}

function asFrame(frame: Told, slots: FrameSlots | undefined): SealedFrame {
  if (!('slot' in frame) || slots === undefined) return frame as SealedFrame;
  const { slot, length, ...rest } = frame;
  return { ...rest, bytes: slots.bytes(slot, length), release: () => slots.free(slot) };
}
