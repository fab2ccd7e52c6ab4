import { readFileSync, writeFileSync } from 'node:fs';
import { TidemarkError } from '../../journal/base/errors.ts';
import { FrameView } from '../../journal/frame-view.ts';
import { realHost } from '../../journal/host/real-host.ts';
import type { FrameSource, FrameSourceEvents, FrameSourceStart, ReplicaFeedback } from '../../journal/stream.ts';
import { REPLICA_DEFAULTS, ReplicaGroup, type ReplicaGroupOptions } from '../../replica/replica-group.ts';
import { GROUP, History, Model, seal } from '../replica/support/history.ts';
import { inTime } from './source-under-test.ts';
import { readWitness, Witness } from './witness.ts';

const RECORDS_PER_FRAME_MAX = 12;
const VIEWS_PER_CHECK = 6;

/** A history and its frames, the same for every run of one seed. */
export class Shipment {
  readonly history: History;
  readonly frames: readonly Uint8Array[];

  constructor(seed: number, records: number, frames?: readonly Uint8Array[]) {
    this.history = new History(seed);
    this.history.addVolumes();
    this.history.fill(records);
    const perFrame = (random: { below(bound: number): number }): number => 1 + random.below(RECORDS_PER_FRAME_MAX);
    this.frames = frames ?? seal(this.history, { recordsPerFrame: perFrame }).map(({ bytes }) => bytes);
  }

  /** Each frame with its length, 4 bytes little endian, before it. */
  save(path: string): void {
    const parts = this.frames.flatMap((frame) => {
      const length = Buffer.alloc(4);
      length.writeUInt32LE(frame.length);
      return [length, frame];
    });
    writeFileSync(path, Buffer.concat(parts));
  }
}

export function readFrames(path: string): Uint8Array[] {
  const bytes = readFileSync(path);
  const frames: Uint8Array[] = [];
  for (let at = 0; at < bytes.length; ) {
    const length = bytes.readUInt32LE(at);
    frames.push(new Uint8Array(bytes.subarray(at + 4, at + 4 + length)));
    at += 4 + length;
  }
  return frames;
}

/** Writes down every acknowledgement before anybody could act on it. */
class NotingSource implements FrameSource {
  events: FrameSourceEvents | undefined;
  paused = false;
  readonly #witness: Witness;

  constructor(witness: Witness) {
    this.#witness = witness;
  }

  open(_start: FrameSourceStart, events: FrameSourceEvents): void {
    this.events = events;
  }

  pause(): void {
    this.paused = true;
  }

  resume(): void {
    this.paused = false;
  }

  feedback(feedback: ReplicaFeedback): void {
    this.#witness.far(feedback.durableLsn, feedback.chain);
  }

  status(): { state: 'streaming'; reason: string } {
    return { state: 'streaming', reason: '' };
  }

  async close(): Promise<void> {
    await Promise.resolve();
  }
}

export function replicaOptions(directory: string, change: Partial<ReplicaGroupOptions> = {}): ReplicaGroupOptions {
  return {
    ...REPLICA_DEFAULTS,
    directory,
    groupId: GROUP,
    replica: 'dr',
    segmentBytes: 128 * 1024,
    // history's clock: a millisecond per record
    policy: { windowMs: 60, bytesMax: 0 },
    reserveBytes: 0,
    indexCacheBytesMax: 64 * 1024,
    memtableEntries: 96,
    chunkCacheBytesMax: 256 * 1024,
    layoutCacheBytesMax: 64 * 1024,
    receiver: { ...REPLICA_DEFAULTS.receiver, feedbackIntervalMs: 1, spaceProbeMs: 20, syncDelayMs: 2 },
    ...change,
  };
}

/** The replica's group as the product runs it, fed by hand. */
export class ReplicaUnderTest {
  readonly group: ReplicaGroup;
  readonly #shipment: Shipment;
  readonly #witness: Witness;
  readonly #source: NotingSource;
  #wasFull = false;

