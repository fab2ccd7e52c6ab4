import { once } from 'node:events';
import net from 'node:net';
import path from 'node:path';
import readline from 'node:readline';
import { Child } from '../servers/child.ts';
import { waitForSocket } from '../servers/wait-for-socket.ts';
import { type BenchDisk, type BenchServer, makeDisk } from './servers.ts';

/** The first copy of the disk, before the mirror answers for every write. */
const READY_MS = 120_000;

interface QmpReply {
  readonly return?: unknown;
  readonly error?: { readonly desc: string };
}

/** A command line to a QEMU program over its monitor; events are passed over. */
class Monitor {
  readonly #socket: net.Socket;
  readonly #lines: AsyncIterator<string>;

  constructor(socket: net.Socket) {
    this.#socket = socket;
    this.#lines = readline.createInterface({ input: socket })[Symbol.asyncIterator]();
  }

  /** Rejects with what QEMU says. */
  async command(execute: string, args: object = {}): Promise<unknown> {
    this.#socket.write(`${JSON.stringify({ execute, arguments: args })}\n`);
    for (;;) {
      const line = await this.#lines.next();
      if (line.done === true) throw new Error(`${execute}: the monitor was closed`);
      const reply = JSON.parse(line.value) as QmpReply;
      if (reply.error !== undefined) throw new Error(`${execute}: ${reply.error.desc}`);
      if ('return' in reply) return reply.return;
    }
  }

  close(): void {
    this.#socket.destroy();
  }
}

/**
 * The peer that also replicates: qemu-storage-daemon answers a write when it is in its own file and in that of a second
 * server (`copy-mode=write-blocking`). No history, and neither end syncs by itself. The second server's CPU does not
 * count, as the replica's does not.
 */
export async function mirror(disk: BenchDisk): Promise<BenchServer> {
  const at = (name: string): string => path.join(disk.directory, name);
  makeDisk(at('mirror.raw'), disk);
  makeDisk(at('mirror-far.raw'), disk);
  const far = new Child('qemu-nbd (far)', 'qemu-nbd', [
    '-f',
    'raw',
    '--cache=writeback',
    '--aio=threads',
    '-t',
    '-e',
    '8',
    '-k',
    at('mirror-far.sock'),
    at('mirror-far.raw'),
  ]);
  await waitForSocket(at('mirror-far.sock'), far);
  const near = new Child('qemu-storage-daemon', 'qemu-storage-daemon', [
    '--blockdev',
    `driver=file,node-name=file,filename=${at('mirror.raw')}`,
    '--blockdev',
    'driver=raw,node-name=disk,file=file',
    '--chardev',
    `socket,id=qmp,path=${at('mirror-qmp.sock')},server=on,wait=off`,
    '--monitor',
    'chardev=qmp',
    '--nbd-server',
    `addr.type=unix,addr.path=${at('mirror.sock')}`,
    '--export',
    'type=nbd,id=export,node-name=disk,name=disk,writable=on',
  ]);
  await waitForSocket(at('mirror.sock'), near);
  const socket = net.connect(at('mirror-qmp.sock'));
  await once(socket, 'connect');
  const monitor = new Monitor(socket);
  await monitor.command('qmp_capabilities');
  const server = { type: 'unix', path: at('mirror-far.sock') };
  await monitor.command('blockdev-add', { driver: 'nbd', 'node-name': 'far', server });
  const job = { 'job-id': 'mirror', device: 'disk', target: 'far', sync: 'full', 'copy-mode': 'write-blocking' };
  await monitor.command('blockdev-mirror', job);
  const end = performance.now() + READY_MS;
  for (;;) {
    const [state] = (await monitor.command('query-jobs')) as { status: string; error?: string }[];
    if (state?.status === 'ready') break;
    if (state === undefined || performance.now() > end) throw new Error(`no mirror: ${JSON.stringify(state)}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  return {
    name: 'mirror',
    uri: `nbd+unix:///disk?socket=${at('mirror.sock')}`,
    pids: [near.process.pid as number],
    drain: () => Promise.resolve(),
    stop: async () => {
      monitor.close();
      await near.stop('SIGKILL');
      await far.stop();
    },
  };
}
