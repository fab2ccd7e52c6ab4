import { readFileSync } from 'node:fs';
import { crc32, crc32c } from '@node-rs/crc32';
import test from 'ava';
import fc from 'fast-check';
import { hasCode, TidemarkError } from '../../journal/base/errors.ts';
import { advanceChain, CHAIN_START, type Chain, chainString, parseChain } from '../../journal/chain.ts';
import { ChunkPacker } from '../../journal/chunk-packer.ts';
import {
  FRAME_ENTRY_BYTES,
  FRAME_HEADER_BYTES,
  FRAME_RECORDS_MAX,
  framePrefixBytes,
  readEntry,
  readFrameHeader,
  unpack,
  writeEntry,
} from '../../journal/frame-codec.ts';
import { FrameLayout } from '../../journal/frame-layout.ts';
import { FrameSealer, type SealedFrame, type SealerOptions, type SealRecord } from '../../journal/frame-sealer.ts';
import { FrameView } from '../../journal/frame-view.ts';
import { zstdInto, zstdIntoByZlib, zstdOut, zstdOutByZlib } from '../../journal/host/zstd.ts';
import { RECORD_PAYLOAD_BYTES_MAX, RecordKind } from '../../journal/record.ts';
import { goldenRecords } from '../golden/frame-v1.ts';

const IDENTITY = {
  groupId: '00112233445566778899aabbccddeeff',
  epoch: 3,
  incarnation: { counter: 7, nonce: '0123456789abcdef' },
};
const OPTIONS: SealerOptions = { chunkBytes: 4096, targetBytes: 1024 * 1024, compress: true };

function write(lsn: number, payload: Uint8Array, sector = lsn * 8): SealRecord {
  return {
    kind: RecordKind.write,
    flags: 0,
    volume: 1,
    sector,
    sectors: payload.length / 512,
    requestId: 0,
    time: 1_000_000 + lsn,
    lsn,
    payload,
  };
}

function trim(lsn: number, sectors: number): SealRecord {
  return { ...write(lsn, new Uint8Array(0)), kind: RecordKind.trim, sectors };
}

/** Bytes that do not shrink, the same for one seed. */
function noise(length: number, seed: number): Uint8Array {
  const bytes = new Uint8Array(length);
  let state = seed || 1;
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    bytes[i] = state >>> 16;
  }
  return bytes;
}

function seal(
  records: readonly SealRecord[],
  options: SealerOptions = OPTIONS,
  chain: Chain = CHAIN_START,
): SealedFrame {
  const sealer = new FrameSealer(IDENTITY, options);
  sealer.begin(records[0]!.lsn, chain);
  for (const record of records) sealer.add(record);
  return sealer.seal(99);
}

const payloads = fc.oneof(
  fc.integer({ min: 1, max: 24 }).map((sectors) => new Uint8Array(sectors * 512).fill(sectors)),
  fc.tuple(fc.integer({ min: 1, max: 24 }), fc.nat()).map(([sectors, seed]) => noise(sectors * 512, seed)),
);
const recordLists = fc.tuple(
  fc.integer({ min: 1, max: 2 ** 40 }),
  fc.array(fc.option(payloads), { minLength: 1, maxLength: 30 }),
);

function toRecords([firstLsn, parts]: [number, (Uint8Array | null)[]]): SealRecord[] {
  return parts.map((part, i) => (part === null ? trim(firstLsn + i, 4096) : write(firstLsn + i, part)));
}

