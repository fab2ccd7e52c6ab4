import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { run } from '../servers/child.ts';
import type { Site } from '../servers/site.ts';

const MIB = 1024 ** 2;

/** The digest the two Python checkers print: SHA-256 over the SHA-256 of each MiB. */
export function digestOfFile(file: string): string {
  const descriptor = fs.openSync(file, 'r');
  const total = createHash('sha256');
  const block = Buffer.alloc(MIB);
  try {
    for (;;) {
      const got = fs.readSync(descriptor, block, 0, MIB, null);
      if (got === 0) return total.digest('hex');
      total.update(createHash('sha256').update(block.subarray(0, got)).digest());
    }
  } finally {
    fs.closeSync(descriptor);
  }
}

/** Copies a position of a volume out of a mounted view with libnbd's own program; the caller removes the file. */
export async function copyPoint(site: Site, at: string, volume: string): Promise<{ file: string; lsn: number }> {
  const view = await site.mount(at);
  const file = path.join(site.directory, `point-${at.replaceAll(/[^A-Za-z0-9]/g, '-')}-${volume}.raw`);
  fs.rmSync(file, { force: true });
  await run('nbdcopy', [view.uri(volume), file]);
  await site.unmount(view);
  return { file, lsn: view.lsn };
}

/** The digest of a volume as of a position, read by libnbd from a mounted view. */
export async function digestOfPoint(site: Site, at: string, volume: string): Promise<string> {
  const { file } = await copyPoint(site, at, volume);
  const digest = digestOfFile(file);
  fs.rmSync(file);
  return digest;
}

/** Digests by an independent checker: what it prints as `KEY DIGEST`, by key. */
export async function checkerDigests(program: string, args: readonly string[]): Promise<Map<number, string>> {
  const output = await run('python3', ['-B', path.join(import.meta.dirname, program), ...args]);
  const digests = new Map<number, string>();
  for (const line of output.split('\n')) {
    const match = line.match(/^(\d+) ([0-9a-f]{64})$/);
    if (match !== null) digests.set(Number(match[1]), match[2] as string);
  }
  return digests;
}

/** `count` different whole numbers in [low, high], drawn evenly, in rising order. */
export function drawPositions(low: number, high: number, count: number): number[] {
  const drawn = new Set<number>();
  while (drawn.size < Math.min(count, high - low + 1)) drawn.add(low + Math.floor(Math.random() * (high - low + 1)));
  return [...drawn].sort((a, b) => a - b);
}
