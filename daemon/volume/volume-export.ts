import { TidemarkError } from '../../journal/base/errors.ts';
import { SECTOR_BYTES } from '../../journal/position.ts';
import type { ExportClient, NbdExport, ReplyPort } from '../nbd/export.ts';
import type { ProtectedVolume } from './protected-volume.ts';

const PREFERRED_BLOCK_BYTES = 4096;

/** A protected volume as an NBD server offers it: once for guests of this host, once for remote ones (DESIGN rule 12). */
export class VolumeExport implements NbdExport {
  readonly name: string;
  readonly description = 'protected volume';
  readonly size: number;
  readonly readOnly = false;
  readonly fastZero = true;
  /** One journal orders and syncs the writes of all connections. */
  readonly multiConn = true;
  readonly minimumBlockBytes: number = SECTOR_BYTES;
  readonly preferredBlockBytes: number = PREFERRED_BLOCK_BYTES;
  readonly #volume: ProtectedVolume;
  readonly #heldBecause: () => string | undefined;

  /** `heldBecause`: why no client is let on now; undefined when they are. */
  constructor(volume: ProtectedVolume, heldBecause: () => string | undefined) {
    this.name = volume.name;
    this.size = volume.size;
    this.#volume = volume;
    this.#heldBecause = heldBecause;
  }

  attach(replies: ReplyPort): ExportClient {
    const held = this.#heldBecause();
    if (held !== undefined) throw new TidemarkError('precondition-failed', `volume ${this.name}: ${held}`);
    return this.#volume.attach(replies);
  }
}
