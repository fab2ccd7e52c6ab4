import { closeSync, existsSync, mkdirSync, openSync, rmSync, statSync, truncateSync, writeSync } from 'node:fs';
import { copyFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { DeviceExport } from '../../daemon/nbd/device-export.ts';
import { NbdServer } from '../../daemon/nbd/server.ts';
import { SECTOR_BYTES } from '../../journal/position.ts';
import { attempt, run } from '../servers/child.ts';
import { randomSource } from '../volume/support/group-bench.ts';
import { DISK_BYTES, type FileSystem, FileSystemBench } from './file-system-bench.ts';
import { type DiskEvent, RecordingDisk } from './recording-disk.ts';
import { ReplicaUnderTest, replicaOptions, Shipment } from './replica-under-test.ts';
import { SourceUnderTest } from './source-under-test.ts';
import { readWitness } from './witness.ts';
import { Workload } from './workload.ts';

const SEED = 2;
const STEPS = 90;
const RECORDS = 300;
const KILLED_AT = 0.4;
const PAGE_BYTES = 4096;
const KEPT_SHARES: readonly number[] = [0, 0.1, 0.5, 0.9, 1];

export interface PowerLossResult {
  /** What the file system sent to its disk. */
  readonly writes: number;
  readonly flushes: number;
  readonly states: number;
  /** States in which less than everything since the last flush was kept. */
  readonly torn: number;
  /** States that had flushed units or acknowledged frames to keep. */
  readonly withFloor: number;
  readonly violations: readonly string[];
}

/**
 * Records what a file system with a source and a replica on it sends to its disk, then lets the power fail: everything
 * up to a flush is there, of what came after it a random subset of sectors. Each such disk is mounted, both recover, and
 * what had been told by that moment must hold.
 */
export async function powerLoss(
  system: FileSystem,
  states: number,
  seed: number,
  onState: (text: string) => void = () => {},
): Promise<PowerLossResult> {
  const bench = new FileSystemBench();
  try {
    const base = bench.path('base');
    const events = await record(bench, system, base);
    return await replay(bench, system, base, events, states, seed, onState);
  } finally {
    await bench.remove();
  }
}

async function record(bench: FileSystemBench, system: FileSystem, base: string): Promise<DiskEvent[]> {
  const disk = new RecordingDisk(DISK_BYTES[system]);
  const socket = bench.path('recorder');
  const server = await NbdServer.start({
    listeners: [{ address: { kind: 'unix', path: socket } }],
    exports: [new DeviceExport(disk, { name: 'disk' })],
  });
  try {
    const file = await bench.asFile(socket, 'disk');
    await bench.make(system, file);
    const point = await bench.mount(system, file);
    await run('sync', ['-f', point]);
    saveSparse(base, disk.content);
    const witnesses = [bench.path('source-witness'), bench.path('replica-witness')];
    disk.record(() => witnesses.map((path) => (existsSync(path) ? statSync(path).size : 0)));
    await Promise.all([runSource(point, witnesses[0] as string), runReplica(bench, point, witnesses[1] as string)]);
    const events = disk.stop();
    await bench.unmount(point);
    return events;
  } finally {
    await server.close();
  }
}

/** A first run that is killed, and one that recovers, stops and starts once in order, and ends. */
async function runSource(point: string, witness: string): Promise<void> {
  await run('mkdir', [`${point}/source`]);
  const program = [file('source-program.ts'), `${point}/source`, witness, String(SEED), String(STEPS)];
  await attempt(process.execPath, [...program, String(Math.floor(STEPS * KILLED_AT))]);
  await run(process.execPath, program);
  expectFinished(witness);
}

async function runReplica(bench: FileSystemBench, point: string, witness: string): Promise<void> {
  const frames = bench.path('frames');
  new Shipment(SEED, RECORDS).save(frames);
  const program = [file('replica-program.ts'), `${point}/replica`, witness, String(SEED), String(RECORDS), frames];
  await attempt(process.execPath, [...program, String(Math.floor(RECORDS * KILLED_AT))]);
  await run(process.execPath, program);
  expectFinished(witness);
}

function expectFinished(witness: string): void {
  const { finished, violations } = readWitness(witness);
  if (!finished || violations.length > 0) throw new Error(`the recorded run failed: ${violations.join('; ')}`);
}

/** Everything before event `flushedTo` is on the medium, and of what lies between there and `end` a share of sectors. */
interface Cut {
  readonly flushedTo: number;
  readonly end: number;
  readonly kept: number;
}

function drawCuts(events: readonly DiskEvent[], states: number, random: (bound: number) => number): Cut[] {
  const borders = [-1, ...events.flatMap(({ kind }, index) => (kind === 'flush' ? [index] : []))];
  const cuts: Cut[] = [];
  for (let state = 0; state < states; state++) {
    // one after the other over the whole run, so that every stretch of it is met
    const at = Math.floor(((state + random(1000) / 1000) * borders.length) / states);
    const flushedTo = (borders[Math.min(at, borders.length - 1)] ?? -1) + 1;
    const next = borders[at + 1] ?? events.length;
    // half of them right before the next flush, when most is at stake
    const end = random(2) === 0 ? next : flushedTo + random(next - flushedTo + 1);
    cuts.push({ flushedTo, end, kept: KEPT_SHARES[random(KEPT_SHARES.length)] ?? 0 });
  }
  return cuts;
}

async function replay(
  bench: FileSystemBench,
  system: FileSystem,
  base: string,
  events: readonly DiskEvent[],
  states: number,
  seed: number,
  onState: (text: string) => void,
): Promise<PowerLossResult> {
  const random = randomSource(seed);
  const workload = new Workload(SEED, STEPS);
  const shipment = new Shipment(SEED, RECORDS);
  const violations: string[] = [];
  let applied = 0;
  let torn = 0;
  let withFloor = 0;
  for (const [state, cut] of drawCuts(events, states, random).entries()) {
    applyEvents(base, events.slice(applied, cut.flushedTo), () => true);
    applied = cut.flushedTo;
    const image = bench.path('state');
    await copySparse(base, image);
    const rest = events.slice(cut.flushedTo, cut.end);
    applyEvents(image, rest, () => random(1000) < cut.kept * 1000);
    if (rest.length > 0 && cut.kept < 1) torn++;
    const told = events[cut.end]?.told;
    const name = `${system} state ${state} of ${states}, seed ${seed}, ${cut.flushedTo}+${rest.length} events, ${cut.kept} kept`;
    const found = await oneState(bench, system, image, told, workload, shipment, `boot-${seed}-${state}`);
    if (found.hasFloor) withFloor++;
    violations.push(...found.violations.map((text) => `${name}: ${text}`));
    onState(`${name} ${found.violations.join('; ')}`);
    rmSync(image);
  }
  const flushes = events.filter(({ kind }) => kind === 'flush').length;
  return { writes: events.length - flushes, flushes, states, torn, withFloor, violations };
}

async function oneState(
  bench: FileSystemBench,
  system: FileSystem,
  image: string,
  told: readonly number[] | undefined,
  workload: Workload,
  shipment: Shipment,
  bootId: string,
): Promise<{ hasFloor: boolean; violations: string[] }> {
  const [source = '', replica = ''] = await Promise.all(
    ['source', 'replica'].map(async (role, index) => {
      const witness = bench.path(`${role}-state-witness`);
      const whole = bench.path(`${role}-witness`);
      await copyFile(whole, witness);
      // what is there then is whole lines: each is written with one call
      truncateSync(witness, told?.[index] ?? statSync(whole).size);
      return witness;
    }),
  );
  const floors = [readWitness(source).flushed, readWitness(replica).farLsn];
  const violations: string[] = [];
  const point = await bench.mount(system, image, 'state-mnt');
  try {
    mkdirSync(`${point}/source`, { recursive: true });
    await checkSource(`${point}/source`, source, workload, bootId);
    await checkReplica(`${point}/replica`, replica, shipment);
  } catch (error) {
    violations.push(error instanceof Error ? (error.stack ?? error.message) : String(error));
  }
  // what is still open after a failure must not hide it
  await bench.unmount(point).catch((error: unknown) => violations.push(String(error)));
  violations.push(...readWitness(source).violations, ...readWitness(replica).violations);
  return { hasFloor: floors.some((floor) => floor > 0), violations };
}

async function checkSource(directory: string, witness: string, workload: Workload, bootId: string): Promise<void> {
  const source = await SourceUnderTest.open({ directory, witness }, workload, 'flushed', bootId);
  try {
    const disks = await source.drainedDisks();
    for (const [index, bytes] of (await source.content()).entries()) {
      if (!bytes.equals(disks[index] as Buffer)) throw new Error('the raw disks are not what a guest reads');
    }
    await source.run(workload.stepBehind(source.kept) + 3);
  } finally {
    await source.close();
  }
}

async function checkReplica(directory: string, witness: string, shipment: Shipment): Promise<void> {
  const replica = await ReplicaUnderTest.open(replicaOptions(directory), shipment, witness);
  try {
    await replica.check();
    await replica.receive(Math.min(shipment.history.lastLsn, replica.group.headLsn + 20));
    await replica.check();
  } finally {
    await replica.close();
  }
}

function applyEvents(image: string, events: readonly DiskEvent[], keeps: () => boolean): void {
  const fd = openSync(image, 'r+');
  try {
    for (const { kind, offset, length, bytes } of events) {
      if (kind === 'flush') continue;
      const content = bytes ?? new Uint8Array(length);
      let from = 0;
      for (let at = 0; at <= length; at += SECTOR_BYTES) {
        // runs of kept sectors go out in one call
        if (at < length && keeps()) continue;
        if (at > from) writeSync(fd, content, from, at - from, offset + from);
        from = at + SECTOR_BYTES;
      }
    }
  } finally {
    closeSync(fd);
  }
}

function saveSparse(path: string, content: Buffer): void {
  const zeroes = Buffer.alloc(PAGE_BYTES);
  const fd = openSync(path, 'w');
  try {
    for (let at = 0; at < content.length; at += PAGE_BYTES) {
      const page = content.subarray(at, at + PAGE_BYTES);
      if (!page.equals(zeroes)) writeSync(fd, page, 0, PAGE_BYTES, at);
    }
  } finally {
    closeSync(fd);
  }
  truncateSync(path, content.length);
}

async function copySparse(from: string, to: string): Promise<void> {
  await run('cp', ['--sparse=always', from, to]);
}

function file(name: string): string {
  return fileURLToPath(new URL(name, import.meta.url));
}
