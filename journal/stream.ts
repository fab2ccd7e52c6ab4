import type { Epoch, Lsn } from './position.ts';
import type { StateName } from './record-bodies.ts';

/**
 * The stream between a source and its replicas: two ends, two implementations (direct, kafka), one contract suite
 * (test/contract/stream-contract.ts). A stream carries sealed frames (journal/frame-codec.ts) as opaque bytes and
 * promises nothing that a frame does not prove by itself: frames may arrive repeated, late, out of order or not at
 * all; the receiver sorts that out by position. What a stream does promise: it never makes up bytes, keeps its memory
 * within its window, and goes on trying until it is closed or hits something that a person has to decide.
 */

export interface Incarnation {
  /** +1 at every start of the source. */
  readonly counter: number;
  /** 64 random bits, as 16 hex digits: two journals with one counter are told apart. */
  readonly nonce: string;
}

/** Who speaks: checked by the far end before any frame is taken. */
export interface SourceIdentity {
  /** 32 hex digits. */
  readonly groupId: string;
  readonly groupName: string;
  readonly epoch: Epoch;
  readonly incarnation: Incarnation;
  /** The newest frame format this source writes (rule 23). */
  readonly frameVersion: number;
}

export type StreamState =
  | 'connecting'
  | 'streaming'
  /** Trying again by itself; `reason` says what failed. */
  | 'retrying'
  /** Finished until a person decides (a configuration that weakens a promise, a foreign group, needs-resync). */
  | 'stopped';

export interface StreamStatus {
  readonly state: StreamState;
  readonly reason: string;
  /** The error code behind the reason; absent while all is well. */
  readonly code?: string;
  /** Of a topic whose size is capped on purpose; absent otherwise. */
  readonly topic?: StreamTopicStatus;
}

/** How full a capped topic is: beyond the cap it drops what may not have been read yet (rule 21). */
export interface StreamTopicStatus {
  readonly capBytes: number;
  /** Null: not known. */
  readonly usedBytes: number | null;
  /** Computed from what was sent, because the broker does not tell. */
  readonly estimated: boolean;
}

/** State, never an event: the last one is all there is to know (DESIGN rule 20). Travels as a msgpack map. */
export interface ReplicaFeedback {
  readonly replica: string;
  readonly groupId: string;
  readonly epoch: Epoch;
  readonly incarnation: number;
  /** The replica's journal holds everything up to here durably. */
  readonly durableLsn: Lsn;
  /** The chain value after durableLsn (16 hex digits), so that a source can check that both mean the same records. */
  readonly chain: string;
  readonly state: 'receiving' | 'replica-full' | 'needs-resync' | 'diverged' | 'upgrade-required' | 'stopped';
  readonly reason: string;
  /** Lowest LSN that must be sent again because it was lost or damaged on the way; 0: nothing is missing. */
  readonly missingFrom: Lsn;
  /**
   * Lowest LSN at or below `durableLsn` that was found damaged there and is asked for again (`FrameSource.fetch`): the
   * source keeps what it still has from there on. Absent or 0: nothing is asked for.
   */
  readonly damagedFrom?: Lsn;
  /** Largest heartbeat seen durable: the `monotonicMs` the source put into the heartbeat record (rule 7), or 0. */
  readonly heartbeatMs: number;
  /**
   * When it was sent, by the replica's monotonic clock, and in which of its runs: a source that waits for the far side
   * names it in its heartbeats, so that the replica knows what was taken (`LeaseBody`). Absent: an older program.
   */
  readonly sent?: StateName;
  /** The replica's standby image holds everything up to here, synced. Absent: none is applied in step with its journal. */
  readonly appliedLsn?: Lsn;
  /** Where the stream is to be read from after a restart (a Kafka offset); empty over direct. */
  readonly resumeOffset: string;
}

/** Where a stream goes on when the journal does not have what it sought any more. */
export interface GoingOn {
  readonly fromLsn: Lsn;
  /** Readers of the stream that lack what the journal has no more, each with the first record that it lacks. */
  readonly unserved: readonly { readonly replica: string; readonly fromLsn: Lsn }[];
}

/** One sealed frame on its way. The bytes must not change until the sink has released them. */
export interface OutgoingFrame {
  readonly bytes: Uint8Array;
  /** Called once by a sink that will not look at the bytes again; one that never calls it has them made elsewhere. */
  readonly release?: () => void;
  readonly firstLsn: Lsn;
  readonly lastLsn: Lsn;
}

