import { TidemarkError } from '../../../journal/base/errors.ts';
import { type Clock } from '../../../journal/host/host.ts';
import { type Lsn } from '../../../journal/position.ts';
import { type ReplicaFeedback } from '../../../journal/stream.ts';
import { type LogAdmin } from './log-ports.ts';
import { parseStreamOffset } from './stream-offset.ts';
import { TAIL_FRAMES } from './stream-tail.ts';

const NOTES_MAX = 256;
const INTERVAL_MS = 5_000;

/**
 * DeleteRecords behind what every registered replica holds (rule 21). A replica's `resumeOffset` says from where it
 * would read again; so the topic may lose what lies below the lowest of them, as far as the owner of the journal
 * allowed it. The newest frames stay, for a source that has to settle a cut or to find its place.
 */
export class TopicTrimmer {
  readonly #clock: Clock;
  readonly #admin: LogAdmin;
  readonly #topic: string;
  readonly #notes: Map<string, { readonly durableLsn: Lsn; readonly offset: bigint; readonly topicId: string }[]>;
  #allowedLsn: Lsn = 0;
  #acknowledged: { readonly offset: bigint; readonly topicId: string } | undefined;
  #trimmed = 0n;
  #working = false;
  #closed = false;

  constructor(clock: Clock, admin: LogAdmin, topic: string, replicas: readonly string[]) {
    this.#clock = clock;
    this.#admin = admin;
    this.#topic = topic;
    this.#notes = new Map(replicas.map((replica) => [replica, []]));
  }

  note(feedback: ReplicaFeedback): void {
    const notes = this.#notes.get(feedback.replica);
    if (notes === undefined) return;
    const resume = parseStreamOffset(feedback.resumeOffset);
    const last = notes.at(-1);
    if (resume === undefined || (last !== undefined && feedback.durableLsn < last.durableLsn)) notes.length = 0;
    if (resume === undefined) return;
    if (last?.offset === resume.offset && last.durableLsn === feedback.durableLsn) return;
    notes.push({ durableLsn: feedback.durableLsn, ...resume });
    if (notes.length > NOTES_MAX) notes.shift();
  }

  acknowledged(offset: bigint, topicId: string): void {
    if (this.#acknowledged?.topicId !== topicId) this.#trimmed = 0n;
    this.#acknowledged = { offset, topicId };
  }

  allow(lsn: Lsn): void {
    this.#allowedLsn = lsn;
    // The only rejections of `#trim` are broken assumptions, which end the process.
    if (!this.#working) void this.#trim();
  }

  close(): void {
    this.#closed = true;
    this.#admin.close();
  }

  /** The lowest offset that somebody may still need, or undefined when it is not known. */
  target(): bigint | undefined {
    if (this.#acknowledged === undefined || this.#notes.size === 0) return undefined;
    let target = this.#acknowledged.offset - TAIL_FRAMES;
    for (const notes of this.#notes.values()) {
      const note = notes.findLast((candidate) => candidate.durableLsn <= this.#allowedLsn);
      if (note === undefined || note.topicId !== this.#acknowledged.topicId) return undefined;
      if (note.offset < target) target = note.offset;
    }
    return target > 0n ? target : undefined;
  }

  async #trim(): Promise<void> {
    const target = this.target();
    if (target === undefined || target <= this.#trimmed) return;
    this.#working = true;
    try {
      await this.#admin.truncateBefore(this.#topic, target);
      this.#trimmed = target;
    } catch (error) {
      if (!(error instanceof TidemarkError)) throw error;
      // Nothing is lost by a topic that is trimmed later.
      this.#admin.reset();
    }
    this.#clock.after(INTERVAL_MS, () => {
      this.#working = false;
      if (!this.#closed) void this.#trim();
    });
  }
}
