import { readFileSync } from 'node:fs';
import { crc32c } from '@node-rs/crc32';
import { advanceChain } from '../../../journal/chain.ts';
import { unpack } from '../../../journal/frame-codec.ts';
import { FrameView } from '../../../journal/frame-view.ts';
import { History, seal } from '../../replica/support/history.ts';
import type { SeededRandom } from '../../replica/support/memory-host.ts';
import { type FuzzTarget, must, words } from '../target.ts';

/** Frames of a made-up history, small ones. */
export function smallFrames(records: number, perFrame: number): Uint8Array[] {
  const history = new History(5);
  history.addVolumes();
  history.fill(records);
  return seal(history, { recordsPerFrame: () => perFrame }).map(({ bytes }) => bytes);
}

/** Makes chain, list crc, table crc, chunk crcs and header crc of the frame at the start of `bytes` right. */
export function fixFrame(bytes: Uint8Array, random: SeededRandom): void {
  if (bytes.length < 160) return;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const listBytes = view.getUint32(108, true);
  const listEnd = 160 + listBytes;
  const tableEnd = listEnd + view.getUint32(124, true) * 8;
  if (tableEnd <= bytes.length) {
    const stored = bytes.subarray(160, listEnd);
    view.setUint32(112, crc32c(stored), true);
    let chunkAt = tableEnd;
    for (let at = listEnd; at < tableEnd; at += 8) {
      const length = view.getUint32(at, true) & 0x7fff_ffff;
      if (chunkAt + length > bytes.length) break;
      view.setUint32(at + 4, crc32c(bytes.subarray(chunkAt, chunkAt + length)), true);
      chunkAt += length;
    }
    view.setUint32(136, crc32c(bytes.subarray(listEnd, tableEnd)), true);
    const entries = plainList(stored, bytes[116] === 1, view.getUint32(104, true));
    if (entries !== undefined && entries.length % 40 === 0 && random.below(8) > 0) {
      const before = { low: view.getUint32(88, true), high: view.getUint32(92, true) };
      const after = advanceChain(before, entries);
      view.setUint32(96, after.low, true);
      view.setUint32(100, after.high, true);
    }
  }
  if (random.below(4) === 0) view.setUint32(8, bytes.length, true);
  const headerBytes = Math.min(view.getUint16(6, true), bytes.length);
  view.setUint32(12, 0, true);
  view.setUint32(12, crc32c(bytes.subarray(0, headerBytes)), true);
}

function plainList(stored: Uint8Array, packed: boolean, plainBytes: number): Uint8Array | undefined {
  if (!packed) return stored;
  try {
    return plainBytes > 700_000 ? undefined : unpack(stored, plainBytes);
  } catch {
    return undefined;
  }
}

export const frame: FuzzTarget = {
  name: 'frame',
  testRuns: 25_000,
  inputBytesMax: 30_000,
  // A frame's plain payload twice, its list, its tables.
  allocatedBytesMax: 12 * 1024 * 1024,
  words: words('TMF1', '\x28\xb5\x2f\xfd'),
  seeds: () => {
    const golden = readFileSync(new URL('../../golden/frame-v1.bin', import.meta.url));
    return [golden, ...smallFrames(30, 1).slice(0, 12), ...smallFrames(40, 4).slice(0, 4)];
  },
  fix: fixFrame,
  run: (input) => {
    const view = FrameView.open(input);
    let payload = 0;
    view.forEach((record) => {
      must(record.payloadOffset === payload, 'payloads stand one behind the other');
      payload += record.payloadBytes;
    });
    must(payload === view.payloadBytes, 'payloads fill the plain payload');
    view.chainAt(view.lastLsn);
    view.verifyChunks();
    view.verifyPayload();
    const last = view.payloadOf(view.recordCount - 1);
    must(last.length === view.record(view.recordCount - 1).payloadBytes, 'a payload has its length');
  },
};
