import { crc32c } from '@node-rs/crc32';
import test from 'ava';
import { advanceChain, CHAIN_START } from '../../journal/chain.ts';
import {
  CHUNK_BYTES_MAX,
  CHUNK_ENTRY_BYTES,
  CHUNK_PACKED,
  FRAME_BYTES_MAX,
  FRAME_ENTRY_BYTES,
  FRAME_HEADER_BYTES,
  FRAME_RECORDS_MAX,
  type FrameHeader,
  framePrefixBytes,
  readFrameHeader,
  writeEntry,
  writeFrameHeader,
} from '../../journal/frame-codec.ts';
import { copyOverlap, FrameLayout } from '../../journal/frame-layout.ts';
import { FrameSealer } from '../../journal/frame-sealer.ts';
import { FrameView } from '../../journal/frame-view.ts';
import { RecordKind } from '../../journal/record.ts';

/** Two records, two raw chunks: a header that holds. */
const HEADER: Omit<FrameHeader, 'frameBytes'> = {
  groupId: 'ab'.repeat(16),
  firstLsn: 5,
  recordCount: 2,
  epoch: 1,
  incarnation: { counter: 1, nonce: '1'.repeat(16) },
  sourceDurableLsn: 4,
  firstTime: 10,
  lastTime: 20,
  chainBefore: CHAIN_START,
  chainAfter: CHAIN_START,
  listPlainBytes: 80,
  listStoredBytes: 80,
  listCrc: 0,
  listPacked: false,
  chunkBytes: 512,
  chunkCount: 2,
  payloadPlainBytes: 1024,
  payloadStoredBytes: 1024,
  tableCrc: 0,
  flags: 0,
};

/** Written with its crc; the frame is as long as its parts unless the change says otherwise. */
function headerBytes(change: Partial<FrameHeader> = {}): Uint8Array {
  const header = { ...HEADER, ...change } as FrameHeader;
  const frameBytes = change.frameBytes ?? framePrefixBytes(header) + header.payloadStoredBytes;
  const bytes = new Uint8Array(FRAME_HEADER_BYTES);
  writeFrameHeader(bytes, { ...header, frameBytes });
  return bytes;
}

function withCrc(bytes: Uint8Array, length = FRAME_HEADER_BYTES): Uint8Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  view.setUint32(12, 0, true);
  const head = bytes.slice(0, Math.max(length, 16));
  view.setUint32(12, crc32c(head.subarray(0, length)), true);
  return bytes;
}

const MiB = 1024 * 1024;

test('each length of a frame header is held against the others, to the byte', (t) => {
  const holds = (what: string, change: Partial<FrameHeader>): void => {
    t.notThrows(() => readFrameHeader(headerBytes(change)), what);
  };
  const fails = (what: string, change: Partial<FrameHeader>): void => {
    t.throws(() => readFrameHeader(headerBytes(change)), { code: 'frame-damaged', message: /contradict/ }, what);
  };
  const list = (recordCount: number): Partial<FrameHeader> => {
    const bytes = recordCount * FRAME_ENTRY_BYTES;
    return { recordCount, listPlainBytes: bytes, listStoredBytes: bytes };
  };
  const payload = (payloadPlainBytes: number, chunkBytes = 512): Partial<FrameHeader> => {
    const chunkCount = Math.ceil(payloadPlainBytes / chunkBytes);
    return { payloadPlainBytes, payloadStoredBytes: payloadPlainBytes, chunkBytes, chunkCount };
  };
  holds('as it is', {});
  fails('a byte longer', { frameBytes: 1281 });
  fails('a byte shorter', { frameBytes: 1279 });
  fails('no records', { ...list(0), ...payload(0) });
  holds('one record', list(1));
  holds('most records', list(FRAME_RECORDS_MAX));
  fails('one more', list(FRAME_RECORDS_MAX + 1));
  fails('LSN 0', { firstLsn: 0 });
  holds('LSN 1', { firstLsn: 1 });
  holds('the last LSNs there are', { firstLsn: Number.MAX_SAFE_INTEGER - 2 });
  fails('one further', { firstLsn: Number.MAX_SAFE_INTEGER - 1 });
  fails('a longer list than its records', { listPlainBytes: 120, listStoredBytes: 120 });
  fails('a shorter list than its records', { listPlainBytes: 40, listStoredBytes: 40 });
  fails('a raw list that is shorter stored', { listStoredBytes: 79 });
  fails('a raw list that is longer stored', { listStoredBytes: 81 });
  holds('a packed list', { listPacked: true, listStoredBytes: 79 });
  fails('a packed list that is not shorter', { listPacked: true, listStoredBytes: 80 });
  holds('no payload', payload(0));
  fails('chunks below a sector', payload(1022, 511));
  holds('chunks of a MiB', payload(1024, CHUNK_BYTES_MAX));
  fails('chunks of more', payload(1024, CHUNK_BYTES_MAX + 1));
  fails('a chunk too many', { chunkCount: 3 });
  fails('a chunk too few', { chunkCount: 1 });
  holds('a part of a chunk', { payloadPlainBytes: 1025, chunkCount: 3 });
  holds('stored shorter', { payloadStoredBytes: 1023 });
  fails('stored longer', { payloadStoredBytes: 1025 });
  const large = { ...payload(FRAME_BYTES_MAX, MiB), payloadStoredBytes: 100 };
  holds('4 MiB of payload', large);
  fails('a byte more', { ...payload(FRAME_BYTES_MAX + 1, MiB), payloadStoredBytes: 100 });
});

