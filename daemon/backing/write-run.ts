import { Worker } from 'node:worker_threads';
import { workerFile } from '../worker/worker-file.ts';

/** Numbers per write in `places`: byte offset in the file, byte offset in the memory, length. */
export const PLACE_FIELDS = 3;

/** What the thread is told. */
export interface WriteRun {
  readonly id: number;
  readonly fd: number;
  readonly memory: SharedArrayBuffer;
  readonly places: Float64Array;
}

/** What it answers: '' or an errno. */
export interface WriteRunEnd {
  readonly id: number;
  readonly errno: string;
}

interface Waiter {
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

let worker: Worker | undefined;
let lastId = 0;
const waiting = new Map<number, Waiter>();

/**
 * Does many writes on a thread of its own, started at the first use: one wake-up for thousands of them. Through the
 * thread pool each 4 KiB write cost two task switches and a chain of promises, a third of the source's CPU under small
 * random writes; on the caller's thread a disk that hangs would hold up its guests.
 *
 * Rejects with an Error that carries `code`, as those of node:fs do, when no more is under way. Neither the descriptor
 * may be closed nor the memory change before that.
 */
export function writeRun(fd: number, memory: SharedArrayBuffer, places: Float64Array): Promise<void> {
  worker ??= start();
  const id = ++lastId;
  // an idle thread keeps no process alive, one at work does
  worker.ref();
  worker.postMessage({ id, fd, memory, places } satisfies WriteRun);
  return new Promise((resolve, reject) => {
    waiting.set(id, { resolve, reject });
  });
}

function start(): Worker {
  const started = new Worker(workerFile('./write-worker.ts', import.meta.url), {
    name: 'write-out',
    // it holds a list of places and no more
    resourceLimits: { maxOldGenerationSizeMb: 32, maxYoungGenerationSizeMb: 4 },
  });
  started.on('message', ({ id, errno }: WriteRunEnd) => {
    const waiter = waiting.get(id);
    waiting.delete(id);
    if (waiting.size === 0) started.unref();
    if (errno === '') waiter?.resolve();
    else waiter?.reject(Object.assign(new Error(`${errno} in the write-out thread`), { code: errno }));
  });
  const ended = (reason: Error): void => {
    if (worker !== started) return;
    worker = undefined;
    for (const [id, waiter] of waiting) {
      waiting.delete(id);
      waiter.reject(reason);
    }
  };
  started.on('error', ended);
  started.on('exit', (code) => ended(new Error(`the write-out thread ended with ${code}`)));
  return started;
}
