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
/** Beginnings of journal files that are kept, the newest ones: far more than a journal has, so that the list has an end. */
const FILE_STARTS_MAX = 16_384;

/**
 * Where sealing may begin without reading the whole journal for the chain: checkpoints in order, a MiB apart at least,
 * the newest always exact. When there are too many the spacing doubles. Where a journal file begins is kept whatever the
 * spacing: when the files before it are overwritten, the chain of its first records can be told from nowhere else.
 */
export class ChainCheckpoints {
  #list: ChainCheckpoint[];
  readonly #pinned = new Set<ChainCheckpoint>();
  readonly #loaded: Set<ChainCheckpoint>;
  readonly #fileBytes: number;
  /** What is kept in any case does not count: thinning would not make the list shorter. */
  #thinAbove = CHECKPOINTS_MAX;
  #spacingBytes = SPACING_BYTES;

  /**
   * `list`: as loaded; the journal may be released up to any of them, so all are kept until `releasedAnew`.
   * `fileBytes`: of the journal, whose files begin at its multiples.
   */
  constructor(list: readonly ChainCheckpoint[], fileBytes: number) {
    this.#fileBytes = fileBytes;
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
    if (this.#list.length > this.#thinAbove) this.#thin();
  }

  /**
   * Where the file begins that holds the batch behind this LSN. The batch before may stand in the file before without being
   * its end: a watermark closes many a file, and has no record.
   */
  noteFileStart(checkpoint: ChainCheckpoint): void {
    const last = this.#list.at(-1);
    if (last === undefined || checkpoint.lsn < last.lsn || checkpoint.address <= last.address) return;
    if (checkpoint.lsn === last.lsn && !this.#isKept(last)) this.#list.pop();
    this.#list.push(checkpoint);
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
    return this.#pinned.has(checkpoint) || this.#loaded.has(checkpoint) || this.#beginsFile(checkpoint);
  }

  #beginsFile({ address }: ChainCheckpoint): boolean {
    const newest = this.#list.at(-1)?.address ?? 0;
    return address % this.#fileBytes === 0 && newest - address < FILE_STARTS_MAX * this.#fileBytes;
  }

  #thin(): void {
    this.#spacingBytes *= 2;
    const kept: ChainCheckpoint[] = [];
    for (const [index, checkpoint] of this.#list.entries()) {
      const far = checkpoint.address - (kept.at(-1)?.address ?? Number.NEGATIVE_INFINITY) >= this.#spacingBytes;
      if (far || index === this.#list.length - 1 || this.#isKept(checkpoint)) kept.push(checkpoint);
    }
    this.#thinAbove = CHECKPOINTS_MAX + kept.filter((checkpoint) => this.#isKept(checkpoint)).length;
    this.#list = kept;
  }
}
