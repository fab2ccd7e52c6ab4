import { TidemarkError } from './base/errors.ts';
import type { WriterFile } from './file-pool.ts';
import type { Clock } from './host/host.ts';
import type { JournalAddress, Lsn } from './position.ts';

/** How far the writer has come. */
interface WrittenTo {
  readonly address: JournalAddress;
  readonly lsn: Lsn;
}

/** What a group commit needs from the writer and tells it. */
export interface GroupSyncHooks {
  written(): WrittenTo;
  /** Everything up to here is on stable storage; called before any waiter is told. */
  durable(to: WrittenTo, durationMs: number, waiters: number): void;
  failed(error: TidemarkError): TidemarkError;
}

interface Round {
  readonly promise: Promise<void>;
  readonly resolve: () => void;
  readonly reject: (error: TidemarkError) => void;
  waiters: number;
}

/**
 * Group commit: one fdatasync at a time, shared by everybody who waits, over every file written to since the last one.
 * Whoever comes while one is under way waits for the next: the running one may have begun before his bytes were there.
 */
export class GroupSync {
  readonly #clock: Clock;
  readonly #hooks: GroupSyncHooks;
  /** Written to since the last sync began. */
  readonly #dirty = new Set<WriterFile>();
  /** No longer written to: closed once synced. */
  readonly #retired = new Set<WriterFile>();
  #syncing: readonly WriterFile[] = [];
  #running: Round | undefined;
  #next: Round | undefined;

  constructor(clock: Clock, hooks: GroupSyncHooks) {
    this.#clock = clock;
    this.#hooks = hooks;
  }

  get running(): boolean {
    return this.#running !== undefined;
  }

  touched(file: WriterFile): void {
    this.#dirty.add(file);
  }

  retire(file: WriterFile): void {
    this.#retired.add(file);
  }

  /** Resolves when everything written before the call is durable. */
  sync(): Promise<void> {
    if (this.#running !== undefined) {
      this.#next ??= newRound();
      this.#next.waiters++;
      return this.#next.promise;
    }
    const round = newRound();
    round.waiters++;
    this.#start(round);
    return round.promise;
  }

  /** The same, blocking. Throws what `failed` makes of a failure. */
  now(): void {
    const to = this.#hooks.written();
    const files = new Set([...this.#syncing, ...this.#dirty]);
    const began = this.#clock.monotonicMs();
    try {
      for (const file of files) file.blockingSync.dataSyncSync();
    } catch (cause) {
      throw this.#hooks.failed(asSyncFailure(cause));
    }
    this.#dirty.clear();
    this.#hooks.durable(to, this.#clock.monotonicMs() - began, 1);
    this.#closeRetired(files);
  }

  /** Waits for a sync under way, whatever becomes of it, and closes every file it knows. */
  async close(): Promise<void> {
    while (this.#running !== undefined) await this.#running.promise.catch(ignoreTold);
    await Promise.all([...this.#dirty, ...this.#retired].map((file) => closeFile(file)));
    this.#dirty.clear();
    this.#retired.clear();
  }

  #start(round: Round): void {
    this.#running = round;
    // a background round has no waiter: its failure is told through `failed`
    round.promise.catch(ignoreTold);
    void this.#run(round);
  }

  async #run(round: Round): Promise<void> {
    const to = this.#hooks.written();
    const files = [...this.#dirty];
    this.#dirty.clear();
    this.#syncing = files;
    const began = this.#clock.monotonicMs();
    let failure: TidemarkError | undefined;
    try {
      for (const file of files) await file.file.dataSync();
    } catch (cause) {
      failure = this.#hooks.failed(asSyncFailure(cause));
    }
    this.#syncing = [];
    this.#running = undefined;
    if (failure !== undefined) {
      for (const file of files) this.#dirty.add(file);
      this.#next?.reject(failure);
      this.#next = undefined;
      round.reject(failure);
      return;
    }
    this.#closeRetired(files);
    this.#hooks.durable(to, this.#clock.monotonicMs() - began, round.waiters);
    round.resolve();
    const next = this.#next;
    this.#next = undefined;
    if (next !== undefined) this.#start(next);
  }

  #closeRetired(synced: Iterable<WriterFile>): void {
    for (const file of synced) {
      if (!this.#retired.has(file) || this.#dirty.has(file) || this.#syncing.includes(file)) continue;
      this.#retired.delete(file);
      void closeFile(file);
    }
  }
}

/** Closes both descriptors of a file. */
export async function closeFile(file: WriterFile): Promise<void> {
  await Promise.all([file.file.close(), file.blockingSync.close()]);
}

function newRound(): Round {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  return { promise, resolve, reject, waiters: 0 };
}

function asSyncFailure(cause: unknown): TidemarkError {
  if (cause instanceof TidemarkError) return cause;
  throw cause;
}

function ignoreTold(error: unknown): void {
  if (!(error instanceof TidemarkError)) throw error;
}