  private constructor(group: ReplicaGroup, shipment: Shipment, witness: Witness) {
    this.group = group;
    this.#shipment = shipment;
    this.#witness = witness;
    this.#source = new NotingSource(witness);
    group.start(this.#source);
  }

  /** Opens, recovers, and compares with the witness. */
  static async open(options: ReplicaGroupOptions, shipment: Shipment, witnessPath: string): Promise<ReplicaUnderTest> {
    const told = readWitness(witnessPath);
    const group = await ReplicaGroup.open(realHost(), options);
    const witness = new Witness(witnessPath);
    if (group.headLsn < told.farLsn) {
      witness.violation(`acknowledged up to ${told.farLsn}, came up with ${group.headLsn}`);
    }
    const { damage, orphans } = await group.status();
    if (damage.length > 0) witness.violation(`damage: ${JSON.stringify(damage)}`);
    if (orphans.length > 0) witness.violation(`orphans: ${JSON.stringify(orphans)}`);
    return new ReplicaUnderTest(group, shipment, witness);
  }

  /** Sends what follows what is held, up to this LSN. Throws what ended the data path. */
  async receive(upTo: number): Promise<void> {
    let sinceIdle = 0;
    for (const bytes of this.#shipment.frames) {
      const frame = FrameView.open(bytes);
      if (frame.lastLsn <= this.group.headLsn) continue;
      if (frame.firstLsn > upTo) break;
      this.#source.events?.onFrame(bytes, String(frame.lastLsn));
      if (++sinceIdle % 3 === 0) await this.#taken();
    }
    await this.#taken();
    if (this.group.headLsn < upTo) {
      // one was refused for what the disk said, and the stream is asked for it again
      const { receiver } = await this.group.status();
      throw new TidemarkError('device-failed', `head ${this.group.headLsn} of ${upTo}: ${receiver.lastRejection}`);
    }
  }

  async retain(): Promise<void> {
    await inTime(this.group.retain(), 'retention');
  }

  /** Views at the newest, the oldest, and points between are what the history says. */
  async check(): Promise<void> {
    const { floorLsn, headLsn } = this.group;
    const first = Math.max(floorLsn, 12);
    const step = Math.max(1, Math.floor((headLsn - first) / VIEWS_PER_CHECK));
    const model = new Model();
    for (let lsn = first; lsn <= headLsn; lsn = lsn === headLsn ? lsn + 1 : Math.min(lsn + step, headLsn)) {
      model.advance(this.#shipment.history, lsn);
      const view = this.group.openView({ lsn, owner: 'test', scratchBytesMax: 0 });
      for (const { volume, device } of view.volumes) {
        const bytes = Buffer.alloc(device.size);
        await device.read(0, bytes);
        if (!bytes.equals(model.disk(volume.id))) this.#witness.violation(`${volume.name} at LSN ${lsn} differs`);
      }
      await this.group.views.close(view.id);
    }
  }

  async close(): Promise<void> {
    await inTime(this.group.close(), 'closing the replica').finally(() => this.#witness.close());
  }

  /** Waits until all is synced, or the data path has ended; a full disk is waited for. */
  async #taken(): Promise<void> {
    for (;;) {
      await inTime(this.group.idle(), 'the replica');
      const { receiver } = await this.group.status();
      if (receiver.state === 'stopped') throw new TidemarkError('sync-failed', receiver.reason);
      if (receiver.state !== 'receiving' && receiver.state !== 'replica-full') {
        throw new Error(`the replica is ${receiver.state}: ${receiver.reason}`);
      }
      if (receiver.state === 'replica-full' && !this.#wasFull) this.#witness.error(`replica-full: ${receiver.reason}`);
      this.#wasFull = receiver.state === 'replica-full';
      if (!this.#source.paused && receiver.queuedBytes === 0) return;
      await new Promise((resolve) => {
        setTimeout(resolve, 5);
      });
    }
  }
}
