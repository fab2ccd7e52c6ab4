import fs from 'node:fs';
import path from 'node:path';
import { Child } from '../servers/child.ts';
import { Site } from '../servers/site.ts';
import { waitForSocket } from '../servers/wait-for-socket.ts';

/** A drain that takes longer than this is a backlog that does not shrink. */
const DRAIN_MS = 120_000;

/** A server under test: one NBD export over a unix socket, on its own copy of the disk. */
export interface BenchServer {
  readonly name: string;
  readonly uri: string;
  /** Processes whose CPU counts, the far end of replication excepted. */
  readonly pids: readonly number[];
  /** Waits until nothing is left over from the run before: journal written out and replicated. */
  drain(): Promise<void>;
  stop(): Promise<void>;
}

export interface BenchDisk {
  readonly directory: string;
  readonly sizeBytes: number;
  /** The first part of the disk is written beforehand and is where the load runs. */
  readonly areaBytes: number;
}

/** A raw disk whose first part holds real blocks, so that no server pays for allocation while it is measured. */
export function makeDisk(file: string, disk: BenchDisk): void {
  const descriptor = fs.openSync(file, 'w');
  const block = Buffer.alloc(1024 ** 2, 0x5a);
  for (let offset = 0; offset < disk.areaBytes; offset += block.length)
    fs.writeSync(descriptor, block, 0, block.length, offset);
  fs.ftruncateSync(descriptor, disk.sizeBytes);
  fs.fsyncSync(descriptor);
  fs.closeSync(descriptor);
}

async function plainServer(name: string, child: Child, socket: string, uri: string): Promise<BenchServer> {
  await waitForSocket(socket, child);
  return {
    name,
    uri,
    pids: [child.process.pid as number],
    drain: () => Promise.resolve(),
    stop: async () => {
      await child.stop();
    },
  };
}

export function qemuNbd(disk: BenchDisk): Promise<BenchServer> {
  const [file, socket] = [path.join(disk.directory, 'qemu.raw'), path.join(disk.directory, 'qemu.sock')];
  makeDisk(file, disk);
  const child = new Child('qemu-nbd', 'qemu-nbd', [
    '-f',
    'raw',
    '--cache=writeback',
    '--aio=threads',
    '-t',
    '-e',
    '8',
    '-k',
    socket,
    file,
  ]);
  return plainServer('qemu-nbd', child, socket, `nbd+unix:///?socket=${socket}`);
}

export function nbdkit(disk: BenchDisk): Promise<BenchServer> {
  const [file, socket] = [path.join(disk.directory, 'nbdkit.raw'), path.join(disk.directory, 'nbdkit.sock')];
  makeDisk(file, disk);
  const child = new Child('nbdkit', 'nbdkit', ['-f', '-U', socket, 'file', file]);
  return plainServer('nbdkit', child, socket, `nbd+unix:///?socket=${socket}`);
}

/** Source and replica as a user runs them, on this machine: journal, destage and shipping on, the replica syncs. */
export async function tidemark(disk: BenchDisk): Promise<BenchServer> {
  const site = new Site(path.join(disk.directory, 'site'), {
    volumes: [{ name: 'disk0', sizeBytes: disk.sizeBytes, seed: true }],
    journalBudget: '4GiB',
    journalFileSize: '64MiB',
  });
  fs.mkdirSync(site.directory);
  makeDisk(site.backing('disk0'), disk);
  await site.start();
  return {
    name: 'tidemark',
    uri: site.exportUri('disk0'),
    pids: [site.source.pid],
    drain: async () => {
      const end = performance.now() + DRAIN_MS;
      for (;;) {
        const group = await site.sourceGroup();
        // Heartbeats go on: a few records are always on their way.
        if (group.overlay?.bytes === 0 && (group.backlog.records ?? Infinity) < 8) return;
        if (performance.now() > end) throw new Error(`not drained: ${JSON.stringify(group)}`);
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
    },
    stop: () => site.stop(),
  };
}
