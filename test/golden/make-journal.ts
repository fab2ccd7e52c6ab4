import { cpSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Host } from '../../journal/host/host.ts';
import { RealClock } from '../../journal/host/real-clock.ts';
import { RealDisk } from '../../journal/host/real-disk.ts';
import { Journal } from '../../journal/journal.ts';
import { RecordFlag, RecordKind, writeRecordHeader } from '../../journal/record.ts';
import {
  encodeBookmark,
  encodeDegreeChange,
  encodeEpoch,
  encodeGap,
  encodeHeartbeat,
  encodeSeedEnd,
  encodeVolumeAdded,
  encodeVolumeResized,
} from '../../journal/record-bodies.ts';

/*
 * Makes test/golden/journal-v1: node test/golden/make-journal.ts. Run once per format version; the result is kept, and
 * every later version of the code must read it. It holds one record of every kind, a request in pieces, and the border
 * of two files.
 */

const target = join(import.meta.dirname, 'journal-v1');
const directory = mkdtempSync(join(tmpdir(), 'tidemark-golden-'));

class GoldenClock extends RealClock {
  #ticks = 0;

  override wallMicros(): number {
    return 1_900_000_000_000_000 + this.#ticks++ * 1000;
  }
}

const host: Host = {
  disk: new RealDisk(),
  clock: new GoldenClock(),
  random: { bytes: (length) => new Uint8Array(length).fill(0x5a), below: () => 0 },
  bootId: '01234567-89ab-4cde-8f01-23456789abcd',
};

const journal = await Journal.open(host, {
  directory,
  groupId: '00112233445566778899aabbccddeeff',
  groupName: 'golden',
  fileBytes: 64 * 1024,
  budgetBytes: 4 * 64 * 1024,
  syncIntervalMs: 10_000,
});
await journal.begin();
journal.append(RecordKind.volumeAdded, {
  body: encodeVolumeAdded({ id: 1, name: 'system', size: 1024 * 1024, blockBytes: 4096 }),
});
journal.append(RecordKind.seed, { volume: 1, sector: 8, sectors: 1, body: new Uint8Array(512).fill(0x11) });
journal.append(RecordKind.seedEnd, { body: encodeSeedEnd({ volume: 1 }) });
appendPieces();
journal.append(RecordKind.zero, { volume: 1, sector: 64, sectors: 64, flags: RecordFlag.noHole });
journal.append(RecordKind.trim, { volume: 1, sector: 128, sectors: 0xffff_ffff });
journal.append(RecordKind.flush, { volume: 1 });
journal.append(RecordKind.bookmark, {
  body: encodeBookmark({ name: 'golden', kind: 'application', note: 'kept', labels: { by: 'make-journal' } }),
});
journal.append(RecordKind.epoch, { body: encodeEpoch({ epoch: 2, reason: 'a failover' }) });
journal.append(RecordKind.cycleCommit);
journal.append(RecordKind.volumeResized, { body: encodeVolumeResized({ id: 1, size: 2 * 1024 * 1024 }) });
journal.append(RecordKind.heartbeat, { body: encodeHeartbeat({ monotonicMs: 12.5, wallMicros: 1_900_000_000_000_000 }) });
journal.append(RecordKind.gap, { body: encodeGap({ fromLsn: 3, toLsn: 4, reason: 'for show' }) });
journal.append(RecordKind.degreeChange, {
  body: encodeDegreeChange({ from: 'replica', to: 'local', reason: 'for show' }),
});
await journal.sync();
for (let index = 0; index < 3; index++) {
  const body = new Uint8Array(28 * 1024).fill(0x20 + index);
  journal.append(RecordKind.write, { volume: 1, sector: 512 + index * 56, sectors: 56, body });
}
await journal.close();
rmSync(target, { recursive: true, force: true });
cpSync(directory, target, {
  recursive: true,
  filter: (path) => !path.endsWith('lock') && !path.endsWith('0002.tmj') && !path.endsWith('0003.tmj'),
});
rmSync(directory, { recursive: true });

/** A pad, one whole write, and a request in two pieces, as they stand in one window of a connection. */
function appendPieces(): void {
  const slab = Buffer.alloc(8192);
  const view = new DataView(slab.buffer, slab.byteOffset, slab.byteLength);
  const { piece, closes } = RecordFlag;
  let at = 64;
  writeRecordHeader(view, at, RecordKind.pad, 0, 0, 4, 0, 0, 0);
  at += 32;
  for (const [flags, sector, requestId] of [
    [piece, 16, 1],
    [0, 40, 0],
    [piece | closes, 17, 1],
  ] as const) {
    writeRecordHeader(view, at, RecordKind.write, flags, 1, 512, sector, 1, requestId);
    slab.fill(sector, at + 28, at + 540);
    at += 540;
  }
  journal.appendInPlace(slab, 64, at, 3);
}
