import { TidemarkError } from '../../journal/base/errors.ts';
import type { Epoch, JournalTime, Lsn } from '../../journal/position.ts';
import { RecordKind } from '../../journal/record.ts';
import {
  decodeBookmark,
  decodeClockJump,
  decodeEpoch,
  decodeGap,
  decodeHeartbeat,
  decodeIncarnation,
  decodeSeedEnd,
  decodeVolumeAdded,
  decodeVolumeResized,
} from '../../journal/record-bodies.ts';

export interface CatalogVolume {
  readonly id: number;
  readonly name: string;
  readonly blockBytes: number;
  readonly addedLsn: Lsn;
  /** Bytes, from this LSN on; in order. */
  readonly sizes: readonly { readonly fromLsn: Lsn; readonly size: number }[];
  /** In order of `fromLsn`. */
  readonly unsettled: readonly UnsettledStretch[];
}

/** Where a volume's content is no point: from `fromLsn` up to before `toLsn`; 0: still so. */
interface UnsettledStretch {
  readonly fromLsn: Lsn;
  readonly toLsn: Lsn;
  readonly reason: string;
  /** Records are missing: only a seed that begins behind them, with the BLANK of this LSN (0: not come yet), ends it. */
  readonly blankLsn?: Lsn;
}

export interface CatalogBookmark {
  readonly name: string;
  readonly kind: 'crash' | 'application';
  readonly lsn: Lsn;
  readonly time: JournalTime;
  readonly note: string;
  readonly labels: Readonly<Record<string, string>>;
}

/** Something the timeline shows. */
export interface CatalogEvent {
  readonly kind:
    | 'gap'
    | 'clock-jump'
    | 'epoch'
    | 'incarnation'
    | 'seeding'
    | 'seeded'
    | 'volume-added'
    | 'volume-resized'
    | 'damaged';
  readonly lsn: Lsn;
  readonly time: JournalTime;
  readonly text: string;
}

/** Journal time went on by more than the source's monotonic clock did: a step of its wall clock, or it was not running. */
export interface UnvouchedTime {
  /** Of the heartbeat that showed it. */
  readonly lsn: Lsn;
  readonly micros: number;
}

/** What the control records say, up to a position: plain data. */
export interface Catalog {
  readonly upToLsn: Lsn;
  readonly volumes: readonly CatalogVolume[];
  readonly bookmarks: readonly CatalogBookmark[];
  readonly events: readonly CatalogEvent[];
  readonly heartbeat: { readonly lsn: Lsn; readonly time: JournalTime; readonly monotonicMs: number } | undefined;
  readonly epoch: Epoch;
  /** In order of LSN; absent in a state that an older program wrote. */
  readonly unvouched?: readonly UnvouchedTime[];
}

export const EMPTY_CATALOG: Catalog = {
  upToLsn: 0,
  volumes: [],
  bookmarks: [],
  events: [],
  heartbeat: undefined,
  epoch: 0,
};

/** Timeline events kept; the oldest go first (bookmarks are kept as long as their position). */
const EVENTS_MAX = 10_000;
/** Stretches of unvouched time; of more the oldest two become one. */
const UNVOUCHED_MAX = 1_000;
/** Less is the clocks' drift between two heartbeats. */
const UNVOUCHED_MICROS_MIN = 1_000_000;

/** What the catalog said at `lsn`, when it has gone further than what is held (damage was cut off). */
export function clipCatalog(catalog: Catalog, lsn: Lsn): Catalog {
  if (catalog.upToLsn <= lsn) return catalog;
  return {
    upToLsn: lsn,
    volumes: catalog.volumes
      .filter((volume) => volume.addedLsn <= lsn)
      .map((volume) => ({
        ...volume,
        sizes: volume.sizes.filter((change) => change.fromLsn <= lsn),
        unsettled: volume.unsettled
          .filter((stretch) => stretch.fromLsn <= lsn)
          .map((stretch) => (stretch.toLsn > lsn ? { ...stretch, toLsn: 0 } : stretch))
          .map((stretch) => ((stretch.blankLsn ?? 0) > lsn ? { ...stretch, blankLsn: 0 } : stretch)),
      })),
    bookmarks: catalog.bookmarks.filter((bookmark) => bookmark.lsn <= lsn),
    events: catalog.events.filter((event) => event.lsn <= lsn),
    heartbeat: catalog.heartbeat === undefined || catalog.heartbeat.lsn > lsn ? undefined : catalog.heartbeat,
    epoch: catalog.epoch,
    unvouched: (catalog.unvouched ?? []).filter((stretch) => stretch.lsn <= lsn),
  };
}

