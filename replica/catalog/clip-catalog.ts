import type { Lsn } from '../../journal/position.ts';
import type { Catalog } from './catalog.ts';

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
    // a step of the clock stays one: the heartbeat before it, by which it shows, is not known any more
    compared: catalog.compared ?? catalog.heartbeat,
    unvouched: catalog.unvouched ?? [],
    degree: catalog.degree === undefined || catalog.degree.lsn > lsn ? undefined : catalog.degree,
    lease: catalog.lease === undefined || catalog.lease.lsn > lsn ? undefined : catalog.lease,
  };
}
