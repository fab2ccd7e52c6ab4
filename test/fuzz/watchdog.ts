import { writeFileSync, writeSync } from 'node:fs';
import { isMainThread, Worker, workerData } from 'node:worker_threads';

/** An input that takes longer has hung. */
const HANG_MS = 10_000;

interface Shared {
  /** Runs so far; bytes of the input under way, 0 between runs. */
  readonly state: Int32Array;
  readonly input: Uint8Array;
  readonly path: string;
}

/** A thread that sees the main one stuck in one input, keeps that input, and ends the process. */
export class Watchdog {
  readonly #shared: Shared;
  readonly #worker: Worker;
  #runs = 0;

  /** `path`: where the input goes that hangs. */
  constructor(path: string, inputBytesMax: number) {
    this.#shared = {
      state: new Int32Array(new SharedArrayBuffer(8)),
      input: new Uint8Array(new SharedArrayBuffer(inputBytesMax)),
      path,
    };
    this.#worker = new Worker(new URL(import.meta.url), { workerData: this.#shared });
  }

  begin(input: Uint8Array): void {
    const { state, input: copy } = this.#shared;
    copy.set(input);
    this.#runs += 1;
    Atomics.store(state, 0, this.#runs);
    Atomics.store(state, 1, input.length + 1);
  }

  end(): void {
    Atomics.store(this.#shared.state, 1, 0);
  }

  async close(): Promise<void> {
    await this.#worker.terminate();
  }
}

function watch({ state, input, path }: Shared): void {
  let last = -1;
  setInterval(() => {
    const run = Atomics.load(state, 0);
    const bytes = Atomics.load(state, 1);
    if (bytes > 0 && run === last) {
      writeFileSync(path, input.slice(0, bytes - 1));
      // A worker's own stderr goes through the main thread, which is stuck.
      writeSync(2, `hang: an input ran for more than ${HANG_MS} ms; it is in ${path}\n`);
      process.kill(process.pid, 'SIGKILL');
    }
    last = run;
  }, HANG_MS);
}

if (!isMainThread && (workerData as Shared | undefined)?.path !== undefined) watch(workerData as Shared);
