import { TidemarkError } from '../../journal/base/errors.ts';
import type { Host } from '../../journal/host/host.ts';
import type { Lsn } from '../../journal/position.ts';
import type { VolumeAddedBody } from '../../journal/record-bodies.ts';
import { readStateFile, StateFields, type StatePlace, writeStateFile } from './state-file.ts';

/**
 * `seeding`: its content is being journalled, up to `seededBytes`; nobody may use it.
 * `detached`: a plain disk again; comes back when it is opened and nobody changed it.
 */
type VolumeStanding = 'seeding' | 'protected' | 'detached';

export interface RegisteredVolume {
  readonly id: number;
  readonly name: string;
  /** Bytes. */
  readonly size: number;
  standing: VolumeStanding;
  seededBytes: number;
  /**
   * Present: history has a gap, and the volume is to be seeded anew as one that is zeroes so far, by records from this
   * LSN on; 0: that has not begun.
   */
  reseedFromLsn?: Lsn | undefined;
}

const NAME = 'volumes.state';
const STANDINGS: readonly VolumeStanding[] = ['seeding', 'protected', 'detached'];
const ID_MAX = 0xffff;

/**
 * Which volumes the group has and had. The journal says it too, by VOLUME_ADDED records, but old files of a journal
 * are recycled; an id is never given to another volume, because old records may still carry it.
 */
export class VolumeRegistry {
  readonly #host: Host;
  readonly #place: StatePlace;
  readonly #volumes: Map<string, RegisteredVolume> = new Map();
  #nextId = 1;
  #last: Promise<void> = Promise.resolve();

  static load(host: Host, place: StatePlace): VolumeRegistry {
    const registry = new VolumeRegistry(host, place);
    const path = `${place.directory}/${NAME}`;
    const value = readStateFile(host, place, NAME);
    if (value === undefined) return registry;
    const fields = new StateFields(path, value);
    registry.#nextId = fields.count('nextId');
    for (const entry of fields.list('volumes')) {
      const one = new StateFields(path, entry);
      registry.#volumes.set(one.text('name'), {
        id: one.count('id'),
        name: one.text('name'),
        size: one.count('size'),
        standing: one.oneOf('standing', STANDINGS),
        seededBytes: one.count('seededBytes'),
        ...(one.has('reseedFromLsn') ? { reseedFromLsn: one.count('reseedFromLsn') } : {}),
      });
    }
    return registry;
  }

  private constructor(host: Host, place: StatePlace) {
    this.#host = host;
    this.#place = place;
  }

  get all(): readonly RegisteredVolume[] {
    return [...this.#volumes.values()];
  }

  find(name: string): RegisteredVolume | undefined {
    return this.#volumes.get(name);
  }

  byId(id: number): RegisteredVolume | undefined {
    return this.all.find((volume) => volume.id === id);
  }

  /** A new volume, not yet saved. `id` is the one asked for, or the next free one. */
  add(name: string, size: number, id: number | undefined): RegisteredVolume {
    const chosen = id ?? this.#nextId;
    if (chosen < this.#nextId || chosen > ID_MAX) {
      throw new TidemarkError(
        'invalid-argument',
        `volume ${name}: the id ${chosen} was used before or is over ${ID_MAX}`,
      );
    }
    const volume: RegisteredVolume = { id: chosen, name, size, standing: 'seeding', seededBytes: 0 };
    this.#volumes.set(name, volume);
    this.#nextId = chosen + 1;
    return volume;
  }

  /** From now on none counts as known to history, not yet saved: those that are no plain disks now are seeded anew. */
  seedAllAnew(): void {
    for (const volume of this.#volumes.values()) {
      volume.reseedFromLsn = 0;
      volume.seededBytes = 0;
      if (volume.standing === 'protected') volume.standing = 'seeding';
    }
  }

  /** What a VOLUME_ADDED record tells that a crash kept out of the file. */
  learn(body: VolumeAddedBody): void {
    if (this.#volumes.has(body.name)) return;
    const { id, name, size } = body;
    this.#volumes.set(name, { id, name, size, standing: 'seeding', seededBytes: 0 });
    this.#nextId = Math.max(this.#nextId, id + 1);
  }

  /** What it is by then is durable when the promise resolves. One after the other: they have one temporary file. */
  save(): Promise<void> {
    const saved = this.#last.then(() =>
      writeStateFile(this.#host, this.#place, NAME, {
        nextId: this.#nextId,
        volumes: this.all.map(({ reseedFromLsn, ...volume }) => ({
          ...volume,
          ...(reseedFromLsn === undefined ? {} : { reseedFromLsn }),
        })),
      }),
    );
    this.#last = saved.catch(() => undefined);
    return saved;
  }
}
