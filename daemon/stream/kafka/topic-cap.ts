import { TidemarkError } from '../../../journal/base/errors.ts';
import { type Clock, type Timer } from '../../../journal/host/host.ts';
import { type StreamTopicStatus } from '../../../journal/stream.ts';
import { type LogAdmin, type LogCluster, type LogReader } from './log-ports.ts';

/**
 * How full a topic is whose size is capped on purpose (rule 21), asked every `intervalMs`. A broker that does not tell (the user
 * lacks DESCRIBE on the cluster) leaves an estimate: records in the topic times the mean frame that was sent since the
 * start. What cannot be asked, and an estimate before the first frame, is unknown.
 */
export class TopicCap {
  readonly #clock: Clock;
  readonly #admin: LogAdmin;
  readonly #reader: LogReader;
  readonly #topic: string;
  readonly #intervalMs: number;
  #timer: Timer | undefined;
  #closed = false;
  #framesSent = 0;
  #bytesSent = 0;
  #status: StreamTopicStatus;

  /** Begins at once, and goes on until it is closed. */
  constructor(clock: Clock, cluster: LogCluster, topic: string, capBytes: number, intervalMs: number) {
    this.#clock = clock;
    this.#admin = cluster.admin();
    this.#reader = cluster.reader(topic);
    this.#topic = topic;
    this.#intervalMs = intervalMs;
    this.#status = { capBytes, usedBytes: null, estimated: false };
    void this.#measure();
  }

  get status(): StreamTopicStatus {
    return this.#status;
  }

  sent(bytes: number): void {
    this.#framesSent += 1;
    this.#bytesSent += bytes;
  }

  close(): void {
    this.#closed = true;
    this.#timer?.cancel();
    this.#admin.close();
    this.#reader.close();
  }

  /** The only rejections are broken assumptions, which end the process. */
  async #measure(): Promise<void> {
    try {
      const told = await this.#admin.storedBytes(this.#topic);
      // The leader may have moved: the next question finds the one of then.
      if (told === undefined) this.#admin.reset();
      const usedBytes = told ?? (await this.#estimate());
      this.#status = { ...this.#status, usedBytes, estimated: told === undefined && usedBytes !== null };
    } catch (error) {
      if (!(error instanceof TidemarkError)) throw error;
      this.#status = { ...this.#status, usedBytes: null, estimated: false };
      this.#admin.reset();
      this.#reader.reset();
    }
    if (this.#closed) return;
    this.#timer = this.#clock.after(this.#intervalMs, () => {
      void this.#measure();
    });
  }

  async #estimate(): Promise<number | null> {
    const bounds = await this.#reader.bounds();
    if (bounds === undefined || this.#framesSent === 0) return null;
    return Math.round(Number(bounds.end - bounds.start) * (this.#bytesSent / this.#framesSent));
  }
}
