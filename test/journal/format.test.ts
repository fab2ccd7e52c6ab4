import { cpSync } from 'node:fs';
import { join } from 'node:path';
import { crc32 } from '@node-rs/crc32';
import test from 'ava';
import fc from 'fast-check';
import { hasCode } from '../../journal/base/errors.ts';
import {
  BATCH_HEADER_BYTES,
  type BatchFields,
  bodyIsWhole,
  readBatchHeader,
  writeBatchHeader,
} from '../../journal/batch-codec.ts';
import { BatchView } from '../../journal/batch-view.ts';
import { Journal } from '../../journal/journal.ts';
import { auditJournal } from '../../journal/journal-audit.ts';
import { type JournalFileHeader, readFileHeader, writeFileHeader } from '../../journal/journal-file-header.ts';
import { listBatches } from '../../journal/journal-list.ts';
import { PieceAssembler } from '../../journal/piece-assembler.ts';
import { RecordKind, readRecordHeader, recordKindName, writeRecordHeader } from '../../journal/record.ts';
import * as bodies from '../../journal/record-bodies.ts';
import { temporaryDirectory, testHost } from './journal-fixture.ts';

const lsn = fc.nat({ max: 2 ** 49 });
const u32 = fc.nat({ max: 0xffff_ffff });

const batches = fc.record({
  fields: fc.record({
    firstLsn: lsn,
    durableLsn: lsn,
    time: lsn,
    incarnation: u32,
    previousCrc: u32,
    count: fc.constant(1),
    closesFile: fc.boolean(),
    epoch: u32,
    address: lsn.map((value) => value * 8),
  }),
  payload: fc.uint8Array({ minLength: 0, maxLength: 300 }),
  salt: u32,
});

function encodeBatch(fields: BatchFields, payload: Uint8Array, salt: number): Buffer {
  const bytes = Buffer.alloc(BATCH_HEADER_BYTES + 28 + payload.length);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  writeRecordHeader(view, BATCH_HEADER_BYTES, RecordKind.bookmark, 0, 0, payload.length, 0, 0, 0);
  bytes.set(payload, BATCH_HEADER_BYTES + 28);
  writeBatchHeader(bytes, view, BATCH_HEADER_BYTES, bytes.length, fields, salt);
  return bytes;
}

function isWhole(bytes: Uint8Array, address: number, salt: number): boolean {
  const header = readBatchHeader(bytes, 0, address, salt);
  return typeof header !== 'string' && bodyIsWhole(bytes, BATCH_HEADER_BYTES, header);
}

test('a record header reads back as written, for disks of any size', (t) => {
  const far = fc.oneof(fc.nat({ max: 2 ** 33 }), fc.nat({ max: 2 ** 52 }));
  fc.assert(
    fc.property(far, fc.integer({ min: 1, max: 0xffff_ffff }), u32, (sector, sectors, requestId) => {
      const view = new DataView(new ArrayBuffer(28));
      writeRecordHeader(view, 0, RecordKind.trim, 0, 65_535, 0, sector, sectors, requestId);
      t.like(readRecordHeader(view, 0, 28), { kind: RecordKind.trim, volume: 65_535, sector, sectors, requestId });
    }),
  );
});