test('what is sealed is what is read, whatever the records, the chunks and the codec', (t) => {
  fc.assert(
    fc.property(recordLists, fc.constantFrom(512, 4096, 65_536), fc.boolean(), (list, chunkBytes, compress) => {
      const records = toRecords(list);
      const frame = seal(records, { ...OPTIONS, chunkBytes, compress });
      const view = FrameView.open(frame.bytes);
      view.verifyPayload();
      view.verifyChunks();
      if (view.firstLsn !== list[0] || view.lastLsn !== frame.lastLsn || view.recordCount !== records.length)
        return false;
      if (view.groupId !== IDENTITY.groupId || view.epoch !== 3 || view.sourceDurableLsn !== 99) return false;
      if (view.incarnation.counter !== 7 || view.incarnation.nonce !== IDENTITY.incarnation.nonce) return false;
      return records.every((record, i) => {
        const { payload, ...fields } = record;
        const entry = view.record(i);
        return (
          Object.entries(fields).every(([name, value]) => entry[name as keyof typeof entry] === value) &&
          Buffer.from(payload).equals(view.payloadOf(i))
        );
      });
    }),
    { numRuns: 150 },
  );
  t.pass();
});

test('the chain does not depend on where frames are cut', (t) => {
  const records = Array.from({ length: 40 }, (_, i) =>
    i % 5 === 4 ? trim(i + 1, 8) : write(i + 1, noise(512, i + 1)),
  );
  const whole = FrameView.open(seal(records).bytes);
  let chain = CHAIN_START;
  for (const [from, to] of [
    [0, 3],
    [3, 4],
    [4, 29],
    [29, 40],
  ] as const) {
    const part = seal(records.slice(from, to), { ...OPTIONS, compress: from === 3 }, chain);
    chain = part.chainAfter;
    t.is(chainString(whole.chainAt(to)), chainString(chain));
  }
  t.deepEqual(chain, whole.chainAfter);
  t.deepEqual(whole.chainAt(0), CHAIN_START);
  t.deepEqual(parseChain(chainString(chain)), chain);
  const entries = Buffer.concat(records.map((_, i) => whole.layout.entryBytes(i)));
  t.deepEqual(advanceChain(CHAIN_START, entries), { low: crc32c(entries), high: crc32(entries) });
});

test('any single flipped bit is found', (t) => {
  const frame = seal([
    write(5, noise(1024, 3)),
    trim(6, 99),
    write(7, new Uint8Array(8192).fill(4)),
    write(8, noise(512, 9)),
  ]);
  FrameView.open(frame.bytes).verifyPayload();
  for (let bit = 0; bit < frame.bytes.length * 8; bit++) {
    const bytes = frame.bytes.slice();
    bytes[bit >> 3]! ^= 1 << (bit & 7);
    const error = t.throws(() => FrameView.open(bytes).verifyPayload(), { instanceOf: TidemarkError }, `bit ${bit}`);
    if (error?.code !== 'frame-damaged') t.fail(`bit ${bit}: ${error?.code}`);
  }
});

test('a flipped bit in a chunk is found without unpacking, and by the read of that chunk only', (t) => {
  const frame = seal([write(1, noise(4096, 1)), write(2, noise(4096, 2))]);
  const bytes = frame.bytes.slice();
  bytes[bytes.length - 1]! ^= 1;
  const view = FrameView.open(bytes);
  t.deepEqual(view.payloadOf(0), noise(4096, 1));
  t.true(
    hasCode(
      t.throws(() => view.payloadOf(1)),
      'frame-damaged',
    ),
  );
  t.true(
    hasCode(
      t.throws(() => view.verifyChunks()),
      'frame-damaged',
    ),
  );
});

test('rubbish is refused with an operating error and bounded memory', (t) => {
  const good = seal([write(1, new Uint8Array(65_536))]).bytes;
  fc.assert(
    fc.property(
      fc.oneof(
        fc.uint8Array({ maxLength: 400 }),
        fc.nat(good.length - 1).map((length) => good.slice(0, length)),
        // A header whose crc is right and whose other fields are not.
        fc
          .array(fc.tuple(fc.integer({ min: 16, max: FRAME_HEADER_BYTES - 4 }), fc.nat(0xffff_ffff)), {
            minLength: 1,
            maxLength: 4,
          })
          .map((edits) => {
            const bytes = good.slice();
            const view = new DataView(bytes.buffer);
            for (const [at, value] of edits) view.setUint32(at, value, true);
            return withHeaderCrc(bytes);
          }),
      ),
      (bytes) => {
        try {
          FrameView.open(bytes).verifyPayload();
          return true;
        } catch (error) {
          return error instanceof TidemarkError;
        }
      },
    ),
    { numRuns: 2000 },
  );
  t.pass();
});

