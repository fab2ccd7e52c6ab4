import { Worker } from 'node:worker_threads';
import { BehaviorSubject, type Observable } from 'rxjs';
import { unreachable } from '../../journal/base/assert.ts';
import { TidemarkError } from '../../journal/base/errors.ts';
import type { Log } from '../telemetry/log.ts';
import { fromWireError, type Methods, RpcClient } from './rpc.ts';
import type { FromWorker } from './worker-messages.ts';

/** How a group's worker is. `error` says why it ended; a bug is an Error that is no TidemarkError. */
export type Health =
  | { readonly state: 'running' }
  /** `restarting`: a new worker is started after a pause, and recovers. */
  | { readonly state: 'failed'; readonly error: Error; readonly restarting: boolean }
  | { readonly state: 'stopped' };

export interface GroupHostOptions<Status> {
  readonly group: string;
  readonly file: URL;
  readonly workerData: unknown;
  readonly initial: Status;
  readonly log: Log;
}

/** How long a worker may take to leave after its data path has closed. */
const EXIT_WAIT_MS = 5000;
const RESTART_MS_FIRST = 1000;
const RESTART_MS_MAX = 30_000;

/**
 * The control plane's side of one group: starts its worker thread, keeps what it last reported, and notices its end.
 * A data path that ended by what the surroundings did (a failed sync, a full disk) is started again and recovers (rule
 * 14); one that needs a person, or met a bug, stays down. Nothing here waits for it without a time limit.
 */
export class GroupHost<Protocol extends Methods<Protocol>, Status> {
  readonly group: string;
  readonly #options: GroupHostOptions<Status>;
  readonly #status: BehaviorSubject<Status>;
  readonly #health = new BehaviorSubject<Health>({ state: 'running' });
  #worker: Worker;
  #rpc: RpcClient<Protocol>;
  #exited: Promise<void>;
  #reportedAt: number | undefined;
  #stopping = false;
  #restartMs = RESTART_MS_FIRST;
  #restart: NodeJS.Timeout | undefined;

  constructor(options: GroupHostOptions<Status>) {
    this.group = options.group;
    this.#options = options;
    this.#status = new BehaviorSubject(options.initial);
    [this.#worker, this.#rpc, this.#exited] = this.#start();
  }

  get rpc(): RpcClient<Protocol> {
    return this.#rpc;
  }

  get status(): Status {
    return this.#status.value;
  }

  get statusChanges(): Observable<Status> {
    return this.#status.asObservable();
  }

  get health(): Health {
    return this.#health.value;
  }

  get healthChanges(): Observable<Health> {
    return this.#health.asObservable();
  }

  /** Seconds since the worker last reported; null before the first report. */
  get ageSeconds(): number | null {
    return this.#reportedAt === undefined ? null : (performance.now() - this.#reportedAt) / 1000;
  }

  /** Takes a status that came as an answer to a call. */
  accept(status: Status): void {
    this.#reportedAt = performance.now();
    this.#status.next(status);
  }

  /** Ends the data path in order through `close`; a worker that does not leave after it is ended. */
  async stop(close: () => Promise<unknown>): Promise<void> {
    clearTimeout(this.#restart);
    if (!this.#stopping && this.health.state === 'running') {
      this.#stopping = true;
      try {
        await close();
      } catch (error) {
        if (!(error instanceof TidemarkError)) throw error;
        this.#options.log.error(
          { code: 'stop-unclean', group: this.group, error },
          'the data path did not close in order',
        );
        await this.#worker.terminate();
      }
    }
    const worker = this.#worker;
    const timer = setTimeout(() => void worker.terminate(), EXIT_WAIT_MS);
    await this.#exited;
    clearTimeout(timer);
  }

  /** Ends the thread at once; the journal is recovered at the next start. */
  async terminate(): Promise<void> {
    this.#stopping = true;
    clearTimeout(this.#restart);
    await this.#worker.terminate();
  }

  #start(): [Worker, RpcClient<Protocol>, Promise<void>] {
    const worker = new Worker(this.#options.file, { workerData: this.#options.workerData, name: this.group });
    const rpc = new RpcClient<Protocol>(worker);
    worker.on('message', (message: FromWorker<Status>) => this.#receive(rpc, message));
    worker.on('error', (error: unknown) =>
      this.#failed(rpc, error instanceof Error ? error : new Error(String(error))),
    );
    const exited = new Promise<void>((resolve) => {
      worker.once('exit', (code) => {
        this.#onExit(rpc, code);
        resolve();
      });
    });
    return [worker, rpc, exited];
  }

  #receive(rpc: RpcClient<Protocol>, message: FromWorker<Status>): void {
    switch (message.type) {
      case 'answer':
        rpc.answered(message);
        break;
      case 'status':
        this.accept(message.status);
        break;
      case 'log': {
        const { level, code, fields } = message;
        this.#options.log[level]({ code, group: this.group, ...fields }, message.message);
        break;
      }
      case 'ended':
        this.#failed(rpc, fromWireError(message.error));
        break;
      default:
        unreachable(message);
    }
  }

  #failed(rpc: RpcClient<Protocol>, error: Error): void {
    if (this.health.state !== 'running') return;
    const operating = error instanceof TidemarkError;
    const restarting = operating && error.next !== 'ask-operator' && !this.#stopping;
    const fields = {
      code: 'group-failed',
      group: this.group,
      reason: operating ? error.code : 'bug',
      restarting,
      error,
    };
    this.#options.log.fatal(fields, `the data path ended: ${error.message}`);
    this.#health.next({ state: 'failed', error, restarting });
    rpc.fail(operating ? error : ended(error.message));
    if (restarting) this.#restartLater();
  }

  #restartLater(): void {
    const exited = this.#exited;
    this.#restart = setTimeout(() => {
      // two data paths never run at once: the journal's lock would refuse the second anyway
      void exited.then(() => {
        if (this.#stopping) return;
        this.#options.log.info({ code: 'group-restart', group: this.group }, 'starting the data path again');
        [this.#worker, this.#rpc, this.#exited] = this.#start();
        this.#health.next({ state: 'running' });
      });
    }, this.#restartMs);
    this.#restartMs = Math.min(this.#restartMs * 2, RESTART_MS_MAX);
  }

  #onExit(rpc: RpcClient<Protocol>, code: number): void {
    if (this.health.state !== 'running') return;
    if (this.#stopping) {
      this.#health.next({ state: 'stopped' });
      rpc.fail(ended('it was stopped'));
    } else {
      this.#failed(rpc, new Error(`the worker ended without a word, exit code ${code}`));
    }
  }
}

function ended(reason: string): TidemarkError {
  return new TidemarkError('shutting-down', `the group's data path has ended: ${reason}`);
}
