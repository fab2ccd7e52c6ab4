/** Totals since the data path's start. */
export interface SourceCountersReply {
  readonly journalSyncs: number;
  readonly journalSyncSeconds: number;
  readonly framesSealed: number;
  /** Before and after compression. */
  readonly framePlainBytes: number;
  readonly frameStoredBytes: number;
}

/** Totals since the data path's start. */
export interface ReplicaCountersReply {
  readonly storeSyncs: number;
  readonly storeSyncSeconds: number;
  readonly framesReceived: number;
  readonly receivedBytes: number;
  readonly framesRejected: number;
}

/**
 * Seconds of writes that would have been lost with the source's site, over a window: half of the time at most `p50Seconds`, all
 * but a hundredth at most `p99Seconds`; null: not known, for a moment at which it was not counts as worse than any other.
 */
export interface RpoReply {
  readonly windowSeconds: number;
  readonly p50Seconds: number | null;
  readonly p99Seconds: number | null;
  /** Part of the window that was measured: below 1 until it has passed since the start. */
  readonly covered: number;
}
