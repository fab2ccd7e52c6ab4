import { TidemarkError } from '../../../journal/base/errors.ts';
import type { Clock, Timer } from '../../../journal/host/host.ts';
import type { Lsn } from '../../../journal/position.ts';
import type { DirectConnection } from './direct-connection.ts';
import { type Message, MessageType, readLsn, readRefusal } from './direct-protocol.ts';

interface Settling {
  readonly resolve: (answer: { highestLsn: Lsn }) => void;
  readonly reject: (error: TidemarkError) => void;
  readonly timer: Timer;
}

interface Fetching {
  readonly id: number;
  readonly connection: DirectConnection;
  answer: PromiseWithResolvers<Uint8Array | undefined>;
}

/**
 * What one end asks the other: a source at a start how far its replica came (settle), and either its frames from a
 * position on (fetch), to put back what is damaged.
 */
export class FarQuestions {
  readonly #clock: Clock;
  readonly #settling = new Map<number, Settling>();
  #fetching: Fetching | undefined;
  #nextId = 1;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Asked at once when connected, else as soon as a connection stands. */
  settle(connection: DirectConnection | undefined, timeoutMs: number): Promise<{ highestLsn: Lsn }> {
    return new Promise((resolve, reject) => {
      const id = this.#nextId++;
      const timer = this.#clock.after(timeoutMs, () => {
        this.#settling.delete(id);
        reject(new TidemarkError('stream-unavailable', `the replica did not answer within ${timeoutMs} ms`));
      });
      this.#settling.set(id, { resolve, reject, timer });
      connection?.send(MessageType.settle, id);
    });
  }

  /** Frame by frame: the next one is asked for when the last one was used up. One fetch at a time. */
  async *fetch(
    connection: DirectConnection | undefined,
    fromLsn: Lsn,
    signal: AbortSignal,
  ): AsyncGenerator<Uint8Array> {
    if (connection === undefined) throw new TidemarkError('stream-unavailable', 'the far side is not connected');
    if (this.#fetching !== undefined) throw new TidemarkError('precondition-failed', 'a fetch is already under way');
    const fetching: Fetching = { id: this.#nextId++, connection, answer: Promise.withResolvers() };
    const stop = (): void => fetching.answer.reject(new TidemarkError('cancelled', 'fetching was cancelled'));
    this.#fetching = fetching;
    signal.addEventListener('abort', stop);
    try {
      if (signal.aborted) stop();
      else connection.send(MessageType.fetch, fetching.id, { lsn: fromLsn });
      for (;;) {
        const frame = await fetching.answer.promise;
        if (frame === undefined) return;
        fetching.answer = Promise.withResolvers();
        yield frame;
        if (signal.aborted) stop();
        else if (connection.closed) throw new TidemarkError('stream-unavailable', 'the connection broke');
        else connection.send(MessageType.fetchNext, fetching.id);
      }
    } finally {
      signal.removeEventListener('abort', stop);
      connection.send(MessageType.fetchStop, fetching.id);
      this.#fetching = undefined;
    }
  }

  /** True when the message was an answer. */
  take(message: Message): boolean {
    const type: number = message.type;
    switch (type) {
      case MessageType.settled: {
        const settling = this.#settling.get(message.tag);
        if (settling === undefined) return true;
        const highestLsn = readLsn(message.body);
        this.#settling.delete(message.tag);
        settling.timer.cancel();
        settling.resolve({ highestLsn });
        return true;
      }
      case MessageType.fetched:
        if (this.#fetching?.id === message.tag) this.#fetching.answer.resolve(message.body);
        return true;
      case MessageType.fetchEnd: {
        const { code, reason } = readRefusal(message.body);
        if (this.#fetching?.id !== message.tag) return true;
        if (reason === '') this.#fetching.answer.resolve(undefined);
        else this.#fail(this.#fetching, new TidemarkError(code, `the far side cannot send its frames: ${reason}`));
        return true;
      }
      default:
        return false;
    }
  }

  connected(connection: DirectConnection): void {
    for (const id of this.#settling.keys()) connection.send(MessageType.settle, id);
  }

  disconnected(): void {
    if (this.#fetching === undefined) return;
    this.#fail(this.#fetching, new TidemarkError('stream-unavailable', 'the connection broke'));
  }

  close(): void {
    this.disconnected();
    for (const { reject, timer } of this.#settling.values()) {
      timer.cancel();
      reject(new TidemarkError('stream-unavailable', 'the stream was closed'));
    }
    this.#settling.clear();
  }

  /** Nobody may be waiting for the answer at this moment: then it is thrown when somebody does. */
  #fail(fetching: Fetching, error: TidemarkError): void {
    fetching.answer.promise.catch(() => undefined);
    fetching.answer.reject(error);
  }
}