function withHeaderCrc(bytes: Uint8Array): Uint8Array {
  const view = new DataView(bytes.buffer);
  view.setUint32(12, 0, true);
  view.setUint32(12, crc32c(bytes.subarray(0, view.getUint16(6, true))), true);
  return bytes;
}

test('a newer format and an unknown feature say "upgrade the replica first"; a damaged version is damage', (t) => {
  const newer = seal([write(1, new Uint8Array(512))]).bytes.slice();
  new DataView(newer.buffer).setUint16(4, 2, true);
  t.true(
    hasCode(
      t.throws(() => FrameView.open(newer)),
      'frame-damaged',
    ),
  );
  t.true(
    hasCode(
      t.throws(() => FrameView.open(withHeaderCrc(newer))),
      'upgrade-replica-first',
    ),
  );
  const feature = seal([write(1, new Uint8Array(512))]).bytes.slice();
  new DataView(feature.buffer).setUint32(52, 2, true);
  t.true(
    hasCode(
      t.throws(() => FrameView.open(withHeaderCrc(feature))),
      'upgrade-replica-first',
    ),
  );
});

test('a frame whose crcs hold and whose chain or records cannot be is damaged', (t) => {
  const good = seal([write(1, new Uint8Array(512)), trim(2, 8)], { ...OPTIONS, compress: false }).bytes;
  for (const at of [80, 84, 88, 92, 96, 100]) {
    const bytes = good.slice();
    new DataView(bytes.buffer).setUint32(at, 12_345, true);
    t.throws(
      () => FrameView.open(withHeaderCrc(bytes)).verifyPayload(),
      { code: 'frame-damaged' },
      `header byte ${at}`,
    );
  }
  const entry = (kind: number, payloadBytes: number, sectors: number): (() => unknown) => {
    const view = new DataView(new ArrayBuffer(FRAME_ENTRY_BYTES));
    writeEntry(view, 0, { ...write(1, new Uint8Array(0)), kind: kind as RecordKind, sectors }, payloadBytes, 0);
    return () => readEntry(view, 0, 1, 0);
  };
  for (const kind of [RecordKind.write, RecordKind.seed]) {
    t.notThrows(entry(kind, 4096, 8));
    t.throws(entry(kind, 4096, 7), { code: 'frame-damaged' });
    t.throws(entry(kind, 0, 8), { code: 'frame-damaged' });
  }
  for (const kind of [RecordKind.zero, RecordKind.trim, RecordKind.blank]) {
    t.notThrows(entry(kind, 0, 8));
    t.throws(entry(kind, 4096, 8), { code: 'frame-damaged' });
  }
  const sectorsMax = RECORD_PAYLOAD_BYTES_MAX / 512;
  t.notThrows(entry(RecordKind.write, RECORD_PAYLOAD_BYTES_MAX, sectorsMax));
  t.throws(entry(RecordKind.write, RECORD_PAYLOAD_BYTES_MAX + 512, sectorsMax + 1), { code: 'frame-damaged' });
  t.throws(entry(RecordKind.bookmark, RECORD_PAYLOAD_BYTES_MAX + 1, 0), { code: 'frame-damaged' });
  t.throws(entry(RecordKind.pad, 0, 0), { code: 'frame-damaged' });
  t.throws(entry(200, 0, 0), { code: 'frame-damaged' });
});

