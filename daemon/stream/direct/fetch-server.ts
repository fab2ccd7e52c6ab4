import { TidemarkError } from '../../../journal/base/errors.ts';
import type { Lsn } from '../../../journal/position.ts';
import type { DirectConnection } from './direct-connection.ts';
import { type Message, MessageType, type Refusal, readLsn } from './direct-protocol.ts';

/** Answers the other end's `fetch`: frames of ours from an LSN on, one for each `fetchNext`. One fetch at a time. */
export class FetchServer {
  readonly #framesFrom: (fromLsn: Lsn) => AsyncIterable<Uint8Array>;
  #fetch: { readonly id: number; readonly frames: AsyncIterator<Uint8Array> } | undefined;

  constructor(framesFrom: (fromLsn: Lsn) => AsyncIterable<Uint8Array>) {
    this.#framesFrom = framesFrom;
  }

  /** True when the message was a question. */
  take(connection: DirectConnection, message: Message): boolean {
    const type: number = message.type;
    switch (type) {
      case MessageType.fetch:
        this.stop();
        this.#fetch = {
          id: message.tag,
          frames: this.#framesFrom(readLsn(message.body))[Symbol.asyncIterator](),
        };
        this.#sendNext(connection);
        return true;
      case MessageType.fetchNext:
        if (this.#fetch?.id === message.tag) this.#sendNext(connection);
        return true;
      case MessageType.fetchStop:
        if (this.#fetch?.id === message.tag) this.stop();
        return true;
      default:
        return false;
    }
  }

  /** Nobody waits for the rest any more. */
  stop(): void {
    const fetch = this.#fetch;
    this.#fetch = undefined;
    fetch?.frames.return?.().catch((error: unknown) => {
      if (!(error instanceof TidemarkError)) throw error;
    });
  }

  #sendNext(connection: DirectConnection): void {
    const fetch = this.#fetch!;
    const end = (refusal: Refusal): void => {
      if (this.#fetch !== fetch) return;
      connection.send(MessageType.fetchEnd, fetch.id, refusal);
      this.#fetch = undefined;
    };
    fetch.frames.next().then(
      (result) => {
        if (result.done === true) end({ code: 'stream-refused', reason: '' });
        else if (this.#fetch === fetch) connection.sendFrame(MessageType.fetched, fetch.id, result.value);
      },
      (error: unknown) => {
        if (!(error instanceof TidemarkError)) throw error;
        end({ code: error.code, reason: error.message });
      },
    );
  }
}