test('a record header that no writer writes is damage', (t) => {
  const read = (
    kind: number,
    payloadBytes: number,
    sectors: number,
    flags = 0,
    end = 28 + payloadBytes,
  ): (() => unknown) => {
    const view = new DataView(new ArrayBuffer(28));
    writeRecordHeader(view, 0, kind as RecordKind, flags, 1, payloadBytes, 0, sectors, 0);
    return () => readRecordHeader(view, 0, end);
  };
  const damaged = { code: 'journal-damaged' };
  for (const kind of [RecordKind.write, RecordKind.seed]) {
    t.notThrows(read(kind, 4096, 8));
    t.throws(read(kind, 4096, 7), damaged);
    t.throws(read(kind, 0, 8), damaged);
    t.notThrows(read(kind, 1024 * 1024, 2048));
    t.throws(read(kind, 1024 * 1024 + 512, 2049), damaged);
  }
  for (const kind of [RecordKind.zero, RecordKind.trim]) {
    t.notThrows(read(kind, 0, 8));
    t.throws(read(kind, 512, 1), damaged);
  }
  t.throws(read(RecordKind.bookmark, 1024 * 1024 + 1, 0), damaged);
  t.notThrows(read(RecordKind.pad, 2 * 1024 * 1024, 0), 'a pad may be longer');
  t.throws(read(RecordKind.bookmark, 10, 0, 0, 28 + 9), damaged);
  t.throws(read(RecordKind.bookmark, 0, 0, 0, 27), damaged);
  t.throws(read(RecordKind.bookmark, 0, 0, 0x80), damaged);
  t.throws(read(99, 0, 0), damaged);
});

