import type { NbdListen } from './config/config-types.ts';
import { formatNbdUri } from './nbd/nbd-uri.ts';
import type { NbdListenAddress, NbdListenerOptions } from './nbd/server.ts';
import { nbdTls } from './stream-setup/read-pem.ts';

/** A configured NBD listener as the server takes it. Rejects with config-invalid when a TLS file cannot be read. */
export async function nbdListener(config: NbdListen): Promise<NbdListenerOptions> {
  const address: NbdListenAddress =
    config.unix === null
      ? { kind: 'tcp', host: config.tcp?.host ?? '127.0.0.1', port: config.tcp?.port ?? 0 }
      : { kind: 'unix', path: config.unix };
  return { address, ...(config.tls === null ? {} : { tls: await nbdTls(config.tls) }) };
}

/** What a client is given to reach an export. */
export function exportUri(address: NbdListenAddress, tls: boolean, exportName: string): string {
  return formatNbdUri({ ...address, exportName, tls });
}

export function listenText(config: NbdListen): string {
  return config.unix ?? `${config.tcp?.host}:${config.tcp?.port}`;
}