/** The source's end. Single-threaded: every callback comes on the thread that opened it, never inside a call to it. */
export interface FrameSink {
  /** Starts and keeps trying. Callbacks begin. */
  open(identity: SourceIdentity, events: FrameSinkEvents): void;
  /** Bytes that `send` still takes now; 0 or less: wait for `onReady`. One frame is always taken when nothing is under way. */
  readonly windowBytes: number;
  /** Frames come in LSN order without gaps, from the position the last `onSeek` named. */
  send(frame: OutgoingFrame): void;
  /**
   * The journal begins at `lowestLsn`, above what was sought or above what would be sent next: from where to send for those
   * readers of this stream that it can still serve. Undefined, and absent: there are none.
   */
  goOn?(lowestLsn: Lsn): GoingOn | undefined;
  /**
   * What the far side holds, asked freshly, for settling a cut (rule 4): highest LSN durable at a replica or in the
   * stream, whichever is more. Rejects with stream-unavailable after `timeoutMs`.
   */
  settle(timeoutMs: number): Promise<{ highestLsn: Lsn }>;
  /**
   * The far side's frames from this LSN on, for records that were lost here but not there (rule 4, invariant R4).
   * `writtenBy`: the incarnation that wrote the first of them, when this journal goes on behind them; frames of later
   * ones are as good. Left out: they are this journal's end, and only what the newest start sent counts.
   */
  fetch(fromLsn: Lsn, signal: AbortSignal, writtenBy?: number): AsyncIterable<Uint8Array>;
  /** The far side may drop what is at or below `lsn`: every registered replica holds it (rule 21). */
  trim(lsn: Lsn): void;
  status(): StreamStatus;
  close(): Promise<void>;
}

export interface FrameSinkEvents {
  /** Frames of the journal from this LSN on, for a replica that found its own damaged; absent: none are given. */
  readonly framesFrom?: (fromLsn: Lsn) => AsyncIterable<Uint8Array>;
  /**
   * Send from `fromLsn` on: once at the start, whenever the far side lost what it had, and when it turns out to hold what
   * was to be sent. The sink has dropped every frame it held; frames of the old position must not be sent any more.
   */
  onSeek(fromLsn: Lsn, reason: string): void;
  /** The window has room again. */
  onReady(): void;
  /** The stream has taken everything up to `lsn` (Kafka: acks=all; direct: in the replica's process). */
  onAccepted(lsn: Lsn): void;
  onFeedback(feedback: ReplicaFeedback): void;
  onStatus(status: StreamStatus): void;
}

/** The replica's end. */
export interface FrameSource {
  /**
   * Starts and keeps trying. `resumeOffset` is what this replica last put into its durable state; `durableLsn` is what
   * it holds. Frames at or below it may come again.
   */
  open(start: FrameSourceStart, events: FrameSourceEvents): void;
  /** Back-pressure: between `pause` and `resume` at most what was already on its way still arrives (8 MiB). */
  pause(): void;
  resume(): void;
  /**
   * Frames from this LSN on as the far side holds them (the topic, or the source's journal), for records that were damaged
   * here. Throws `stream-unavailable`, `trimmed`. Absent: nobody can be asked.
   */
  fetch?(fromLsn: Lsn, signal: AbortSignal): AsyncIterable<Uint8Array>;
  /** Sends the newest state; an older one not yet sent is replaced. */
  feedback(feedback: ReplicaFeedback): void;
  status(): StreamStatus;
  close(): Promise<void>;
}

export interface FrameSourceStart {
  readonly replica: string;
  readonly groupId: string;
  readonly durableLsn: Lsn;
  readonly resumeOffset: string;
  /** The newest frame format this replica reads (rule 23). */
  readonly frameVersion: number;
  /** Frames of our own journal from this LSN on, for a source that lost them (`FrameSink.fetch`). */
  readonly framesFrom: (fromLsn: Lsn) => AsyncIterable<Uint8Array>;
}

export interface FrameSourceEvents {
  /** One frame, unverified. `streamOffset` (may be '') is where it stands in the stream: a resume hint, not an identity. */
  onFrame(bytes: Uint8Array, streamOffset: string): void;
  /**
   * The stream can no longer deliver what comes after `durableLsn` from where we stand (truncated, re-created, expired:
   * rule 19). The receiver answers by feedback with `missingFrom`; the sink then seeks or the group needs a resync.
   */
  onLost(reason: string, oldestOffset: string): void;
  onStatus(status: StreamStatus): void;
}
