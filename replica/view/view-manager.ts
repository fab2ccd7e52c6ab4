import { TidemarkError } from '../../journal/base/errors.ts';
import type { BlockDevice } from '../../journal/block-device.ts';
import type { Host } from '../../journal/host/host.ts';
import type { Lsn } from '../../journal/position.ts';
import type { Leases } from '../base/leases.ts';
import type { Catalog } from '../catalog/catalog.ts';
import { type VolumeAt, volumeAt, volumesAt } from '../catalog/volume-at.ts';
import type { HistoryReader } from './history-reader.ts';
import { PointInTimeView } from './point-in-time-view.ts';
import { ScratchOverlay } from './scratch-overlay.ts';

export interface ViewManagerOptions {
  /** Thrown away and made anew when the manager opens. */
  readonly scratchDirectory: string;
  readonly viewsMax: number;
}

export interface OpenViewRequest {
  readonly lsn: Lsn;
  /** Names; absent: every volume that exists at the position. */
  readonly volumes?: readonly string[];
  /** For a person: shown with the lease. */
  readonly owner: string;
  /** Bytes of scratch writes per volume; 0: read-only. */
  readonly scratchBytesMax: number;
  readonly kind?: 'view' | 'restore';
}

/** The volumes of a group at one position, so a consistent cut of all of them. */
export interface GroupView {
  readonly id: number;
  readonly lsn: Lsn;
  readonly owner: string;
  readonly volumes: readonly { readonly volume: VolumeAt; readonly device: BlockDevice }[];
}

/** What views are made of, as the group holds it. */
export interface ViewSource {
  readonly history: HistoryReader;
  readonly leases: Leases;
  catalog(): Catalog;
  /** Positions that may be opened: from the floor (or a floor move's target) to the newest durable LSN. */
  range(): { readonly floorLsn: Lsn; readonly headLsn: Lsn };
}

/** Opens views, keeps count of them, closes them. */
export class ViewManager {
  readonly #host: Host;
  readonly #source: ViewSource;
  readonly #options: ViewManagerOptions;
  readonly #views = new Map<number, GroupView>();
  #lastId = 0;

  constructor(host: Host, source: ViewSource, options: ViewManagerOptions) {
    this.#host = host;
    this.#source = source;
    this.#options = options;
    host.disk.makeDirectory(options.scratchDirectory);
    for (const name of host.disk.list(options.scratchDirectory))
      host.disk.unlink(`${options.scratchDirectory}/${name}`);
  }

  /**
   * Throws `not-found` (not there yet, no such volume), `frame-damaged` (nobody knows whether), `trimmed` (below the floor), `precondition-failed` (seeding, a
   * gap: the reason is in the message).
   */
  open(request: OpenViewRequest): GroupView {
    const { floorLsn, headLsn } = this.#source.range();
    const { lsn } = request;
    if (!Number.isSafeInteger(lsn) || lsn < 0) throw new TidemarkError('invalid-argument', `${lsn} is no LSN`);
    if (lsn > headLsn) {
      throw new TidemarkError('not-found', `LSN ${lsn} is not here yet: the newest point is ${headLsn}`, {
        details: { lsn, headLsn },
      });
    }
    if (lsn < floorLsn) {
      throw new TidemarkError('trimmed', `LSN ${lsn} is older than the floor: the oldest point is ${floorLsn}`, {
        details: { lsn, floorLsn },
      });
    }
    if (this.#views.size >= this.#options.viewsMax) {
      throw new TidemarkError(
        'precondition-failed',
        `${this.#views.size} views are open, the bound is ${this.#options.viewsMax}`,
      );
    }
    const catalog = this.#source.catalog();
    const names = request.volumes ?? volumesAt(catalog, lsn);
    let volumes: readonly VolumeAt[];
    try {
      if (names.length === 0) throw new TidemarkError('not-found', `the group has no volume at LSN ${lsn}`);
      volumes = names.map((name) => volumeAt(catalog, name, lsn));
    } catch (error) {
      // The record that tells of a volume, or of the end of its seed, may be the damaged one.
      this.#source.history.refuseUncertain(lsn);
      throw error;
    }
    this.#lastId += 1;
    const id = this.#lastId;
    const opened: { volume: VolumeAt; device: BlockDevice }[] = [];
    try {
      for (const volume of volumes) opened.push({ volume, device: this.#device(id, volume, request) });
    } catch (error) {
      for (const { device } of opened) void device.close();
      throw error;
    }
    const view: GroupView = { id, lsn, owner: request.owner, volumes: opened };
    this.#views.set(id, view);
    return view;
  }

  get(id: number): GroupView {
    const view = this.#views.get(id);
    if (view === undefined) throw new TidemarkError('not-found', `there is no view ${id}`);
    return view;
  }

  list(): GroupView[] {
    return [...this.#views.values()];
  }

  async close(id: number): Promise<void> {
    const view = this.get(id);
    this.#views.delete(id);
    for (const { device } of view.volumes) await device.close();
  }

  async closeAll(): Promise<void> {
    for (const id of this.#views.keys()) await this.close(id);
  }

  #device(id: number, volume: VolumeAt, request: OpenViewRequest): BlockDevice {
    const release = this.#source.leases.take(request.lsn, request.kind ?? 'view', `${request.owner} (view ${id})`);
    const view = new PointInTimeView(this.#source.history, volume, request.lsn, release);
    if (request.scratchBytesMax === 0) return view;
    const path = `${this.#options.scratchDirectory}/view-${id}-${volume.id}`;
    try {
      return new ScratchOverlay(this.#host, view, path, request.scratchBytesMax);
    } catch (error) {
      release();
      throw error;
    }
  }
}
