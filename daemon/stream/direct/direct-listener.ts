import { assert } from '../../../journal/base/assert.ts';
import type { Clock } from '../../../journal/host/host.ts';
import { CONNECTION_TIMES, type ConnectionTimes, DirectConnection } from './direct-connection.ts';
import { type Hello, MessageType, readHello } from './direct-protocol.ts';
import { DirectSource } from './direct-source.ts';
import type { Wire, WireListener } from './wire.ts';

export interface DirectListenerOptions {
  readonly listener: WireListener;
  /** Frame bytes one group holds while its receiver is paused; default 8 MiB. */
  readonly windowBytes?: number;
  readonly times?: ConnectionTimes;
  /** How long a connection may take to say hello; default 10000. */
  readonly helloTimeoutMs?: number;
}

/** Which group a source end is for. */
export interface DirectGroup {
  readonly groupName: string;
  /** 32 hex digits; null: not known yet, the first source of that name brings it. */
  readonly groupId: string | null;
}

const WINDOW_BYTES = 8 * 1024 * 1024;
const HELLO_TIMEOUT_MS = 10_000;
/** Connections that have not said hello yet; more are closed at once. */
const STRANGERS_MAX = 64;

/** Takes the connections of sources and hands each to the group it names; unknown groups are told so. */
export class DirectListener {
  readonly #clock: Clock;
  readonly #options: DirectListenerOptions;
  readonly #groups: { group: DirectGroup; source: DirectSource }[] = [];
  readonly #strangers = new Set<DirectConnection>();
  #closed = false;

  constructor(clock: Clock, options: DirectListenerOptions) {
    this.#clock = clock;
    this.#options = options;
  }

  /** Resolves with the address; rejects with `stream-misconfigured`. */
  listen(): Promise<string> {
    return this.#options.listener.listen((wire) => this.#onWire(wire));
  }

  /** The stream of a group; one made for the same group before must be closed. */
  source(group: DirectGroup): DirectSource {
    const source = new DirectSource(this.#clock, { windowBytes: this.#options.windowBytes ?? WINDOW_BYTES });
    const at = this.#groups.findIndex((entry) => entry.group.groupName === group.groupName);
    if (at < 0) this.#groups.push({ group, source });
    else {
      assert(this.#groups[at]!.source.status().state === 'stopped', `group ${group.groupName} has a stream already`);
      this.#groups[at] = { group, source };
    }
    return source;
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    for (const connection of this.#strangers) connection.close();
    this.#strangers.clear();
    await Promise.all(this.#groups.map(({ source }) => source.close()));
    await this.#options.listener.close();
  }

  #onWire(wire: Wire): void {
    if (this.#closed || this.#strangers.size >= STRANGERS_MAX) {
      wire.close();
      return;
    }
    const forget = (): void => {
      timer.cancel();
      this.#strangers.delete(connection);
    };
    const connection = new DirectConnection(this.#clock, wire, this.#options.times ?? CONNECTION_TIMES, {
      onMessage: (message) => {
        forget();
        if (message.type === MessageType.hello) this.#onHello(connection, readHello(message.body));
        else connection.refuse({ code: 'stream-refused', reason: 'a source says hello first' });
      },
      onDrain: () => undefined,
      onClose: forget,
    });
    const timer = this.#clock.after(this.#options.helloTimeoutMs ?? HELLO_TIMEOUT_MS, () => {
      forget();
      connection.close();
    });
    this.#strangers.add(connection);
  }

  #onHello(connection: DirectConnection, hello: Hello): void {
    const found =
      this.#groups.find(({ group }) => group.groupId === hello.groupId) ??
      this.#groups.find(({ group }) => group.groupName === hello.groupName);
    if (found === undefined) {
      const reason = `this replica has no group '${hello.groupName}' (${hello.groupId}): add it to its configuration`;
      connection.refuse({ code: 'stream-refused', reason });
      return;
    }
    const objection = found.source.objection(hello);
    if (objection === undefined) found.source.attach(connection, hello);
    else connection.refuse(objection);
  }
}
