import type { Lsn } from '../../journal/position.ts';
import { RecordKind } from '../../journal/record.ts';
import { decodeGap, decodeSeedEnd, decodeVolumeAdded } from '../../journal/record-bodies.ts';
import type { ModelRecord } from './history.ts';
import { must } from './violation.ts';

type Range = { readonly fromLsn: Lsn; readonly toLsn: Lsn };

/** What history has lost for good, by an operator's word, and which points that leaves. */
export class LostRecords {
  readonly #lost: Set<Lsn> = new Set();
  #words: { readonly ranges: readonly Range[]; readonly reason: string }[] = [];
  /** Whether somebody beside the journal that rotted holds the record. */
  isHeld: (lsn: Lsn) => boolean = () => false;

  get count(): number {
    return this.#lost.size;
  }

  has(lsn: Lsn): boolean {
    return this.#lost.has(lsn);
  }

  /** In order. */
  all(): Lsn[] {
    return [...this.#lost].sort((a, b) => a - b);
  }

  /** The operator's word stands: these may be lost, and no others. */
  given(ranges: readonly Range[], reason: string): void {
    this.#words.push({ ranges, reason });
  }

  /** A start found that there is nothing to give up any more. */
  withdrawn(): void {
    this.#words.pop();
  }

  /** A LOST record stands where there was another. */
  learn(lsn: Lsn, payload: Uint8Array): void {
    const word = this.#words.find(({ ranges }) => ranges.some(({ fromLsn, toLsn }) => fromLsn <= lsn && lsn <= toLsn));
    must('G1', word !== undefined, () => `LSN ${lsn} is LOST and nobody gave it up`);
    if (!this.#lost.has(lsn)) must('G1', !this.isHeld(lsn), () => `LSN ${lsn} is LOST although somebody holds it`);
    if (payload.length > 0) {
      const { fromLsn, reason } = decodeGap(payload);
      must('G1', fromLsn === lsn && reason === word.reason, () => `the gap at ${lsn} is told as ${fromLsn}: ${reason}`);
    }
    this.#lost.add(lsn);
  }

  /** The record stands there as it was. */
  found(lsn: Lsn): void {
    must('G1', !this.#lost.has(lsn), () => `LSN ${lsn} was LOST and has its old content again`);
  }

  truncate(afterLsn: Lsn): void {
    for (const lsn of this.#lost) if (lsn > afterLsn) this.#lost.delete(lsn);
  }

  /**
   * Volumes that lack what was lost at this LSN: one that history knew then does until a seed of it has ended that began
   * behind the loss, with a BLANK. `controls`: the records that say so, in order.
   */
  openAt(at: Lsn, controls: readonly ModelRecord[]): readonly number[] {
    if (this.#lost.size === 0) return [];
    const known = new Set<number>();
    /** True: a seed has begun. */
    const open = new Map<number, boolean>();
    const lost = this.all();
    let next = 0;
    const lose = (before: Lsn): void => {
      for (; next < lost.length && (lost[next] as Lsn) <= before; next++) for (const one of known) open.set(one, false);
    };
    for (const { content, kind, lsn, volume } of controls) {
      if (lsn > at) break;
      lose(lsn);
      if (this.#lost.has(lsn)) continue;
      const body = Buffer.from(content, 'hex');
      if (kind === RecordKind.blank) open.set(volume, true);
      else if (kind === RecordKind.seed && !open.has(volume)) open.set(volume, true);
      else if (kind === RecordKind.seedEnd) {
        const ended = decodeSeedEnd(body).volume;
        if (open.get(ended) === true) open.delete(ended);
      } else if (kind === RecordKind.volumeAdded) {
        const { id, starts } = decodeVolumeAdded(body);
        known.add(id);
        if (starts === 'seeded' && !open.has(id)) open.set(id, true);
      }
    }
    lose(at);
    return [...open.keys()];
  }
}
