import { readFile } from 'node:fs/promises';
import { TidemarkError } from '../../journal/base/errors.ts';
import type { ClientTls, ServerTls } from '../config/config-types.ts';
import type { NbdServerTls } from '../nbd/tls.ts';
import type { TcpDialerTls, TcpListenerTls } from '../stream/direct/tcp-wire.ts';

/** TLS files of a configuration as the texts the servers and clients take. All reject with config-invalid. */

/** The text of a file that the configuration names. */
export async function readConfigured(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new TidemarkError('config-invalid', `${path}: cannot be read: ${reason}`, { cause: error });
  }
}

/** For who dials a replica. */
export async function dialerTls(tls: ClientTls): Promise<TcpDialerTls> {
  return {
    ...(tls.authorities === null ? {} : { authorities: await readConfigured(tls.authorities) }),
    ...(tls.certificate === null ? {} : { certificate: await readConfigured(tls.certificate) }),
    ...(tls.key === null ? {} : { key: await readConfigured(tls.key) }),
    ...(tls.serverName === null ? {} : { serverName: tls.serverName }),
  };
}

/** For a replica's listener: authorities are those whose clients are let in. */
export async function listenerTls(tls: ServerTls): Promise<TcpListenerTls> {
  return {
    certificate: await readConfigured(tls.certificate),
    key: await readConfigured(tls.key),
    ...(clientAuthorities(tls) === null ? {} : { authorities: await readConfigured(clientAuthorities(tls) ?? '') }),
  };
}

/** For an NBD listener: TLS is required of every client, never merely offered. */
export async function nbdTls(tls: ServerTls): Promise<NbdServerTls> {
  return {
    mode: 'required',
    cert: await readConfigured(tls.certificate),
    key: await readConfigured(tls.key),
    ...(clientAuthorities(tls) === null ? {} : { clientCa: await readConfigured(clientAuthorities(tls) ?? '') }),
  };
}

function clientAuthorities(tls: ServerTls): string | null {
  return tls.requireClientCertificate ? tls.authorities : null;
}
