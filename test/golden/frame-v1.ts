import { writeFileSync } from 'node:fs';
import { CHAIN_START } from '../../journal/chain.ts';
import { FrameSealer, type SealRecord } from '../../journal/frame-sealer.ts';
import { RecordFlag, RecordKind } from '../../journal/record.ts';

/*
 * The records of frame-v1.bin: one of every shape. The file was made once by `node test/golden/frame-v1.ts --write` and
 * is never made again: it shows that frames of format 1 stay readable.
 */
export function goldenRecords(): SealRecord[] {
  const shapes: Omit<SealRecord, 'lsn' | 'time'>[] = [
    shape(RecordKind.incarnation, 0, Buffer.from('83a7636f756e74657201', 'hex')),
    shape(RecordKind.write, 1, pattern(4096, 1)),
    { ...shape(RecordKind.write, 1, pattern(512, 2)), flags: RecordFlag.piece, requestId: 9 },
    { ...shape(RecordKind.write, 1, pattern(512, 3)), flags: RecordFlag.piece | RecordFlag.closes, requestId: 9 },
    { ...shape(RecordKind.zero, 2, new Uint8Array(0)), sectors: 2 ** 31, flags: RecordFlag.noHole },
    { ...shape(RecordKind.trim, 2, new Uint8Array(0)), sectors: 0xffff_ffff, sector: 2 ** 40 },
    shape(RecordKind.flush, 0, new Uint8Array(0)),
    shape(RecordKind.seed, 2, new Uint8Array(131_072)),
    shape(RecordKind.write, 65_535, pattern(65_536, 4)),
  ];
  return shapes.map((record, i) => ({ ...record, lsn: 2 ** 33 + i, time: 1_795_000_000_000_000 + i * 10 }));
}

function shape(kind: RecordKind, volume: number, payload: Uint8Array): Omit<SealRecord, 'lsn' | 'time'> {
  const sectors = kind === RecordKind.write || kind === RecordKind.seed ? payload.length / 512 : 0;
  return { kind, flags: 0, volume, sector: volume * 1000, sectors, requestId: 0, payload };
}

function pattern(length: number, seed: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => (Math.imul(i + seed, 2_654_435_761) >>> (8 + (i % 5))) & 0xff);
}

if (process.argv[2] === '--write') {
  const sealer = new FrameSealer(
    { groupId: 'a0a1a2a3a4a5a6a7a8a9aaabacadaeaf', epoch: 2, incarnation: { counter: 5, nonce: 'f0e1d2c3b4a59687' } },
    { chunkBytes: 65_536, targetBytes: 1024 * 1024, compress: true },
  );
  const records = goldenRecords();
  sealer.begin(records[0]!.lsn, CHAIN_START);
  for (const record of records) sealer.add(record);
  writeFileSync(new URL('frame-v1.bin', import.meta.url), sealer.seal(2 ** 33 + 100).bytes, { flag: 'wx' });
}