test('what is no header of this version is told from one of a newer version, whatever its crc', (t) => {
  const changed = (at: number, value: number, bytes: 8 | 16 | 32 = 32, room = FRAME_HEADER_BYTES): Uint8Array => {
    const frame = new Uint8Array(room);
    frame.set(headerBytes().subarray(0, room));
    const view = new DataView(frame.buffer);
    if (bytes === 8) view.setUint8(at, value);
    else if (bytes === 16) view.setUint16(at, value, true);
    else view.setUint32(at, value, true);
    return frame;
  };
  const newer = (length: number, room: number): Uint8Array => {
    const frame = changed(4, 2, 16, room);
    new DataView(frame.buffer).setUint16(6, length, true);
    return withCrc(frame, length);
  };
  const damaged = (bytes: Uint8Array, message: RegExp): void => {
    t.throws(() => readFrameHeader(bytes), { code: 'frame-damaged', message });
  };
  damaged(withCrc(changed(0, 0x31464d55)), /no frame begins here/);
  damaged(new Uint8Array(0), /has no header/);
  damaged(newer(100, FRAME_HEADER_BYTES - 1), /has no header/);
  damaged(newer(15, 200), /cannot have 15 bytes/);
  damaged(newer(4097, 5000), /cannot have 4097 bytes/);
  damaged(newer(201, 200).subarray(0, 200), /cannot have 201 bytes/);
  for (const length of [16, 160, 200, 4096]) {
    t.throws(() => readFrameHeader(newer(length, Math.max(length, 160))), { code: 'upgrade-replica-first' });
  }
  damaged(withCrc(changed(4, 0, 16)), /no frame has version 0/);
  damaged(withCrc(changed(6, 168, 16, 200), 168), /header of 168 bytes/);
  damaged(withCrc(changed(116, 2, 8)), /codec 2/);
  for (const flags of [2, 3, 0x8000_0000]) {
    t.throws(() => readFrameHeader(withCrc(changed(52, flags))), { code: 'upgrade-replica-first' });
  }
  for (const at of [32, 64, 72, 80]) {
    damaged(withCrc(changed(at + 4, 0x20_0000)), /larger than 2\^53/);
    if (at !== 32) t.notThrows(() => readFrameHeader(withCrc(changed(at + 4, 0x1f_ffff))), `header byte ${at}`);
  }
  const bytes = headerBytes();
  bytes[20]! ^= 1;
  damaged(bytes, /crc of a frame header/);
});

interface Made {
  readonly times?: readonly number[];
  readonly payloads?: readonly number[];
  /** Stored bytes of each chunk, with the bit that says packed. */
  readonly table?: readonly number[];
  readonly header?: Partial<FrameHeader>;
}

