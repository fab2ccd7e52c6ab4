import { Socket, type SocketConstructorOpts } from 'node:net';

/** Where the bytes of an accepted connection go. */
export interface SocketReader {
  /** Where the next read goes. */
  room(): Uint8Array;
  /** So many bytes were read into what `room` returned; false pauses the socket. */
  filled(bytes: number, into: Uint8Array): boolean;
}

/**
 * Wraps a connection accepted with `pauseOnConnect` so that the kernel copies straight into the reader's memory. Node
 * gives this `onread` to clients only; taking over the accepted handle is the way its own server makes its sockets.
 */
export function readDirectly(accepted: Socket, reader: SocketReader): Socket {
  const owner = accepted as unknown as { _handle: unknown };
  const handle = owner._handle;
  owner._handle = null;
  const options = {
    handle,
    allowHalfOpen: true,
    // nothing is read before `resume`
    manualStart: true,
    onread: {
      buffer: () => reader.room(),
      callback: (bytes: number, into: Uint8Array) => reader.filled(bytes, into),
    },
  };
  const socket = new Socket(options as unknown as SocketConstructorOpts);
  // The server counts the socket it made; without this its `close` would wait for ever.
  socket.once('close', () => accepted.destroy());
  return socket;
}
