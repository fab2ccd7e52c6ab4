import { parentPort } from 'node:worker_threads';
import { assert } from '../../journal/base/assert.ts';
import { TidemarkError } from '../../journal/base/errors.ts';
import { answerCall, type Handlers, type Methods, toWireError } from './rpc.ts';
import type { FromWorker, LogMessage, ToWorker } from './worker-messages.ts';

/** The data path's end of the port, inside the worker. */
export interface WorkerSide<Status> {
  readonly log: (level: LogMessage['level'], code: string, message: string, fields?: Record<string, unknown>) => void;
  /** Sends the status now, and every `intervalMs` from then on. */
  reportEvery(intervalMs: number, status: () => Status | Promise<Status>): void;
  /** Runs the calls that come in. */
  serve<Protocol extends Methods<Protocol>>(handlers: Handlers<Protocol>): void;
  /** Says why the data path ends by itself, and lets the thread end. What is not an operating error is thrown on. */
  end(error: unknown): void;
  /** Nothing more comes: the thread ends when its other work has. */
  close(): void;
}

export function workerSide<Status>(): WorkerSide<Status> {
  const port = parentPort;
  assert(port !== null, 'a group worker runs only inside a worker thread');
  let reporting: NodeJS.Timeout | undefined;
  const post = (message: FromWorker<Status>): void => port.postMessage(message);
  const close = (): void => {
    clearInterval(reporting);
    port.close();
  };
  return {
    log: (level, code, message, fields = {}) => post({ type: 'log', level, code, message, fields }),
    reportEvery: (intervalMs, status) => {
      clearInterval(reporting);
      let underWay = false;
      const report = async (): Promise<void> => {
        if (underWay) return;
        underWay = true;
        post({ type: 'status', status: await status() });
        underWay = false;
      };
      const run = (): void => void report().catch(throwOutside);
      run();
      reporting = setInterval(run, intervalMs);
    },
    serve: (handlers) => {
      port.on('message', (call: ToWorker) => {
        answerCall(handlers, call, port).catch(throwOutside);
      });
    },
    end: (error) => {
      if (!(error instanceof TidemarkError)) throw error;
      post({ type: 'ended', error: toWireError(error) });
      close();
    },
    close,
  };
}

/** Out of the promise, so that a bug ends the thread. */
function throwOutside(error: unknown): void {
  setImmediate(() => {
    throw error;
  });
}
