import type { Lsn } from '../../journal/position.ts';

const HEARTBEATS_MAX = 4096;

/**
 * When this run's heartbeats were journalled, on the monotonic clock: what a replica holds up to one of them is all
 * that was written before it. Heartbeats of former runs are on another clock and say nothing.
 */
export class HeartbeatTimes {
  #beats: { readonly lsn: Lsn; readonly monotonicMs: number }[] = [];

  note(lsn: Lsn, monotonicMs: number): void {
    const last = this.#beats.at(-1);
    if (last !== undefined && lsn <= last.lsn) return;
    this.#beats.push({ lsn, monotonicMs });
    if (this.#beats.length > HEARTBEATS_MAX) this.#beats = this.#beats.filter((_, index) => index % 2 === 1);
  }

  /** The age of the newest heartbeat at or below `lsn`, in seconds; null when none is known. */
  ageSeconds(lsn: Lsn, nowMs: number): number | null {
    const beat = this.#beats.findLast((one) => one.lsn <= lsn);
    return beat === undefined ? null : Math.max(0, nowMs - beat.monotonicMs) / 1000;
  }

  /** Forgets what nobody is behind any more. */
  dropBelow(lsn: Lsn): void {
    const keep = this.#beats.findLastIndex((one) => one.lsn <= lsn);
    if (keep > 0) this.#beats.splice(0, keep);
  }
}
