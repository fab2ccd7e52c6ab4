import { hasCode, TidemarkError } from '../../journal/base/errors.ts';
import type { DeviceExtent } from '../../journal/block-device.ts';
import { type Lsn, SECTOR_BYTES } from '../../journal/position.ts';
import type { BaseImage } from '../base/base-image.ts';
import { type VersionPart, WINDOW_SECTORS_MAX } from '../index/lookup-window.ts';
import type { VersionIndex } from '../index/version-index.ts';
import type { FrameReader } from '../store/frame-reader.ts';

/** What lies in a range, with zeroes of the index and of the base told apart from data. */
export interface HistoryStretch {
  readonly offset: number;
  readonly length: number;
  readonly data: boolean;
}

/** Bytes of any volume at any held position: base + index + segments. */
export class HistoryReader {
  readonly #index: VersionIndex;
  readonly #frames: FrameReader;
  readonly #base: (volume: number) => Promise<BaseImage>;
  readonly #uncertainFrom: () => Lsn | undefined;
  /** Those that were read from. */
  readonly #bases = new Map<number, BaseImage>();

  /** `uncertainFrom`: the index lacks records from there on, as long as a damaged frame was not put back. */
  constructor(
    index: VersionIndex,
    frames: FrameReader,
    base: (volume: number) => Promise<BaseImage>,
    uncertainFrom: () => Lsn | undefined = () => undefined,
  ) {
    this.#uncertainFrom = uncertainFrom;
    this.#index = index;
    this.#frames = frames;
    this.#base = base;
  }

  /** Fills `into` with the bytes at `offset` as they were at `atLsn`; whole sectors. */
  async read(volume: number, atLsn: Lsn, offset: number, into: Uint8Array): Promise<void> {
    this.refuseUncertain(atLsn);
    const end = offset + into.length;
    for (let at = offset; at < end; ) {
      const sectors = Math.min((end - at) / SECTOR_BYTES, WINDOW_SECTORS_MAX);
      const length = sectors * SECTOR_BYTES;
      await this.#readWindow(
        volume,
        atLsn,
        at / SECTOR_BYTES,
        sectors,
        into.subarray(at - offset, at - offset + length),
      );
      at += length;
    }
  }

  /** As `read` when nothing has to be waited for; false: ask `read`, which says what is wrong, too. */
  readNow(volume: number, atLsn: Lsn, offset: number, into: Uint8Array): boolean {
    if (!this.isCertain(atLsn)) return false;
    for (let done = 0; done < into.length; ) {
      const sectors = Math.min((into.length - done) / SECTOR_BYTES, WINDOW_SECTORS_MAX);
      const sector = (offset + done) / SECTOR_BYTES;
      const parts = this.#index.lookupNow(volume, sector, sectors, atLsn);
      if (parts === undefined) return false;
      for (const part of parts) {
        const from = done + (part.sector - sector) * SECTOR_BYTES;
        if (!this.#partNow(volume, part, into.subarray(from, from + part.sectors * SECTOR_BYTES))) return false;
      }
      done += sectors * SECTOR_BYTES;
    }
    return true;
  }

  /** The stretches of [offset, offset + length) in order, neighbours of one kind joined. */
  async *stretches(volume: number, atLsn: Lsn, offset: number, length: number): AsyncGenerator<HistoryStretch> {
    this.refuseUncertain(atLsn);
    const base = await this.#base(volume);
    let open: { offset: number; length: number; data: boolean } | undefined;
    const sector = offset / SECTOR_BYTES;
    for await (const part of this.#index.survey(volume, sector, length / SECTOR_BYTES, atLsn)) {
      this.refuseUncertain(atLsn);
      for (const piece of piecesOf(part, base)) {
        if (open?.data === piece.data) {
          open.length += piece.length;
        } else {
          if (open !== undefined) yield open;
          open = { offset: piece.offset, length: piece.length, data: piece.data };
        }
      }
    }
    if (open !== undefined) yield open;
  }

  async extents(volume: number, atLsn: Lsn, offset: number, length: number): Promise<DeviceExtent[]> {
    const extents: DeviceExtent[] = [];
    for await (const stretch of this.stretches(volume, atLsn, offset, length)) {
      extents.push({ length: stretch.length, kind: stretch.data ? 'data' : 'hole' });
    }
    return extents;
  }

  /** False: records that are damaged, or gone, may matter. */
  isCertain(atLsn: Lsn): boolean {
    const from = this.#uncertainFrom();
    return from === undefined || from > atLsn;
  }

  /** Throws `frame-damaged` where records that are damaged, or gone, may matter. */
  refuseUncertain(atLsn: Lsn): void {
    const from = this.#uncertainFrom();
    if (from === undefined || from > atLsn) return;
    throw new TidemarkError('frame-damaged', `LSN ${from} and what follows it cannot be told: a frame is damaged`, {
      details: { lsn: from },
    });
  }

  #partNow(volume: number, part: VersionPart, into: Uint8Array): boolean {
    if (part.kind === 'data') return this.#frames.readNow(part.segment, part.frame, part.payload, into);
    if (part.kind === 'base') return this.#bases.get(volume)?.readNow(part.sector * SECTOR_BYTES, into) ?? false;
    into.fill(0);
    return true;
  }

  async #openedBase(volume: number): Promise<BaseImage> {
    const base = await this.#base(volume);
    this.#bases.set(volume, base);
    return base;
  }

  async #readWindow(volume: number, atLsn: Lsn, sector: number, sectors: number, into: Uint8Array): Promise<void> {
    const floorLsn = this.#index.floorLsn;
    try {
      const parts =
        this.#index.lookupNow(volume, sector, sectors, atLsn) ??
        (await this.#index.lookup(volume, sector, sectors, atLsn));
      // The lookup may have built a damaged run again, and met a damaged frame at that.
      this.refuseUncertain(atLsn);
      for (const part of parts) {
        const from = (part.sector - sector) * SECTOR_BYTES;
        const bytes = into.subarray(from, from + part.sectors * SECTOR_BYTES);
        if (this.#partNow(volume, part, bytes)) continue;
        if (part.kind === 'data') await this.#frames.read(part.segment, part.frame, part.payload, bytes);
        else await (await this.#openedBase(volume)).read(part.sector * SECTOR_BYTES, bytes);
      }
    } catch (error) {
      // The floor moved between the lookup and the read: what was in the segment is in the base now.
      if (!hasCode(error, 'trimmed') || this.#index.floorLsn === floorLsn) throw error;
      await this.#readWindow(volume, atLsn, sector, sectors, into);
    }
  }
}

function* piecesOf(part: VersionPart, base: BaseImage): Generator<HistoryStretch> {
  const offset = part.sector * SECTOR_BYTES;
  const length = part.sectors * SECTOR_BYTES;
  if (part.kind !== 'base') {
    yield { offset, length, data: part.kind === 'data' };
    return;
  }
  for (let at = 0; at < length; ) {
    const { data, bytes } = base.stretch(offset + at, length - at);
    yield { offset: offset + at, length: bytes, data };
    at += bytes;
  }
}
