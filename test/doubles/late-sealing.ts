import type { SealJob, SealPart } from '../../daemon/ship/frame-maker.ts';
import type { LocalSealing, SealRunner } from '../../daemon/ship/seal-runner.ts';
import type { Clock } from '../../journal/host/host.ts';

/** Sealing as a thread does it: begun later, and each part told later still, so that anything may happen in between. */
export class LateSealing implements SealRunner {
  readonly jobBytes: number = 64 * 1024;
  readonly #local: LocalSealing;
  readonly #clock: Clock;
  #jobs = 0;
  #closed = false;

  constructor(local: LocalSealing, clock: Clock) {
    this.#local = local;
    this.#clock = clock;
  }

  run(job: SealJob, onPart: (part: SealPart) => boolean): void {
    const number = ++this.#jobs;
    // no random numbers are drawn: a seed goes on meaning the same run
    this.#clock.after(number % 7, () => {
      const parts: SealPart[] = [];
      if (this.#closed) return;
      this.#local.run(job, (part) => {
        parts.push(part);
        return true;
      });
      this.#tell(parts, onPart, (3 * number) % 11);
    });
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#local.close();
  }

  #tell(parts: readonly SealPart[], onPart: (part: SealPart) => boolean, ms: number): void {
    const [part, ...rest] = parts;
    if (part === undefined) return;
    this.#clock.after(ms, () => {
      // a thread does not hear that nobody wants what follows: its parts come all the same
      if (this.#closed) return;
      onPart(part);
      this.#tell(rest, onPart, ms);
    });
  }
}
