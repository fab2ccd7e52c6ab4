import { connect as connectSocket, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { TidemarkError } from '../../journal/base/errors.ts';
import { ClientNegotiation, type NegotiatedExport } from './client-negotiation.ts';
import { formatNbdUri, type NbdAddress } from './nbd-uri.ts';

/** PEM texts. The server is always verified: without `ca` against the system's authorities. */
export interface NbdClientTls {
  readonly ca?: string | Buffer;
  readonly cert?: string | Buffer;
  readonly key?: string | Buffer;
  /** The name the server's certificate must carry; the host of the address by default, needed for a unix socket. */
  readonly serverName?: string;
}

export interface OpenedTransport {
  readonly socket: Socket;
  readonly export: NegotiatedExport;
}

/**
 * Connects and haggles until the export may be used, within `timeoutMs`. Throws `device-gone` (nobody there),
 * `timed-out`, or what the handshake found; the socket is closed then.
 */
export async function openTransport(
  address: NbdAddress,
  tls: NbdClientTls | undefined,
  timeoutMs: number,
): Promise<OpenedTransport> {
  const uri = formatNbdUri(address);
  let socket: Socket =
    address.kind === 'unix' ? connectSocket(address.path) : connectSocket(address.port, address.host);
  socket.setNoDelay(true);
  const timer = setTimeout(
    () => socket.destroy(new TidemarkError('timed-out', `${uri}: no NBD handshake within ${timeoutMs} ms`)),
    timeoutMs,
  );
  const negotiation = new ClientNegotiation(address.exportName, address.tls);
  try {
    let event = await haggle(socket, negotiation, []);
    if (event.kind === 'start-tls') {
      socket = connectTls({
        socket,
        minVersion: 'TLSv1.2',
        servername: tls?.serverName ?? (address.kind === 'tcp' ? address.host : ''),
        ...(tls?.ca === undefined ? {} : { ca: tls.ca }),
        ...(tls?.cert === undefined ? {} : { cert: tls.cert }),
        ...(tls?.key === undefined ? {} : { key: tls.key }),
      });
      event = await haggle(socket, negotiation, [negotiation.secured()]);
    }
    if (event.kind !== 'ready') throw new TidemarkError('device-failed', `${uri}: TLS was started twice`);
    return { socket, export: event.export };
  } catch (error) {
    socket.destroy();
    if (error instanceof TidemarkError) {
      throw new TidemarkError(error.code, `${uri}: ${error.message}`, { cause: error, details: { uri } });
    }
    const reason = error instanceof Error ? error.message : String(error);
    throw new TidemarkError('device-gone', `${uri}: ${reason}`, { cause: error, details: { uri } });
  } finally {
    clearTimeout(timer);
  }
}

/** Feeds the negotiation from the socket until it has an event; leaves the socket paused and nothing unread. */
async function haggle(
  socket: Socket,
  negotiation: ClientNegotiation,
  first: readonly Uint8Array[],
): Promise<{ kind: 'start-tls' } | { kind: 'ready'; export: NegotiatedExport }> {
  return new Promise((resolve, reject) => {
    let pending: Buffer = Buffer.alloc(0);
    const finish = (settle: () => void): void => {
      socket.pause();
      socket.off('data', take);
      socket.off('error', failed);
      socket.off('close', closed);
      settle();
    };
    const failed = (error: Error): void => finish(() => reject(error));
    const closed = (): void => failed(new Error('the server closed the connection during the handshake'));
    const take = (bytes: Buffer): void => {
      pending = pending.length === 0 ? bytes : Buffer.concat([pending, bytes]);
      try {
        for (;;) {
          const step = negotiation.step(pending);
          pending = pending.subarray(step.consumed);
          for (const part of step.send) socket.write(part);
          const event = step.event;
          if (event !== undefined) {
            if (pending.length > 0) throw new TidemarkError('device-failed', 'bytes behind the end of the handshake');
            finish(() => resolve(event));
            return;
          }
          if (step.consumed === 0) return;
        }
      } catch (error) {
        finish(() => reject(error as Error));
      }
    };
    socket.on('data', take);
    socket.on('error', failed);
    socket.on('close', closed);
    for (const part of first) socket.write(part);
  });
}
