import { type Channel, channel as diagnosticsChannel } from 'node:diagnostics_channel';

/**
 * What the low layers tell about themselves. They publish on `node:diagnostics_channel` and import no logger and no
 * metrics library; only daemon/telemetry/ subscribes. A publisher asks `hasSubscribers` first where building the
 * payload costs anything. Payloads are plain values; durations and sizes carry their unit in the name.
 */
export interface ChannelPayloads {
  /** A batch went into the journal: the hot path, published only when somebody listens. */
  'tidemark:journal:append': { group: string; records: number; bytes: number };
  /** A group commit ended well. */
  'tidemark:journal:sync': { group: string; durationMs: number; durableLsn: number; waiters: number };
  /** The writer went on to the next file; `prepared` is false when it was not pre-written in time. */
  'tidemark:journal:roll': { group: string; sequence: number; prepared: boolean };
  /** Nothing can be appended any more until the journal was closed and opened again. */
  'tidemark:journal:poisoned': { group: string; reason: string; message: string };
  /** A batch was refused: the budget is spent, or the file system is full, which `reason` says and names. */
  'tidemark:journal:full': { group: string; usedBytes: number; budgetBytes: number; reason: string };
  /** The next file could not be prepared in the background; it is tried again. */
  'tidemark:journal:prepare-failed': { group: string; message: string };
  'tidemark:journal:recovered': {
    group: string;
    lastLsn: number;
    durableLsn: number;
    cleanStop: boolean;
    bootChanged: boolean;
    /** LSN behind which a torn tail was cut; 0: nothing was cut. */
    cutAfterLsn: number;
    droppedBytes: number;
    damagedRanges: number;
    rewrittenBytes: number;
    durationMs: number;
  };
  /** Records at or below the durable watermark cannot be read. */
  'tidemark:journal:damage': { group: string; fromLsn: number; toLsn: number; address: number; reason: string };
  /** Records that could not be read stand in their place again. */
  'tidemark:journal:mended': { group: string; fromLsn: number; toLsn: number; bytes: number };
  /** Nobody could give back records that cannot be read; it is tried again. */
  'tidemark:journal:unmended': { group: string; fromLsn: number; toLsn: number; reason: string };
  /** An operator gave up records that nobody holds: LOST records stand in their place. */
  'tidemark:journal:given-up': { group: string; fromLsn: number; toLsn: number; reason: string };
  'tidemark:journal:clock-jump': { group: string; fromMicros: number; toMicros: number };
  /** The part of the journal's budget that is not released went above (or fell below) 50, 80 or 95 percent. */
  'tidemark:group:room': { group: string; percent: number; above: boolean; budgetBytes: number; outOfRoom: string };
  /** History up to `toLsn` was given up for want of room: the replica will not get it. */
  'tidemark:group:unprotected': { group: string; fromLsn: number; toLsn: number; reason: string };
  /** The write-out to the backings changed its state: running, retrying, failed, stopped. */
  'tidemark:group:destage': { group: string; state: string; reason: string; code: string };
  /**
   * The degree of synchrony has another state: off, in-sync, blocked, failing, degraded. The promise does not hold from
   * `brokenFromLsn` on, or (then it is 0) did not hold for the LSNs before this one that `wasBrokenFromLsn` begins.
   */
  'tidemark:group:degree': {
    group: string;
    from: string;
    to: string;
    reason: string;
    lsn: number;
    brokenFromLsn: number;
    wasBrokenFromLsn: number;
  };
  /** A change of the degree of synchrony could not be made durable; it is tried again. */
  'tidemark:group:degree-failed': { group: string; message: string };
  /** A volume's content is being journalled; `done` when its export opened. */
  'tidemark:group:seeding': { group: string; volume: string; seededBytes: number; totalBytes: number; done: boolean };
  /** A frame went into the stream. */
  'tidemark:ship:frame': { group: string; records: number; plainBytes: number; storedBytes: number };
  /** The shipper begins anew at an LSN: at the start, after a reconnect, or because the far side lost something. */
  'tidemark:ship:seek': { group: string; fromLsn: number; reason: string };
  /** What shipping as a whole does: connecting, streaming, retrying, needs-resync, diverged, stopped. */
  'tidemark:ship:state': { group: string; state: string; reason: string; code: string };
  /** A registered replica has another state, or is heard for the first time. */
  'tidemark:ship:replica': { group: string; replica: string; state: string; reason: string; durableLsn: number };
  /** A replica holds less than it had acknowledged: it lost data. */
  'tidemark:ship:went-back': { group: string; replica: string; fromLsn: number; toLsn: number };
  /** Somebody reads this group's stream and is not registered: nothing is kept for it. */
  'tidemark:ship:unregistered': { group: string; replica: string };
  /** Every required replica holds what lies below the address; the chain up to there was made durable first. */
  'tidemark:ship:released': { group: string; lsn: number; address: number };
  /** ship.state could not be written; nothing is released until it can. */
  'tidemark:ship:state-file': { group: string; message: string };
}

export type ChannelName = keyof ChannelPayloads;

/** The channel of that name: one object per process and name, cheap to keep in a module constant. */
export function channel<Name extends ChannelName>(name: Name): Channel<string, ChannelPayloads[Name]> {
  return diagnosticsChannel(name) as Channel<string, ChannelPayloads[Name]>;
}
