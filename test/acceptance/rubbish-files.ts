import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, rmSync } from 'node:fs';
import { ControlClient } from '../../cli/control-client.ts';
import type {
  ReplicaStatusReply,
  SourceStatusReply,
  StatusReply,
  ViewReply,
} from '../../daemon/control/control-api.ts';
import { NbdClient } from '../../daemon/nbd/client.ts';
import { parseNbdUri } from '../../daemon/nbd/nbd-uri.ts';
import { Child } from '../servers/child.ts';
import { Site } from '../servers/site.ts';
import { cliMain, type TidemarkProcess } from '../servers/tidemark-process.ts';

const DISK_BYTES: number = 8 * 1024 * 1024;
const BLOCK_BYTES = 4096;
const READ_BYTES = 1024 * 1024;

/** A source and a replica with a history, and what the disk held at the bookmark `good` and at the end. */
export interface Grown {
  readonly site: Site;
  readonly directory: string;
  readonly good: Buffer;
  readonly last: Buffer;
}

/** Grows a group of its own in `directory`; both daemons run afterwards and the replica has everything. */
export async function grow(directory: string, seed: number): Promise<Grown> {
  mkdirSync(directory);
  const volumes = [{ name: 'root', sizeBytes: DISK_BYTES }];
  const site = new Site(directory, { volumes, journalBudget: '64MiB', journalFileSize: '1MiB' });
  await site.start();
  const model = Buffer.alloc(DISK_BYTES);
  await write(site, model, seed, 900);
  await site.bookmark('good');
  const good = Buffer.from(model);
  await write(site, model, seed + 1, 500);
  await site.waitForReplica(await site.headLsn());
  return { site, directory, good, last: model };
}

async function write(site: Site, model: Buffer, seed: number, count: number): Promise<void> {
  const disk = await NbdClient.connect(parseNbdUri(site.exportUri('root')));
  for (let index = 0; index < count; index += 1) {
    const offset = ((index * 7919 + seed) % (DISK_BYTES / BLOCK_BYTES)) * BLOCK_BYTES;
    const block = Buffer.alloc(BLOCK_BYTES, `write ${index} of ${seed} `);
    await disk.write(offset, block);
    block.copy(model, offset);
  }
  await disk.flush();
  await disk.close();
}

export async function readDisk(uri: string): Promise<Buffer> {
  const disk = await NbdClient.connect(parseNbdUri(uri));
  try {
    const bytes = Buffer.alloc(disk.size);
    for (let offset = 0; offset < disk.size; offset += READ_BYTES) {
      await disk.read(offset, bytes.subarray(offset, Math.min(disk.size, offset + READ_BYTES)));
    }
    return bytes;
  } finally {
    await disk.close();
  }
}

/** A copy with owners, modes, times and holes: stamps and locks mean the same afterwards. */
export function copyTree(from: string, to: string): void {
  rmSync(to, { recursive: true, force: true });
  execFileSync('cp', ['-a', '--sparse=always', from, to]);
}

/** The bytes and times of one file put into another, which stays the file it is. */
export function overwrite(from: string, to: string): void {
  execFileSync('cp', ['-a', '--sparse=always', from, to]);
}

/** Mounts the bookmark at whatever daemon listens there; the address of the disk. */
export async function mountGood(socket: string): Promise<string> {
  const client = new ControlClient(socket, 10_000);
  const view = await client.post<ViewReply>('/v1/groups/shop/views', { at: 'good' });
  return view.exports[0]?.uri ?? '';
}

/** A daemon started on spoilt files: it serves, or it says why not. */
export interface Outcome {
  readonly status: StatusReply | undefined;
  /** null while it runs. */
  readonly exitCode: number | null;
  readonly signal: string | null;
  readonly output: string;
}

/** Starts a role; resolves when it is ready, has a group that failed for good, or has ended. The caller stops it. */
export async function tryStart(
  daemon: TidemarkProcess,
  timeoutMs = 30_000,
): Promise<{ child: Child; outcome: Outcome }> {
  const child = new Child(daemon.role, process.execPath, [cliMain(), daemon.role, '--config', daemon.configFile]);
  const client = new ControlClient(daemon.socket, 5000);
  const endAt = performance.now() + timeoutMs;
  let status: StatusReply | undefined;
  while (child.running && performance.now() < endAt) {
    if (existsSync(daemon.socket)) {
      status = await client.get<SourceStatusReply | ReplicaStatusReply>('/v1/status').catch(() => undefined);
      if (status !== undefined && settled(status)) break;
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  const { exitCode, signalCode } = child.process;
  return { child, outcome: { status, exitCode, signal: signalCode, output: child.output } };
}

function settled(status: StatusReply): boolean {
  return status.daemon.ready || status.groups.every((group) => group.state !== 'starting');
}

/** Lines a person would read: errors of the JSON log, and what is not JSON. */
export function complaints(output: string): string[] {
  return output.split('\n').flatMap((line) => {
    if (!line.startsWith('{')) return line.trim() === '' ? [] : [line];
    const { level, code, msg } = JSON.parse(line) as { level: string; code: string; msg: string };
    return level === 'error' || level === 'fatal' ? [`${code}: ${msg}`] : [];
  });
}
