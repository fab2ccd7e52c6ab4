import { TidemarkError } from '../../journal/base/errors.ts';
import type { Lsn } from '../../journal/position.ts';
import type { Catalog } from './catalog.ts';

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
