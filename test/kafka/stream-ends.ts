import { randomBytes } from 'node:crypto';
import { CHAIN_START, type Chain } from '../../journal/chain.ts';
import { FrameSealer, SEALER_DEFAULTS } from '../../journal/frame-sealer.ts';
import { FrameView } from '../../journal/frame-view.ts';
import { type Lsn } from '../../journal/position.ts';
import { RecordKind } from '../../journal/record.ts';
import {
  type FrameSink,
  type FrameSinkEvents,
  type FrameSource,
  type FrameSourceEvents,
  type OutgoingFrame,
  type ReplicaFeedback,
  type SourceIdentity,
  type StreamStatus,
} from '../../journal/stream.ts';

export function newGroup(): SourceIdentity {
  return {
    groupId: randomBytes(16).toString('hex'),
    groupName: 'g',
    epoch: 1,
    incarnation: { counter: 1, nonce: randomBytes(8).toString('hex') },
    frameVersion: 1,
  };
}

/** Frames of two records each, with random payload, from `firstLsn` on. */
export function sealFrames(
  identity: SourceIdentity,
  count: number,
  payloadBytes: number,
  start: { lsn: Lsn; chain: Chain } = { lsn: 1, chain: CHAIN_START },
): OutgoingFrame[] {
  const sealer = new FrameSealer(identity, { ...SEALER_DEFAULTS, compress: false });
  sealer.begin(start.lsn, start.chain);
  return Array.from({ length: count }, () => {
    for (let record = 0; record < 2; record++) {
      const payload = randomBytes(payloadBytes / 2);
      sealer.add({
        lsn: sealer.nextLsn,
        kind: RecordKind.write,
        flags: 0,
        volume: 1,
        sector: sealer.nextLsn,
        sectors: payload.length / 512,
        requestId: 0,
        time: sealer.nextLsn,
        payload,
      });
    }
    return sealer.seal(sealer.nextLsn - 1);
  });
}

/** A shipper with its whole journal in memory: sends from wherever the sink asks, within its window. */
export class Shipper implements FrameSinkEvents {
  readonly sink: FrameSink;
  readonly frames: OutgoingFrame[];
  readonly seeks: { fromLsn: Lsn; reason: string }[] = [];
  readonly statuses: StreamStatus[] = [];
  readonly feedbacks: ReplicaFeedback[] = [];
  acceptedLsn = 0;
  #next: number | undefined;

  constructor(sink: FrameSink, frames: OutgoingFrame[]) {
    this.sink = sink;
    this.frames = frames;
  }

  get lastLsn(): Lsn {
    return this.frames.at(-1)?.lastLsn ?? 0;
  }

  pump(): void {
    while (this.#next !== undefined && this.sink.windowBytes > 0) {
      const frame = this.frames[this.#next];
      if (frame === undefined) return;
      this.#next++;
      this.sink.send(frame);
    }
  }

  onSeek(fromLsn: Lsn, reason: string): void {
    this.seeks.push({ fromLsn, reason });
    const index = this.frames.findIndex((frame) => frame.lastLsn >= fromLsn);
    this.#next = index === -1 ? this.frames.length : index;
    queueMicrotask(() => this.pump());
  }

  onReady(): void {
    this.pump();
  }

  onAccepted(lsn: Lsn): void {
    this.acceptedLsn = lsn;
  }

  onFeedback(feedback: ReplicaFeedback): void {
    this.feedbacks.push(feedback);
  }

  onStatus(status: StreamStatus): void {
    this.statuses.push(status);
  }
}

/** A receiver that keeps what continues its position, drops repeats, holds what is early, and says what it has. */
export class Receiver implements FrameSourceEvents {
  readonly source: FrameSource;
  readonly identity: SourceIdentity;
  readonly replica: string;
  readonly kept: Uint8Array[] = [];
  readonly losses: { reason: string; oldest: string }[] = [];
  readonly statuses: StreamStatus[] = [];
  durableLsn = 0;
  resumeOffset = '';
  missingFrom = 0;
  repeats = 0;
  heldMost = 0;
  rubbish = 0;
  #held = new Map<Lsn, { bytes: Uint8Array; offset: string }>();

  constructor(source: FrameSource, identity: SourceIdentity, replica: string) {
    this.source = source;
    this.identity = identity;
    this.replica = replica;
  }

  open(): void {
    const { replica, durableLsn, resumeOffset } = this;
    const framesFrom = (): AsyncIterable<Uint8Array> => {
      throw new Error('nobody asks for frames over Kafka');
    };
    this.source.open(
      { replica, groupId: this.identity.groupId, durableLsn, resumeOffset, frameVersion: 1, framesFrom },
      this,
    );
  }

  onFrame(bytes: Uint8Array, offset: string): void {
    let view: FrameView;
    try {
      view = FrameView.open(bytes);
    } catch {
      this.rubbish++;
      return;
    }
    if (view.lastLsn <= this.durableLsn) {
      this.repeats++;
      return;
    }
    this.#held.set(view.firstLsn, { bytes, offset });
    for (
      let next = this.#held.get(this.durableLsn + 1);
      next !== undefined;
      next = this.#held.get(this.durableLsn + 1)
    ) {
      const frame = FrameView.open(next.bytes);
      frame.verifyPayload();
      this.kept.push(next.bytes);
      this.#held.delete(frame.firstLsn);
      this.durableLsn = frame.lastLsn;
      this.resumeOffset = next.offset;
      this.missingFrom = 0;
    }
    for (const lsn of this.#held.keys()) if (lsn <= this.durableLsn) this.#held.delete(lsn);
    this.heldMost = Math.max(this.heldMost, this.#held.size);
    this.report();
  }

  onLost(reason: string, oldest: string): void {
    this.losses.push({ reason, oldest });
    this.ask();
  }

  /** Frames that wait for one that has not come. */
  get held(): number {
    return this.#held.size;
  }

  /** Tells the source what is missing. */
  ask(): void {
    this.missingFrom = this.durableLsn + 1;
    this.report();
  }

  onStatus(status: StreamStatus): void {
    this.statuses.push(status);
  }

  report(overrides: Partial<ReplicaFeedback> = {}): void {
    this.source.feedback({
      replica: this.replica,
      groupId: this.identity.groupId,
      epoch: this.identity.epoch,
      incarnation: this.identity.incarnation.counter,
      durableLsn: this.durableLsn,
      chain: '0'.repeat(16),
      state: 'receiving',
      reason: '',
      missingFrom: this.missingFrom,
      heartbeatMs: 0,
      resumeOffset: this.resumeOffset,
      ...overrides,
    });
  }
}

export function sameBytes(kept: readonly Uint8Array[], sent: readonly OutgoingFrame[]): boolean {
  const same = (bytes: Uint8Array, index: number): boolean => {
    const frame = sent[index];
    return frame !== undefined && Buffer.compare(bytes, frame.bytes) === 0;
  };
  return kept.length === sent.length && kept.every(same);
}

/** Resolves when `condition` holds; rejects with what `state` says when it does not within `ms`. */
export async function until(condition: () => boolean, ms: number, state: () => unknown): Promise<void> {
  const deadline = performance.now() + ms;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(`not within ${ms} ms: ${JSON.stringify(state())}`);
    await new Promise((resolve) => {
      setTimeout(resolve, 5);
    });
  }
}
