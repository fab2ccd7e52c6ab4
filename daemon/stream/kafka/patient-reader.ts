import { hasCode } from '../../../journal/base/errors.ts';
import { type Host } from '../../../journal/host/host.ts';
import { type LogBounds, type LogReader, type LogRecord } from './log-ports.ts';
import { RetryDelay } from './retry-delay.ts';

/** A reader that rides out `stream-unavailable` until it is told to give up. */
export class PatientReader implements LogReader {
  readonly #host: Host;
  readonly #reader: LogReader;
  readonly #giveUp: AbortSignal;

  constructor(host: Host, reader: LogReader, giveUp: AbortSignal) {
    this.#host = host;
    this.#reader = reader;
    this.#giveUp = giveUp;
  }

  bounds(): Promise<LogBounds | undefined> {
    return this.#patiently(() => this.#reader.bounds());
  }

  read(from: bigint, bytesMax: number, waitMs: number): Promise<{ records: LogRecord[]; end: bigint }> {
    return this.#patiently(() => this.#reader.read(from, bytesMax, waitMs));
  }

  reset(): void {
    this.#reader.reset();
  }

  close(): void {
    this.#reader.close();
  }

  async #patiently<T>(ask: () => Promise<T>): Promise<T> {
    const retry = new RetryDelay(this.#host.clock, this.#host.random);
    for (;;) {
      try {
        return await ask();
      } catch (error) {
        if (this.#giveUp.aborted || !hasCode(error, 'stream-unavailable')) throw error;
        this.#reader.reset();
        await retry.wait(error);
        if (this.#giveUp.aborted) throw error;
      }
    }
  }
}