/** A frame of two raw chunks whose every crc holds, whatever is said in it. */
function made({ times = [10, 20], payloads = [512, 512], table = [512, 512], header = {} }: Made): Uint8Array {
  const list = new Uint8Array(payloads.length * FRAME_ENTRY_BYTES);
  const view = new DataView(list.buffer);
  for (const [i, bytes] of payloads.entries()) {
    const place = { flags: 0, volume: 1, sector: i * 8, sectors: bytes / 512, requestId: 0, time: times[i] ?? 0 };
    writeEntry(view, i * FRAME_ENTRY_BYTES, { ...place, kind: RecordKind.write }, bytes, 0);
  }
  const chunks = new Uint8Array(table.length * CHUNK_ENTRY_BYTES);
  const entries = new DataView(chunks.buffer);
  let stored = 0;
  for (const [i, word] of table.entries()) {
    entries.setUint32(i * CHUNK_ENTRY_BYTES, word, true);
    entries.setUint32(i * CHUNK_ENTRY_BYTES + 4, crc32c(new Uint8Array(512)), true);
    stored += word % CHUNK_PACKED;
  }
  const told = {
    ...HEADER,
    chainAfter: advanceChain(CHAIN_START, list),
    listCrc: crc32c(list),
    tableCrc: crc32c(chunks),
    payloadStoredBytes: stored,
    ...header,
  };
  const frameBytes = framePrefixBytes(told as FrameHeader) + told.payloadStoredBytes;
  const bytes = new Uint8Array(frameBytes);
  writeFrameHeader(bytes, { ...told, frameBytes });
  bytes.set(list, FRAME_HEADER_BYTES);
  bytes.set(chunks, FRAME_HEADER_BYTES + list.length);
  return bytes;
}

test('a record list and a chunk table say exactly what the header says, or the frame is damaged', (t) => {
  const holds = (what: string, frame: Made): void => {
    t.notThrows(() => FrameView.open(made(frame)), what);
  };
  const fails = (what: string, frame: Made, message: RegExp): void => {
    t.throws(() => FrameView.open(made(frame)), { code: 'frame-damaged', message }, what);
  };
  holds('as it is', {});
  holds('at one time', { times: [10, 10], header: { lastTime: 10 } });
  fails('back in time', { times: [20, 10], header: { lastTime: 20 } }, /time of a record goes back/);
  fails('before the first time', { times: [9, 20] }, /time of a record goes back/);
  fails('not up to the last time', { times: [10, 19] }, /disagree/);
  fails('beyond the last time', { times: [10, 21] }, /disagree/);
  fails('less payload than told', { payloads: [512, 0] }, /record list and header of a frame disagree/);
  fails('more payload than told', { payloads: [512, 1024] }, /record list and header of a frame disagree/);
  fails('more with the first', { payloads: [1536, 512] }, /record list and header of a frame disagree/);
  holds('packed chunks', { table: [CHUNK_PACKED + 1, CHUNK_PACKED + 511] });
  fails('a packed chunk of nothing', { table: [CHUNK_PACKED, 512] }, /chunk 0 .*impossible/);
  fails('a packed chunk that is not shorter', { table: [512, CHUNK_PACKED + 512] }, /chunk 1 .*impossible/);
  fails('a raw chunk that is shorter', { table: [512, 511] }, /chunk 1 .*impossible/);
  fails('a raw chunk that is longer', { table: [513, 511] }, /chunk 0 .*impossible/);
  fails('chunks that are less than told', { header: { payloadStoredBytes: 1023 } }, /disagree/);
  fails(
    'packed ones that are more',
    { table: [CHUNK_PACKED + 5, 512], header: { payloadStoredBytes: 516 } },
    /disagree/,
  );
  fails('another chain', { header: { chainAfter: { low: 1, high: 1 } } }, /chain value/);
  fails('another list', { header: { listCrc: 1 } }, /crc of a record list/);
  fails('another table', { header: { tableCrc: 1 } }, /crc of a chunk table/);
});

