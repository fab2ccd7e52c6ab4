import type { CatalogBookmark } from '../../replica/catalog/catalog.ts';
import type { ReplicaGroup } from '../../replica/replica-group.ts';
import type { ReplicaGroupStatus } from '../../replica/replica-group-status.ts';
import type { BookmarkReply, PointReply, PointsReply } from '../control/control-api.ts';
import type { PointsQuery } from '../control/control-schemas.ts';
import { isoTime } from '../times.ts';

const SECOND_MICROS = 1_000_000;
/** Widths of an interval in seconds, for a timeline whose width nobody asked for. */
const WIDTHS = [1, 5, 10, 30, 60, 300, 600, 1800, 3600, 6 * 3600, 86_400] as const;
const INTERVALS_WANTED = 40;

/** The timeline of a group from `from` (or the floor, below which nothing is left to tell) to `to` (or the head). */
export async function timelineReply(
  group: ReplicaGroup,
  groupName: string,
  status: ReplicaGroupStatus,
  query: PointsQuery,
): Promise<PointsReply> {
  const { epoch } = status.receiver.durable;
  const head = pointReply(epoch, status.headLsn, status.headTime);
  const floor = pointReply(epoch, status.floorLsn, status.floorTime);
  const fromTime = Math.max(status.floorTime, query.from === undefined ? 0 : Date.parse(query.from) * 1000);
  const toTime = query.to === undefined ? status.headTime + 1 : Date.parse(query.to) * 1000;
  if (status.headTime === 0 || toTime <= fromTime) {
    return { group: groupName, head, floor, intervals: [], bookmarks: [], events: [] };
  }
  const width = query.everyMs === undefined ? widthFor(toTime - fromTime) : query.everyMs * 1000;
  const start = fromTime - (fromTime % width);
  const found = await group.points(start, toTime, width);
  return {
    group: groupName,
    head,
    floor,
    intervals: found.intervals
      .filter((interval) => interval.lastLsn > 0)
      .map((interval) => ({
        from: isoTime(interval.fromTime),
        to: isoTime(interval.fromTime + width),
        firstLsn: interval.firstLsn,
        lastLsn: interval.lastLsn,
        writes: interval.writes,
        bytes: interval.bytes,
      })),
    bookmarks: found.bookmarks.map((bookmark) => bookmarkReply(epoch, bookmark)),
    events: found.events.map(({ kind, lsn, time, text }) => ({ kind, lsn, time: isoTime(time), text })),
  };
}

/** `time` 0: it is not known. */
export function pointReply(epoch: number, lsn: number, time: number): PointReply {
  return { epoch, lsn, time: time === 0 ? null : isoTime(time) };
}

export function bookmarkReply(epoch: number, bookmark: CatalogBookmark): BookmarkReply {
  const { name, kind, lsn, time, note } = bookmark;
  return { name, kind, epoch, lsn, time: isoTime(time), note: note === '' ? null : note };
}

function widthFor(spanMicros: number): number {
  const seconds = WIDTHS.find((width) => spanMicros / (width * SECOND_MICROS) <= INTERVALS_WANTED);
  if (seconds !== undefined) return seconds * SECOND_MICROS;
  const days = Math.ceil(spanMicros / (86_400 * SECOND_MICROS * INTERVALS_WANTED));
  return days * 86_400 * SECOND_MICROS;
}
