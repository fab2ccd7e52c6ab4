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
