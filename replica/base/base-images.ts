import type { Host } from '../../journal/host/host.ts';
import { BaseImage, type BasePlace } from './base-image.ts';

/** The base images of a replica's volumes, opened when one is asked for first. */
export class BaseImages {
  readonly #host: Host;
  readonly #place: BasePlace;
  readonly #opening: Map<number, Promise<BaseImage>> = new Map();

  constructor(host: Host, place: BasePlace) {
    this.#host = host;
    this.#place = place;
  }

  /** Rejects as `BaseImage.open` does, and by what the disk failed with: whoever asks next tries again. */
  of(volume: number): Promise<BaseImage> {
    const opening = this.#opening.get(volume) ?? BaseImage.open(this.#host, this.#place, volume);
    if (!this.#opening.has(volume)) {
      this.#opening.set(volume, opening);
      opening.catch(() => this.#opening.delete(volume));
    }
    return opening;
  }

  /** Bytes that may be occupied, of those that are open. */
  async dataBytes(): Promise<number> {
    return (await this.#opened()).reduce((sum, base) => sum + base.dataBytes, 0);
  }

  async close(): Promise<void> {
    for (const base of await this.#opened()) await base.close();
  }

  async #opened(): Promise<BaseImage[]> {
    const opened = await Promise.allSettled(this.#opening.values());
    return opened.filter((base) => base.status === 'fulfilled').map(({ value }) => value);
  }
}
