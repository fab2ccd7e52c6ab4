import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { crc32 } from '@node-rs/crc32';
import { TidemarkError } from '../../../journal/base/errors.ts';
import { BATCH_HEADER_BYTES, BATCH_MAGIC, bodyIsWhole, readBatchHeader } from '../../../journal/batch-codec.ts';
import { BatchView } from '../../../journal/batch-view.ts';
import { Journal } from '../../../journal/journal.ts';
import { auditJournal } from '../../../journal/journal-audit.ts';
import { FILE_HEADER_BYTES, readFileHeader, writeFileHeader } from '../../../journal/journal-file-header.ts';
import { RecordKind } from '../../../journal/record.ts';
import * as bodies from '../../../journal/record-bodies.ts';
import { MemoryDisk, memoryHost, type SeededRandom } from '../../replica/support/memory-host.ts';
import { type FuzzTarget, must, packParts, trimZeroes, unpackParts, words } from '../target.ts';

const golden = path.join(import.meta.dirname, '../../golden/journal-v1');
const GROUP = '00112233445566778899aabbccddeeff';
const FILE_BYTES = 64 * 1024;
const MAGICS = words('TMJ1', 'TMB1', 'TMS1');

function goldenFile(name: string): Buffer {
  return readFileSync(path.join(golden, name));
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function sealFileHeader(file: Uint8Array): void {
  if (file.length < 256) return;
  const view = viewOf(file);
  view.setUint32(4, 0, true);
  view.setUint32(4, crc32(file.subarray(0, 256)), true);
}

/** Makes body crc, chain and header crc of the batch at `at` right; returns its header crc. */
function sealBatch(
  file: Uint8Array,
  at: number,
  salt: number,
  chain: number | undefined,
  address: number | undefined,
): number {
  const view = viewOf(file);
  const bodyBytes = Math.min(view.getUint32(at + 8, true), file.length - at - BATCH_HEADER_BYTES);
  const body = file.subarray(at + BATCH_HEADER_BYTES, at + BATCH_HEADER_BYTES + bodyBytes);
  view.setUint32(at + 12, bodyBytes === 0 ? 0 : crc32(body), true);
  if (chain !== undefined) view.setUint32(at + 44, chain, true);
  if (address !== undefined) {
    view.setUint32(at + 56, address >>> 0, true);
    view.setUint32(at + 60, 0, true);
  }
  view.setUint32(at + 4, 0, true);
  const crc = crc32(file.subarray(at, at + BATCH_HEADER_BYTES), salt);
  view.setUint32(at + 4, crc, true);
  return crc;
}

/** All batches of a file, found by their magic; `chain` goes in and out. */
function sealFile(file: Uint8Array, chain: number, random: SeededRandom): number {
  if (file.length < FILE_HEADER_BYTES) return chain;
  const view = viewOf(file);
  if (random.below(8) > 0) view.setUint32(72, chain, true);
  const salt = view.getUint32(12, true);
  const sequence = view.getUint32(32, true);
  sealFileHeader(file);
  let last = chain;
  for (let at = FILE_HEADER_BYTES; at + BATCH_HEADER_BYTES <= file.length; at += 8) {
    if (view.getUint32(at, true) !== BATCH_MAGIC) continue;
    const keep = random.below(16) === 0;
    last = sealBatch(file, at, salt, keep ? undefined : last, keep ? undefined : sequence * FILE_BYTES + at);
  }
  return last;
}

/** Files of a journal as parts: the first byte of the input's last part says whether the machine was started anew. */
function journalSeed(boot: number): Uint8Array {
  const files = readdirSync(golden).filter((name) => name.endsWith('.tmj'));
  const parts = files.map((name) => trimZeroes(goldenFile(name)));
  return packParts([...parts, goldenFile('journal.stop'), Buffer.from([boot])]);
}

async function openAndUse(disk: MemoryDisk, bootId: string): Promise<{ lastLsn: number; readable: number }> {
  const host = { ...memoryHost(1, disk), bootId };
  const options = {
    directory: '/j',
    groupId: GROUP,
    groupName: 'g',
    fileBytes: FILE_BYTES,
    budgetBytes: 6 * FILE_BYTES,
    syncIntervalMs: 25,
  };
  const journal = await Journal.open(host, options);
  try {
    must(
      journal.report.durableLsn <= Math.max(journal.report.lastLsn, ...journal.report.damage.map((d) => d.toLsn)),
      'what is proven is there or damaged',
    );
    await journal.begin();
    const body = new Uint8Array(512).fill(7);
    const appended = journal.append(RecordKind.write, { volume: 1, sector: 1, sectors: 1, body });
    await journal.sync();
    const reader = journal.reader(appended.address - 28 - BATCH_HEADER_BYTES);
    const batch = reader.next(appended.endAddress);
    const record = batch === undefined ? undefined : [...batch][0];
    must(record?.lsn === appended.lastLsn && record.payload[511] === 7, 'what was appended is read');
    await reader.close();
    return { lastLsn: appended.lastLsn, readable: 1 };
  } finally {
    await journal.close();
  }
}

export const journalRecovery: FuzzTarget = {
  name: 'journal-recovery',
  testRuns: 1500,
  parts: true,
  inputBytesMax: 4 * FILE_BYTES,
  allocatedBytesMax: 64 * 1024 * 1024,
  words: MAGICS,
  seeds: () => [journalSeed(0), journalSeed(1), packParts([trimZeroes(goldenFile('journal-0000000000000000.tmj'))])],
  fix: (input, random) => {
    let chain = 0;
    for (const part of unpackParts(input)) {
      if (part.length === 64 && viewOf(part).getUint32(0, true) === 0x3153_4d54) {
        viewOf(part).setUint32(4, 0, true);
        viewOf(part).setUint32(4, crc32(part), true);
      } else chain = sealFile(part, chain, random);
    }
  },
  run: async (input) => {
    const parts = unpackParts(input);
    const disk = new MemoryDisk();
    const boot = parts.find((part) => part.length === 1)?.[0] ?? 0;
    let sequence = 0;
    for (const part of parts.slice(0, 5)) {
      if (part.length < 64) continue;
      const isStop = part.length === 64;
      const bytes = Buffer.alloc(isStop ? 64 : FILE_BYTES);
      bytes.set(part.subarray(0, bytes.length));
      const name = isStop ? 'journal.stop' : `journal-${(sequence++).toString(16).padStart(16, '0')}.tmj`;
      disk.files.set(`/j/${name}`, { bytes, length: bytes.length });
    }
    const bootId = (boot & 1) === 0 ? '01234567-89ab-4cde-8f01-23456789abcd' : '99999999-89ab-4cde-8f01-23456789abcd';
    if (sequence > 0) refused(() => auditJournal(memoryHost(1, disk), '/j'));
    const { lastLsn } = await openAndUse(disk, bootId);
    const again = await openAndUse(disk, bootId);
    must(again.lastLsn > lastLsn, 'a second start goes on behind the first');
  },
};

/** Runs what may be refused. */
function refused(run: () => void): void {
  try {
    run();
  } catch (error) {
    if (!(error instanceof TidemarkError)) throw error;
  }
}

/** One batch and its records, as the reader sees them; salt 0, address 4096. */
export const journalBatch: FuzzTarget = {
  name: 'journal-batch',
  testRuns: 60_000,
  inputBytesMax: 8192,
  words: MAGICS,
  seeds: () => {
    const file = goldenFile('journal-0000000000000000.tmj');
    const seeds: Uint8Array[] = [];
    for (let at = FILE_HEADER_BYTES; at < 20_000; at += 8) {
      if (file.readUInt32LE(at) !== BATCH_MAGIC) continue;
      const batch = Uint8Array.from(file.subarray(at, at + BATCH_HEADER_BYTES + file.readUInt32LE(at + 8)));
      sealBatch(batch, 0, 0, undefined, 4096);
      seeds.push(batch);
    }
    return seeds;
  },
  fix: (input) => {
    if (input.length < BATCH_HEADER_BYTES) return;
    viewOf(input).setUint32(0, BATCH_MAGIC, true);
    const fits = viewOf(input).getUint32(8, true) <= input.length - BATCH_HEADER_BYTES;
    if (!fits) viewOf(input).setUint32(8, input.length - BATCH_HEADER_BYTES, true);
    sealBatch(input, 0, 0, undefined, 4096);
  },
  run: (input) => {
    const header = readBatchHeader(input, 0, 4096, 0);
    if (typeof header === 'string') throw new TidemarkError('journal-damaged', header);
    if (!bodyIsWhole(input, BATCH_HEADER_BYTES, header)) throw new TidemarkError('journal-damaged', 'body');
    let bytes = 0;
    for (const record of new BatchView(header, input, BATCH_HEADER_BYTES)) {
      bytes += 28 + record.payload.length;
      must(record.payloadAddress + record.payload.length <= 4096 + input.length, 'a payload lies within its batch');
    }
    must(bytes <= header.bodyBytes, 'records do not overlap');
  },
};

export const journalHeader: FuzzTarget = {
  name: 'journal-file-header',
  testRuns: 30_000,
  words: MAGICS,
  seeds: () => [goldenFile('journal-0000000000000001.tmj').subarray(0, 256), new Uint8Array(256)],
  fix: sealFileHeader,
  run: (input) => {
    const header = readFileHeader(input);
    if (typeof header === 'string') throw new TidemarkError('journal-damaged', header);
    const again = Buffer.alloc(FILE_HEADER_BYTES);
    writeFileHeader(again, header);
    const reread = readFileHeader(again);
    must(JSON.stringify(reread) === JSON.stringify(header), 'a header is written as it was read');
  },
};

const decoders = Object.entries(bodies).filter(([name]) => name.startsWith('decode')) as [
  string,
  (bytes: Uint8Array) => object,
][];
const encoders = new Map(Object.entries(bodies) as unknown as [string, (body: object) => Uint8Array][]);

/** First byte: which kind of body. */
export const recordBodies: FuzzTarget = {
  name: 'record-bodies',
  testRuns: 60_000,
  words: words(
    'counter',
    'nonce',
    'bootId',
    'name',
    'labels',
    'kind',
    'crash',
    '__proto__',
    '\xdf\xff\xff\xff\xff',
    '\xdd\x7f\xff\xff\xff',
    '\xc9',
    '\xd4r',
    '\xd8',
  ),
  seeds: () =>
    [
      bodies.encodeBookmark({ name: 'b', kind: 'crash', note: 'n', labels: { a: 'b' } }),
      bodies.encodeIncarnation({ counter: 1, nonce: '0123456789abcdef', bootId: 'x', cutAfterLsn: 3 }),
      bodies.encodeEpoch({ epoch: 2, reason: 'r' }),
      bodies.encodeVolumeAdded({ id: 1, name: 'v', size: 2 ** 40, blockBytes: 512 }),
      bodies.encodeVolumeResized({ id: 1, size: 512 }),
      bodies.encodeSeedEnd({ volume: 1 }),
      bodies.encodeHeartbeat({ monotonicMs: 1.5, wallMicros: 2 ** 50 }),
      bodies.encodeGap({ fromLsn: 1, toLsn: 2, reason: '' }),
      bodies.encodeClockJump({ fromMicros: 1, toMicros: 2 }),
      bodies.encodeDegreeChange({ from: 'a', to: 'b', reason: 'c' }),
    ].map((body, i) => Buffer.concat([Buffer.from([i]), body])),
  run: (input) => {
    const [name, decode] = decoders[(input[0] ?? 0) % decoders.length]!;
    const value = decode(input.subarray(1));
    const encode = encoders.get(name.replace('decode', 'encode'))!;
    must(JSON.stringify(decode(encode(value))) === JSON.stringify(value), 'a body is written as it was read');
  },
};
