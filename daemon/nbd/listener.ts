import { chmodSync, existsSync, lstatSync, mkdirSync, unlinkSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { dirname, resolve } from 'node:path';
import { TidemarkError } from '../../journal/base/errors.ts';

/** Where to listen. Port 0 takes a free one. */
export type NbdListenAddress =
  | { readonly kind: 'unix'; readonly path: string }
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number };

/** The longest path a unix socket can have on Linux (sun_path, with its NUL). */
const SOCKET_PATH_BYTES_MAX = 107;

/**
 * Listens. A unix socket gets mode 0660; its directory is made with 0750 when it is missing, and one that everybody may
 * write to is refused unless it is sticky. A socket left behind by a dead server is removed, one with a live server is not.
 * Throws `already-exists`, `invalid-argument`, `precondition-failed`.
 */
export async function listen(address: NbdListenAddress, accept: (socket: Socket) => void): Promise<Server> {
  const server = createServer({ pauseOnConnect: true, noDelay: true }, accept);
  if (address.kind === 'unix') await prepareUnixPath(address.path);
  await new Promise<void>((done, failed) => {
    server.once('error', (error: NodeJS.ErrnoException) => failed(cannotListen(address, error)));
    server.once('listening', done);
    if (address.kind === 'unix') server.listen(address.path);
    else server.listen(address.port, address.host);
  });
  server.removeAllListeners('error');
  if (address.kind === 'unix') chmodSync(address.path, 0o660);
  return server;
}

/** Where a listening server really listens: with the port it was given. */
export function listeningAt(server: Server, asked: NbdListenAddress): NbdListenAddress {
  const at = server.address();
  if (asked.kind === 'unix' || at === null || typeof at === 'string') return asked;
  return { kind: 'tcp', host: asked.host, port: at.port };
}

async function prepareUnixPath(path: string): Promise<void> {
  if (Buffer.byteLength(path) > SOCKET_PATH_BYTES_MAX) {
    throw new TidemarkError('invalid-argument', `unix socket ${path}: longer than ${SOCKET_PATH_BYTES_MAX} bytes`);
  }
  const directory = dirname(resolve(path));
  if (!existsSync(directory)) mkdirSync(directory, { recursive: true, mode: 0o750 });
  const { mode } = lstatSync(directory);
  if ((mode & 0o002) !== 0 && (mode & 0o1000) === 0) {
    const why = `everybody may write to ${directory}, and so replace the socket: give it a directory of its own (0750)`;
    throw new TidemarkError('precondition-failed', why);
  }
  if (!existsSync(path)) return;
  if (!lstatSync(path).isSocket()) {
    throw new TidemarkError('already-exists', `${path} exists and is no socket: it is left alone`);
  }
  if (await somebodyListens(path)) {
    throw new TidemarkError('already-exists', `another server listens on ${path}`);
  }
  unlinkSync(path);
}

async function somebodyListens(path: string): Promise<boolean> {
  return new Promise<boolean>((done, failed) => {
    const probe = connect(path);
    probe.once('connect', () => {
      probe.destroy();
      done(true);
    });
    probe.once('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'ECONNREFUSED' || error.code === 'ENOENT') done(false);
      else failed(new TidemarkError('precondition-failed', `unix socket ${path}: ${error.message}`, { cause: error }));
    });
  });
}

function cannotListen(address: NbdListenAddress, error: NodeJS.ErrnoException): TidemarkError {
  const where = address.kind === 'unix' ? address.path : `${address.host}:${address.port}`;
  const code = error.code === 'EADDRINUSE' ? 'already-exists' : 'precondition-failed';
  return new TidemarkError(code, `cannot listen on ${where}: ${error.message}`, { cause: error });
}
