/** What a handshake state machine, server or client, makes of the bytes it was shown. */
export interface HandshakeStep<Event> {
  /** Bytes taken from the front; the rest must be shown again together with what follows. 0: more is needed. */
  readonly consumed: number;
  /** To be sent, in order, before the event is acted on. */
  readonly send: readonly Uint8Array[];
  readonly event: Event | undefined;
}

/** One option as a client sends it: magic 8 | option 4 | length 4 | data. */
export function encodeOption(option: number, data: Uint8Array): Buffer {
  const bytes = Buffer.alloc(16 + data.length);
  bytes.write('IHAVEOPT', 0, 'latin1');
  bytes.writeUInt32BE(option, 8);
  bytes.writeUInt32BE(data.length, 12);
  bytes.set(data, 16);
  return bytes;
}

/** One option reply as a server sends it: magic 8 | option 4 | reply type 4 | length 4 | data. */
export function encodeOptionReply(option: number, reply: number, data: Uint8Array = EMPTY): Buffer {
  const bytes = Buffer.alloc(20 + data.length);
  bytes.writeUInt32BE(0x0003_e889, 0);
  bytes.writeUInt32BE(0x0455_65a9, 4);
  bytes.writeUInt32BE(option, 8);
  bytes.writeUInt32BE(reply, 12);
  bytes.writeUInt32BE(data.length, 16);
  bytes.set(data, 20);
  return bytes;
}

const EMPTY = new Uint8Array(0);
