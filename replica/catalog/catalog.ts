import { TidemarkError } from '../../journal/base/errors.ts';
import type { Epoch, JournalTime, Lsn } from '../../journal/position.ts';
import { RecordKind } from '../../journal/record.ts';
import {
  type DegreeChangeBody,
  decodeBookmark,
  decodeClockJump,
  decodeDegreeChange,
  decodeEpoch,
  decodeGap,
  decodeHeartbeat,
  decodeIncarnation,
  decodeSeedEnd,
  decodeVolumeAdded,
  decodeVolumeResized,
  type LeaseBody,
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
    | 'degree'
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

/** What the source said last of its degree of synchrony. */
export interface CatalogDegree {
  readonly lsn: Lsn;
  readonly state: string;
  readonly ack: string;
  readonly ackAt: string;
  /** 0: the promise holds. */
  readonly brokenFromLsn: Lsn;
  readonly reason: string;
}

/** What the control records say, up to a position: plain data. */
export interface Catalog {
  readonly upToLsn: Lsn;
  readonly volumes: readonly CatalogVolume[];
  readonly bookmarks: readonly CatalogBookmark[];
  readonly events: readonly CatalogEvent[];
  readonly heartbeat: { readonly lsn: Lsn; readonly time: JournalTime; readonly monotonicMs: number } | undefined;
  /** The newest one that was ever compared with the one before it: what is cut off and comes again is not compared again. */
  readonly compared?: Catalog['heartbeat'];
  readonly epoch: Epoch;
  /** In order of LSN; absent in a state that an older program wrote. */
  readonly unvouched?: readonly UnvouchedTime[];
  /** Absent: the source has said nothing of it. */
  readonly degree?: CatalogDegree | undefined;
  /** The newest one given that was not taken back; by the clocks, not by the records, it has ended or not. */
  readonly lease?: (LeaseBody & { readonly lsn: Lsn }) | undefined;
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
/** States of a degree in which the source answers nothing that the far side does not have. */
export const WAITING_STATES: ReadonlySet<string> = new Set(['in-sync', 'blocked', 'failing']);

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
  #compared: Catalog['heartbeat'];
  #epoch: Epoch;
  #unvouched: UnvouchedTime[];
  #degree: Catalog['degree'];
  #lease: Catalog['lease'];
  /** Not yet enough for a stretch. */
  #driftMicros = 0;

  constructor(from: Catalog) {
    this.#upToLsn = from.upToLsn;
    this.#volumes = new Map(from.volumes.map((volume) => [volume.id, volume]));
    this.#bookmarks = [...from.bookmarks];
    this.#events = [...from.events];
    this.#heartbeat = from.heartbeat;
    this.#compared = from.compared ?? from.heartbeat;
    this.#epoch = from.epoch;
    this.#unvouched = [...(from.unvouched ?? [])];
    this.#degree = from.degree;
    this.#lease = from.lease;
  }

  get upToLsn(): Lsn {
    return this.#upToLsn;
  }

  get heartbeat(): Catalog['heartbeat'] {
    return this.#heartbeat;
  }

  get promise(): Pick<Catalog, 'degree' | 'lease'> {
    return { degree: this.#degree, lease: this.#lease };
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
      compared: this.#compared,
      epoch: this.#epoch,
      unvouched: [...this.#unvouched],
      degree: this.#degree,
      lease: this.#lease,
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
        const { monotonicMs, lease } = decodeHeartbeat(body);
        this.#vouch(lsn, time, monotonicMs);
        this.#heartbeat = { lsn, time, monotonicMs };
        if (lease !== undefined) this.#lease = { ...lease, lsn };
        return;
      }
      case RecordKind.degreeChange:
        this.#changeDegree(decodeDegreeChange(body), lsn, time);
        return;
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
    const last = this.#compared;
    if (last !== undefined && lsn <= last.lsn) return;
    this.#compared = { lsn, time, monotonicMs };
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

  #changeDegree({ to, reason, ...said }: DegreeChangeBody, lsn: Lsn, time: JournalTime): void {
    const { ack = '', ackAt = '', brokenFromLsn = 0 } = said;
    const before = this.#degree;
    this.#degree = { lsn, state: to, ack, ackAt, brokenFromLsn, reason };
    if (!WAITING_STATES.has(to)) this.#lease = undefined;
    // a start says again what was so
    if (before?.state === to && before.ack === ack && before.ackAt === ackAt) return;
    const since = brokenFromLsn > 0 ? `, not kept from LSN ${brokenFromLsn} on` : '';
    const was = brokenFromLsn === 0 ? (before?.brokenFromLsn ?? 0) : 0;
    const over = was > 0 ? `, was not kept from LSN ${was} to ${lsn - 1}` : '';
    this.#event('degree', lsn, time, `ack ${ack} at ${ackAt} is ${to}${since}${over}: ${reason}`);
  }

  /** Records are missing from here on, of whichever volume: a seed that had begun before lacks them, too. */
  #lose(fromLsn: Lsn, reason: string): void {
    this.#lease = undefined;
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