test('a frame is parsed from its prefix, not from a byte less; as a whole it is exactly as long as it says', (t) => {
  const frame = made({});
  const prefix = framePrefixBytes(readFrameHeader(frame));
  const layout = FrameLayout.parse(frame.subarray(0, prefix));
  t.throws(() => FrameLayout.parse(frame.subarray(0, prefix - 1)), { code: 'frame-damaged', message: /ends within/ });
  t.throws(() => FrameView.open(frame.subarray(0, -1)), { code: 'frame-damaged' });
  const longer = new Uint8Array(frame.length + 1);
  longer.set(frame);
  t.throws(() => FrameView.open(longer), { code: 'frame-damaged', message: /came as/ });
  t.deepEqual([layout.firstLsn, layout.lastLsn, layout.recordCount], [5, 6, 2]);
  t.deepEqual(
    [0, 1, 2].map((i) => layout.payloadOffset(i)),
    [0, 512, 1024],
  );
  t.deepEqual([layout.chainAt(4), layout.chainAt(6)], [layout.header.chainBefore, layout.header.chainAfter]);
  t.deepEqual(layout.chainAt(5), advanceChain(CHAIN_START, layout.entryBytes(0)));
  for (const [offset, length, first, last] of [
    [0, 1, 0, 0],
    [0, 512, 0, 0],
    [511, 1, 0, 0],
    [511, 2, 0, 1],
    [512, 512, 1, 1],
    [0, 1024, 0, 1],
  ] as const) {
    const storedBytes = (last - first + 1) * 512;
    t.deepEqual(layout.chunkRange(offset, length), { first, last, storedOffset: prefix + first * 512, storedBytes });
  }
  t.throws(() => layout.verifyChunk(0, new Uint8Array(511), 0), { code: 'frame-damaged' }, 'too little of a chunk');
  t.notThrows(() => layout.verifyChunk(1, new Uint8Array(600), 88));
  t.throws(() => layout.verifyChunk(1, new Uint8Array(600), 89), { code: 'frame-damaged' });
});

test('of a piece of payload only what is asked for is copied, to its place', (t) => {
  const plain = Uint8Array.from({ length: 100 }, (_, i) => i);
  for (const [offset, length] of [
    [1000, 100],
    [1010, 20],
    [990, 30],
    [1090, 30],
    [990, 120],
  ] as const) {
    const into = new Uint8Array(140).fill(0xee);
    copyOverlap(plain, 1000, offset, length, into, 7);
    const expected = new Uint8Array(140).fill(0xee);
    for (let at = offset; at < offset + length; at++) {
      if (at >= 1000 && at < 1100) expected[7 + at - offset] = at - 1000;
    }
    t.deepEqual(into, expected, `${offset} +${length}`);
  }
});

test('a frame is full at its target to the byte, and what does not compress is taken as it is', (t) => {
  const identity = { groupId: HEADER.groupId, epoch: 1, incarnation: HEADER.incarnation };
  const sealer = new FrameSealer(identity, { chunkBytes: 512, targetBytes: 4096, compress: false });
  const record = (lsn: number, bytes: number) => ({
    kind: RecordKind.write,
    flags: 0,
    volume: 1,
    sector: 0,
    sectors: bytes / 512,
    requestId: 0,
    time: lsn,
    lsn,
    payload: new Uint8Array(bytes).fill(lsn),
  });
  sealer.begin(1, CHAIN_START);
  t.is(sealer.bytes, 0);
  sealer.add(record(1, 512));
  t.is(sealer.bytes, 552);
  t.true(sealer.fits(4096 - 552 - FRAME_ENTRY_BYTES), 'exactly');
  t.false(sealer.fits(4096 - 552 - FRAME_ENTRY_BYTES + 1), 'a byte more');
  sealer.add(record(2, 1024));
  t.is(sealer.nextLsn, 3);
  const first = sealer.seal(0);
  t.like(first, { firstLsn: 1, lastLsn: 2, recordCount: 2, payloadPlainBytes: 1536, lastTime: 2 });
  t.is(first.bytes.length, FRAME_HEADER_BYTES + 80 + 3 * CHUNK_ENTRY_BYTES + 1536);
  t.like(readFrameHeader(first.bytes), { listPacked: false, firstTime: 1, lastTime: 2, chunkCount: 3 });
  t.is(sealer.recordCount, 0);
  sealer.add(record(3, 512));
  const second = sealer.seal(2);
  const view = FrameView.open(second.bytes);
  t.like(readFrameHeader(second.bytes), { firstLsn: 3, firstTime: 3, chainBefore: first.chainAfter });
  t.deepEqual(view.payloadOf(0), record(3, 512).payload);
});
