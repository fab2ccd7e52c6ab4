import type { Host } from '../../journal/host/host.ts';
import { replicaChannel } from '../replica-channels.ts';

const spaceChannel = replicaChannel('tidemark:replica:space');
const LEVELS = [95, 80, 50] as const;

/**
 * Room for history (DESIGN rule 24): the reserve is never written into by frames, so that a floor move, a state change
 * and the note of a gap still succeed on a full disk. Tells when 50, 80 and 95 per cent are passed, in both directions.
 */
export class SpaceWatch {
  readonly #host: Host;
  readonly #group: string;
  readonly #directory: string;
  readonly #reserveBytes: number;
  readonly #used: () => number;
  level = 0;

  constructor(host: Host, group: string, directory: string, reserveBytes: number, used: () => number) {
    this.#host = host;
    this.#group = group;
    this.#directory = directory;
    this.#reserveBytes = reserveBytes;
    this.#used = used;
  }

  /** Bytes that frames may still take. */
  get freeBytes(): number {
    return Math.max(0, this.#host.disk.freeBytes(this.#directory) - this.#reserveBytes);
  }

  check(): void {
    const usedBytes = this.#used();
    const freeBytes = this.freeBytes;
    const percent = (usedBytes / Math.max(usedBytes + freeBytes, 1)) * 100;
    const level = LEVELS.find((step) => percent >= step) ?? 0;
    if (level === this.level) return;
    this.level = level;
    spaceChannel.publish({ group: this.#group, level, usedBytes, freeBytes });
  }
}
