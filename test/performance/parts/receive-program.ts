import path from 'node:path';
import type { Host } from '../../../journal/host/host.ts';
import { realHost } from '../../../journal/host/real-host.ts';
import type { FrameSource, FrameSourceEvents, FrameSourceStart } from '../../../journal/stream.ts';
import { Memtable } from '../../../replica/index/memtable.ts';
import { mergeRuns, writeMemtable } from '../../../replica/index/merge.ts';
import { PageCache } from '../../../replica/index/page-cache.ts';
import { RunFile } from '../../../replica/index/run-file.ts';
import { PAGE_BYTES } from '../../../replica/index/run-format.ts';
import { REPLICA_DEFAULTS, ReplicaGroup } from '../../../replica/replica-group.ts';
import { BLOCKS, GROUP, MadeFrames, Numbers, VOLUME } from './made-frames.ts';

/**
 * A process of its own that receives: `receive-program.ts DIRECTORY MIB packed|raw`. Prints JSON: plain MiB, CPU seconds
 * of all threads, elapsed seconds, and the CPU seconds of merging one extent once.
 */
const [directory = '', mib = '', kind = ''] = process.argv.slice(2);
/** Runs of one size that are merged into one of the next. */
const MERGE_FAN_IN = 8;

/** Frames are handed over as the receiver takes them, none ahead of what it queues. */
class MadeSource implements FrameSource {
  #events: FrameSourceEvents | undefined;
  #paused = false;
  #resumed: (() => void) | undefined;

  open(_start: FrameSourceStart, events: FrameSourceEvents): void {
    this.#events = events;
  }

  async give(bytes: Uint8Array): Promise<void> {
    if (this.#paused) {
      await new Promise<void>((resolve) => {
        this.#resumed = resolve;
      });
    }
    this.#events?.onFrame(bytes, '');
  }

  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    this.#paused = false;
    this.#resumed?.();
  }

  feedback(): void {
    // nobody waits for it
  }

  status(): { state: 'streaming'; reason: string } {
    return { state: 'streaming', reason: '' };
  }

  async close(): Promise<void> {
    await Promise.resolve();
  }
}

function cpu({ user, system }: NodeJS.CpuUsage): number {
  return (user + system) / 1e6;
}

/** What merging one extent once costs: eight full runs of random places become one. */
async function mergeCost(host: Host): Promise<number> {
  const index = path.join(directory, 'merged');
  host.disk.makeDirectory(index);
  const cache = new PageCache(8 * PAGE_BYTES, PAGE_BYTES);
  const { memtableEntries } = REPLICA_DEFAULTS;
  const numbers = new Numbers(0x3e13e);
  const runs: RunFile[] = [];
  for (let lsn = 0; runs.length < MERGE_FAN_IN; ) {
    const memtable = new Memtable(lsn, memtableEntries);
    while (memtable.count < memtableEntries) {
      lsn += 1;
      memtable.add(VOLUME, numbers.below(BLOCKS) * 8, 8, lsn, { segment: 1, frame: 64, payload: 0 });
    }
    memtable.lastLsn = lsn;
    runs.push(await RunFile.open(host, await writeMemtable(host, index, GROUP, memtable, lsn + 1), GROUP, cache));
  }
  const before = process.cpuUsage();
  await mergeRuns(host, index, GROUP, runs, 0);
  const used = cpu(process.cpuUsage(before));
  for (const run of runs) await run.close();
  return used / (MERGE_FAN_IN * memtableEntries);
}

const host = realHost();
const group = await ReplicaGroup.open(host, {
  ...REPLICA_DEFAULTS,
  directory,
  groupId: GROUP,
  replica: 'bench',
});
const source = new MadeSource();
group.start(source);
const frames = new MadeFrames(kind === 'packed');
// Made beforehand and kept: what making and freeing them costs is no work of a replica.
const made: Uint8Array[] = [];
let plainBytes = 0;
while (plainBytes < Number(mib) * 1024 ** 2) {
  const frame = frames.next();
  made.push(frame.bytes);
  plainBytes += frame.payloadPlainBytes;
}
const [began, before] = [performance.now(), process.cpuUsage()];
for (const bytes of made) await source.give(bytes);
await group.idle();
const seconds = (performance.now() - began) / 1000;
const cpuSeconds = cpu(process.cpuUsage(before));
await group.close();
const perMerged = await mergeCost(host);
console.log(JSON.stringify({ mib: plainBytes / 1024 ** 2, cpuSeconds, seconds, perMerged }));
