import type { DeviceExtent } from '../block-device.ts';
import { SECTOR_BYTES } from '../position.ts';
import { seekData, seekHole } from './native.ts';

/** Extents told at once; what lies behind them is called data, which is always true enough. */
const EXTENTS_MAX = 4096;

/** Data and holes of a range of a file, in sectors; what the file system does not tell is data. */
export function fileExtents(fd: number, offset: number, length: number): DeviceExtent[] {
  const end = offset + length;
  const extents: DeviceExtent[] = [];
  const add = (kind: DeviceExtent['kind'], bytes: number): void => {
    if (bytes > 0) extents.push({ kind, length: bytes });
  };
  for (let at = offset; at < end; ) {
    const data = extents.length < EXTENTS_MAX ? seekData(fd, at) : undefined;
    if (data === undefined) {
      add('data', end - at);
      break;
    }
    const dataStart = data === 'none' ? end : Math.min(end, sectorDown(data));
    add('hole', dataStart - at);
    if (dataStart >= end) break;
    const hole = seekHole(fd, dataStart);
    const dataEnd = typeof hole === 'number' ? Math.min(end, sectorUp(hole)) : end;
    add('data', dataEnd - dataStart);
    at = dataEnd;
  }
  return extents;
}

function sectorDown(bytes: number): number {
  return bytes - (bytes % SECTOR_BYTES);
}

function sectorUp(bytes: number): number {
  return sectorDown(bytes + SECTOR_BYTES - 1);
}
