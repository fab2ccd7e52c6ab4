import { assert } from '../../journal/base/assert.ts';
import type { Lsn } from '../../journal/position.ts';
import type { SectorId } from './sector-pattern.ts';

/** A change of one volume as the model sees it: one id per sector. */
export interface ModelChange {
  readonly volume: number;
  readonly sector: number;
  readonly ids: Uint32Array;
}

/** What the record at one LSN did, by the model's own reading of the journal. */
export interface ModelRecord {
  readonly lsn: Lsn;
  /** Kind, flags, place and content in one string: two records are the same when these are. */
  readonly identity: string;
  /** Empty for barriers, control records and pieces. */
  readonly changes: readonly ModelChange[];
}

/** Volume id -> whose bytes stand in each of its sectors. */
export type GroupContent = ReadonlyMap<number, Uint32Array>;

const SNAPSHOT_EVERY = 128;

/** The order of a group's changes over all its volumes, and what they add up to at any LSN. */
export class History {
  readonly #sizes: ReadonlyMap<number, number>;
  readonly #records: ModelRecord[] = [];
  /** Content at LSN `index * SNAPSHOT_EVERY`. */
  readonly #snapshots: Map<number, Uint32Array>[] = [];
  readonly #head: Map<number, Uint32Array>;

  /** `sizes`: volume id -> sectors. All volumes begin as zeroes. */
  constructor(sizes: ReadonlyMap<number, number>) {
    this.#sizes = sizes;
    this.#head = new Map([...sizes].map(([volume, sectors]) => [volume, new Uint32Array(sectors)]));
    this.#snapshots.push(copied(this.#head));
  }

  get sizes(): ReadonlyMap<number, number> {
    return this.#sizes;
  }

  get lastLsn(): Lsn {
    return this.#records.length;
  }

  record(lsn: Lsn): ModelRecord | undefined {
    return this.#records[lsn - 1];
  }

  append(record: ModelRecord): void {
    assert(record.lsn === this.lastLsn + 1, 'the model learns records in order');
    this.#records.push(record);
    apply(this.#head, record);
    if (record.lsn % SNAPSHOT_EVERY === 0) this.#snapshots.push(copied(this.#head));
  }

  /** Everything behind this LSN never was. */
  truncate(afterLsn: Lsn): void {
    this.#records.length = Math.min(this.#records.length, afterLsn);
    this.#snapshots.length = Math.floor(this.lastLsn / SNAPSHOT_EVERY) + 1;
    for (const [volume, ids] of this.contentAt(this.lastLsn)) this.#head.get(volume)?.set(ids);
  }

  contentAt(lsn: Lsn): GroupContent {
    assert(lsn >= 0 && lsn <= this.lastLsn, `the model ends at ${this.lastLsn}, asked for ${lsn}`);
    const index = Math.floor(lsn / SNAPSHOT_EVERY);
    const content = copied(this.#snapshots[index] as Map<number, Uint32Array>);
    for (let next = index * SNAPSHOT_EVERY; next < lsn; next++) apply(content, this.#records[next] as ModelRecord);
    return content;
  }

  /** Whose bytes may stand in a sector for somebody who looked at some moment between the two LSNs. */
  idsBetween(volume: number, sector: number, from: Lsn, to: Lsn): Set<SectorId> {
    const ids = new Set<SectorId>();
    ids.add((this.contentAt(from).get(volume) as Uint32Array)[sector] as number);
    for (let next = from; next < to; next++) {
      for (const change of (this.#records[next] as ModelRecord).changes) {
        const id = change.volume === volume ? change.ids[sector - change.sector] : undefined;
        if (id !== undefined) ids.add(id);
      }
    }
    return ids;
  }
}

function apply(content: Map<number, Uint32Array>, record: ModelRecord): void {
  for (const change of record.changes) content.get(change.volume)?.set(change.ids, change.sector);
}

function copied(content: GroupContent): Map<number, Uint32Array> {
  return new Map([...content].map(([volume, ids]) => [volume, ids.slice()]));
}
