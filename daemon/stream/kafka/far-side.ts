import { type Host } from '../../../journal/host/host.ts';
import { LSN_NONE, type Lsn } from '../../../journal/position.ts';
import { type FeedbackReader } from './feedback-reader.ts';
import { type LogCluster, LogOutOfRange, type LogReader } from './log-ports.ts';
import { PatientReader } from './patient-reader.ts';
import { framesFrom } from './stream-history.ts';
import { readTail } from './stream-tail.ts';

/** Questions about what topic and replicas hold, for a source that settles a cut (rule 4). Asked until `giveUp`. */
export class FarSide {
  readonly #host: Host;
  readonly #cluster: LogCluster;
  readonly #topic: string;
  readonly #groupId: string;
  readonly #feedback: FeedbackReader;

  constructor(host: Host, cluster: LogCluster, topic: string, groupId: string, feedback: FeedbackReader) {
    this.#host = host;
    this.#cluster = cluster;
    this.#topic = topic;
    this.#groupId = groupId;
    this.#feedback = feedback;
  }

  /** The largest LSN in the topic's newest frames or durable at any replica. */
  async highestLsn(giveUp: AbortSignal): Promise<Lsn> {
    await this.#feedback.readToEnd();
    const reader = this.#reader(giveUp);
    let inTopic: Lsn;
    try {
      inTopic = await this.#highestInTopic(reader);
    } finally {
      reader.close();
    }
    return Math.max(inTopic, ...[...this.#feedback.states.values()].map((feedback) => feedback.durableLsn));
  }

  /** As `FrameSink.fetch`. */
  async *frames(fromLsn: Lsn, giveUp: AbortSignal, writtenBy?: number): AsyncIterable<Uint8Array> {
    const reader = this.#reader(giveUp);
    try {
      const starts = writtenBy === undefined ? { seen: [...this.#feedback.states.values()] } : { writtenBy };
      yield* framesFrom(reader, this.#groupId, fromLsn, starts, giveUp);
    } finally {
      reader.close();
    }
  }

  #reader(giveUp: AbortSignal): LogReader {
    return new PatientReader(this.#host, this.#cluster.reader(this.#topic), giveUp);
  }

  async #highestInTopic(reader: LogReader): Promise<Lsn> {
    for (;;) {
      try {
        const bounds = await reader.bounds();
        if (bounds === undefined) return LSN_NONE;
        return (await readTail(reader, bounds, this.#groupId, this.#feedback.states.values())).highestLsn;
      } catch (error) {
        // Truncated while it was read.
        if (!(error instanceof LogOutOfRange)) throw error;
      }
    }
  }
}