export function isControl(kind: number): boolean {
  return kind >= RecordKind.bookmark && kind !== RecordKind.seed;
}

/** Builds a catalog record by record. */
export class CatalogBuilder {
  #upToLsn: Lsn;
  readonly #volumes: Map<number, CatalogVolume>;
  #bookmarks: CatalogBookmark[];
  #events: CatalogEvent[];
  #heartbeat: Catalog['heartbeat'];
  #epoch: Epoch;
  #unvouched: UnvouchedTime[];
  /** Not yet enough for a stretch. */
  #driftMicros = 0;

  constructor(from: Catalog) {
    this.#upToLsn = from.upToLsn;
    this.#volumes = new Map(from.volumes.map((volume) => [volume.id, volume]));
    this.#bookmarks = [...from.bookmarks];
    this.#events = [...from.events];
    this.#heartbeat = from.heartbeat;
    this.#epoch = from.epoch;
    this.#unvouched = [...(from.unvouched ?? [])];
  }

  get upToLsn(): Lsn {
    return this.#upToLsn;
  }

  get heartbeat(): Catalog['heartbeat'] {
    return this.#heartbeat;
  }

  get unvouched(): readonly UnvouchedTime[] {
    return this.#unvouched;
  }

  snapshot(): Catalog {
    return {
      upToLsn: this.#upToLsn,
      volumes: [...this.#volumes.values()],
      bookmarks: [...this.#bookmarks],
      events: [...this.#events],
      heartbeat: this.#heartbeat,
      epoch: this.#epoch,
      unvouched: [...this.#unvouched],
    };
  }

  /** Everything up to `lsn` has been looked at. */
  advance(lsn: Lsn): void {
    this.#upToLsn = lsn;
  }

  /** A seed record: the volume is no point until its seed ends. */
  seed(volumeId: number, lsn: Lsn, time: JournalTime): void {
    const volume = this.#volumes.get(volumeId);
    if (volume === undefined || isOpen(volume)) return;
    // Nobody writes to a volume before its first seed is done: it was no point since it was added, which a source of
    // an older program did not say then.
    const fromLsn = volume.unsettled.length === 0 && volume.sizes.length === 1 ? volume.addedLsn : lsn;
    this.#unsettle(volume, fromLsn, 'seeding');
    this.#event('seeding', lsn, time, `volume ${volume.name}`);
  }

  /** A seed begins from nothing: what was missing before it is missing no more when it ends. */
  blank(volumeId: number, lsn: Lsn): void {
    const volume = this.#volumes.get(volumeId);
    if (volume === undefined) return;
    const unsettled = volume.unsettled.map((stretch) =>
      stretch.blankLsn === 0 ? { ...stretch, blankLsn: lsn } : stretch,
    );
    this.#volumes.set(volume.id, { ...volume, unsettled });
  }

  /**
   * A control record with its payload; `afterLsn`: the record held before it. Throws `journal-damaged` when the body
   * cannot be read.
   */
  control(kind: number, lsn: Lsn, time: JournalTime, body: Uint8Array, afterLsn: Lsn = lsn - 1): void {
    switch (kind) {
      case RecordKind.bookmark: {
        const { name, kind: how, note, labels } = decodeBookmark(body);
        this.#bookmarks.push({ name, kind: how, lsn, time, note: note ?? '', labels: labels ?? {} });
        return;
      }
      case RecordKind.epoch: {
        const { epoch, reason } = decodeEpoch(body);
        this.#epoch = epoch;
        this.#event('epoch', lsn, time, `epoch ${epoch}: ${reason}`);
        return;
      }
      case RecordKind.incarnation: {
        const { counter, cutAfterLsn } = decodeIncarnation(body);
        const cut = cutAfterLsn === undefined ? '' : `, cut after ${cutAfterLsn}`;
        this.#event('incarnation', lsn, time, `source start ${counter}${cut}`);
        return;
      }
      case RecordKind.volumeAdded: {
        const { id, name, size, blockBytes, starts } = decodeVolumeAdded(body);
        const sizes = [{ fromLsn: lsn, size }];
        const known = this.#volumes.get(id);
        if (known?.name === name && known.sizes.at(-1)?.size === size) {
          // Told again: behind a gap, in which it may have been told first, or by a start that had not kept it. What was
          // before stays as it is.
          if (starts === 'seeded' && !isOpen(known)) this.#unsettle(known, lsn, 'seeding');
          if (starts === 'seeded') this.#event('seeding', lsn, time, `volume ${name}, anew`);
          return;
        }
        // Before its first block came nothing else tells that it is not empty.
        const unsettled = starts === 'seeded' ? [{ fromLsn: lsn, toLsn: 0, reason: 'seeding' }] : [];
        this.#volumes.set(id, { id, name, blockBytes, addedLsn: lsn, sizes, unsettled });
        this.#event('volume-added', lsn, time, `volume ${name}, ${size} bytes`);
        if (starts === 'seeded') this.#event('seeding', lsn, time, `volume ${name}`);
        return;
      }
      case RecordKind.volumeResized: {
        const { id, size } = decodeVolumeResized(body);
        const volume = this.#volumes.get(id);
        if (volume === undefined)
          throw new TidemarkError('journal-damaged', `volume ${id} is resized before it was added`);
        this.#volumes.set(id, { ...volume, sizes: [...volume.sizes, { fromLsn: lsn, size }] });
        this.#event('volume-resized', lsn, time, `volume ${volume.name}, ${size} bytes`);
        return;
      }
      case RecordKind.seedEnd: {
        const volume = this.#volumes.get(decodeSeedEnd(body).volume);
        if (volume === undefined) return;
        this.#settle(volume, lsn);
        if (!isOpen(this.#volumes.get(volume.id)!)) this.#event('seeded', lsn, time, `volume ${volume.name}`);
        return;
      }
      case RecordKind.gap: {
        const { fromLsn, toLsn, reason } = decodeGap(body);
        // The source gave up what it could not know to be held here: where nothing was stepped over, nothing is missing.
        if (afterLsn === lsn - 1) {
          this.#event('gap', lsn, time, `${fromLsn}-${toLsn}: ${reason}; all of it is held here`);
          return;
        }
        this.#lose(afterLsn + 1, `gap ${fromLsn}-${toLsn}: ${reason}`);
        this.#event('gap', lsn, time, `${fromLsn}-${toLsn}: ${reason}`);
        return;
      }
      case RecordKind.lost: {
        // The reason stands in the first of them when there was room.
        const { fromLsn, toLsn, reason } = body.length > 0 ? decodeGap(body) : { fromLsn: lsn, toLsn: lsn, reason: '' };
        const what = body.length > 0 ? `${fromLsn}-${toLsn}: ${reason}` : `from ${lsn} on: given up`;
        this.#lose(lsn, `gap ${what}`);
        this.#event('gap', lsn, time, what);
        return;
      }
      case RecordKind.clockJump: {
        const { fromMicros, toMicros } = decodeClockJump(body);
        this.#event('clock-jump', lsn, time, `${(toMicros - fromMicros) / 1e6} s`);
        return;
      }
      case RecordKind.heartbeat: {
        const { monotonicMs } = decodeHeartbeat(body);
        this.#vouch(lsn, time, monotonicMs);
        this.#heartbeat = { lsn, time, monotonicMs };
        return;
      }
      default:
    }
  }

  /** Forgets what no position at or above the floor needs. */
  trim(floorLsn: Lsn): void {
    this.#bookmarks = this.#bookmarks.filter((bookmark) => bookmark.lsn >= floorLsn);
    this.#events = this.#events.filter((event) => event.lsn >= floorLsn);
    this.#unvouched = this.#unvouched.filter((stretch) => stretch.lsn > floorLsn);
    for (const volume of this.#volumes.values()) {
      const current = volume.sizes.findLastIndex((size) => size.fromLsn <= floorLsn);
      this.#volumes.set(volume.id, {
        ...volume,
        sizes: volume.sizes.slice(Math.max(current, 0)),
        unsettled: volume.unsettled.filter((stretch) => stretch.toLsn === 0 || stretch.toLsn > floorLsn),
      });
    }
  }

  /** Compares journal time with the source's monotonic clock since the last heartbeat; a new start has another clock. */
  #vouch(lsn: Lsn, time: JournalTime, monotonicMs: number): void {
    const last = this.#heartbeat;
    if (last === undefined) return;
    const started = this.#events.findLast((event) => event.kind === 'incarnation')?.lsn ?? 0;
    const ranMicros = started > last.lsn ? 0 : Math.max(0, (monotonicMs - last.monotonicMs) * 1000);
    this.#driftMicros = Math.max(0, this.#driftMicros + (time - last.time) - ranMicros);
    if (this.#driftMicros < UNVOUCHED_MICROS_MIN) return;
    this.#unvouched.push({ lsn, micros: Math.round(this.#driftMicros) });
    this.#driftMicros = 0;
    const [first, second] = this.#unvouched;
    if (this.#unvouched.length <= UNVOUCHED_MAX || first === undefined || second === undefined) return;
    // Counted against too much history rather than too little.
    this.#unvouched.splice(0, 2, { lsn: second.lsn, micros: first.micros + second.micros });
  }

  /** Records are missing from here on, of whichever volume: a seed that had begun before lacks them, too. */
  #lose(fromLsn: Lsn, reason: string): void {
    for (const volume of this.#volumes.values()) {
      if (volume.unsettled.some(({ blankLsn }) => blankLsn === 0)) continue;
      this.#unsettle(volume, fromLsn, reason, { blankLsn: 0 });
    }
  }

  #unsettle(volume: CatalogVolume, fromLsn: Lsn, reason: string, extra: { blankLsn?: Lsn } = {}): void {
    const unsettled = [...volume.unsettled, { fromLsn, toLsn: 0, reason, ...extra }];
    this.#volumes.set(volume.id, { ...volume, unsettled });
  }

  #settle(volume: CatalogVolume, lsn: Lsn): void {
    const unsettled = volume.unsettled.map((stretch) =>
      stretch.toLsn === 0 && stretch.blankLsn !== 0 ? { ...stretch, toLsn: lsn } : stretch,
    );
    this.#volumes.set(volume.id, { ...volume, unsettled });
  }

  #event(kind: CatalogEvent['kind'], lsn: Lsn, time: JournalTime, text: string): void {
    this.#events.push({ kind, lsn, time, text });
    if (this.#events.length > EVENTS_MAX) this.#events.splice(0, this.#events.length - EVENTS_MAX);
  }
}

function isOpen({ unsettled }: CatalogVolume): boolean {
  return unsettled.some(({ toLsn }) => toLsn === 0);
}

/** A volume as it stands at a position. */
export interface VolumeAt {
  readonly id: number;
  readonly name: string;
  readonly size: number;
  readonly blockBytes: number;
}

/**
 * The volume at a position. Throws `not-found` when it did not exist yet, `precondition-failed` with the reason when
 * its content there is no point.
 */
export function volumeAt(catalog: Catalog, name: string, lsn: Lsn): VolumeAt {
  const volume = catalog.volumes.find((other) => other.name === name);
  if (volume === undefined || volume.addedLsn > lsn) {
    throw new TidemarkError('not-found', `there is no volume ${name} at LSN ${lsn}`);
  }
  const around = volume.unsettled.filter(({ fromLsn, toLsn }) => lsn >= fromLsn && (toLsn === 0 || lsn < toLsn));
  const stretch = around.find(({ toLsn }) => toLsn === 0) ?? around.toSorted((a, b) => b.toLsn - a.toLsn)[0];
  if (stretch !== undefined) {
    const until = stretch.toLsn === 0 ? 'it has not ended yet' : `the next point is LSN ${stretch.toLsn}`;
    throw new TidemarkError(
      'precondition-failed',
      `volume ${name} is not consistent at LSN ${lsn}: ${stretch.reason}; ${until}`,
      { details: { volume: name, lsn, nextLsn: stretch.toLsn } },
    );
  }
  const size = volume.sizes.findLast((change) => change.fromLsn <= lsn) ?? volume.sizes[0];
  if (size === undefined) throw new TidemarkError('journal-damaged', `volume ${name} has no size`);
  return { id: volume.id, name, size: size.size, blockBytes: volume.blockBytes };
}

/** The volumes that exist at a position. */
export function volumesAt(catalog: Catalog, lsn: Lsn): string[] {
  return catalog.volumes.filter((volume) => volume.addedLsn <= lsn).map((volume) => volume.name);
}
