import { assert } from '../../../journal/base/assert.ts';
import type { ErrorCode } from '../../../journal/base/errors.ts';
import { TidemarkError } from '../../../journal/base/errors.ts';
import type { Host, Timer } from '../../../journal/host/host.ts';
import type { Lsn } from '../../../journal/position.ts';
import type {
  FrameSink,
  FrameSinkEvents,
  OutgoingFrame,
  ReplicaFeedback,
  SourceIdentity,
  StreamStatus,
} from '../../../journal/stream.ts';
import { Backoff } from './backoff.ts';
import { CONNECTION_TIMES, type ConnectionTimes, DirectConnection } from './direct-connection.ts';
import {
  DIRECT_PROTOCOL,
  helloBody,
  type Message,
  MessageType,
  type Refusal,
  readFeedback,
  readRefusal,
  readWelcome,
  type Welcome,
} from './direct-protocol.ts';
import { FarQuestions } from './far-questions.ts';
import { FetchServer } from './fetch-server.ts';
import { SeekRequests } from './seek-requests.ts';
import type { Dialer, Wire } from './wire.ts';

export interface DirectSinkOptions {
  /** The replica's registered name; one that calls itself otherwise is refused (DESIGN rule 20). */
  readonly replica: string;
  readonly dialer: Dialer;
  /** Frame bytes on their way at most; default 8 MiB. The replica may want less. */
  readonly windowBytes?: number;
  readonly times?: ConnectionTimes;
  /** Bound of one dial and of the wait for the welcome; default 10000. */
  readonly connectTimeoutMs?: number;
  /** Delays between attempts; default 100 to 5000. */
  readonly retryMinMs?: number;
  readonly retryMaxMs?: number;
}

const WINDOW_BYTES = 8 * 1024 * 1024;
const CONNECT_TIMEOUT_MS = 10_000;
/** From the end of a connection until no byte of it is on its way any more; wires linger for a second. */
const RELEASE_MS = 3_000;
const RETRY_MIN_MS = 100;
const RETRY_MAX_MS = 5_000;

/** Refusals that trying again cannot mend: another source has taken over, or the groups are different ones. */
const FINAL: readonly ErrorCode[] = ['stale-epoch', 'stale-incarnation', 'frame-foreign'];

interface UnderWay {
  readonly bytes: number;
  readonly release: (() => void) | undefined;
  /** 0: sent before the last seek, its acceptance means nothing any more. */
  readonly lastLsn: Lsn;
}

/**
 * The source's end of a direct stream to one replica; a group with several replicas has several sinks, so that one that
 * catches up for hours holds up no other. The source dials. After every connect it goes on behind what the replica holds
 * durably; the bytes under way are bounded by the window and counted off by the replica as it takes them.
 */
export class DirectSink implements FrameSink {
  readonly #host: Host;
  readonly #options: DirectSinkOptions;
  readonly #backoff: Backoff;
  readonly #seeks: SeekRequests;
  readonly #questions: FarQuestions;
  #identity: SourceIdentity | undefined;
  #events: FrameSinkEvents | undefined;
  #status: StreamStatus = { state: 'connecting', reason: 'not started' };
  #connection: DirectConnection | undefined;
  #streaming = false;
  #closed = false;
  #timer: Timer | undefined;
  #windowBytes = 0;
  #underWay: UnderWay[] = [];
  #underWayBytes = 0;
  #takenCount = 0;
  #nextLsn: Lsn = 0;
  #feedback: ReplicaFeedback | undefined;
  #serving: FetchServer | undefined;

  constructor(host: Host, options: DirectSinkOptions) {
    this.#host = host;
    this.#options = options;
    this.#backoff = new Backoff(host.random, options.retryMinMs ?? RETRY_MIN_MS, options.retryMaxMs ?? RETRY_MAX_MS);
    this.#seeks = new SeekRequests(host.clock);
    this.#questions = new FarQuestions(host.clock);
  }

