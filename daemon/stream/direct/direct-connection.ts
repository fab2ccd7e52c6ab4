import { TidemarkError } from '../../../journal/base/errors.ts';
import type { Clock, Timer } from '../../../journal/host/host.ts';
import {
  encodeHeader,
  encodeMessage,
  type Message,
  MessageParser,
  MessageType,
  type Refusal,
} from './direct-protocol.ts';
import type { Wire } from './wire.ts';

export interface ConnectionTimes {
  /** Something is said at least this often. */
  readonly aliveMs: number;
  /** An end that was not heard for so long is dead, whatever its kernel says. */
  readonly deadAfterMs: number;
}

export const CONNECTION_TIMES: ConnectionTimes = { aliveMs: 2_000, deadAfterMs: 10_000 };

export interface ConnectionEvents {
  /** May throw a `TidemarkError` of `stream-unavailable`: the connection is closed for it. */
  onMessage(message: Message): void;
  /** After `send` said false: more may be sent. */
  onDrain(): void;
  /** Once, unless we closed it. */
  onClose(reason: string): void;
}

/** A wire that carries messages and notices when the other end is gone. */
export class DirectConnection {
  readonly remote: string;
  readonly #clock: Clock;
  readonly #wire: Wire;
  readonly #times: ConnectionTimes;
  readonly #parser = new MessageParser();
  #events: ConnectionEvents;
  #heardMs: number;
  #timer: Timer;
  #blocked = false;
  #closed = false;

  constructor(clock: Clock, wire: Wire, times: ConnectionTimes, events: ConnectionEvents) {
    this.remote = wire.remote;
    this.#clock = clock;
    this.#wire = wire;
    this.#times = times;
    this.#events = events;
    this.#heardMs = clock.monotonicMs();
    this.#timer = clock.after(times.aliveMs, () => this.#tick());
    wire.open({
      onBytes: (bytes) => this.#onBytes(bytes),
      onDrain: () => {
        this.#blocked = false;
        this.#events.onDrain();
      },
      onClose: (reason) => this.#broke(reason),
    });
  }

  /** More is waiting to go out than is good. */
  get blocked(): boolean {
    return this.#blocked;
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** Hands the connection on to somebody else. */
  setEvents(events: ConnectionEvents): void {
    this.#events = events;
  }

  send(type: MessageType, tag = 0, body?: object): void {
    if (this.#closed) return;
    this.#blocked = !this.#wire.send(encodeMessage(type, tag, body));
  }

  /** The frame's bytes are not copied. */
  sendFrame(type: MessageType, tag: number, frame: Uint8Array): void {
    if (this.#closed) return;
    this.#wire.send(encodeHeader(type, tag, frame));
    this.#blocked = !this.#wire.send(frame);
  }

  /** Says why and closes. */
  refuse(refusal: Refusal): void {
    this.send(MessageType.refuse, 0, refusal);
    this.close();
  }

  /** No event comes afterwards; idempotent. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#timer.cancel();
    this.#wire.close();
  }

  #onBytes(bytes: Uint8Array): void {
    if (this.#closed) return;
    this.#heardMs = this.#clock.monotonicMs();
    try {
      this.#parser.push(bytes, (message) => {
        this.#events.onMessage(message);
        return !this.#closed;
      });
    } catch (error) {
      if (!(error instanceof TidemarkError)) throw error;
      this.#broke(error.message);
    }
  }

  #tick(): void {
    const silentMs = this.#clock.monotonicMs() - this.#heardMs;
    if (silentMs >= this.#times.deadAfterMs) {
      this.#broke(`nothing was heard for ${Math.round(silentMs)} ms`);
      return;
    }
    if (!this.#blocked) this.send(MessageType.alive);
    this.#timer = this.#clock.after(this.#times.aliveMs, () => this.#tick());
  }

  #broke(reason: string): void {
    if (this.#closed) return;
    this.close();
    this.#events.onClose(reason);
  }
}
