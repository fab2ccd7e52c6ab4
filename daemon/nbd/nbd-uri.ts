import { TidemarkError } from '../../journal/base/errors.ts';
import { NBD_PORT, STRING_BYTES_MAX } from './protocol.ts';

/** Where an NBD server listens and which of its exports is meant. */
export type NbdAddress =
  | { readonly kind: 'unix'; readonly path: string; readonly exportName: string; readonly tls: boolean }
  | {
      readonly kind: 'tcp';
      readonly host: string;
      readonly port: number;
      readonly exportName: string;
      readonly tls: boolean;
    };

/**
 * Reads an NBD URI (NetworkBlockDevice/nbd, doc/uri.md): `nbd://host[:port]/export`, `nbds://` with TLS,
 * `nbd+unix:///export?socket=/path`, `nbds+unix://` with TLS. Throws `invalid-argument`.
 */
export function parseNbdUri(uri: string): NbdAddress {
  let url: URL;
  try {
    url = new URL(uri);
  } catch {
    throw invalid(uri, 'not a URI');
  }
  const tls = url.protocol === 'nbds:' || url.protocol === 'nbds+unix:';
  const exportName = decode(uri, url.pathname.replace(/^\//, ''));
  if (Buffer.byteLength(exportName) > STRING_BYTES_MAX) throw invalid(uri, 'the export name is longer than 4096 bytes');
  for (const key of url.searchParams.keys()) {
    if (key !== 'socket') throw invalid(uri, `unknown parameter "${key}"`);
  }
  switch (url.protocol) {
    case 'nbd:':
    case 'nbds:': {
      if (url.searchParams.has('socket')) throw invalid(uri, 'a socket needs the scheme nbd+unix://');
      const host = decode(uri, url.hostname.replace(/^\[(.*)\]$/, '$1'));
      if (host === '') throw invalid(uri, 'the host is missing');
      if (!/^[\p{L}\p{N}._:-]+$/u.test(host)) throw invalid(uri, 'the host is no name and no address');
      return { kind: 'tcp', host, port: url.port === '' ? NBD_PORT : Number(url.port), exportName, tls };
    }
    case 'nbd+unix:':
    case 'nbds+unix:': {
      const path = url.searchParams.get('socket') ?? '';
      if (!path.startsWith('/')) throw invalid(uri, 'socket=/absolute/path is missing');
      if (url.host !== '') throw invalid(uri, 'a unix socket has no host: write nbd+unix:///export?socket=/path');
      return { kind: 'unix', path, exportName, tls };
    }
    default:
      throw invalid(uri, 'the scheme is none of nbd, nbds, nbd+unix, nbds+unix');
  }
}

/** The URI that `parseNbdUri` reads back to the same address, and that libnbd and QEMU understand. */
export function formatNbdUri(address: NbdAddress): string {
  const scheme = address.tls ? 'nbds' : 'nbd';
  const name = encodeURIComponent(address.exportName);
  if (address.kind === 'unix') {
    return `${scheme}+unix:///${name}?socket=${encodeURIComponent(address.path).replaceAll('%2F', '/')}`;
  }
  const host = address.host.includes(':') ? `[${address.host}]` : address.host;
  return `${scheme}://${host}${address.port === NBD_PORT ? '' : `:${address.port}`}/${name}`;
}

function decode(uri: string, text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw invalid(uri, 'a % is not followed by two hexadecimal digits of UTF-8');
  }
}

function invalid(uri: string, reason: string): TidemarkError {
  return new TidemarkError('invalid-argument', `NBD address ${uri}: ${reason}`, { details: { uri } });
}