test('a batch reads back as written; any flipped bit and any truncation is found', (t) => {
  fc.assert(
    fc.property(batches, fc.double({ min: 0, max: 1, noNaN: true }), ({ fields, payload, salt }, where) => {
      const bytes = encodeBatch(fields, payload, salt);
      const header = readBatchHeader(bytes, 0, fields.address, salt);
      if (typeof header === 'string') return false;
      t.like(header, { ...fields });
      const [record, ...rest] = [...new BatchView(header, bytes, BATCH_HEADER_BYTES)];
      if (record === undefined || rest.length > 0 || Buffer.compare(record.payload, payload) !== 0) return false;
      if (isWhole(bytes.subarray(0, Math.floor(where * (bytes.length - 1))), fields.address, salt)) return false;
      const bit = Math.floor(where * (bytes.length * 8 - 1));
      const flipped = Buffer.from(bytes);
      flipped[bit >> 3] = (flipped[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      if (isWhole(flipped, fields.address, salt)) return false;
      // nor at another place, nor in another journal
      return !isWhole(bytes, fields.address + 8, salt) && !isWhole(bytes, fields.address, (salt + 1) % 2 ** 32);
    }),
    { numRuns: 500 },
  );
});

test('a body says numbers within their field only: a volume id of 65535 is one, 65536 is damage', (t) => {
  const damaged = { code: 'journal-damaged' };
  const volume = { id: 65_535, name: 'v', size: 2 ** 50, blockBytes: 512 };
  t.deepEqual(bodies.decodeVolumeAdded(bodies.encodeVolumeAdded(volume)), volume);
  t.deepEqual(bodies.decodeVolumeAdded(bodies.encodeVolumeAdded({ ...volume, starts: 'seeded' })).starts, 'seeded');
  const other = { ...volume, starts: 'full' as 'empty' };
  t.throws(() => bodies.decodeVolumeAdded(bodies.encodeVolumeAdded(other)), damaged);
  t.throws(() => bodies.decodeVolumeAdded(bodies.encodeVolumeAdded({ ...volume, id: 65_536 })), damaged);
  t.throws(() => bodies.decodeVolumeAdded(bodies.encodeVolumeAdded({ ...volume, blockBytes: 2 ** 32 })), damaged);
  t.throws(() => bodies.decodeVolumeAdded(bodies.encodeVolumeAdded({ ...volume, size: 0.5 })), damaged);
  t.deepEqual(bodies.decodeVolumeResized(bodies.encodeVolumeResized({ id: 65_535, size: 1 })), { id: 65_535, size: 1 });
  t.throws(() => bodies.decodeVolumeResized(bodies.encodeVolumeResized({ id: 65_536, size: 1 })), damaged);
  t.throws(() => bodies.decodeSeedEnd(bodies.encodeSeedEnd({ volume: 65_536 })), damaged);
  t.deepEqual(bodies.decodeSeedEnd(bodies.encodeSeedEnd({ volume: 65_535 })), { volume: 65_535 });
  const epoch = { epoch: 0xffff_ffff, reason: '' };
  t.deepEqual(bodies.decodeEpoch(bodies.encodeEpoch(epoch)), epoch);
  t.throws(() => bodies.decodeEpoch(bodies.encodeEpoch({ ...epoch, epoch: 2 ** 32 })), damaged);
});

test('a header whose numbers cannot be is refused, though its crc holds', (t) => {
  const salt = 7;
  const fields = { firstLsn: 1, durableLsn: 0, time: 1, incarnation: 1, previousCrc: 0, epoch: 1, address: 64 };
  const batch = encodeBatch({ ...fields, count: 1, closesFile: false }, new Uint8Array(8), salt);
  /** The header with a u32 changed and its crc made anew. */
  const changed = (at: number, value: number, repaired = false): ReturnType<typeof readBatchHeader> => {
    const bytes = Buffer.from(batch);
    if (repaired) bytes.writeUInt32LE(0x4000_0001, 48);
    bytes.writeUInt32LE(value, at);
    bytes.writeUInt32LE(0, 4);
    bytes.writeUInt32LE(crc32(bytes.subarray(0, BATCH_HEADER_BYTES), salt), 4);
    return readBatchHeader(bytes, 0, fields.address, salt);
  };
  for (const high of [20, 28, 36, 60]) t.is(changed(high, 0x20_0000), 'a number is larger than 2^53', `${high}`);
  for (const high of [20, 28, 36]) t.is(typeof changed(high, 0x1f_ffff), 'object', `${high}`);
  // a repaired batch has other things where the watermark stood
  t.like(changed(28, 0x20_0000, true), { durableLsn: 0, count: 1, closesFile: false });
  for (const high of [20, 36, 60]) t.is(changed(high, 0x20_0000, true), 'a number is larger than 2^53', `${high}`);
  t.like(changed(8, 4 * 1024 * 1024), { bodyBytes: 4 * 1024 * 1024 });
  t.is(changed(8, 4 * 1024 * 1024 + 1), 'the body is longer than a batch may be');
  t.is(changed(56, 72), 'the batch belongs to address 72');
  for (const cut of [1, 63]) {
    t.is(readBatchHeader(batch.subarray(0, cut), 0, fields.address, salt), 'a batch header is cut off');
    t.is(readBatchHeader(batch, batch.length - cut, fields.address, salt), 'a batch header is cut off');
  }

  const whole = readBatchHeader(batch, 0, fields.address, salt);
  if (typeof whole === 'string') return t.fail(whole);
  t.true(bodyIsWhole(batch, BATCH_HEADER_BYTES, whole));
  t.false(bodyIsWhole(batch.subarray(0, -1), BATCH_HEADER_BYTES, whole));
  const empty = { ...whole, bodyBytes: 0, bodyCrc: 0, count: 0 };
  t.true(bodyIsWhole(batch, BATCH_HEADER_BYTES, empty), 'a watermark has no body');
  t.false(bodyIsWhole(batch, BATCH_HEADER_BYTES, { ...empty, count: 1 }));
  t.false(bodyIsWhole(batch, BATCH_HEADER_BYTES, { ...empty, bodyCrc: 1 }));
});

test('a file header reads back as written; any flipped bit is found', (t) => {
  const headers = fc.record({
    salt: u32,
    groupId: fc.constant('00112233445566778899aabbccddeeff'),
    sequence: fc.nat({ max: 2 ** 37 - 3 }),
    fileBytes: fc.constant(64 * 1024),
    firstLsn: lsn,
    durableLsn: lsn,
    time: lsn,
    chain: u32,
    incarnation: fc.record({ counter: u32, nonce: fc.constant('0123456789abcdef') }),
    epoch: u32,
    bootId: fc.constantFrom('', '01234567-89ab-4cde-8f01-23456789abcd'),
  });
  fc.assert(
    fc.property(headers, fc.nat({ max: 2047 }), (header: JournalFileHeader, bit) => {
      const bytes = Buffer.alloc(4096, 0xff);
      writeFileHeader(bytes, header);
      t.deepEqual(readFileHeader(bytes), header);
      bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      return typeof readFileHeader(bytes) === 'string';
    }),
    { numRuns: 500 },
  );
});

test('any bytes as records or bodies are an error with a code, or something valid', (t) => {
  const decoders = Object.entries(bodies).filter(([name]) => name.startsWith('decode'));
  t.is(decoders.length, 10);
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 120 }), (bytes) => {
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      const attempts = [
        () => void readRecordHeader(view, 0, bytes.length),
        ...decoders.map(
          ([, decode]) =>
            () =>
              void (decode as (input: Uint8Array) => unknown)(bytes),
        ),
      ];
      for (const attempt of attempts) {
        try {
          attempt();
        } catch (error) {
          if (!hasCode(error, 'journal-damaged')) throw error;
        }
      }
    }),
    { numRuns: 1000 },
  );
  const bookmark: bodies.BookmarkBody = { name: 'n', kind: 'crash', note: 'x', labels: { a: 'b' } };
  t.deepEqual(bodies.decodeBookmark(bodies.encodeBookmark(bookmark)), bookmark);
  const huge = bodies.encodeGap({ fromLsn: -1, toLsn: 2 ** 60, reason: '' });
  t.throws(() => bodies.decodeGap(huge), { code: 'journal-damaged' });
  // nil, a number, an empty list
  for (const byte of [0xc0, 7, 0x90]) {
    t.throws(() => bodies.decodeGap(Uint8Array.of(byte)), { code: 'journal-damaged' }, `byte ${byte}`);
  }
});

