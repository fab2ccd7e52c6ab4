import { assert } from '../../../journal/base/assert.ts';
import { TidemarkError } from '../../../journal/base/errors.ts';
import { FRAME_BYTES_MAX, readFrameHeader } from '../../../journal/frame-codec.ts';
import type { Clock } from '../../../journal/host/host.ts';
import type { Lsn } from '../../../journal/position.ts';
import type {
  FrameSource,
  FrameSourceEvents,
  FrameSourceStart,
  ReplicaFeedback,
  StreamStatus,
} from '../../../journal/stream.ts';
import type { DirectConnection } from './direct-connection.ts';
import {
  DIRECT_PROTOCOL,
  type Hello,
  type Message,
  MessageType,
  type Refusal,
  readRefusal,
} from './direct-protocol.ts';
import { FarQuestions } from './far-questions.ts';
import { FetchServer } from './fetch-server.ts';

/** How long an answer to `settle` waits for frames that came but are not durable yet. */
const SETTLE_WAIT_MS = 2_000;

export interface DirectSourceOptions {
  /** Frame bytes held here before the receiver took them, while it is paused. */
  readonly windowBytes: number;
}

/** The replica's end of a direct stream, for one group: the listener hands it the connections of the group's source. */
export class DirectSource implements FrameSource {
  readonly #clock: Clock;
  readonly #options: DirectSourceOptions;
  #start: FrameSourceStart | undefined;
  #events: FrameSourceEvents | undefined;
  #status: StreamStatus = { state: 'connecting', reason: 'waiting for the source' };
  #connection: DirectConnection | undefined;
  #newest: { epoch: number; counter: number } = { epoch: 0, counter: 0 };
  #feedback: ReplicaFeedback | undefined;
  #feedbackWaits = false;
  #takenWaits = false;
  #takenCount = 0;
  #paused = false;
  #queue: Uint8Array[] = [];
  #queuedBytes = 0;
  /** The highest record that was given to the receiver or waits here. */
  #highestSeen: Lsn = 0;
  #settling: number[] = [];
  #serving: FetchServer | undefined;
  readonly #questions: FarQuestions;
  #closed = false;

  constructor(clock: Clock, options: DirectSourceOptions) {
    this.#clock = clock;
    this.#options = options;
    this.#questions = new FarQuestions(clock);
  }

  open(start: FrameSourceStart, events: FrameSourceEvents): void {
    assert(this.#start === undefined && !this.#closed, 'a source is opened once');
    this.#start = start;
    this.#events = events;
    this.#serving = new FetchServer(start.framesFrom);
  }

  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    this.#clock.after(0, () => this.#deliver());
  }

  fetch(fromLsn: Lsn, signal: AbortSignal): AsyncIterable<Uint8Array> {
    return this.#questions.fetch(this.#connection, fromLsn, signal);
  }

