import type { FrameMaker, SealJob, SealPart } from './frame-maker.ts';

/** Who does the jobs of a lane, one at a time. */
export interface SealRunner {
  /** Bytes of the journal that are read for one job at most. */
  readonly jobBytes: number;
  /**
   * Parts come in order, within this call or later; the last one says so. `onPart` returns false when nobody wants what
   * follows.
   */
  run(job: SealJob, onPart: (part: SealPart) => boolean): void;
  close(): Promise<void>;
}

/** A guest's request waits so long at most: two milliseconds. */
const JOB_BYTES = 2 * 1024 * 1024;

/** On the caller's thread, within the call. */
export class LocalSealing implements SealRunner {
  readonly jobBytes: number = JOB_BYTES;
  readonly #make: () => FrameMaker;
  #maker: FrameMaker | undefined;

  constructor(make: () => FrameMaker) {
    this.#make = make;
  }

  run(job: SealJob, onPart: (part: SealPart) => boolean): void {
    this.#maker ??= this.#make();
    for (const part of this.#maker.run(job)) {
      if (!onPart(part)) return;
    }
  }

  close(): Promise<void> {
    this.#maker?.forget();
    return Promise.resolve();
  }
}
