import { chmod, mkdir, stat, unlink } from 'node:fs/promises';
import net from 'node:net';
import { dirname } from 'node:path';
import { TidemarkError } from '../../journal/base/errors.ts';

/**
 * A unix socket for the operator's group only: 0660, in a directory of 0750 that is made when missing. The directory is
 * the guard; the socket's own mode is set right after it appears.
 */
export interface PrivateListener {
  /** Gives the socket's path back when the server is closed. */
  release(): void;
}

/** Throws already-exists when a daemon answers at the path; precondition-failed when everybody could reach it. */
export async function listenPrivately(server: net.Server, socketPath: string): Promise<PrivateListener> {
  await prepareDirectory(dirname(socketPath));
  await removeStale(socketPath);
  await new Promise<void>((resolve, reject) => {
    const failed = (error: Error): void => {
      reject(new TidemarkError('device-failed', `${socketPath}: cannot listen: ${error.message}`, { cause: error }));
    };
    server.once('error', failed);
    server.listen(socketPath, () => {
      server.off('error', failed);
      resolve();
    });
  });
  await chmod(socketPath, 0o660);
  // node unlinks the path when the server closes; a path that is already gone is what is wanted
  return { release: () => void unlink(socketPath).catch(() => undefined) };
}

async function prepareDirectory(directory: string): Promise<void> {
  try {
    await mkdir(directory, { recursive: true, mode: 0o750 });
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new TidemarkError('precondition-failed', `${directory}: cannot be made: ${reason}`, { cause: error });
  }
  const { mode } = await stat(directory);
  if ((mode & 0o007) === 0) return;
  throw new TidemarkError(
    'precondition-failed',
    `${directory} is open to every user (mode ${(mode & 0o7777).toString(8)}): the control socket needs a directory of its own, chmod 0750`,
    { details: { directory } },
  );
}

/** A socket that nobody answers on is left over from a killed daemon. */
async function removeStale(socketPath: string): Promise<void> {
  const answers = await new Promise<'yes' | 'nobody' | 'missing'>((resolve) => {
    const probe = net.connect(socketPath);
    probe.once('connect', () => {
      probe.destroy();
      resolve('yes');
    });
    probe.once('error', (error: NodeJS.ErrnoException) => resolve(error.code === 'ENOENT' ? 'missing' : 'nobody'));
  });
  if (answers === 'yes') {
    throw new TidemarkError('already-exists', `${socketPath}: another daemon answers there`, {
      details: { socketPath },
    });
  }
  if (answers === 'nobody') await unlink(socketPath);
}
