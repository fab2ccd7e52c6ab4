import path from 'node:path';
import { realHost } from '../../../journal/host/real-host.ts';
import { BaseImage } from '../../../replica/base/base-image.ts';
import type { PayloadLocation } from '../../../replica/index/entry-format.ts';
import { VersionIndex } from '../../../replica/index/version-index.ts';
import { REPLICA_DEFAULTS } from '../../../replica/replica-group.ts';
import { FrameReader } from '../../../replica/store/frame-reader.ts';
import { RepairedFrames } from '../../../replica/store/repaired-frames.ts';
import { SegmentStore } from '../../../replica/store/segment-store.ts';
import { HistoryReader } from '../../../replica/view/history-reader.ts';
import { residentMib } from '../process-usage.ts';
import { BLOCKS, GROUP, MadeFrames, Numbers, VOLUME } from './made-frames.ts';
import { percentile } from './part.ts';

/**
 * A history of any length without its writes, each step a process of its own: `index-program.ts make|read|remember
 * DIRECTORY EXTENTS`. Prints JSON. The extents are the index's own; what they name are the payloads of few real frames.
 */
const [step = '', directory = '', count = ''] = process.argv.slice(2);
const extents = Number(count);
const host = realHost();
/** Half compressible, as disks are: a read of 4 KiB unpacks a chunk of 64 KiB. */
const FRAMES = 256;
const HOT_BLOCKS = Math.max(1024, Math.floor(extents / 10));
const READS = 1000;
const LOOKUPS = 50_000;

/** The places of the history, the same in every process: half of them on a tenth as many blocks. */
class Places {
  readonly #numbers = new Numbers(0x1dec5);

  next(): number {
    return this.#numbers.below(2) === 0 ? this.#numbers.below(BLOCKS) : hotBlock(this.#numbers.below(HOT_BLOCKS));
  }
}

function hotBlock(index: number): number {
  return (index * 4099) % BLOCKS;
}

function openStore(): Promise<SegmentStore> {
  const { segmentBytes } = REPLICA_DEFAULTS;
  return SegmentStore.open(host, {
    directory: path.join(directory, 'segments'),
    groupId: GROUP,
    segmentBytes,
    durableLsn: 0,
  });
}

function openIndex(): Promise<VersionIndex> {
  const { indexCacheBytesMax, memtableEntries } = REPLICA_DEFAULTS;
  const cacheBytesMax = indexCacheBytesMax;
  const place = { directory: path.join(directory, 'index'), groupId: GROUP, floorLsn: 0, headLsn: extents };
  return VersionIndex.open(host, { ...place, cacheBytesMax, memtableEntries }, () =>
    Promise.reject(new Error('a made index has nothing to be built again from')),
  );
}

async function make(): Promise<object> {
  host.disk.makeDirectory(path.join(directory, 'segments'));
  const store = await openStore();
  const frames = new MadeFrames(true);
  const locations: PayloadLocation[] = [];
  for (let made = 0; made < FRAMES; made++) {
    const { bytes, firstLsn, lastLsn, recordCount, lastTime, payloadPlainBytes } = frames.next();
    if (store.wantsSeal) await store.seal(firstLsn);
    const times = { firstTime: lastTime, lastTime };
    const { segment, offset } = await store.append(bytes, { firstLsn, lastLsn, records: recordCount, ...times });
    // the writes are the frame's last payloads: the first frame begins with control records
    for (let payload = payloadPlainBytes - 4096; payload >= 4096; payload -= 4096) {
      locations.push({ segment, frame: offset, payload });
    }
  }
  await store.sync();
  await store.close();
  const index = await openIndex();
  const places = new Places();
  const pick = new Numbers(0x10ca7e);
  const before = process.cpuUsage();
  for (let lsn = 1; lsn <= extents; lsn++) {
    index.add(VOLUME, places.next() * 8, 8, lsn, locations[pick.below(locations.length)]);
    index.advance(lsn);
    if (index.memtableFull) await index.rotate(lsn + 1);
  }
  await index.rotate(extents + 1);
  await index.quiet();
  const { user, system } = process.cpuUsage(before);
  const { runBytes, runs } = index.status();
  await index.close();
  return { cpuSeconds: (user + system) / 1e6, bytesPerExtent: runBytes / extents, runs };
}

/** Reads of random places that were written, at one position in the middle. */
async function timedReads(history: HistoryReader, seed: number): Promise<number[]> {
  const numbers = new Numbers(seed);
  const into = new Uint8Array(4096);
  const micros: number[] = [];
  for (let read = 0; read < READS; read++) {
    const block = hotBlock(numbers.below(HOT_BLOCKS));
    const began = performance.now();
    await history.read(VOLUME, Math.floor(extents / 2), block * 4096, into);
    micros.push((performance.now() - began) * 1000);
  }
  return micros;
}

async function read(): Promise<object> {
  const began = performance.now();
  const index = await openIndex();
  const openMs = performance.now() - began;
  const store = await openStore();
  const { chunkCacheBytesMax, layoutCacheBytesMax } = REPLICA_DEFAULTS;
  const frames = new FrameReader(store, new RepairedFrames(host, path.join(directory, 'segments')), {
    chunkBytesMax: chunkCacheBytesMax,
    layoutBytesMax: layoutCacheBytesMax,
  });
  const base = BaseImage.open(host, { directory: path.join(directory, 'base'), groupId: GROUP }, VOLUME);
  const history = new HistoryReader(index, frames, () => base);
  const viewing = performance.now();
  await history.read(VOLUME, Math.floor(extents / 2), hotBlock(HOT_BLOCKS >>> 1) * 4096, new Uint8Array(4096));
  const firstMs = performance.now() - viewing;
  const cold = await timedReads(history, 1);
  // read what the reads below will: the files are in memory then, not all of it in the caches
  await timedReads(history, 2);
  await timedReads(history, 3);
  const warm = await timedReads(history, 2);
  const again = await timedReads(history, 2);
  await index.close();
  await store.close();
  return {
    openMs,
    viewMs: openMs + firstMs,
    coldP50: percentile(cold, 0.5),
    coldP99: percentile(cold, 0.99),
    warmP50: percentile(warm, 0.5),
    againP50: percentile(again, 0.5),
  };
}

/** What the index adds to a process when its cache is full and it is written to. */
async function remember(): Promise<object> {
  const collect = (globalThis as { gc?: () => void }).gc;
  // code and buffers that any index brings are there before
  const numbers = new Numbers(4);
  collect?.();
  const before = residentMib(process.pid);
  const index = await openIndex();
  const places = new Places();
  let most = 0;
  for (let lookup = 1; lookup <= LOOKUPS; lookup++) {
    await index.lookup(VOLUME, hotBlock(numbers.below(HOT_BLOCKS)) * 8, 8, Math.floor(extents / 2));
    const lsn = extents + lookup;
    for (let written = 0; written < 4; written++) {
      index.add(VOLUME, places.next() * 8, 8, lsn, { segment: 1, frame: 64, payload: 0 });
    }
    index.advance(lsn);
    if (index.memtableFull) await index.rotate(lsn + 1);
    if (lookup % 5000 === 0) {
      collect?.();
      most = Math.max(most, residentMib(process.pid) - before);
    }
  }
  await index.quiet();
  await index.close();
  return { memoryMib: most };
}

const STEPS: Readonly<Record<string, () => Promise<object>>> = { make, read, remember };
const run = STEPS[step];
if (run === undefined) throw new Error(`no step ${step}`);
console.log(JSON.stringify(await run()));