test('a frame header that tells of more than 4 MiB is damaged before room is made for it', (t) => {
  const good = seal([write(1, new Uint8Array(512))], { ...OPTIONS, compress: false }).bytes;
  const told = readFrameHeader(good);
  const announcing = (frameBytes: number): (() => unknown) => {
    const bytes = good.slice();
    const view = new DataView(bytes.buffer);
    const chunkBytes = 65_536;
    const chunkCount = 64;
    const payloadBytes = frameBytes - framePrefixBytes({ ...told, chunkCount });
    for (const [at, value] of [
      [8, frameBytes],
      [120, chunkBytes],
      [124, chunkCount],
      [128, payloadBytes],
      [132, payloadBytes],
    ] as const) {
      view.setUint32(at, value, true);
    }
    return () => readFrameHeader(withHeaderCrc(bytes));
  };
  t.notThrows(announcing(4 * 1024 * 1024));
  t.throws(announcing(4 * 1024 * 1024 + 1), { code: 'frame-damaged' });
});

test('the native and the plain way to zstd unpack to the same bytes, and neither writes beyond its room', (t) => {
  const plain = Buffer.concat([noise(3000, 5), new Uint8Array(5000).fill(7)]);
  for (const zstd of [zstdInto, zstdIntoByZlib]) {
    for (const level of [1, -5, 1]) {
      const into = new Uint8Array(plain.length).fill(0xee);
      const bytes = zstd(into.subarray(0, 6000), plain, level);
      if (bytes === undefined) {
        t.fail(`level ${level} gave nothing`);
        continue;
      }
      t.true(bytes < 3500 && into.subarray(6000).every((byte) => byte === 0xee));
      t.deepEqual(Buffer.from(unpack(into.subarray(0, bytes), plain.length)), plain);
      t.is(zstd(into.subarray(0, 2900), plain, level), undefined);
    }
  }
});

test('the native and the plain way out of zstd fill what is asked for exactly, or refuse', (t) => {
  const plain = Buffer.concat([noise(3000, 5), new Uint8Array(5000).fill(7)]);
  const packed = new Uint8Array(plain.length);
  const bytes = zstdInto(packed, plain, 1) ?? 0;
  const whole = packed.subarray(0, bytes);
  for (const out of [zstdOut, zstdOutByZlib]) {
    const into = new Uint8Array(plain.length + 1).fill(0xee);
    t.true(out(into.subarray(0, plain.length), whole));
    t.deepEqual(Buffer.from(into.subarray(0, plain.length)), plain);
    t.is(into[plain.length], 0xee);
    t.false(out(new Uint8Array(plain.length - 1), whole), 'too little room');
    t.false(out(new Uint8Array(plain.length + 1), whole), 'too much room');
    t.false(out(new Uint8Array(plain.length), whole.subarray(0, -1)), 'cut off');
    t.false(out(new Uint8Array(plain.length), plain), 'no zstd');
    t.true(out(new Uint8Array(plain.length), whole), 'goes on after refusals');
  }
});

test('chunks are packed at the level that pays, found out anew now and then', (t) => {
  // words of few letters: the careful level finds much more in them than the fast one
  const text = Uint8Array.from(noise(65_536, 3), (byte) => 97 + (byte % 6));
  const halves = new Uint8Array(65_536);
  halves.set(noise(32_768, 4));
  const into = new Uint8Array(65_536);
  const careful = zstdInto(into, text, 1) ?? 0;
  const fast = zstdInto(into, text, -5) ?? into.length;
  t.true(fast > careful * 1.1, `${fast} against ${careful}`);
  const packer = new ChunkPacker();
  const sizes = Array.from({ length: 64 }, () => packer.packInto(into, text));
  t.deepEqual(new Set(sizes), new Set([careful]));
  for (let i = 0; i < 64; i++) packer.packInto(into, halves);
  t.is(packer.packInto(into, text), careful, 'compared again');
  for (let i = 0; i < 63; i++) packer.packInto(into, halves);
  packer.packInto(into, halves);
  t.is(
    packer.packInto(into, text),
    fast <= text.length * 0.95 ? fast : undefined,
    'the fast level was as good by then',
  );
});

