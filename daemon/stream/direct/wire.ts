/**
 * The network behind interfaces: a wire is one connection that carries bytes in order until it breaks. The real one is
 * tcp-wire.ts; the simulator has its own. Events never come inside a call to the wire.
 */
export interface Wire {
  /** Who is at the other end, for messages. */
  readonly remote: string;
  /** Once, soon after the wire was given; bytes that came before are not lost. */
  open(events: WireEvents): void;
  /** Takes all of it; false: more is waiting than is good, go on after `onDrain`. The bytes must not change any more. */
  send(bytes: Uint8Array): boolean;
  /** What was sent still goes out if the other end takes it soon. No event comes afterwards; idempotent. */
  close(): void;
}

export interface WireEvents {
  /** The bytes are valid during the call. */
  onBytes(bytes: Uint8Array): void;
  onDrain(): void;
  /** Once, unless we closed it. */
  onClose(reason: string): void;
}

export interface Dialer {
  /** Whom it dials, for messages. */
  readonly address: string;
  /** Rejects with `stream-unavailable`. */
  dial(timeoutMs: number): Promise<Wire>;
}

export interface WireListener {
  /** Resolves with the address once connections are taken; rejects with `stream-misconfigured`. */
  listen(onWire: (wire: Wire) => void): Promise<string>;
  /** Takes no more connections; those that stand are closed by whoever holds them. */
  close(): Promise<void>;
}
