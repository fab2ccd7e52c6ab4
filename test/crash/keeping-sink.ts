import { chainString, parseChain, sameChain } from '../../journal/chain.ts';
import { FrameView } from '../../journal/frame-view.ts';
import type { Lsn } from '../../journal/position.ts';
import type { FrameSink, FrameSinkEvents, OutgoingFrame, SourceIdentity, StreamStatus } from '../../journal/stream.ts';
import type { Witness } from './witness.ts';

export const REPLICA_NAME = 'dr';

/**
 * A far side that takes everything at once and never forgets: what it holds is in the witness before it says so. Every
 * frame must continue what it holds, over every restart of the source: records that were told once are never others.
 */
export class KeepingSink implements FrameSink {
  readonly windowBytes: number = 1 << 26;
  readonly #witness: Witness;
  #lsn: Lsn;
  #chain: string;
  #identity: SourceIdentity | undefined;
  #events: FrameSinkEvents | undefined;
  #closed = false;

  constructor(witness: Witness, lsn: Lsn, chain: string) {
    this.#witness = witness;
    this.#lsn = lsn;
    this.#chain = chain;
  }

  open(identity: SourceIdentity, events: FrameSinkEvents): void {
    this.#identity = identity;
    this.#events = events;
    setImmediate(() => {
      if (this.#closed) return;
      this.#tell();
      events.onSeek(this.#lsn + 1, 'what is held');
    });
  }

  send(frame: OutgoingFrame): void {
    const view = FrameView.open(frame.bytes);
    view.verifyPayload();
    if (view.firstLsn !== this.#lsn + 1 || !sameChain(view.chainBefore, parseChain(this.#chain))) {
      this.#witness.violation(
        `frame ${view.firstLsn}-${view.lastLsn} does not continue ${this.#lsn} with chain ${this.#chain}`,
      );
    }
    this.#lsn = view.lastLsn;
    this.#chain = chainString(view.chainAfter);
    this.#witness.far(this.#lsn, this.#chain);
    setImmediate(() => {
      if (this.#closed) return;
      this.#events?.onAccepted(view.lastLsn);
      this.#tell();
      this.#events?.onReady();
    });
  }

  settle(): Promise<{ highestLsn: Lsn }> {
    return Promise.resolve({ highestLsn: this.#lsn });
  }

  async *fetch(): AsyncIterable<Uint8Array> {}

  trim(): void {}

  status(): StreamStatus {
    return { state: 'streaming', reason: '' };
  }

  async close(): Promise<void> {
    this.#closed = true;
    await Promise.resolve();
  }

  #tell(): void {
    const identity = this.#identity;
    if (identity === undefined) return;
    this.#events?.onFeedback({
      replica: REPLICA_NAME,
      groupId: identity.groupId,
      epoch: identity.epoch,
      incarnation: identity.incarnation.counter,
      durableLsn: this.#lsn,
      chain: this.#chain,
      state: 'receiving',
      reason: '',
      missingFrom: 0,
      heartbeatMs: 0,
      resumeOffset: '',
    });
  }
}
