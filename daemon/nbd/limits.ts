/** Every bound that keeps a hostile or stuck client from growing anything. */
export interface NbdLimits {
  /** Connections of one server, those still haggling included (QEMU's CVE-2024-7409). */
  readonly connectionsMax: number;
  /** From accept to the transmission phase, TLS included. */
  readonly handshakeMs: number;
  /** A request that has begun must grow by at least a byte in this time. */
  readonly requestProgressMs: number;
  /** Options of one handshake. */
  readonly optionsMax: number;
  /** Bytes of one option's data that are looked at; a longer option is skipped and answered ERR_TOO_BIG. */
  readonly optionBytesMax: number;
  /** Bytes of all replies of one handshake: names times options is an amplifier. */
  readonly handshakeReplyBytesMax: number;
  /** What one read of a socket takes at most, and so the longest request that is not cut into parts. */
  readonly windowBytes: number;
  /** Requests of a connection taken and not answered; above it the socket is not read. */
  readonly inFlightMax: number;
  /** Bytes of replies a client has not taken; above it nothing more is read from the socket or the export. */
  readonly outputBytesMax: number;
  /** Bytes of reads that an export answers later, per connection. */
  readonly readBytesMax: number;
  /** At shutdown, accepted requests and their replies have this long. */
  readonly drainMs: number;
}

export const NBD_LIMITS: NbdLimits = {
  connectionsMax: 100,
  handshakeMs: 10_000,
  requestProgressMs: 60_000,
  optionsMax: 256,
  optionBytesMax: 16 * 1024,
  handshakeReplyBytesMax: 4 * 1024 * 1024,
  windowBytes: 256 * 1024,
  inFlightMax: 4096,
  outputBytesMax: 4 * 1024 * 1024,
  readBytesMax: 8 * 1024 * 1024,
  drainMs: 5_000,
};