test('the golden journal of version 1 is read by this version', async (t) => {
  const golden = join(import.meta.dirname, '../golden/journal-v1');
  t.like(auditJournal(testHost(), golden), {
    firstLsn: 1,
    lastLsn: 20,
    durableLsn: 17,
    records: 20,
    files: 2,
    damage: [],
  });
  const assembler = new PieceAssembler<number>();
  const seen: string[] = [];
  const effects: string[] = [];
  for (const batch of listBatches(testHost(), golden)) {
    if ('reason' in batch) {
      t.fail(batch.reason);
      continue;
    }
    for (const record of batch) {
      seen.push(recordKindName(record.kind));
      for (const { sector, lsn: at } of assembler.feed(record, record.payloadAddress)) effects.push(`${sector}@${at}`);
      if (record.kind === RecordKind.bookmark)
        t.is(bodies.decodeBookmark(record.payload).labels?.['by'], 'make-journal');
      if (record.kind === RecordKind.write) t.true(record.payload.every((byte) => byte === record.payload[0]));
    }
  }
  t.deepEqual(seen, [
    'incarnation',
    'volumeAdded',
    'seed',
    'seedEnd',
    'write',
    'write',
    'write',
    'zero',
    'trim',
    'flush',
    'bookmark',
    'epoch',
    'cycleCommit',
    'volumeResized',
    'heartbeat',
    'gap',
    'degreeChange',
    'write',
    'write',
    'write',
  ]);
  t.deepEqual(effects, ['8@3', '40@6', '16@7', '17@7', '64@8', '128@9', '512@18', '568@19', '624@20']);
  const directory = temporaryDirectory(t);
  cpSync(golden, directory, { recursive: true });
  const journal = await Journal.open(testHost(), {
    directory,
    groupId: '00112233445566778899aabbccddeeff',
    groupName: 'golden',
    fileBytes: 64 * 1024,
    budgetBytes: 8 * 64 * 1024,
    syncIntervalMs: 25,
  });
  t.like(journal.report, { lastLsn: 20, cleanStop: true, epoch: 2, bootChanged: true, damage: [] });
  t.like(journal.report.incarnation, { counter: 1, nonce: '5a5a5a5a5a5a5a5a' });
  await journal.close();
});