  feedback(feedback: ReplicaFeedback): void {
    if (this.#closed) return;
    this.#feedback = feedback;
    this.#sendFeedback();
    this.#answerSettled();
  }

  status(): StreamStatus {
    return this.#status;
  }

  close(): Promise<void> {
    if (!this.#closed) {
      this.#closed = true;
      this.#drop();
      this.#status = { state: 'stopped', reason: 'closed' };
    }
    return Promise.resolve();
  }

  /** Why this source's connection cannot be taken; undefined: it can. */
  objection(hello: Hello): Refusal | undefined {
    if (this.#start === undefined || this.#closed) {
      return { code: 'stream-refused', reason: `group ${hello.groupName} is not open here` };
    }
    const { groupId, frameVersion } = this.#start;
    if (hello.protocol !== DIRECT_PROTOCOL || hello.frameVersion > frameVersion) {
      const reason = `this replica speaks protocol ${DIRECT_PROTOCOL} and reads frames of format ${frameVersion}: upgrade the replica first`;
      return { code: 'upgrade-replica-first', reason };
    }
    if (groupId !== '' && groupId !== hello.groupId) {
      const reason = `group ${hello.groupName} has id ${groupId} here, the source's has ${hello.groupId}`;
      return { code: 'frame-foreign', reason };
    }
    if (hello.epoch < this.#newest.epoch) {
      return { code: 'stale-epoch', reason: `epoch ${this.#newest.epoch} has begun, this source is of ${hello.epoch}` };
    }
    if (hello.epoch === this.#newest.epoch && hello.incarnation.counter < this.#newest.counter) {
      const reason = `incarnation ${this.#newest.counter} has begun, this source is ${hello.incarnation.counter}`;
      return { code: 'stale-incarnation', reason };
    }
    return undefined;
  }

  /** Takes a connection to which there is no objection, in place of the one there may be. */
  attach(connection: DirectConnection, hello: Hello): void {
    const start = this.#start;
    assert(start !== undefined && !this.#closed, 'connections come to an open source');
    this.#drop();
    this.#newest = { epoch: hello.epoch, counter: hello.incarnation.counter };
    this.#connection = connection;
    connection.setEvents({
      onMessage: (message) => this.#onMessage(connection, message),
      onDrain: () => this.#onDrain(),
      onClose: (reason) => {
        this.#drop();
        this.#setStatus({ state: 'retrying', reason: `waiting for the source: ${reason}`, code: 'stream-unavailable' });
      },
    });
    connection.send(MessageType.welcome, 0, {
      protocol: DIRECT_PROTOCOL,
      frameVersion: start.frameVersion,
      replica: start.replica,
      durableLsn: this.#durableLsn,
      windowBytes: this.#options.windowBytes,
      ...(this.#feedback === undefined ? {} : { feedback: this.#feedback }),
    });
    this.#setStatus({ state: 'streaming', reason: `connected from ${connection.remote}` });
  }

  get #durableLsn(): Lsn {
    return this.#feedback?.durableLsn ?? this.#start?.durableLsn ?? 0;
  }

  #onMessage(connection: DirectConnection, message: Message): void {
    if (this.#serving?.take(connection, message) === true || this.#questions.take(message)) return;
    const type: number = message.type;
    switch (type) {
      case MessageType.frame:
        this.#onFrame(connection, message.body);
        return;
      case MessageType.settle:
        this.#onSettle(message.tag);
        return;
      case MessageType.refuse: {
        const { reason } = readRefusal(message.body);
        this.#drop();
        this.#setStatus({ state: 'retrying', reason: `the source refused: ${reason}`, code: 'stream-refused' });
        return;
      }
      case MessageType.alive:
        return;
      default:
        throw new TidemarkError('stream-unavailable', `a source does not send messages of type ${message.type}`);
    }
  }

  #onFrame(connection: DirectConnection, bytes: Uint8Array): void {
    this.#queue.push(bytes);
    this.#queuedBytes += bytes.length;
    if (this.#queuedBytes > this.#options.windowBytes + FRAME_BYTES_MAX) {
      connection.refuse({ code: 'stream-refused', reason: 'more was sent than the window takes' });
      this.#drop();
      this.#setStatus({
        state: 'retrying',
        reason: 'the source sent more than the window takes',
        code: 'stream-refused',
      });
      return;
    }
    this.#deliver();
  }

  #deliver(): void {
    while (!this.#paused && !this.#closed) {
      const bytes = this.#queue.shift();
      if (bytes === undefined) return;
      this.#queuedBytes -= bytes.length;
      this.#noteSeen(bytes);
      this.#takenCount = (this.#takenCount + 1) >>> 0;
      this.#events!.onFrame(bytes, '');
      this.#sendTaken();
    }
  }

  /** A damaged header says nothing about positions; the receiver finds out and asks for the frame again. */
  #noteSeen(bytes: Uint8Array): void {
    try {
      const header = readFrameHeader(bytes);
      this.#highestSeen = Math.max(this.#highestSeen, header.firstLsn + header.recordCount - 1);
    } catch (error) {
      if (!(error instanceof TidemarkError)) throw error;
    }
  }

  #onDrain(): void {
    if (this.#takenWaits) this.#sendTaken();
    if (this.#feedbackWaits) this.#sendFeedback();
  }

  #sendTaken(): void {
    this.#takenWaits = this.#connection?.blocked ?? false;
    if (!this.#takenWaits) this.#connection?.send(MessageType.taken, this.#takenCount);
  }

  #sendFeedback(): void {
    this.#feedbackWaits = this.#connection?.blocked ?? false;
    if (!this.#feedbackWaits) this.#connection?.send(MessageType.feedback, 0, this.#feedback);
  }

  /**
   * What came but is not durable yet may become so after the answer: a source that then gave the same LSNs to other
   * records would be at odds with us. So the answer waits for it, though not for ever: a frame may be unusable.
   */
  #onSettle(id: number): void {
    if (this.#settling.length >= 16) throw new TidemarkError('stream-unavailable', 'too many questions at once');
    this.#settling.push(id);
    if (this.#answerSettled()) return;
    const connection = this.#connection;
    this.#clock.after(SETTLE_WAIT_MS, () => {
      if (this.#connection === connection) this.#answerSettled(true);
    });
  }

  #answerSettled(now = false): boolean {
    if (!now && this.#durableLsn < this.#highestSeen) return false;
    for (const id of this.#settling.splice(0)) {
      this.#connection?.send(MessageType.settled, id, { lsn: this.#durableLsn });
    }
    return true;
  }

  #drop(): void {
    this.#connection?.close();
    this.#connection = undefined;
    this.#queue = [];
    this.#queuedBytes = 0;
    this.#takenCount = 0;
    this.#takenWaits = false;
    this.#feedbackWaits = false;
    this.#settling = [];
    this.#serving?.stop();
    this.#questions.disconnected();
  }

  #setStatus(status: StreamStatus): void {
    this.#status = status;
    this.#events?.onStatus(status);
  }
}
