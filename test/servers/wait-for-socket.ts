import net from 'node:net';
import type { Child } from './child.ts';

const START_MS_MAX = 30_000;

/**
 * Resolves when the server takes connections at this unix socket. That the file is there is not enough: a server makes it before
 * it listens, and a busy machine lets a client in between, who is refused. The server sees a client that says nothing.
 */
export async function waitForSocket(file: string, child: Child): Promise<void> {
  const end = performance.now() + START_MS_MAX;
  while (!(await answers(file))) {
    if (!child.running || performance.now() > end) throw new Error(`${child.name} does not listen:\n${child.output}`);
    await new Promise((resolve) => {
      setTimeout(resolve, 5);
    });
  }
}

function answers(file: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect(file, () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}