test('zstd may not give more than was announced', (t) => {
  const bomb = seal([write(1, new Uint8Array(1024 * 1024))], { ...OPTIONS, chunkBytes: 1024 * 1024 });
  const layout = FrameLayout.parse(bomb.bytes);
  const range = layout.chunkRange(0, 1);
  const stored = bomb.bytes.subarray(range.storedOffset);
  t.true(stored.length < 1000);
  t.true(
    hasCode(
      t.throws(() => unpack(stored, 4096)),
      'frame-damaged',
    ),
  );
  t.true(
    hasCode(
      t.throws(() => unpack(stored, 2 * 1024 * 1024)),
      'frame-damaged',
    ),
  );
});

test('a view on disk reads the prefix and the chunks it needs, nothing else', (t) => {
  const records = Array.from({ length: 30 }, (_, i) =>
    write(i + 1, i % 2 ? noise(4096, i) : new Uint8Array(4096).fill(i)),
  );
  const { bytes } = seal(records, { ...OPTIONS, chunkBytes: 6144 });
  const prefix = bytes.slice(0, framePrefixBytes(readFrameHeader(bytes.subarray(0, FRAME_HEADER_BYTES))));
  const layout = FrameLayout.parse(prefix);
  for (let i = 0; i < 30; i++) {
    const range = layout.chunkRange(layout.payloadOffset(i), 4096);
    t.true(range.last - range.first <= 1);
    const into = new Uint8Array(4100);
    const stored = bytes.slice(range.storedOffset, range.storedOffset + range.storedBytes);
    layout.readFrom(stored, range, layout.payloadOffset(i), 4096, into, 4);
    t.true(Buffer.from(records[i]!.payload).equals(into.subarray(4)));
  }
});

test('what does not shrink is kept raw, and zstd is tried again when data changes', (t) => {
  const raw = seal([write(1, noise(512 * 1024, 5))]);
  t.true(raw.bytes.length < 512 * 1024 + 2048);
  const mixed = seal([write(1, noise(256 * 1024, 5)), write(2, new Uint8Array(512 * 1024))]);
  t.true(mixed.bytes.length < 400 * 1024, `${mixed.bytes.length}`);
});

test('a frame takes records up to its target, one record of any size, and a bounded number', (t) => {
  const sealer = new FrameSealer(IDENTITY, { ...OPTIONS, targetBytes: 10_000 });
  sealer.begin(1, CHAIN_START);
  t.true(sealer.fits(1024 * 1024));
  sealer.add(write(1, new Uint8Array(8192)));
  t.false(sealer.fits(2048));
  t.true(sealer.fits(1024));
  t.throws(() => sealer.add(write(2, new Uint8Array(4096))), { name: 'AssertionError' });
  t.throws(() => sealer.add(write(3, new Uint8Array(512))), { name: 'AssertionError' });
  const many = new FrameSealer(IDENTITY, { ...OPTIONS, targetBytes: 2 * 1024 * 1024 });
  many.begin(1, CHAIN_START);
  for (let lsn = 1; lsn <= FRAME_RECORDS_MAX; lsn++) many.add(trim(lsn, 1));
  t.false(many.fits(0));
  t.is(many.bytes, FRAME_RECORDS_MAX * FRAME_ENTRY_BYTES);
  t.is(FrameView.open(many.seal(1).bytes).recordCount, FRAME_RECORDS_MAX);
});

test('a frame of format 1 stays readable', (t) => {
  const view = FrameView.open(readFileSync(new URL('../golden/frame-v1.bin', import.meta.url)));
  view.verifyPayload();
  const records = goldenRecords();
  t.is(view.recordCount, records.length);
  records.forEach((record, i) => {
    const entry = view.record(i);
    const { payload, ...fields } = record;
    t.like(entry, fields);
    t.deepEqual(Buffer.from(view.payloadOf(i)), Buffer.from(payload));
  });
});
