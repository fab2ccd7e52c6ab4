import type { Socket } from 'node:net';
import { createSecureContext, createServer, type TLSSocket, type TlsOptions } from 'node:tls';
import { TidemarkError } from '../../journal/base/errors.ts';

/** PEM texts. */
export interface NbdServerTls {
  /** `offered`: a client may also stay in the clear; `required`: FORCEDTLS, nothing is answered before STARTTLS. */
  readonly mode: 'offered' | 'required';
  readonly cert: string | Buffer;
  readonly key: string | Buffer;
  /** Authorities of client certificates; when given, a client without a certificate of theirs is refused. */
  readonly clientCa?: string | Buffer;
}

/** Turns accepted connections into TLS ones, with what was last `reload`ed. */
export class TlsUpgrader {
  #tls: NbdServerTls;

  /** Throws `config-invalid` when certificate and key are no pair, or none at all. */
  constructor(tls: NbdServerTls) {
    check(tls);
    this.#tls = tls;
  }

  get mode(): 'offered' | 'required' {
    return this.#tls.mode;
  }

  /** For connections from now on; those that stand keep what they have. */
  reload(tls: NbdServerTls): void {
    check(tls);
    this.#tls = tls;
  }

  /**
   * Does the server's side of a TLS 1.3 handshake on a paused socket. Rejects with `invalid-argument` when the client
   * does not speak it or has no certificate that counts; the socket is destroyed then.
   */
  async upgrade(socket: Socket, handshakeMs: number): Promise<TLSSocket> {
    // A server of its own for each connection: it alone checks client certificates by a documented way, and neither
    // session nor ticket outlives the certificates it was made with.
    const server = createServer({ ...optionsOf(this.#tls), handshakeTimeout: handshakeMs });
    return new Promise<TLSSocket>((resolve, reject) => {
      server.once('secureConnection', resolve);
      server.once('tlsClientError', (error) => {
        reject(new TidemarkError('invalid-argument', `TLS handshake: ${error.message}`, { cause: error }));
      });
      socket.once('close', () => reject(new TidemarkError('device-gone', 'closed during the TLS handshake')));
      server.emit('connection', socket);
    });
  }
}

function optionsOf(tls: NbdServerTls): TlsOptions {
  return {
    cert: tls.cert,
    key: tls.key,
    minVersion: 'TLSv1.3',
    ...(tls.clientCa === undefined ? {} : { ca: tls.clientCa, requestCert: true, rejectUnauthorized: true }),
  };
}

function check(tls: NbdServerTls): void {
  try {
    createSecureContext(optionsOf(tls));
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new TidemarkError('config-invalid', `TLS certificate and key of the NBD server: ${reason}`, { cause: error });
  }
}
