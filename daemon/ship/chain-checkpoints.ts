import type { Chain } from '../../journal/chain.ts';
import type { JournalAddress, Lsn } from '../../journal/position.ts';

/** The chain value after a record, and where the journal goes on behind it. */
export interface ChainCheckpoint {
  readonly lsn: Lsn;
  readonly chain: Chain;
  /** Of the batch that begins with `lsn + 1`. */
  readonly address: JournalAddress;
}

const SPACING_BYTES = 1024 * 1024;
const CHECKPOINTS_MAX = 2048;

/**
 * Where sealing may begin without reading the whole journal for the chain: checkpoints in order, a MiB apart at least,
 * the newest always exact. When there are too many the spacing doubles.
 */
export class ChainCheckpoints {
  #list: ChainCheckpoint[];
  readonly #pinned = new Set<ChainCheckpoint>();
  readonly #loaded: Set<ChainCheckpoint>;
  #spacingBytes = SPACING_BYTES;

  /** `list`: as loaded; the journal may be released up to any of them, so all are kept until `releasedAnew`. */
  constructor(list: readonly ChainCheckpoint[]) {
    this.#list = [...list];
    this.#loaded = new Set(list);
  }

  /** This run has released up to a checkpoint of its own: those of the run before are like others from now on. */
  releasedAnew(): void {
    this.#loaded.clear();
  }

  get list(): readonly ChainCheckpoint[] {
    return this.#list;
  }

  /** Checkpoints already passed are left as they are. */
  note(checkpoint: ChainCheckpoint): void {
    const last = this.#list.at(-1);
    const before = this.#list.at(-2);
    if (last !== undefined && checkpoint.lsn <= last.lsn) return;
    const close = last !== undefined && before !== undefined && last.address - before.address < this.#spacingBytes;
    if (close && !this.#isKept(last)) this.#list.pop();
    this.#list.push(checkpoint);
    if (this.#list.length > CHECKPOINTS_MAX) this.#thin();
  }

  /** One that was passed already, or not reached yet: kept whatever else is thinned out. */
  keep(checkpoint: ChainCheckpoint): void {
    const at = this.#list.findIndex(({ lsn }) => lsn >= checkpoint.lsn);
    const found = at < 0 ? undefined : this.#list[at];
    this.#list.splice(at < 0 ? this.#list.length : at, found?.lsn === checkpoint.lsn ? 1 : 0, checkpoint);
    this.#pinned.add(checkpoint);
  }

  /** The newest at or below `lsn`. */
  before(lsn: Lsn): ChainCheckpoint | undefined {
    let low = 0;
    let high = this.#list.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#list[middle]!.lsn <= lsn) low = middle + 1;
      else high = middle;
    }
    return this.#list[low - 1];
  }

  /** Keeps it whatever else is thinned out: the journal below it may be overwritten. */
  pin(checkpoint: ChainCheckpoint): void {
    this.#pinned.add(checkpoint);
  }

  unpin(checkpoint: ChainCheckpoint): void {
    this.#pinned.delete(checkpoint);
  }

  /** Forgets what the journal no longer holds; the newest stays in any case. */
  dropBelow(address: JournalAddress): void {
    const from = this.#list.findIndex((checkpoint) => checkpoint.address >= address);
    this.#list.splice(0, from < 0 ? Math.max(0, this.#list.length - 1) : from);
  }

  #isKept(checkpoint: ChainCheckpoint): boolean {
    return this.#pinned.has(checkpoint) || this.#loaded.has(checkpoint);
  }

  #thin(): void {
    this.#spacingBytes *= 2;
    const kept: ChainCheckpoint[] = [];
    for (const [index, checkpoint] of this.#list.entries()) {
      const far = checkpoint.address - (kept.at(-1)?.address ?? Number.NEGATIVE_INFINITY) >= this.#spacingBytes;
      if (far || index === this.#list.length - 1 || this.#isKept(checkpoint)) kept.push(checkpoint);
    }
    this.#list = kept;
  }
}
