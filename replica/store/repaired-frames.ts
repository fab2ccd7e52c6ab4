import { hasCode, TidemarkError } from '../../journal/base/errors.ts';
import { FRAME_HEADER_BYTES, readFrameHeader } from '../../journal/frame-codec.ts';
import type { DiskFile, Host } from '../../journal/host/host.ts';
import { readFully, replaceFile } from './file-io.ts';
import type { FrameRef } from './segment-info.ts';

const NAME = /^(\d{12})-(\d{10})\.frame$/;

/**
 * Frames that stand in for damaged ones: the same records, sealed anew, each in a file of its own that is named after
 * the segment and the byte where the damaged one stands. Whoever reads a frame asks here first; the index goes on
 * pointing at segment and byte.
 */
export class RepairedFrames {
  readonly #host: Host;
  readonly #directory: string;
  /** Bytes of each, by segment and offset. */
  readonly #sizes: Map<string, number> = new Map();

  /** `directory`: of the segments. */
  constructor(host: Host, directory: string) {
    this.#host = host;
    this.#directory = `${directory}/repaired`;
    host.disk.makeDirectory(this.#directory);
    for (const name of host.disk.list(this.#directory)) {
      const [, segment, offset] = NAME.exec(name) ?? [];
      if (segment === undefined || offset === undefined) {
        host.disk.unlink(`${this.#directory}/${name}`);
        continue;
      }
      const file = host.disk.open(`${this.#directory}/${name}`, 'read');
      this.#sizes.set(`${Number(segment)}:${Number(offset)}`, file.size());
      void file.close();
    }
  }

  /** Bytes of the frame that stands in for this one; undefined: none does. */
  size(segment: number, offset: number): number | undefined {
    return this.#sizes.size === 0 ? undefined : this.#sizes.get(`${segment}:${offset}`);
  }

  /**
   * Whether a frame with exactly these records stands in for this one. One with others is not read any more: it stood in
   * for a hole with other borders, and would hide what is missing now.
   */
  async covers({ segment, offset, lastLsn, records }: FrameRef): Promise<boolean> {
    if (this.size(segment, offset) === undefined) return false;
    const bytes = new Uint8Array(FRAME_HEADER_BYTES);
    try {
      await this.read(segment, offset, 0, bytes);
      const header = readFrameHeader(bytes);
      if (header.recordCount === records && header.firstLsn + records - 1 === lastLsn) return true;
    } catch (error) {
      if (!(error instanceof TidemarkError)) throw error;
    }
    this.#sizes.delete(`${segment}:${offset}`);
    return false;
  }

  /**
   * Bytes of a frame that `size` knew, from `position` of it on. Throws `trimmed` when it has gone below the floor
   * meanwhile, as a segment does, `journal-damaged` when it is gone otherwise.
   */
  async read(segment: number, offset: number, position: number, into: Uint8Array): Promise<void> {
    const file = this.#opened(segment, offset);
    try {
      await readFully(file, into, position);
    } finally {
      await file.close();
    }
  }

  /** Durable when it resolves; a crash leaves all of it or nothing. */
  async put(segment: number, offset: number, frame: Uint8Array): Promise<void> {
    await replaceFile(this.#host.disk, this.#directory, fileName(segment, offset), frame);
    this.#sizes.set(`${segment}:${offset}`, frame.length);
  }

  /** Removes those of these segments; durable when it resolves. */
  async forget(segments: ReadonlySet<number>): Promise<void> {
    for (const key of this.#sizes.keys()) {
      const [segment = 0, offset = 0] = key.split(':').map(Number);
      if (!segments.has(segment)) continue;
      this.#sizes.delete(key);
      this.#host.disk.unlink(this.#path(segment, offset));
    }
    await this.#host.disk.syncDirectory(this.#directory);
  }

  /** Forgets those of segments that are gone, durably: a segment of the same number must not find them. */
  async keepOnly(segments: ReadonlySet<number>): Promise<void> {
    const gone = [...this.#sizes.keys()].map((key) => Number(key.split(':')[0])).filter((one) => !segments.has(one));
    if (gone.length > 0) await this.forget(new Set(gone));
  }

  /** Forgets those from this place on, durably: what is written there from now on must not be hidden by them. */
  async cutAt(segment: number, offset: number): Promise<void> {
    const isBehind = ([one = 0, at = 0]: readonly number[]): boolean =>
      one > segment || (one === segment && at >= offset);
    const behind = [...this.#sizes.keys()].filter((key) => isBehind(key.split(':').map(Number)));
    if (behind.length === 0) return;
    for (const key of behind) {
      const [one = 0, at = 0] = key.split(':').map(Number);
      this.#sizes.delete(key);
      this.#host.disk.unlink(this.#path(one, at));
    }
    await this.#host.disk.syncDirectory(this.#directory);
  }

  #opened(segment: number, offset: number): DiskFile {
    const path = this.#path(segment, offset);
    try {
      return this.#host.disk.open(path, 'read');
    } catch (error) {
      if (!hasCode(error, 'not-found')) throw error;
      const isGone = this.size(segment, offset) === undefined;
      throw new TidemarkError(isGone ? 'trimmed' : 'journal-damaged', `${path} is gone`, { cause: error });
    }
  }

  #path(segment: number, offset: number): string {
    return `${this.#directory}/${fileName(segment, offset)}`;
  }
}

function fileName(segment: number, offset: number): string {
  return `${String(segment).padStart(12, '0')}-${String(offset).padStart(10, '0')}.frame`;
}
