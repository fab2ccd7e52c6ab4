import { assert } from '../../journal/base/assert.ts';
import type { Lsn } from '../../journal/position.ts';
import { RecordKind } from '../../journal/record.ts';
import {
  type DegreeChangeBody,
  decodeDegreeChange,
  decodeGap,
  decodeSeedEnd,
  decodeVolumeAdded,
} from '../../journal/record-bodies.ts';
import { LostRecords } from './lost-records.ts';
import type { SectorId } from './sector-pattern.ts';

/** A change of one volume as the model sees it: one id per sector. */
export interface ModelChange {
  readonly volume: number;
  readonly sector: number;
  readonly ids: Uint32Array;
}

/** What the record at one LSN is and did, by the model's own reading of the journal. */
export interface ModelRecord {
  readonly lsn: Lsn;
  readonly kind: RecordKind;
  readonly flags: number;
  readonly requestId: number;
  readonly volume: number;
  readonly sector: number;
  readonly sectors: number;
  /** Whose bytes a record with data has, per sector. */
  readonly ids: Uint32Array | undefined;
  /** The payload of any other record, in hex. */
  readonly content: string;
  /** Empty for barriers, control records and pieces. */
  readonly changes: readonly ModelChange[];
}

/** Whether nothing about two records is different. */
export function sameRecord(a: ModelRecord, b: ModelRecord): boolean {
  return (
    a.lsn === b.lsn &&
    a.kind === b.kind &&
    a.flags === b.flags &&
    a.requestId === b.requestId &&
    a.volume === b.volume &&
    a.sector === b.sector &&
    a.sectors === b.sectors &&
    a.content === b.content &&
    sameIds(a.ids, b.ids)
  );
}

function sameIds(a: Uint32Array | undefined, b: Uint32Array | undefined): boolean {
  if (a === undefined || b === undefined) return a === b;
  return a.length === b.length && a.every((id, index) => id === b[index]);
}

/** A record for a person. */
export function describeRecord({ flags, ids, kind, lsn, sector, sectors, volume }: ModelRecord): string {
  return `LSN ${lsn}: kind ${kind}, flags ${flags}, volume ${volume}: ${sector}+${sectors} ${ids?.join(',') ?? ''}`;
}

/** Volume id -> whose bytes stand in each of its sectors. */
export type GroupContent = ReadonlyMap<number, Uint32Array>;

const SNAPSHOT_EVERY = 128;
const CONTROLS: ReadonlySet<RecordKind> = new Set([
  RecordKind.volumeAdded,
  RecordKind.seed,
  RecordKind.seedEnd,
  RecordKind.gap,
  RecordKind.degreeChange,
  RecordKind.blank,
]);

/** The order of a group's changes over all its volumes, and what they add up to at any LSN. */
export class History {
  readonly #sizes: ReadonlyMap<number, number>;
  readonly #records: ModelRecord[] = [];
  /** Content at LSN `index * SNAPSHOT_EVERY`. */
  readonly #snapshots: Map<number, Uint32Array>[] = [];
  readonly #head: Map<number, Uint32Array>;
  /** Records that decide what may be shown, in order. */
  #controls: ModelRecord[] = [];
  readonly lost: LostRecords = new LostRecords();

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
    if (CONTROLS.has(record.kind)) this.#controls.push(record);
    apply(this.#head, record);
    if (record.lsn % SNAPSHOT_EVERY === 0) this.#snapshots.push(copied(this.#head));
  }

  /** Everything behind this LSN never was. */
  truncate(afterLsn: Lsn): void {
    this.#controls = this.#controls.filter(({ lsn }) => lsn <= afterLsn);
    this.lost.truncate(afterLsn);
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

  /**
   * Whether volumes that began with content of their own (`seeded`) are whole at this LSN. One whose seed had ended is
   * seeded again when a start finds nothing that says so; nobody has written to it.
   */
  seededAt(lsn: Lsn, seeded: (volume: number) => boolean): boolean {
    return this.unsettledAt(lsn, seeded).size === 0;
  }

  /** The volumes that are no point at this LSN: they are being seeded, or lack what was lost. */
  unsettledAt(lsn: Lsn, seeded: (volume: number) => boolean): Set<number> {
    const open = new Set<number>();
    for (const { content, kind, lsn: at, volume } of this.#controls) {
      if (at > lsn) break;
      const body = Buffer.from(content, 'hex');
      if (kind === RecordKind.seed) open.add(volume);
      else if (kind === RecordKind.volumeAdded) open.add(decodeVolumeAdded(body).id);
      else if (kind === RecordKind.seedEnd) open.delete(decodeSeedEnd(body).volume);
    }
    return new Set([...[...open].filter(seeded), ...this.lost.openAt(lsn, this.#controls)]);
  }

  /** The volumes that were added at or below this LSN. */
  volumesAt(lsn: Lsn): Set<number> {
    const added = this.#controls.filter((one) => one.kind === RecordKind.volumeAdded && one.lsn <= lsn);
    return new Set(added.map(({ content }) => decodeVolumeAdded(Buffer.from(content, 'hex')).id));
  }

  /** The newest record of a kind; 0: there is none. */
  newestControl(kind: RecordKind): Lsn {
    return this.#controls.findLast((one) => one.kind === kind)?.lsn ?? 0;
  }

  /** What the source said last of its degree of synchrony, up to this LSN. */
  degree(upToLsn: Lsn = this.lastLsn): (DegreeChangeBody & { readonly lsn: Lsn }) | undefined {
    const last = this.#controls.findLast(({ kind, lsn }) => kind === RecordKind.degreeChange && lsn <= upToLsn);
    return last && { ...decodeDegreeChange(Buffer.from(last.content, 'hex')), lsn: last.lsn };
  }

  /** What the source said it gave up. */
  gaps(): { readonly fromLsn: Lsn; readonly toLsn: Lsn }[] {
    const gaps = this.#controls.filter(({ kind }) => kind === RecordKind.gap);
    return gaps.map(({ content }) => decodeGap(Buffer.from(content, 'hex')));
  }

  /** Whose bytes stand in `count` sectors of a volume at one LSN. */
  rangeAt(lsn: Lsn, volume: number, sector: number, count: number): Uint32Array {
    if (lsn === this.lastLsn) return (this.#head.get(volume) as Uint32Array).slice(sector, sector + count);
    assert(lsn >= 0 && lsn < this.lastLsn, `the model ends at ${this.lastLsn}, asked for ${lsn}`);
    const index = Math.floor(lsn / SNAPSHOT_EVERY);
    const snapshot = this.#snapshots[index] as Map<number, Uint32Array>;
    const ids = (snapshot.get(volume) as Uint32Array).slice(sector, sector + count);
    for (let next = index * SNAPSHOT_EVERY; next < lsn; next++) {
      for (const change of (this.#records[next] as ModelRecord).changes) {
        if (change.volume !== volume) continue;
        const from = Math.max(sector, change.sector);
        const end = Math.min(sector + count, change.sector + change.ids.length);
        if (from < end) ids.set(change.ids.subarray(from - change.sector, end - change.sector), from - sector);
      }
    }
    return ids;
  }

  /** Whose bytes may stand in a sector for somebody who looked at some moment between the two LSNs. */
  idsBetween(volume: number, sector: number, from: Lsn, to: Lsn): Set<SectorId> {
    const ids = new Set<SectorId>();
    ids.add(this.rangeAt(from, volume, sector, 1)[0] as number);
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