  open(identity: SourceIdentity, events: FrameSinkEvents): void {
    assert(this.#identity === undefined && !this.#closed, 'a sink is opened once');
    this.#identity = identity;
    this.#events = events;
    this.#serving = events.framesFrom === undefined ? undefined : new FetchServer(events.framesFrom);
    this.#status = { state: 'connecting', reason: `dialling ${this.#options.dialer.address}` };
    this.#dial();
  }

  get windowBytes(): number {
    if (!this.#streaming) return 0;
    const room = this.#windowBytes - this.#underWayBytes;
    return this.#underWay.length === 0 ? Math.max(1, room) : room;
  }

  send(frame: OutgoingFrame): void {
    if (!this.#streaming || this.#connection === undefined) {
      frame.release?.();
      return;
    }
    assert(
      frame.firstLsn <= this.#nextLsn && frame.lastLsn >= this.#nextLsn,
      `frame ${frame.firstLsn}-${frame.lastLsn} at position ${this.#nextLsn}`,
    );
    assert(this.windowBytes > 0, 'a frame was sent into a full window');
    this.#nextLsn = frame.lastLsn + 1;
    this.#underWay.push({ bytes: frame.bytes.length, lastLsn: frame.lastLsn, release: frame.release });
    this.#underWayBytes += frame.bytes.length;
    this.#connection.sendFrame(MessageType.frame, 0, frame.bytes);
  }

  settle(timeoutMs: number): Promise<{ highestLsn: Lsn }> {
    if (this.#closed || this.#status.state === 'stopped') {
      return Promise.reject(new TidemarkError('stream-unavailable', `the stream is closed: ${this.#status.reason}`));
    }
    return this.#questions.settle(this.#streaming ? this.#connection : undefined, timeoutMs);
  }

  fetch(fromLsn: Lsn, signal: AbortSignal): AsyncIterable<Uint8Array> {
    return this.#questions.fetch(this.#streaming ? this.#connection : undefined, fromLsn, signal);
  }

  /** Over direct the far side holds nothing but its own history: there is nothing to drop (DESIGN rule 22). */
  trim(_lsn: Lsn): void {
    return;
  }

  status(): StreamStatus {
    return this.#status;
  }

  close(): Promise<void> {
    if (!this.#closed) {
      this.#closed = true;
      this.#disconnect();
      this.#timer?.cancel();
      this.#questions.close();
      this.#status = { state: 'stopped', reason: 'closed' };
    }
    return Promise.resolve();
  }

  #dial(): void {
    const timeoutMs = this.#options.connectTimeoutMs ?? CONNECT_TIMEOUT_MS;
    this.#options.dialer.dial(timeoutMs).then(
      (wire) => this.#onWire(wire, timeoutMs),
      (error: unknown) => {
        if (!(error instanceof TidemarkError)) throw error;
        if (!this.#closed) this.#retry(error.message, 'stream-unavailable');
      },
    );
  }

  #onWire(wire: Wire, timeoutMs: number): void {
    if (this.#closed) {
      wire.close();
      return;
    }
    const connection = new DirectConnection(this.#host.clock, wire, this.#options.times ?? CONNECTION_TIMES, {
      onMessage: (message) => this.#onMessage(connection, message),
      onDrain: () => undefined,
      onClose: (reason) => this.#onLost(reason, 'stream-unavailable'),
    });
    this.#connection = connection;
    connection.send(MessageType.hello, 0, helloBody(this.#identity!));
    this.#timer = this.#host.clock.after(timeoutMs, () => {
      connection.close();
      this.#onLost(`${this.#options.dialer.address} did not answer the hello`, 'stream-unavailable');
    });
  }

  #onMessage(connection: DirectConnection, message: Message): void {
    if (this.#questions.take(message) || this.#serving?.take(connection, message) === true) return;
    const type: number = message.type;
    switch (type) {
      case MessageType.welcome:
        if (!this.#streaming) this.#onWelcome(connection, readWelcome(message.body));
        return;
      case MessageType.refuse:
        this.#onRefused(readRefusal(message.body));
        return;
      case MessageType.taken:
        this.#onTaken(message.tag);
        return;
      case MessageType.feedback:
        if (this.#streaming) this.#onFeedback(readFeedback(message.body));
        return;
      case MessageType.alive:
        if (this.#feedback !== undefined) this.#seekIfAsked(this.#feedback);
        return;
      default:
        throw new TidemarkError('stream-unavailable', `a replica does not send messages of type ${message.type}`);
    }
  }

  #onWelcome(connection: DirectConnection, welcome: Welcome): void {
    const objection = this.#objection(welcome);
    if (objection !== undefined) {
      connection.refuse(objection);
      this.#onRefused(objection);
      return;
    }
    if (welcome.feedback !== undefined) this.#checkSpeaker(welcome.feedback);
    this.#timer?.cancel();
    this.#backoff.reset();
    this.#windowBytes = Math.min(this.#options.windowBytes ?? WINDOW_BYTES, welcome.windowBytes);
    this.#seeks.reset(welcome.durableLsn);
    this.#feedback = welcome.feedback;
    this.#setStatus({ state: 'streaming', reason: `connected to ${connection.remote}` });
    if (welcome.feedback !== undefined) this.#events!.onFeedback(welcome.feedback);
    // Only now: whoever is called above must not go on from the position of the connection before.
    this.#streaming = true;
    this.#questions.connected(connection);
    this.#seek({ fromLsn: welcome.durableLsn + 1, reason: `the replica holds everything up to ${welcome.durableLsn}` });
  }

  #objection(welcome: Welcome): Refusal | undefined {
    if (welcome.replica !== this.#options.replica) {
      const reason = `replica '${this.#options.replica}' was expected at ${this.#options.dialer.address}, '${welcome.replica}' answered`;
      return { code: 'stream-refused', reason };
    }
    if (welcome.protocol !== DIRECT_PROTOCOL || welcome.frameVersion < this.#identity!.frameVersion) {
      const reason = `replica '${welcome.replica}' speaks protocol ${welcome.protocol} and reads frames of format ${welcome.frameVersion}: upgrade the replica first`;
      return { code: 'upgrade-replica-first', reason };
    }
    return undefined;
  }

  #onTaken(count: number): void {
    const taken = (count - this.#takenCount) >>> 0;
    if (taken > this.#underWay.length) {
      throw new TidemarkError('stream-unavailable', 'the replica took more frames than were sent');
    }
    const wasFull = this.windowBytes <= 0;
    let acceptedLsn = 0;
    for (const frame of this.#underWay.splice(0, taken)) {
      this.#underWayBytes -= frame.bytes;
      frame.release?.();
      if (frame.lastLsn > 0) acceptedLsn = frame.lastLsn;
    }
    this.#takenCount = count;
    if (acceptedLsn > 0) {
      this.#seeks.taken();
      this.#events!.onAccepted(acceptedLsn);
    }
    if (wasFull && this.windowBytes > 0) this.#events!.onReady();
  }

  #onFeedback(feedback: ReplicaFeedback): void {
    this.#checkSpeaker(feedback);
    this.#feedback = feedback;
    this.#events!.onFeedback(feedback);
    this.#seekIfAsked(feedback);
  }

  /** A state is believed by name: one under another name would release what its bearer does not hold. */
  #checkSpeaker({ replica, groupId }: ReplicaFeedback): void {
    if (replica === this.#options.replica && groupId === this.#identity!.groupId) return;
    throw new TidemarkError('stream-unavailable', `a state of '${replica}' came from '${this.#options.replica}'`);
  }

  #seekIfAsked(feedback: ReplicaFeedback): void {
    const { epoch, incarnation } = this.#identity!;
    // Who follows a newer source is sent nothing by this one, and its position means another history.
    if (feedback.epoch > epoch || (feedback.epoch === epoch && feedback.incarnation > incarnation.counter)) return;
    const seek = this.#seeks.decide(feedback, this.#nextLsn);
    if (seek !== undefined) this.#seek(seek);
  }

  #seek(seek: { fromLsn: Lsn; reason: string }): void {
    this.#nextLsn = seek.fromLsn;
    // What lies in the kernel's buffer cannot be called back: it still counts against the window.
    this.#underWay = this.#underWay.map((frame) => ({ ...frame, lastLsn: 0 }));
    this.#events!.onSeek(seek.fromLsn, seek.reason);
  }

  #onRefused({ code, reason }: Refusal): void {
    if (FINAL.includes(code)) {
      this.#disconnect();
      this.#timer?.cancel();
      this.#questions.close();
      this.#setStatus({ state: 'stopped', reason, code });
      return;
    }
    this.#onLost(reason, code);
  }

  #onLost(reason: string, code: ErrorCode): void {
    this.#disconnect();
    this.#retry(reason, code);
  }

  #retry(reason: string, code: ErrorCode): void {
    this.#setStatus({ state: 'retrying', reason, code });
    this.#timer?.cancel();
    this.#timer = this.#host.clock.after(this.#backoff.takeMs(), () => this.#dial());
  }

  #disconnect(): void {
    this.#connection?.close();
    this.#connection = undefined;
    this.#streaming = false;
    this.#releaseLater(this.#underWay);
    this.#underWay = [];
    this.#underWayBytes = 0;
    this.#takenCount = 0;
    this.#feedback = undefined;
    this.#serving?.stop();
    this.#questions.disconnected();
  }

  /** A wire that was closed goes on delivering for a second. */
  #releaseLater(underWay: readonly UnderWay[]): void {
    if (underWay.length === 0) return;
    this.#host.clock.after(RELEASE_MS, () => {
      for (const frame of underWay) frame.release?.();
    });
  }

  #setStatus(status: StreamStatus): void {
    this.#status = status;
    this.#events!.onStatus(status);
  }
}
