import { TidemarkError } from '../../journal/base/errors.ts';
import { type JournalTime, type Lsn, SECTOR_BYTES } from '../../journal/position.ts';
import { changesVolume } from '../../journal/record.ts';
import type { Catalog, CatalogBookmark, CatalogEvent } from '../catalog/catalog.ts';
import { layoutOrMissing } from '../index/rebuild.ts';
import type { FrameReader } from '../store/frame-reader.ts';
import type { Damage } from '../store/replica-state.ts';
import type { SegmentStore } from '../store/segment-store.ts';

export interface TimelineInterval {
  readonly fromTime: JournalTime;
  /** Changes to volumes, and the bytes they cover. */
  readonly writes: number;
  readonly bytes: number;
  /** 0: no record fell into the interval. */
  readonly firstLsn: Lsn;
  readonly lastLsn: Lsn;
}

export interface Timeline {
  readonly intervals: readonly TimelineInterval[];
  readonly bookmarks: readonly CatalogBookmark[];
  readonly events: readonly CatalogEvent[];
}

const INTERVALS_MAX = 10_000;

/** Counts what changed and names what is damaged per interval of [fromTime, toTime) from the record lists; payloads are not read. */
export async function timelineOf(
  store: SegmentStore,
  frames: FrameReader,
  catalog: Catalog,
  damage: readonly Damage[],
  headLsn: Lsn,
  fromTime: JournalTime,
  toTime: JournalTime,
  intervalMicros: number,
): Promise<Timeline> {
  const count = Math.ceil((toTime - fromTime) / intervalMicros);
  if (!(count >= 1 && count <= INTERVALS_MAX)) {
    throw new TidemarkError('invalid-argument', `a timeline has 1 to ${INTERVALS_MAX} intervals, not ${count}`);
  }
  const intervals = Array.from({ length: count }, (_, i) => ({
    fromTime: fromTime + i * intervalMicros,
    writes: 0,
    bytes: 0,
    firstLsn: 0,
    lastLsn: 0,
  }));
  const damaged: CatalogEvent[] = [];
  let lastSeen = 0;
  const first = await store.findTime(fromTime);
  for await (const frame of store.frames(first?.firstLsn ?? headLsn + 1, headLsn)) {
    if (frame.firstTime >= toTime) break;
    const gone = damage.find(({ toLsn }) => toLsn + 1 === frame.firstLsn);
    if (gone !== undefined && gone.fromLsn > lastSeen)
      damaged.push(damagedAt(gone.fromLsn, gone.toLsn, Math.max(frame.firstTime, fromTime), gone.reason));
    lastSeen = frame.lastLsn;
    let unread = '';
    const layout = await layoutOrMissing(frames, frame, (_, { message }) => {
      unread = message;
      return Promise.resolve();
    });
    const known = damage.find(({ fromLsn, toLsn }) => fromLsn <= frame.lastLsn && toLsn >= frame.firstLsn);
    const { firstLsn: lsn, lastLsn, firstTime } = frame;
    if (known !== undefined || unread !== '') {
      damaged.push(damagedAt(lsn, lastLsn, Math.max(firstTime, fromTime), known?.reason ?? unread));
    }
    if (layout === undefined) continue;
    for (let i = frame.firstLsn - layout.firstLsn; i < layout.recordCount; i += 1) {
      const record = layout.record(i);
      const interval = intervals[Math.floor((record.time - fromTime) / intervalMicros)];
      if (record.time < fromTime || interval === undefined) continue;
      if (interval.firstLsn === 0) interval.firstLsn = record.lsn;
      interval.lastLsn = record.lsn;
      if (!changesVolume(record.kind)) continue;
      interval.writes += 1;
      interval.bytes += record.sectors * SECTOR_BYTES;
    }
  }
  const inside = ({ time }: { time: JournalTime }): boolean => time >= fromTime && time < toTime;
  return {
    intervals,
    bookmarks: catalog.bookmarks.filter(inside),
    events: [...catalog.events, ...damaged].filter(inside).toSorted((one, other) => one.lsn - other.lsn),
  };
}

function damagedAt(lsn: Lsn, lastLsn: Lsn, time: JournalTime, why: string): CatalogEvent {
  return { kind: 'damaged', lsn, time, text: `LSN ${lsn}-${lastLsn} cannot be read: ${why}` };
}
